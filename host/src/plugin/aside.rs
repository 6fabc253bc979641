//! Threads for the calls of builds that took more of the workers' time than their share ([`super::conduct`]).
//!
//! There are few of them, whatever is loaded, and they let others go first. No build has more than half of
//! them, so that none keeps another from being called. Whoever calls waits for a thread no longer than its
//! deadline, and holds none meanwhile.

use std::{
    future::Future,
    panic::resume_unwind,
    sync::{Arc, OnceLock},
    thread::available_parallelism,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// What these threads add to their niceness: the workers go first, and still a plugin that is only slow is served
/// while the machine is busy.
const GIVE_WAY: i32 = 5;

/// A thread that nobody needed for so long ends.
const IDLE: Duration = Duration::from_secs(10);

/// All of these threads.
pub(super) struct Aside {
    /// Made when it is first needed.
    runtime: OnceLock<Option<Runtime>>,
    threads: Arc<Semaphore>,
}

/// The part of them that one build may have.
pub(super) struct Ward {
    aside: Arc<Aside>,
    turns: Arc<Semaphore>,
    /// Of calls that run or wait.
    places: Arc<Semaphore>,
}

/// A thread that is free to be used.
pub(super) struct Turn<'a> {
    runtime: &'a Runtime,
    permits: [OwnedSemaphorePermit; 3],
}

/// How many threads there are at most, and how many of them for one build.
pub(super) fn threads() -> (usize, usize) {
    let processors = available_parallelism().map_or(1, usize::from);
    (processors.max(2), (processors / 2).max(1))
}

impl Default for Aside {
    fn default() -> Self {
        Self { runtime: OnceLock::new(), threads: Arc::new(Semaphore::new(threads().0)) }
    }
}

impl Aside {
    fn runtime(&self) -> Option<&Runtime> {
        let make = || {
            let (most, _) = threads();
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(1).max_blocking_threads(most).thread_keep_alive(IDLE);
            let made = builder.thread_name("plugin-aside").enable_all().build();
            made.inspect_err(|error| tracing::error!(%error, "no threads for plugins that are confined")).ok()
        };
        self.runtime.get_or_init(make).as_ref()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Its last user may be a worker, which must not wait.
        if let Some(runtime) = self.runtime.take().flatten() {
            runtime.shutdown_background();
        }
    }
}

impl Ward {
    /// For a build of which so many calls may run or wait.
    pub(super) fn new(aside: Arc<Aside>, calls: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { aside, turns: semaphore(threads().1), places: semaphore(calls) }
    }

    /// A thread, once there is one. None: there was none until then, or too many wait already.
    pub(super) async fn turn(&self, until: Instant) -> Option<Turn<'_>> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let wait = async {
            let own = Arc::clone(&self.turns).acquire_owned().await.ok()?;
            let any = Arc::clone(&self.aside.threads).acquire_owned().await.ok()?;
            Some([place, own, any])
        };
        let permits = tokio::time::timeout_at(until.into(), wait).await.ok().flatten()?;
        Some(Turn { runtime: self.aside.runtime()?, permits })
    }
}

impl Turn<'_> {
    /// Makes a call there. It goes on if nobody waits for it any more, and panics here if it does there.
    pub(super) async fn run<F>(self, call: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let Self { runtime, permits } = self;
        let handle = runtime.handle().clone();
        let job = runtime.spawn_blocking(move || {
            let _ = rustix::process::setpriority_process(None, GIVE_WAY);
            let output = handle.block_on(call);
            drop(permits);
            output
        });
        match job.await {
            Ok(output) => output,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The process ends: nobody reads an answer.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn soon() -> Instant {
        Instant::now() + PATIENCE
    }

    #[tokio::test]
    async fn one_build_keeps_no_other_from_its_turn() {
        let aside = Arc::new(Aside::default());
        let (greedy, other) = (Ward::new(Arc::clone(&aside), 64), Ward::new(aside, 64));
        let mut turns = vec![];
        for _ in 0..threads().1 {
            turns.push(greedy.turn(soon()).await.unwrap());
        }
        assert!(greedy.turn(Instant::now() + Duration::from_millis(20)).await.is_none(), "it has its part");
        assert_eq!(other.turn(soon()).await.unwrap().run(async { 7 }).await, 7);
        drop(turns);
        assert_eq!(greedy.turn(soon()).await.unwrap().run(async { 8 }).await, 8);
    }

    #[tokio::test]
    async fn no_more_wait_than_may() {
        let ward = Ward::new(Arc::default(), 1);
        let turn = ward.turn(soon()).await.unwrap();
        let began = Instant::now();
        assert!(ward.turn(soon()).await.is_none(), "one place, and it is taken");
        assert!(began.elapsed() < PATIENCE, "that is said at once");
        let (release, released) = mpsc::channel::<()>();
        let calls = async {
            let held = turn.run(async move { released.recv().is_ok() });
            let after = async {
                // This thread is free while the other is held.
                release.send(()).unwrap();
            };
            tokio::join!(held, after).0
        };
        assert!(calls.await);
        assert!(ward.turn(soon()).await.is_some());
    }

    #[tokio::test]
    #[should_panic(expected = "there")]
    async fn a_panic_there_is_one_here() {
        let ward = Ward::new(Arc::default(), 1);
        ward.turn(soon()).await.unwrap().run(async { panic!("there") }).await
    }
}
