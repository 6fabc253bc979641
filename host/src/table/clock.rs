//! The time of day, as assignments need it, in a form that tests control.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Tells the time in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's.
    System,
    /// Starts at a time and goes on with tokio's clock, which tests can pause and advance.
    Tokio {
        /// When it was this time.
        start: Instant,
        /// Milliseconds since the Unix epoch.
        unix: u64,
    },
}

impl Clock {
    /// A clock of tokio's that says that it is this time now.
    pub fn tokio(unix: u64) -> Self {
        Self::Tokio { start: Instant::now(), unix }
    }

    /// Milliseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        match self {
            Self::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis),
            Self::Tokio { start, unix } => unix + millis(start.elapsed()),
        }
    }
}

/// A duration in milliseconds, rounded down.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
