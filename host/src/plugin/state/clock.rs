//! The time for expiries: it never goes backwards within a process, and means the same in the next.

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Tells milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default)]
pub(super) enum Clock {
    #[default]
    System,
    #[cfg(test)]
    Manual(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

static START: LazyLock<(Instant, u64)> = LazyLock::new(|| {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), millis(unix))
});

impl Clock {
    pub(super) fn now(&self) -> u64 {
        match self {
            Self::System => START.1 + millis(START.0.elapsed()),
            #[cfg(test)]
            Self::Manual(now) => now.load(std::sync::atomic::Ordering::Relaxed),
        }
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
