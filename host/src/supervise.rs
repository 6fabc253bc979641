//! Supervision of what runs for as long as the process: a task or thread that ends unasked, by a
//! panic or by returning, is logged and counted, raises a condition, and is started again.
//!
//! Who is supervised: of the control runtime `api`, `routing`, `release-guard`, `webhooks`,
//! `configuration` and each webhook's delivery; of the table `table-following`, `table-announcing`,
//! `table-sweeping`, `table-renewing`, `table-saving`; of discovery `discovery-writer`,
//! `discovery-keeper`, `discovery-memory`, `discovery-drains`, `discovery-checks`; of each proxy
//! worker `proxy-accept`, `proxy-clock` and `proxy-certificates`; each `health-check` of a server; the thread `plugins`. What they work
//! with is not lost with one run of them: queues and state are handed to the next.
//!
//! Not here, because they end with what they serve and a panic in one is that one's error:
//! connections, messages, the threads of a plugin's state and trial. Knows
//! [`crate::condition`] and no other module.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::FutureExt;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::time::{Instant, sleep, timeout};

use crate::condition::{Conditions, Name};

/// Before a task is started again for the first time; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A task that runs for so long after it was started again is well.
const WELL: Duration = Duration::from_secs(60);

/// Starts tasks again that end; copies share what they know.
#[derive(Clone, Debug)]
pub struct Supervisor {
    conditions: Conditions,
    ends: IntCounterVec,
    unwell: Arc<Mutex<BTreeMap<&'static str, String>>>,
    stopping: Arc<AtomicBool>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new(Conditions::default())
    }
}

impl Supervisor {
    /// Raises [`Name::Tasks`] among these.
    pub fn new(conditions: Conditions) -> Self {
        let opts = Opts::new(
            "message_flow_task_ends_total",
            "Times that a task which should run for as long as the process ended, by its name.",
        );
        let ends = IntCounterVec::new(opts, &["task"]).expect("the name is one that Prometheus allows");
        Self { conditions, ends, unwell: Arc::default(), stopping: Arc::default() }
    }

    /// Exports what is counted.
    ///
    /// # Errors
    /// If the registry has such a metric already.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.ends.clone()))
    }

    /// The conditions among which tasks that end are raised.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// From now on tasks end because the process does.
    pub fn stopping(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Runs what `start` makes, again and again, until dropped or the process stops.
    pub async fn keep<F: Future<Output = ()>>(self, name: &'static str, mut start: impl FnMut() -> F) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let run = AssertUnwindSafe(async { start().await }).catch_unwind();
            let end = self.until_well(name, run).await;
            if self.stopping.load(Relaxed) {
                return;
            }
            pause = if began.elapsed() > WELL { FIRST_PAUSE } else { pause };
            self.ended(name, end.err(), pause);
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Runs what `start` makes until it returns; again after a panic.
    pub async fn finish<F: Future<Output = ()>>(&self, name: &'static str, mut start: impl FnMut() -> F) {
        let mut pause = FIRST_PAUSE;
        let mut run = || self.until_well(name, AssertUnwindSafe(start()).catch_unwind());
        while let Err(panic) = run().await {
            self.ended(name, Some(panic), pause);
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// As [`Self::finish`], for the body of a thread.
    pub fn keep_thread(&self, name: &'static str, mut run: impl FnMut()) {
        let mut pause = FIRST_PAUSE;
        while let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(&mut run)) {
            self.ended(name, Some(panic), pause);
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn until_well<T>(&self, name: &'static str, run: impl Future<Output = T>) -> T {
        let mut run = std::pin::pin!(run);
        if self.unwell.lock().contains_key(name) {
            match timeout(WELL, &mut run).await {
                Ok(end) => return end,
                Err(_) => self.is_well(name),
            }
        }
        run.await
    }

    fn ended(&self, name: &'static str, panic: Option<Box<dyn Any + Send>>, pause: Duration) {
        let why =
            panic.map_or_else(|| "it returned".to_owned(), |panic| format!("panicked: {}", said(&*panic)));
        tracing::error!(task = name, why, ?pause, "a task ended that should not; it is started again");
        self.ends.with_label_values(&[name]).inc();
        self.unwell.lock().insert(name, why);
        self.tell();
    }

    fn is_well(&self, name: &'static str) {
        self.unwell.lock().remove(name);
        self.tell();
    }

    fn tell(&self) {
        let unwell = self.unwell.lock();
        if unwell.is_empty() {
            self.conditions.clear(Name::Tasks);
            return;
        }
        let names: Vec<&str> = unwell.keys().copied().collect();
        let detail = format!("ended within the last minute or so and started again: {}", names.join(", "));
        self.conditions.raise(Name::Tasks, detail);
    }
}

/// What a panic says of itself.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_ends_is_counted_shown_and_started_again() {
        let supervisor = Supervisor::default();
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let task = tokio::spawn(supervisor.clone().keep("tried", move || {
            let run = counted.fetch_add(1, Relaxed);
            async move {
                match run {
                    0 => panic!("of no use"),
                    1 => {}
                    _ => std::future::pending().await,
                }
            }
        }));
        while runs.load(Relaxed) < 3 {
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(supervisor.ends.with_label_values(&["tried"]).get(), 2);
        let raised = supervisor.conditions().raised();
        assert!(raised[0].name == Name::Tasks && raised[0].detail.contains("tried"), "{raised:?}");
        sleep(WELL * 2).await;
        assert!(supervisor.conditions().raised().is_empty());
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_to_start_is_started_again_too_but_not_at_the_end() {
        let supervisor = Supervisor::default();
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let stop = supervisor.clone();
        let ended = supervisor.clone().keep("tried", move || {
            match counted.fetch_add(1, Relaxed) {
                0 => panic!("{}", "before there is a future"),
                _ => stop.stopping(),
            }
            std::future::ready(())
        });
        timeout(Duration::from_secs(60), ended).await.unwrap();
        assert_eq!(runs.load(Relaxed), 2);
        assert_eq!(supervisor.ends.with_label_values(&["tried"]).get(), 1);
    }

    #[test]
    fn a_thread_is_run_again() {
        let (supervisor, mut runs) = (Supervisor::default(), 0);
        supervisor.keep_thread("thread", || {
            runs += 1;
            assert!(runs > 1, "the first time");
        });
        assert_eq!(runs, 2);
        assert_eq!(supervisor.ends.with_label_values(&["thread"]).get(), 1);
    }
}
