//! What a client counts, for the router's metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the client was made.
#[derive(Debug, Default)]
pub struct EtcdMetrics {
    /// Calls begun: reads and transactions.
    pub calls: Count,
    /// Calls that failed, for whatever reason.
    pub failures: Count,
    /// Of those, calls without an answer within the deadline.
    pub timeouts: Count,
    /// Of those, calls refused at once because etcd was known to be down.
    pub refused: Count,
    /// Connections made and found to work.
    pub connects: Count,
    /// Authentications after the first of a connection.
    pub reauthentications: Count,
    /// Watch streams opened, the first ones included.
    pub watch_starts: Count,
    /// Watches that had missed too much to go on, or found another history.
    pub compactions: Count,
    /// Times that this client compacted the history.
    pub compacted: Count,
    /// Leases granted.
    pub leases: Count,
}

impl EtcdMetrics {
    /// Each counter under the name that it has in the router's metrics.
    pub(crate) fn by_event(&self) -> [(&'static str, u64); 10] {
        [
            ("call", self.calls.get()),
            ("failure", self.failures.get()),
            ("timeout", self.timeouts.get()),
            ("refused", self.refused.get()),
            ("connect", self.connects.get()),
            ("reauthentication", self.reauthentications.get()),
            ("watch", self.watch_starts.get()),
            ("compaction", self.compactions.get()),
            ("compacted", self.compacted.get()),
            ("lease", self.leases.get()),
        ]
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
