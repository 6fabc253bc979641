//! After which revisions every change is known: so that one who has seen everything up to a revision can be told the
//! rest, and one of whose revision nothing is known everything.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::adapter::Revision;

/// So many gaps are remembered.
const GAPS: usize = 16;

/// The revisions after which every change is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon {
    /// From here on.
    pub floor: Revision,
    /// To here, the latest.
    pub latest: Revision,
    /// But for these: nobody looked, or the table has been at them twice.
    gaps: Vec<Range<Revision>>,
    /// How often the table went back.
    #[serde(skip)]
    era: u32,
}

impl Horizon {
    /// Begins at a revision.
    pub fn at(revision: Revision) -> Self {
        Self { floor: revision, latest: revision, gaps: Vec::new(), era: 0 }
    }

    /// Goes on to a revision, all up to it having been seen.
    pub fn advance(&mut self, revision: Revision) {
        self.latest = revision;
    }

    /// Goes on to a revision without having seen what led to it.
    pub fn jump(&mut self, revision: Revision) {
        self.miss(self.latest + 1..revision);
        self.latest = revision;
    }

    /// The table went back, or is another, and is at this revision: somebody may have seen the same numbers of what
    /// is no more.
    pub fn back(&mut self, revision: Revision) {
        let before = std::mem::replace(&mut self.latest, revision);
        (self.floor, self.gaps) = (revision, Vec::new());
        self.era += 1;
        self.miss(revision..before + 1);
    }

    /// Takes note of revisions after which not every change is known.
    pub fn miss(&mut self, gap: Range<Revision>) {
        if gap.is_empty() || self.gaps.contains(&gap) {
            return;
        }
        self.gaps.push(gap);
        if self.gaps.len() > GAPS {
            let oldest = self.gaps.remove(0);
            self.floor = self.floor.max(oldest.end);
        }
    }

    /// Goes on to where another is that has seen more of the same table, and misses what it missed. False: the table
    /// went back meanwhile, and nothing of before counts.
    pub fn catch_up(&mut self, with: &Self) -> bool {
        if self.era != with.era {
            *self = with.clone();
            return false;
        }
        self.latest = self.latest.max(with.latest);
        with.gaps.iter().for_each(|gap| self.miss(gap.clone()));
        true
    }

    /// Whether every change after a revision is known.
    pub fn covers(&self, since: Revision) -> bool {
        (self.floor..=self.latest).contains(&since) && !self.gaps.iter().any(|gap| gap.contains(&since))
    }

    /// The latest revision that was certainly before a change that is said to have happened at this one: of what
    /// happened in a gap only the end is known. None: nothing is known of before.
    pub fn before(&self, change: Revision) -> Option<Revision> {
        let mut before = change.checked_sub(1)?;
        while let Some(gap) = self.gaps.iter().find(|gap| gap.contains(&before)) {
            before = gap.start.checked_sub(1)?;
        }
        (before >= self.floor).then_some(before)
    }

    /// With that of the run before; false if that is of a later time, and so of another table.
    pub fn follow(&mut self, before: Self) -> bool {
        if before.latest > self.floor {
            self.miss(self.floor..before.latest + 1);
            return false;
        }
        let begun = std::mem::replace(&mut self.floor, before.floor);
        let since = std::mem::take(&mut self.gaps);
        for gap in before.gaps.into_iter().chain(std::iter::once(before.latest + 1..begun)).chain(since) {
            self.miss(gap);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(horizon: &Horizon, expect: &[(Revision, bool)]) {
        for (since, covered) in expect {
            assert_eq!(horizon.covers(*since), *covered, "{since} of {horizon:?}");
        }
    }

    #[test]
    fn what_was_not_seen_is_not_covered() {
        let mut horizon = Horizon::at(200);
        horizon.advance(210);
        let mut before = Horizon { floor: 100, latest: 150, ..Horizon::default() };
        before.miss(120..130);
        assert!(horizon.follow(before));
        check(&horizon, &[(99, false), (100, true), (119, true), (120, false), (129, false), (130, true)]);
        check(&horizon, &[(150, true), (151, false), (199, false), (200, true), (210, true), (211, false)]);
        let before = [100, 101, 125, 130, 131, 200].map(|change| horizon.before(change));
        assert_eq!(before, [None, Some(100), Some(119), Some(119), Some(130), Some(150)]);
        horizon.jump(220);
        check(&horizon, &[(210, true), (211, false), (219, false), (220, true)]);
    }

    #[test]
    fn what_a_table_was_at_twice_is_not_covered() {
        let mut horizon = Horizon::at(100);
        horizon.advance(150);
        horizon.back(120);
        horizon.advance(160);
        check(&horizon, &[(100, false), (120, false), (121, false), (150, false), (151, true), (160, true)]);
        let mut behind = Horizon::at(90);
        assert!(!behind.catch_up(&horizon), "it did not see that the table went back");
        assert!(behind == horizon && behind.catch_up(&horizon));
        let mut horizon = Horizon::at(100);
        assert!(!horizon.follow(Horizon::at(150)), "another table");
        horizon.advance(160);
        check(&horizon, &[(100, false), (101, false), (150, false), (151, true)]);
    }

    #[test]
    fn so_many_gaps_are_remembered() {
        let mut horizon = Horizon::at(1);
        for run in 1..=GAPS as u64 + 2 {
            let mut next = Horizon::at(run * 10);
            assert!(next.follow(horizon));
            horizon = next;
        }
        assert_eq!((horizon.gaps.len(), horizon.covers(1), horizon.covers(20)), (GAPS, false, true));
    }
}
