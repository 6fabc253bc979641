//! Latencies, counted by the microsecond.

use std::time::Duration;

/// Everything slower counts as this slow.
const SLOWEST: usize = 500_000;

/// How often each latency occurred.
pub(crate) struct Histogram {
    counts: Vec<u32>,
    total: u64,
    longest: Duration,
}

impl Histogram {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; SLOWEST + 1], total: 0, longest: Duration::ZERO }
    }

    /// Counts one.
    pub(crate) fn count(&mut self, latency: Duration) {
        let micros = usize::try_from(latency.as_micros()).unwrap_or(SLOWEST);
        self.counts[micros.min(SLOWEST)] += 1;
        self.total += 1;
        self.longest = self.longest.max(latency);
    }

    /// The latency, in microseconds, that this share of all did not exceed.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|&count| {
            seen += u64::from(count);
            seen >= rank
        });
        found.unwrap_or(SLOWEST) as f64
    }

    /// The longest of all.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }
}
