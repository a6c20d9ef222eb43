//! Back-off between attempts: exponential, capped, with full jitter.

use std::time::Duration;

/// Gives the pause before each next attempt.
///
/// Full jitter keeps many nodes that lost the same upstream from coming back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// Starts at up to `base`, doubles each time, never more than `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempt: 0 }
    }

    /// The pause before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(1_u32 << self.attempt.min(16)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(fastrand::f64())
    }

    /// Begins again at the base, after progress was made.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_never_exceed_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        for _ in 0..100 {
            assert!(backoff.next_pause() <= Duration::from_secs(1));
        }
    }
}
