//! For how long a guest holds the thread on which it runs.
//!
//! That is the time for which it computes or sleeps there, and not the time for which the thread waits for a
//! processor, which is nobody's fault who runs on it.

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use super::conduct::LONG;

thread_local!(static SLEPT: Cell<Duration> = const { Cell::new(Duration::ZERO) });

/// Sleeps in place of a guest that waits.
pub(super) fn sleep(time: Duration) {
    thread::sleep(time);
    SLEPT.set(SLEPT.get() + time);
}

/// For how long what runs on this thread has computed or slept on it.
fn held() -> Duration {
    let computed = clock_gettime(ClockId::ThreadCPUTime);
    let computed = Duration::try_from(computed).unwrap_or_default();
    computed + SLEPT.get()
}

/// Adds up what the parts of one call take, between which others may run.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Read the clock of the thread, which costs as much as a small call.
    exact: bool,
    held: Duration,
}

/// When a part began.
pub(super) enum Began {
    Wall(Instant),
    Held(Duration),
}

impl Meter {
    /// One that tells a thread that computes from one that waits for a processor.
    pub(super) fn exact() -> Self {
        Self { exact: true, held: Duration::ZERO }
    }

    pub(super) fn is_exact(&self) -> bool {
        self.exact
    }

    /// A part begins.
    pub(super) fn begin(&self) -> Began {
        if self.exact { Began::Held(held()) } else { Began::Wall(Instant::now()) }
    }

    /// A part that began then is over. Short ones do not count: others had their turn before and after.
    pub(super) fn end(&mut self, began: Began) {
        let took = match began {
            Began::Wall(began) => began.elapsed(),
            Began::Held(began) => held().saturating_sub(began),
        };
        if took >= LONG {
            self.held += took;
        }
    }

    /// What all parts took.
    pub(super) fn held(&self) -> Duration {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(time: Duration) {
        let began = held();
        while held() - began < time {
            std::hint::black_box(());
        }
    }

    #[test]
    fn what_computes_or_sleeps_holds_its_thread_and_what_waits_does_not() {
        let mut meter = Meter::exact();
        for (part, least) in [(&compute as &dyn Fn(Duration), 5), (&sleep, 5), (&thread::sleep, 0)] {
            let (before, began) = (meter.held(), meter.begin());
            part(Duration::from_millis(5));
            meter.end(began);
            let held = meter.held() - before;
            assert!(held >= Duration::from_millis(least), "{held:?}, not {least} ms");
            assert!(least > 0 || held < Duration::from_millis(5), "{held:?} for nothing");
        }
    }

    #[test]
    fn short_parts_do_not_count() {
        for mut meter in [Meter::exact(), Meter::default()] {
            for _ in 0..10 {
                let began = meter.begin();
                meter.end(began);
            }
            assert_eq!(meter.held(), Duration::ZERO);
        }
    }
}
