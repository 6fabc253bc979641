//! Log lines that a flood of the same trouble would repeat: one a second, with how many were left out.
//! A leaf that every module may use.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

const SECOND: u64 = Duration::from_secs(1).as_millis() as u64;

/// Lets one through each second.
#[derive(Debug)]
pub struct Pace {
    epoch: Instant,
    /// Milliseconds after `epoch`.
    next: AtomicU64,
    unsaid: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { epoch: Instant::now(), next: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }
}

impl Pace {
    /// How many had no turn since the last that had; none: this has no turn either.
    pub fn turn(&self) -> Option<u64> {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Relaxed);
        let mine = now >= next && self.next.compare_exchange(next, now + SECOND, Relaxed, Relaxed).is_ok();
        match mine {
            true => Some(self.unsaid.swap(0, Relaxed)),
            false => {
                self.unsaid.fetch_add(1, Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_a_second_has_a_turn() {
        let pace = Pace::default();
        let turns = [0, 0, 0, 999, 1, 0, 5000].map(|millis| (millis, 0));
        let mut had = Vec::new();
        for (millis, _) in turns {
            tokio::time::advance(Duration::from_millis(millis)).await;
            had.push(pace.turn());
        }
        assert_eq!(had, [Some(0), None, None, None, Some(3), None, Some(1)]);
    }
}
