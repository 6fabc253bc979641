//! How well the view agrees with the table.

/// Whether the view is what the table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is no view yet: not ready. Why, once an attempt has failed.
    Starting(Option<String>),
    /// In step.
    Current,
    /// The last known view; changes since then are not known, and writes fail.
    Stale {
        /// Milliseconds since the Unix epoch.
        since: u64,
        /// Why the table cannot be read.
        error: String,
    },
}

impl Status {
    /// Whether there is a view to route by.
    pub fn is_ready(&self) -> bool {
        !matches!(self, Self::Starting(_))
    }
}
