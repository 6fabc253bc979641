//! Whose time it is while a guest reads a body.
//!
//! A body comes as fast as whoever sends it likes, and that is no fault of the plugin: while a call waits
//! for more of one, its deadline rests, and what bounds the wait is the timeout of bodies. Nor may such calls
//! keep others from their turn: a call that waits gives its place among the running ones back and takes
//! one among those that wait. Where all of these are taken, it keeps its own, and its deadline.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A call's place, and how its deadline stands. Touched by the task of the call alone.
#[derive(Default)]
pub(super) struct Clock {
    waits: AtomicBool,
    rests: AtomicBool,
    /// For how long it rested, in nanoseconds.
    rested: AtomicU64,
}

impl Clock {
    /// Whether more of a body is waited for.
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Relaxed)
    }

    fn rested(&self) -> Duration {
        Duration::from_nanos(self.rested.load(Relaxed))
    }
}

/// A call's place among those that run, or those that wait.
pub(super) struct Turn {
    runs: Option<OwnedSemaphorePermit>,
    waits: Option<OwnedSemaphorePermit>,
    waiting: Arc<Semaphore>,
    pub(super) clock: Arc<Clock>,
}

impl Turn {
    pub(super) fn new(runs: OwnedSemaphorePermit, waiting: Arc<Semaphore>) -> Self {
        Self { runs: Some(runs), waits: None, waiting, clock: Arc::default() }
    }

    /// Begins to wait for a sender.
    pub(super) fn wait(&mut self) -> Instant {
        if self.waits.is_none() {
            self.waits = Arc::clone(&self.waiting).try_acquire_owned().ok();
        }
        if self.waits.is_some() {
            self.runs = None;
            self.clock.rests.store(true, Relaxed);
        }
        self.clock.waits.store(true, Relaxed);
        Instant::now()
    }

    /// More came, or the end. For how long the deadline rested.
    pub(super) fn go_on(&mut self, since: Instant) -> Duration {
        self.clock.waits.store(false, Relaxed);
        if !self.clock.rests.swap(false, Relaxed) {
            return Duration::ZERO;
        }
        let rested = since.elapsed();
        self.clock.rested.fetch_add(u64::try_from(rested.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        rested
    }
}

/// What comes of a call that is to be over at a time, but for the time that its deadline rests.
pub(super) async fn within<F: Future>(until: Instant, clock: &Clock, call: F) -> Option<F::Output> {
    let mut call = pin!(call);
    let mut timer = pin!(tokio::time::sleep_until(until.into()));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = call.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if clock.rests.load(Relaxed) {
            return Poll::Pending;
        }
        let until = (until + clock.rested()).into();
        if timer.deadline() < until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(50);

    async fn turn(runs: &Arc<Semaphore>, waiting: &Arc<Semaphore>) -> Turn {
        Turn::new(Arc::clone(runs).acquire_owned().await.unwrap(), Arc::clone(waiting))
    }

    #[tokio::test]
    async fn who_waits_for_a_sender_gives_its_place_to_others_and_keeps_its_time() {
        let (runs, waiting) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let mut first = turn(&runs, &waiting).await;
        let clock = Arc::clone(&first.clock);
        let call = async {
            let since = first.wait();
            assert_eq!((runs.available_permits(), waiting.available_permits()), (1, 0));
            tokio::time::sleep(4 * DEADLINE).await;
            assert!(first.go_on(since) >= 4 * DEADLINE);
            "in time"
        };
        assert_eq!(within(Instant::now() + DEADLINE, &clock, call).await, Some("in time"));
    }

    #[tokio::test]
    async fn where_too_many_wait_the_deadline_holds() {
        let (runs, waiting) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(0)));
        let mut turn = turn(&runs, &waiting).await;
        let clock = Arc::clone(&turn.clock);
        let call = async {
            turn.wait();
            std::future::pending::<()>().await;
        };
        assert_eq!(within(Instant::now() + DEADLINE, &clock, call).await, None);
        assert!(clock.waits() && runs.available_permits() == 0);
    }
}
