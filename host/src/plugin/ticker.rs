//! What drives the deadlines of guests: a thread that advances the engine's epoch while any of them
//! may run, and rests while none does.
//!
//! It is an OS thread, because a guest that spins would starve a timer of the runtime that it spins
//! on. One thing must hold: **it does not rest before the epoch has reached every deadline that was
//! set.** There are two ways to have it go on. [`Ticker::keep_going`] asks for so many ticks, after a
//! deadline was set that is so many away: that is for the short calls on a message's way, and costs a
//! look at two numbers that change once a tick at most. [`Ticker::hold`] counts who needs it, for as
//! long as that takes: that is for calls that may be long, and for guests that give way at ticks.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, Thread},
    time::Duration,
};

use wasmtime::EngineWeak;

/// How often the engine's epoch advances: deadlines are exact to this, and never shorter.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// Deadlines that are further away, in ticks, are held for.
const SHORT: u64 = 32;

/// Ticks after a deadline until it is time to rest: two for a number that was read late.
const AFTER: u64 = 2;

/// From one look to the next whether the engine is still there, while resting.
const LOOK: Duration = Duration::from_secs(10);

/// Keeps a ticker from resting.
#[derive(Debug)]
pub(super) struct Hold(Arc<Ticker>);

/// The thread as others see it.
#[derive(Debug, Default)]
pub(super) struct Ticker {
    /// Ticks so far.
    now: AtomicU64,
    /// The last tick that is needed.
    until: AtomicU64,
    /// Who needs it at the moment.
    held: AtomicUsize,
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

    /// The epoch will advance so many times from now on, at least.
    #[inline]
    fn keep_going(&self, ticks: u64) {
        let until = self.now() + ticks + AFTER;
        if self.until.load(Relaxed) < until {
            self.extend(until);
        }
    }

    /// Has it go on until a deadline that was just set, so many ticks away: what is returned is to be
    /// kept for as long as the guest may run.
    #[inline]
    pub(super) fn go_on(self: &Arc<Self>, ticks: u64) -> Option<Hold> {
        if ticks > SHORT {
            return Some(self.hold());
        }
        self.keep_going(ticks);
        None
    }

    /// It does not rest before what is returned is dropped.
    pub(super) fn hold(self: &Arc<Self>) -> Hold {
        self.held.fetch_add(1, SeqCst);
        self.wake();
        Hold(Arc::clone(self))
    }

    /// A future in which a guest runs on the async lane, where it has to give way at every tick. It
    /// does not run while it waits for something.
    pub(super) async fn drive<F: Future>(self: &Arc<Self>, guest: F) -> F::Output {
        let mut guest = pin!(guest);
        std::future::poll_fn(|cx| {
            let _hold = self.hold();
            guest.as_mut().poll(cx)
        })
        .await
    }

    #[cold]
    fn extend(&self, until: u64) {
        self.until.fetch_max(until, SeqCst);
        self.wake();
    }

    /// After what the thread looks at was changed: either this sees that it rests, or it sees the
    /// change before it does, as all of these are in one order.
    fn wake(&self) {
        if self.resting.load(SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn run(&self, weak: &EngineWeak) {
        let _ = self.thread.set(thread::current());
        loop {
            thread::sleep(TICK);
            let Some(engine) = weak.upgrade() else { return };
            self.now.fetch_add(1, SeqCst);
            engine.increment_epoch();
            drop(engine);
            if self.is_idle() {
                self.rest(weak);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.held.load(SeqCst) == 0 && self.now.load(SeqCst) > self.until.load(SeqCst)
    }

    fn rest(&self, engine: &EngineWeak) {
        self.resting.store(true, SeqCst);
        while self.is_idle() && engine.upgrade().is_some() {
            thread::park_timeout(LOOK);
        }
        self.resting.store(false, SeqCst);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, SeqCst);
    }
}

/// A deadline in ticks of the engine: rounded up, and one more for the tick that is under way.
pub(super) fn ticks(deadline: Duration) -> u64 {
    u64::try_from(deadline.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX / 2).min(u64::MAX / 2) + 1
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

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
            ticker.keep_going(5);
            eventually(|| ticker.now() >= before + 5);
            eventually(|| ticker.resting.load(SeqCst));
            assert!(ticker.now() > before + 5 + AFTER, "it rested before what was asked for");
        }
    }

    #[test]
    fn many_that_need_it_at_once_all_get_their_ticks() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..50 {
                        let before = ticker.now();
                        ticker.keep_going(1);
                        eventually(|| ticker.now() > before);
                        // Long enough for a rest in some rounds.
                        thread::sleep(TICK * (round % 7));
                    }
                });
            }
        });
    }

    #[test]
    fn it_does_not_rest_while_it_is_held() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        eventually(|| ticker.resting.load(SeqCst));
        assert!(ticker.go_on(SHORT).is_none());
        let hold = ticker.go_on(SHORT + 1).unwrap();
        let before = ticker.now();
        eventually(|| ticker.now() > before + 2 * SHORT);
        assert!(!ticker.resting.load(SeqCst));
        drop(hold);
        eventually(|| ticker.resting.load(SeqCst));
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

    #[test]
    fn deadlines_are_never_shorter() {
        for (milliseconds, expect) in [(0, 1), (1, 2), (2, 2), (3, 3), (50, 26)] {
            assert_eq!(ticks(Duration::from_millis(milliseconds)), expect);
        }
        assert_eq!(ticks(Duration::MAX), u64::MAX / 2 + 1);
    }
}
