//! A limit of bytes a second that several transfers share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Hands out bytes at a steady rate.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When what was handed out is used up.
    free_at: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until these bytes may be had. Dropped at its await point, they count as had.
    pub(super) async fn take(&self, bytes: usize) {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        let lasts = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            // What was not used is lost: a pause is not made up for by a burst.
            *free_at = (*free_at).max(Instant::now()) + lasts;
            *free_at
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn transfers_share_the_rate_and_a_pause_saves_nothing_up() {
        let pace = Pace::new(1000);
        let begun = Instant::now();
        tokio::join!(pace.take(500), pace.take(500), pace.take(1000));
        assert_eq!(begun.elapsed().as_secs(), 2);
        tokio::time::sleep(Duration::from_mins(1)).await;
        let begun = Instant::now();
        pace.take(3000).await;
        assert_eq!(begun.elapsed().as_secs(), 3);
    }
}
