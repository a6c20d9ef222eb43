//! Whether packets may leave for an upstream: the switch that takes it off the network and back.
//!
//! Everything that is sent for an upstream passes [`Switch::run`], and so does every wait for what comes:
//! what runs when the upstream is taken off the network ends there.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use super::error::Fault;

/// Whether an upstream is asked at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is asked as needed.
    Online,
    /// No packet leaves for it; what is kept here serves.
    Offline,
}

impl Link {
    /// The word in logs and in the admin API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

/// The link of one upstream, as all parts of its client see it.
#[derive(Clone, Debug)]
pub(super) struct Switch(Arc<watch::Sender<Link>>);

impl Switch {
    pub(super) fn new(link: Link) -> Self {
        Self(Arc::new(watch::Sender::new(link)))
    }

    pub(super) fn link(&self) -> Link {
        *self.0.borrow()
    }

    /// Sets the link; says whether that changed it.
    pub(super) fn set(&self, link: Link) -> bool {
        self.0.send_replace(link) != link
    }

    /// Does some work while the upstream is online; drops it when the upstream is taken off.
    pub(super) async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        let mut link = self.0.subscribe();
        tokio::select! {
            // In this order: nothing of the work is begun while offline.
            biased;
            _taken_off = link.wait_for(|link| *link == Link::Offline) => Err(Fault::Offline),
            done = work => Ok(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_ends_when_the_link_is_cut_and_begins_only_while_it_is_up() {
        let switch = Switch::new(Link::Online);
        assert_eq!(switch.run(async { 1 }).await, Ok(1));
        let mut waits = Box::pin(switch.run(std::future::pending::<()>()));
        assert!(futures_util::poll!(&mut waits).is_pending());
        assert!(switch.set(Link::Offline) && !switch.set(Link::Offline));
        assert_eq!(waits.await, Err(Fault::Offline));
        let begins = async { panic!("begun although offline") };
        assert_eq!(switch.run::<()>(begins).await, Err(Fault::Offline));
    }
}
