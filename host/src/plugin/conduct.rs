//! How much of the workers' time a build takes, and whether it is therefore called on threads of its own.
//! Pure: it is told what calls took.
//!
//! A worker's thread carries the messages of all services, and while a guest runs on it nothing else does.
//! Calls that are over within [`LONG`] delay nobody much. Longer ones are charged to an account from which a
//! share of one worker's time is paid ([`SHARE`]), with something in hand for a start that is slow ([`BURST`]).
//! A build that takes more is *confined*: its calls are made elsewhere until it has kept to its share for a
//! while, longer after each relapse.
//!
//! Clocks of the wall cannot tell a guest that computes from a thread that has to wait for a processor, and those
//! that can cost as much as a call. So calls are only looked at closely after one of them took long, and that one
//! is charged only if it missed its deadline: one during which the whole process stood still ends by itself.

use std::time::{Duration, Instant};

/// Calls that hold a thread for less are not charged.
pub(super) const LONG: Duration = Duration::from_millis(1);

/// The part of one worker's time that the long calls of a build may take: a twentieth.
const SHARE: u32 = 20;

/// What they may take at once.
const BURST: Duration = Duration::from_millis(100);

/// For so long it has to keep to its share to be called in place again, and after that without any long call
/// until nobody looks closely any more.
const CALM: Duration = Duration::from_secs(10);

/// So much of [`CALM`] at most, after relapses.
const LONGEST: Duration = Duration::from_secs(600);

/// How a build is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// In place; calls are timed by the wall's clock.
    InPlace,
    /// In place; for how long a call holds its thread is measured.
    Measured,
    /// On threads of its own.
    Confined,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    OfItself,
    /// It missed its deadline.
    Late,
}

/// The account of one build.
#[derive(Debug)]
pub(super) struct Conduct {
    standing: Standing,
    /// What its calls took beyond its share, as of a moment.
    owed: (Duration, Instant),
    /// When one of them was last long; where it is confined: when it last took more than its share.
    last: Instant,
    /// For how long it has to keep to its share.
    calm: Duration,
}

impl Conduct {
    pub(super) fn new(now: Instant) -> Self {
        Self { standing: Standing::InPlace, owed: (Duration::ZERO, now), last: now, calm: CALM }
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// For how long it has to keep to its share to be called in place again.
    pub(super) fn calm(&self) -> Duration {
        self.calm
    }

    /// A call held a thread for so long, or took so long while nobody looked closely. How the next ones
    /// are to be made, if that is another way.
    pub(super) fn charge(&mut self, took: Duration, end: End, now: Instant) -> Option<Standing> {
        let long = took >= LONG;
        match self.standing {
            Standing::InPlace if !long => None,
            Standing::InPlace => {
                let over = end == End::Late && self.owes(took, now);
                self.last = now;
                Some(if over { self.confine(now) } else { self.set(Standing::Measured) })
            }
            Standing::Measured if long => {
                self.last = now;
                self.owes(took, now).then(|| self.confine(now))
            }
            Standing::Measured => {
                let calm = now.saturating_duration_since(self.last) >= CALM;
                calm.then(|| {
                    self.calm = CALM;
                    self.set(Standing::InPlace)
                })
            }
            Standing::Confined => {
                if long && self.owes(took, now) {
                    self.last = now;
                }
                None
            }
        }
    }

    /// Has it called in place again, if it has kept to its share for long enough.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        let is_calm = now.saturating_duration_since(self.last) >= self.calm;
        let released = self.standing == Standing::Confined && is_calm;
        if released {
            self.calm = (2 * self.calm).min(LONGEST);
            (self.last, self.owed) = (now, (Duration::ZERO, now));
            self.standing = Standing::Measured;
        }
        released
    }

    fn confine(&mut self, now: Instant) -> Standing {
        self.last = now;
        self.set(Standing::Confined)
    }

    fn set(&mut self, standing: Standing) -> Standing {
        self.standing = standing;
        standing
    }

    /// Charges so much, and says whether that is more than its share. More than the burst is never owed: what
    /// is over is over.
    fn owes(&mut self, took: Duration, now: Instant) -> bool {
        let (owed, at) = self.owed;
        let paid = now.saturating_duration_since(at) / SHARE;
        let owed = owed.saturating_sub(paid) + took;
        self.owed = (owed.min(BURST), now);
        owed > BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    struct Build {
        conduct: Conduct,
        now: Instant,
    }

    impl Build {
        fn new() -> Self {
            let now = Instant::now();
            Self { conduct: Conduct::new(now), now }
        }

        /// So many calls in a row, of so long each, one every so often; how it stands then. The deadline is 50 ms.
        fn calls(&mut self, calls: u32, took: Duration, every: Duration) -> Standing {
            let end = if took < 50 * MS { End::OfItself } else { End::Late };
            for _ in 0..calls {
                self.now += every;
                self.conduct.release(self.now);
                self.conduct.charge(took, end, self.now);
            }
            self.conduct.standing()
        }
    }

    #[test]
    fn a_build_that_loops_is_confined_after_a_few_calls() {
        let mut build = Build::new();
        assert_eq!(build.calls(1, 50 * MS, 50 * MS), Standing::Measured);
        assert_eq!(build.calls(2, 50 * MS, 50 * MS), Standing::Confined);
        // However slowly it is asked, as long as it takes more than its share.
        assert_eq!(build.calls(1000, 50 * MS, 500 * MS), Standing::Confined);
    }

    #[test]
    fn one_call_of_a_second_is_enough() {
        assert_eq!(Build::new().calls(1, 1000 * MS, MS), Standing::Confined);
    }

    #[test]
    fn who_keeps_to_its_share_is_called_in_place() {
        for (what, took, every) in [
            ("many short calls", MS / 2, MS),
            ("a long call now and then", 40 * MS, 1000 * MS),
            ("a slow language, rarely asked", 2 * MS, 50 * MS),
        ] {
            assert_ne!(Build::new().calls(10_000, took, every), Standing::Confined, "{what}");
        }
        for (what, took, every) in [
            ("a slow language, often asked", 3 * MS, 20 * MS),
            ("seldom, and very long", 200 * MS, 10_000 * MS),
        ] {
            assert_eq!(Build::new().calls(1000, took, every), Standing::Confined, "{what}");
        }
    }

    #[test]
    fn a_process_that_stood_still_is_no_fault_of_its_guests() {
        let mut build = Build::new();
        let standing = build.conduct.charge(10_000 * MS, End::OfItself, build.now);
        assert_eq!(standing, Some(Standing::Measured));
        assert_eq!(build.calls(1000, MS / 2, MS), Standing::Measured);
    }

    #[test]
    fn it_is_looked_at_closely_after_a_long_call_and_not_for_ever() {
        let mut build = Build::new();
        assert_eq!(build.calls(10_000, MS / 2, MS), Standing::InPlace);
        assert_eq!(build.calls(1, 2 * MS, MS), Standing::Measured);
        assert_eq!(build.calls(1, MS / 2, CALM / 2), Standing::Measured);
        assert_eq!(build.calls(1, MS / 2, CALM / 2), Standing::InPlace);
    }

    #[test]
    fn it_comes_back_when_it_has_behaved_for_longer_after_each_relapse() {
        let mut build = Build::new();
        let mut calm = CALM;
        for relapse in 0..10 {
            assert_eq!(build.calls(4, 50 * MS, 50 * MS), Standing::Confined, "{relapse}");
            assert_eq!(build.conduct.calm(), calm);
            assert_eq!(build.calls(1, MS, calm - MS), Standing::Confined, "{relapse}");
            assert_eq!(build.calls(1, MS / 2, MS), Standing::Measured, "{relapse}");
            calm = (2 * calm).min(LONGEST);
        }
        // It is forgiven once nobody has to look closely any more.
        assert_eq!(build.calls(1, MS / 2, CALM), Standing::InPlace);
        assert_eq!(build.calls(4, 50 * MS, 50 * MS), Standing::Confined);
        assert_eq!(build.conduct.calm(), CALM);
    }
}
