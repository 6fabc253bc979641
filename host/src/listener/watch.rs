//! Deadlines without timers: what a connection or an exchange may take, checked by one sweep.
//!
//! A timer for every phase of every message would cost more than the rest of the bookkeeping, so
//! each connection carries a [`Watch`]: a few atomics that say in which phase it is and until when.
//! The worker's [`Clock`] ticks a few times a second, and wakes whatever is overdue. Deadlines are
//! therefore as coarse as the tick, which no one minds for limits of seconds.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

/// What is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The first byte of a new connection.
    FirstByte,
    /// The rest of a request's head.
    RequestHead,
    /// The next request on a connection that has had one.
    KeepAlive,
    /// More of a request's body.
    RequestBody,
    /// A free connection to the server.
    Queue,
    /// A connection to the server to be opened.
    Connect,
    /// The head of the server's response.
    ResponseHead,
    /// More of the response's body, or that the client takes what there is.
    ResponseBody,
    /// The next message on a connection that carries several at a time.
    Streams,
    /// Anything at all on a tunnel.
    Tunnel,
}

impl Phase {
    /// Every phase, in the order of its number.
    pub const ALL: [Self; 10] = [
        Self::FirstByte,
        Self::RequestHead,
        Self::KeepAlive,
        Self::RequestBody,
        Self::Queue,
        Self::Connect,
        Self::ResponseHead,
        Self::ResponseBody,
        Self::Streams,
        Self::Tunnel,
    ];

    /// As metrics and the log name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstByte => "first_byte",
            Self::RequestHead => "request_head",
            Self::KeepAlive => "keep_alive",
            Self::RequestBody => "request_body",
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::ResponseHead => "response_head",
            Self::ResponseBody => "response_body",
            Self::Streams => "streams",
            Self::Tunnel => "tunnel",
        }
    }

    fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Tunnel)
    }
}

const NEVER: u64 = u64::MAX;

/// The deadline of one connection, or of one exchange where a connection carries several.
pub struct Watch {
    clock: Arc<Clock>,
    /// Milliseconds of the clock.
    deadline: AtomicU64,
    /// From the last progress to the deadline, in milliseconds.
    span: AtomicU64,
    phase: AtomicU8,
    overdue: AtomicBool,
    waker: AtomicWaker,
}

impl Watch {
    /// From now on `phase` may take `span` from each progress to the next; a zero span has no end.
    pub fn arm(&self, phase: Phase, span: Duration) {
        let span = u64::try_from(span.as_millis()).unwrap_or(NEVER);
        self.phase.store(phase as u8, Relaxed);
        self.span.store(span, Relaxed);
        self.overdue.store(false, Relaxed);
        self.touch();
    }

    /// There was progress: the deadline moves.
    pub fn touch(&self) {
        let span = self.span.load(Relaxed);
        let deadline = if span == 0 { NEVER } else { self.clock.now().saturating_add(span) };
        self.deadline.store(deadline, Relaxed);
    }

    /// Nothing is waited for but that a message takes its course.
    pub fn disarm(&self) {
        self.phase.store(Phase::Queue as u8, Relaxed);
        self.deadline.store(NEVER, Relaxed);
        self.overdue.store(false, Relaxed);
    }

    /// The worker's time, in milliseconds.
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// What is waited for, or was last.
    pub fn phase(&self) -> Phase {
        Phase::from_number(self.phase.load(Relaxed))
    }

    /// What took longer than it may, if anything. Whoever asks has registered to be woken.
    pub fn overdue(&self) -> Option<Phase> {
        self.overdue.load(Relaxed).then(|| self.phase())
    }

    /// Wakes this task once overdue, or on [`Clock::wake_all`].
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Wakes the task that registered, so that it looks at what has changed.
    pub fn wake(&self) {
        self.waker.wake();
    }

    fn check(&self, now: u64) {
        if self.deadline.load(Relaxed) <= now && !self.overdue.swap(true, Relaxed) {
            self.waker.wake();
        }
    }
}

/// A worker's coarse time, and everything that has a deadline by it.
pub struct Clock {
    epoch: Instant,
    now: AtomicU64,
    watches: Mutex<Vec<Weak<Watch>>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { epoch: Instant::now(), now: AtomicU64::new(0), watches: Mutex::default() }
    }
}

impl Clock {
    /// Milliseconds since the worker began, as of the last tick.
    pub fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// A new deadline, not armed.
    pub fn watch(self: &Arc<Self>) -> Arc<Watch> {
        let watch = Arc::new(Watch {
            clock: self.clone(),
            deadline: AtomicU64::new(NEVER),
            span: AtomicU64::new(0),
            phase: AtomicU8::new(0),
            overdue: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        self.watches.lock().push(Arc::downgrade(&watch));
        watch
    }

    /// Wakes everything that has a watch, so that it looks at what else has changed.
    pub fn wake_all(&self) {
        for watch in self.watches.lock().iter().filter_map(Weak::upgrade) {
            watch.waker.wake();
        }
    }

    /// Ticks for as long as it is polled, and passes each on.
    pub async fn run(&self, tick: Duration, each: impl Fn(u64)) {
        let mut interval = tokio::time::interval(tick);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.tick();
            each(self.now());
        }
    }

    fn tick(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(NEVER - 1);
        self.now.store(now, Relaxed);
        self.watches.lock().retain(|watch| match watch.upgrade() {
            Some(watch) => {
                watch.check(now);
                true
            }
            None => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(clock: &Clock, millis: u64) {
        clock.now.store(millis, Relaxed);
        for watch in clock.watches.lock().iter().filter_map(Weak::upgrade) {
            watch.check(millis);
        }
    }

    #[test]
    fn progress_moves_the_deadline() {
        let clock = Arc::new(Clock::default());
        let watch = clock.watch();
        watch.arm(Phase::RequestBody, Duration::from_millis(100));
        at(&clock, 99);
        assert_eq!(watch.overdue(), None);
        watch.touch();
        at(&clock, 150);
        assert_eq!(watch.overdue(), None);
        at(&clock, 199);
        assert_eq!(watch.overdue(), Some(Phase::RequestBody));
    }

    #[test]
    fn zero_never_ends_and_arming_forgives() {
        let clock = Arc::new(Clock::default());
        let watch = clock.watch();
        watch.arm(Phase::KeepAlive, Duration::ZERO);
        at(&clock, 1_000_000);
        assert_eq!(watch.overdue(), None);
        watch.arm(Phase::KeepAlive, Duration::from_millis(1));
        at(&clock, 1_000_001);
        assert_eq!(watch.overdue(), Some(Phase::KeepAlive));
        watch.arm(Phase::RequestHead, Duration::from_millis(1));
        assert_eq!(watch.overdue(), None);
    }

    #[tokio::test]
    async fn forgets_what_is_gone() {
        let clock = Arc::new(Clock::default());
        drop(clock.watch());
        let kept = clock.watch();
        clock.tick();
        assert_eq!(clock.watches.lock().len(), 1);
        drop(kept);
    }

    #[test]
    fn phases_are_numbered_in_order() {
        for (number, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, number);
        }
    }
}
