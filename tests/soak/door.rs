//! Where the server is at present, and whether clients may find it closed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// What a client has to know of what is done to the server as a whole.
#[derive(Clone)]
pub(crate) struct Door(Arc<Mutex<View>>);

/// The state at one moment; equal where nothing was done in between.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) address: SocketAddr,
    /// How often the process ended or began.
    lives: u32,
    is_up: bool,
    /// How often it was taken off the network or put back.
    links: u32,
    is_online: bool,
}

impl Door {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let view = View { address, lives: 0, is_up: true, links: 0, is_online: true };
        Self(Arc::new(Mutex::new(view)))
    }

    pub(crate) fn look(&self) -> View {
        *self.0.lock().unwrap()
    }

    /// Before the process ends.
    pub(crate) fn close(&self) {
        let mut view = self.0.lock().unwrap();
        view.is_up = false;
        view.lives += 1;
    }

    /// When the process is ready.
    pub(crate) fn open(&self, address: SocketAddr) {
        let mut view = self.0.lock().unwrap();
        view.is_up = true;
        view.address = address;
        // A switch at run time does not outlast the process.
        view.is_online = true;
    }

    /// Before the server is taken off the network, and after it was put back.
    pub(crate) fn switch(&self, is_online: bool) {
        let mut view = self.0.lock().unwrap();
        view.is_online = is_online;
        view.links += 1;
    }
}

impl View {
    /// Whether the server ran all the time between these two.
    pub(crate) fn lived_until(&self, later: &Self) -> bool {
        self.is_up && self.lives == later.lives
    }

    /// Whether, beyond that, it could ask upstreams.
    pub(crate) fn was_online_until(&self, later: &Self) -> bool {
        self.is_online && self.lived_until(later) && self.links == later.links
    }
}
