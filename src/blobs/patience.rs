//! How long a disk is waited for. What it does not do in time is done without it.
//!
//! A thread that a disk holds cannot be called back: each try costs one until the disk answers. So one try
//! at a time is made at a disk that is known to be stuck, and the others are refused at once.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::{BlobError, Result};

/// How long reading some hundred KiB may take before they are got from upstream.
pub(super) const READ: Duration = Duration::from_secs(5);

/// How long looking for a file, making or removing one may take. A client waits meanwhile, 4 s for all that
/// it takes to begin an answer.
const LOOK: Duration = Duration::from_millis(1500);

/// How long after a try at a stuck disk the next is made.
const PAUSE: Duration = Duration::from_secs(2);

/// The error of a disk that did not answer in time.
pub(super) fn too_slow(action: &'static str) -> BlobError {
    BlobError::from_io(action, io::ErrorKind::TimedOut.into())
}

/// Whether the disk answers.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// When the disk was last tried, while it is stuck.
    stuck: Mutex<Option<Instant>>,
}

impl Patience {
    /// Fails where the disk is stuck, and it is not yet time to try it again.
    pub(super) fn require(&self, action: &'static str) -> Result<()> {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *stuck {
            Some(tried_at) if tried_at.elapsed() < PAUSE => Err(too_slow(action)),
            Some(tried_at) => {
                *tried_at = Instant::now();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Waits for file work, but not for ever. Work that is given up goes on by itself.
    pub(super) async fn wait<T>(&self, action: &'static str, work: JoinHandle<io::Result<T>>) -> Result<T> {
        let done = timeout(LOOK, work).await;
        *self.stuck.lock().unwrap_or_else(PoisonError::into_inner) = done.is_err().then(Instant::now);
        match done {
            Ok(Ok(result)) => result.map_err(|source| BlobError::from_io(action, source)),
            Ok(Err(panicked)) => Err(BlobError::from_io(action, io::Error::other(panicked))),
            Err(_elapsed) => Err(too_slow(action)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::DiskCause;
    use crate::runtime::Tasks;

    #[tokio::test(start_paused = true)]
    async fn a_stuck_disk_is_tried_now_and_then_and_believed_when_it_answers() {
        let patience = Patience::default();
        patience.require("open").unwrap();
        let never = Tasks::new().spawn(std::future::pending::<io::Result<()>>());
        let error = patience.wait("open", never).await.unwrap_err();
        assert_eq!(error.cause(), DiskCause::Slow);
        assert_eq!(patience.require("open").unwrap_err().cause(), DiskCause::Slow);
        tokio::time::advance(PAUSE).await;
        patience.require("open").unwrap();
        assert!(patience.require("open").is_err(), "one try at a time");
        patience.wait("open", Tasks::new().spawn(async { Ok(()) })).await.unwrap();
        patience.require("open").unwrap();
    }
}
