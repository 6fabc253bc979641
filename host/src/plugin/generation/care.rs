//! What of a build makes its calls cost more than a call: read once for each call, and nothing most of the
//! time.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::plugin::conduct::Standing;

const MEASURED: u8 = 1;
const CONFINED: u8 = 2;
const WATCHED: u8 = 4;

/// How the next call is to be made.
#[derive(Debug, Default)]
pub(super) struct Care(AtomicU8);

impl Care {
    /// Whether there is anything to care about.
    #[inline]
    pub(super) fn is_needed(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    pub(super) fn standing(&self) -> Standing {
        match self.0.load(Relaxed) {
            care if care & CONFINED != 0 => Standing::Confined,
            care if care & MEASURED != 0 => Standing::Measured,
            _ => Standing::InPlace,
        }
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        let bits = match standing {
            Standing::InPlace => 0,
            Standing::Measured => MEASURED,
            Standing::Confined => CONFINED,
        };
        let _ = self.0.fetch_update(Relaxed, Relaxed, |care| Some(care & WATCHED | bits));
    }

    /// There is an earlier build that can stand in for this one.
    pub(super) fn watch(&self) {
        self.0.fetch_or(WATCHED, Relaxed);
    }

    pub(super) fn is_watched(&self) -> bool {
        self.0.load(Relaxed) & WATCHED != 0
    }

    /// There is none any more.
    pub(super) fn stop_watching(&self) {
        self.0.fetch_and(!WATCHED, Relaxed);
    }
}
