//! How long to wait before a connection is tried again: exponential backoff with full jitter, so that
//! a thousand services that lost the same router do not come back in the same moment.

use std::time::Duration;

/// Pauses that double, each cut at random.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempt: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(10))
    }
}

impl Backoff {
    /// The first pause is up to `first`, none is longer than `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempt: 0 }
    }

    /// The next pause: anywhere between 0 and a ceiling that doubles each time.
    pub(crate) fn next(&mut self) -> Duration {
        self.cut(rand::random_range(0.0..1.0))
    }

    /// A connection has proved good: the next loss begins anew.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }

    fn cut(&mut self, at: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.attempt.min(30));
        self.attempt = self.attempt.saturating_add(1);
        doubled.min(self.longest).mul_f64(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let pauses = [(); 6].map(|()| backoff.cut(0.5).as_millis());
        assert_eq!(pauses, [50, 100, 200, 400, 500, 500]);
        backoff.reset();
        assert_eq!(backoff.cut(1.0), Duration::from_millis(100));
        for _ in 0..100 {
            assert!(backoff.next() <= Duration::from_secs(1));
        }
    }
}
