//! Whether to ask the table at all. While it cannot be reached every question would cost a message
//! the adapter's whole deadline; so, after a few failures in a row, one question in a while is
//! let through and the others are answered at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::table::TableError;

/// So many failures in a row are an outage.
const FAILURES: u32 = 3;
/// During one, a question is let through every so many milliseconds.
const PROBE: u64 = 500;

#[derive(Default)]
pub(super) struct Outage {
    failures: AtomicU32,
    probe_at: AtomicU64,
}

impl Outage {
    /// Whether to ask, at `now` in Unix milliseconds.
    pub(super) fn admit(&self, now: u64) -> Result<(), TableError> {
        if self.failures.load(Relaxed) < FAILURES {
            return Ok(());
        }
        let at = self.probe_at.load(Relaxed);
        let probe = now >= at && self.probe_at.compare_exchange(at, now + PROBE, Relaxed, Relaxed).is_ok();
        match probe {
            true => Ok(()),
            false => Err(TableError::Unavailable("it failed a moment ago".to_owned())),
        }
    }

    /// Takes note of what came of asking.
    pub(super) fn note<T>(&self, answer: &Result<T, TableError>, now: u64) {
        match answer {
            Err(TableError::Unavailable(_) | TableError::Unknown(_) | TableError::Adapter(_)) => {
                self.failed(now)
            }
            _ if self.failures.load(Relaxed) > 0 => self.failures.store(0, Relaxed),
            _ => {}
        }
    }

    /// A question that was let through and hangs does not put off the next.
    fn failed(&self, now: u64) {
        if self.failures.fetch_add(1, Relaxed) + 1 == FAILURES {
            self.probe_at.store(now + PROBE, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_seldom_during_an_outage_and_freely_after() {
        let (outage, failed) = (Outage::default(), Err::<(), _>(TableError::Unavailable(String::new())));
        for now in 0..u64::from(FAILURES) {
            assert!(outage.admit(now).is_ok());
            outage.note(&failed, now);
        }
        let asked = (10..1600).filter(|now| outage.admit(*now).is_ok()).count();
        assert_eq!(asked, 3);
        outage.note(&Ok::<_, TableError>(()), 1600);
        assert!(outage.admit(1600).is_ok() && outage.admit(1600).is_ok());
    }
}
