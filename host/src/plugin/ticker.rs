//! What drives the deadlines of guests: a thread that advances the engine's epoch while any of them
//! may run, and rests while none does.
//!
//! It is an OS thread, because a guest that spins would starve a timer of the runtime that it spins
//! on. At each advance a guest that still runs is made to look at its own deadline (or to give way to
//! others), so when it comes is no more than a matter of how soon. Most calls are over long before, and
//! every wake-up costs the messages' thread as much as a few of them: so while only such calls are made
//! the epoch advances slowly, and fast once it finds one whose deadline is near. One thing must hold: **the thread does not rest before the epoch has advanced once more after every call
//! began.** For whoever begins, that costs a look at two numbers that change once a tick at most.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, Thread},
    time::Duration,
};

use wasmtime::EngineWeak;

/// Between two advances while a guest runs that is not over at once: deadlines are exact to this, and
/// never shorter.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// Between two while calls are over at once. What has a shorter deadline is looked at every [`TICK`].
const SLOW: Duration = Duration::from_millis(20);

/// Ticks after which it is slow again.
const CALM: u32 = 50;

/// Ticks after a call began until it is time to rest: two for a number that was read late.
const AFTER: u64 = 3;

/// From one look to the next whether the engine is still there, while resting.
const LOOK: Duration = Duration::from_secs(10);

/// The thread as others see it.
#[derive(Debug, Default)]
pub(super) struct Ticker {
    /// Ticks so far.
    now: AtomicU64,
    /// The last tick that is needed.
    until: AtomicU64,
    /// Somebody needs the next ones soon.
    hurried: AtomicBool,
    /// Nobody need be woken to hurry.
    fast: AtomicBool,
    resting: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Ticker {
    /// Starts the thread, which ends with the engine.
    pub(super) fn start(engine: &wasmtime::Engine) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::new(Self::default());
        let (ticks, engine) = (Arc::clone(&ticker), engine.weak());
        thread::Builder::new().name("plugin-deadlines".into()).spawn(move || ticks.run(&engine))?;
        Ok(ticker)
    }

    /// Ticks so far.
    #[inline]
    fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// A guest begins, and may run for so long: the epoch will advance from now on, within [`SLOW`].
    #[inline]
    pub(super) fn watch(&self, deadline: Duration) {
        if deadline < SLOW {
            self.hurried.store(true, Relaxed);
        }
        let until = self.now() + AFTER;
        if self.until.load(Relaxed) < until {
            self.extend(until);
        }
    }

    /// A guest runs on, and has so long to go: the epoch will advance well before that, and from then
    /// on within [`TICK`].
    pub(super) fn still_runs(&self, left: Duration) {
        self.extend(self.now() + AFTER);
        if left < 2 * SLOW {
            self.hurried.store(true, SeqCst);
            if !self.fast.load(SeqCst) {
                self.unpark();
            }
        }
    }

    #[cold]
    fn extend(&self, until: u64) {
        self.until.fetch_max(until, SeqCst);
        // Either this sees that it rests, or the thread sees the change before it does, as all of
        // these are in one order.
        if self.resting.load(SeqCst) {
            self.unpark();
        }
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn run(&self, weak: &EngineWeak) {
        let _ = self.thread.set(thread::current());
        let mut fast_for: u32 = 0;
        loop {
            fast_for = fast_for.saturating_sub(1);
            if self.is_idle() {
                self.rest(weak);
                fast_for = 0;
            }
            // In this order, whoever hurries is either seen here or sees that the thread is to be woken.
            self.fast.store(fast_for > 0, SeqCst);
            if self.hurried.swap(false, SeqCst) {
                fast_for = CALM;
                self.fast.store(true, SeqCst);
            }
            match fast_for {
                0 => thread::park_timeout(SLOW),
                _ => thread::sleep(TICK),
            }
            let Some(engine) = weak.upgrade() else { return };
            self.now.fetch_add(1, SeqCst);
            engine.increment_epoch();
        }
    }

    fn is_idle(&self) -> bool {
        self.now.load(SeqCst) > self.until.load(SeqCst)
    }

    fn rest(&self, engine: &EngineWeak) {
        self.fast.store(false, SeqCst);
        self.resting.store(true, SeqCst);
        while self.is_idle() && engine.upgrade().is_some() {
            thread::park_timeout(LOOK);
        }
        self.resting.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(1);

    fn eventually(what: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < end, "not within 20 s");
            thread::sleep(TICK);
        }
    }

    #[test]
    fn it_rests_until_it_is_needed() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        for _ in 0..20 {
            eventually(|| ticker.resting.load(SeqCst));
            let before = ticker.now();
            ticker.watch(LONG);
            eventually(|| ticker.now() > before + 1);
            eventually(|| ticker.resting.load(SeqCst));
            assert!(ticker.now() >= before + AFTER, "it rested before what was asked for");
        }
    }

    #[test]
    fn many_that_need_it_at_once_all_get_their_ticks() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..30 {
                        let before = ticker.now();
                        ticker.watch(if round % 2 == 0 { LONG } else { TICK });
                        eventually(|| ticker.now() > before);
                        // Long enough for a rest in some rounds.
                        thread::sleep(SLOW * (round % 5));
                    }
                });
            }
        });
    }

    /// Ticks while somebody watches all the time, for so long.
    fn ticks_within(ticker: &Ticker, time: Duration, each: impl Fn()) -> u64 {
        let (before, end) = (ticker.now(), Instant::now() + time);
        while Instant::now() < end {
            each();
            thread::sleep(Duration::from_micros(500));
        }
        ticker.now() - before
    }

    #[test]
    fn it_is_slow_unless_somebody_is_in_a_hurry() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        let time = 20 * SLOW;
        // Timers may be late, never early.
        let slow = ticks_within(&ticker, time, || {
            ticker.watch(LONG);
            ticker.still_runs(LONG);
        });
        assert!((1..=22).contains(&slow), "{slow} ticks in {time:?}");
        let fast = ticks_within(&ticker, time, || ticker.still_runs(SLOW));
        assert!(fast > 2 * slow, "{fast} ticks in {time:?}, and {slow} without a hurry");
        eventually(|| !ticker.fast.load(SeqCst));
        let short = ticks_within(&ticker, time, || ticker.watch(TICK));
        assert!(short > 2 * slow, "{short} ticks in {time:?} for a short deadline");
    }

    #[test]
    fn the_thread_ends_with_its_engine() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        eventually(|| ticker.resting.load(SeqCst));
        drop(engine);
        ticker.thread.get().unwrap().unpark();
        eventually(|| Arc::strong_count(&ticker) == 1);
    }
}
