//! What keeps routers from doing the same at the same time; seeded, so that a simulation can be run again.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::hash;

/// Where pauses get their share of chance from.
#[derive(Clone, Debug, Default)]
pub struct Jitter(Option<Arc<AtomicU64>>);

impl Jitter {
    /// The same each time for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(seed))))
    }

    /// A number within the range.
    pub(super) fn within(&self, range: Range<f64>) -> f64 {
        let Some(seed) = &self.0 else { return rand::random_range(range) };
        let share = hash::unit(hash::affinity(seed.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed), 0));
        range.start + share * (range.end - range.start)
    }
}
