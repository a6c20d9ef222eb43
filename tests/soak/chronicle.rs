//! What happened when: shown where a soak fails.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// How much of it is shown.
const KEPT: usize = 60;

/// The last things that were done to the server.
#[derive(Clone)]
pub(crate) struct Chronicle(Arc<Inner>);

struct Inner {
    seed: u64,
    begun: Instant,
    lines: Mutex<VecDeque<String>>,
}

impl Chronicle {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Inner { seed, begun: Instant::now(), lines: Mutex::default() }))
    }

    pub(crate) fn note(&self, what: impl Into<String>) {
        let line = format!("{:8.3} {}", self.0.begun.elapsed().as_secs_f64(), what.into());
        let mut lines = self.0.lines.lock().unwrap();
        lines.push_back(line);
        if lines.len() > KEPT {
            lines.pop_front();
        }
    }
}

impl Drop for Inner {
    #[expect(clippy::print_stderr, reason = "whoever looks into a failure needs it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines.get_mut().unwrap();
            eprintln!("---- what happened");
            for line in lines.iter() {
                eprintln!("{line}");
            }
            eprintln!("to repeat this: TIDEGATE_SOAK_SEED={} tests/run soak", self.seed);
        }
    }
}
