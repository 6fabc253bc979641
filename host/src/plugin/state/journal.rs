//! How a durable store gets to disk: changes queue, and one OS thread commits whatever queued
//! while its last commit was under way. Nothing is timed: the disk sets the pace.
//!
//! A failed commit closes the store to changes; its memory then holds what was never acknowledged.
//! When there merely was no space, the thread opens the file again every second and retries; a
//! disk that failed otherwise may have lied about what it holds, so that only a restart helps.

use std::{panic::AssertUnwindSafe, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::{
    StateError,
    disk::{Changes, Disk, DiskError},
    entries::Entry,
};

/// Keys and values that may wait for the disk, and what each counts besides.
const QUEUE_BYTES: usize = 64 << 20;
const CHANGE_BYTES: usize = 64;
const RETRY: Duration = Duration::from_secs(1);

/// Opens the file; again after it was full.
pub(super) type Open = Box<dyn Fn() -> Result<Disk, DiskError> + Send>;

/// A store's way to disk. Dropped, it commits what is queued and closes the file.
pub(super) struct Journal {
    staged: Vec<(Arc<str>, Option<Entry>)>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Tells how far the disk is; outlives the journal.
#[derive(Clone)]
pub(super) struct Progress(watch::Receiver<Outcome>);

#[derive(Clone, Debug, Default)]
struct Outcome {
    durable: u64,
    failure: Option<Arc<str>>,
}

struct Shared {
    path: PathBuf,
    queue: Mutex<Queue>,
    filled: Condvar,
    outcome: watch::Sender<Outcome>,
}

#[derive(Default)]
struct Queue {
    changes: Changes,
    bytes: usize,
    sequence: u64,
    closed: bool,
}

impl Journal {
    /// Starts the thread, over a file that was opened.
    pub(super) fn start(path: PathBuf, disk: Disk, open: Open) -> Result<Self, DiskError> {
        let outcome = watch::Sender::new(Outcome::default());
        let shared = Shared { path, queue: Mutex::default(), filled: Condvar::new(), outcome };
        let shared = Arc::new(shared);
        let committer = Committer { shared: Arc::clone(&shared), disk: Some(disk), open };
        let thread = std::thread::Builder::new().name("state".into()).spawn(move || committer.run_or_say());
        let thread = thread.map_err(|source| DiskError::Io { path: shared.path.clone(), source })?;
        Ok(Self { staged: Vec::new(), shared, thread: Some(thread) })
    }

    /// Whether a change may be made now.
    pub(super) fn admit(&self) -> Result<(), StateError> {
        if let Some(failure) = &self.shared.outcome.borrow().failure {
            return Err(StateError::Disk(Arc::clone(failure)));
        }
        if self.shared.queue.lock().bytes < QUEUE_BYTES {
            return Ok(());
        }
        let path = self.shared.path.display();
        Err(StateError::Disk(format!("more changes wait for {path} than its disk can take").into()))
    }

    /// Adds to the change at hand.
    pub(super) fn record(&mut self, key: Arc<str>, entry: Option<Entry>) {
        self.staged.push((key, entry));
    }

    /// Queues the change at hand, as a whole.
    pub(super) fn submit(&mut self, sequence: u64) {
        let mut queue = self.shared.queue.lock();
        for (key, entry) in self.staged.drain(..) {
            queue.push(key, entry);
        }
        queue.sequence = sequence;
        drop(queue);
        self.shared.filled.notify_one();
    }

    pub(super) fn progress(&self) -> Progress {
        Progress(self.shared.outcome.subscribe())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported when it happened, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Progress {
    /// Waits until every change up to `sequence` is on disk, or the disk failed.
    pub(super) async fn wait(mut self, sequence: u64) -> Result<(), StateError> {
        let reached =
            self.0.wait_for(|outcome| outcome.durable >= sequence || outcome.failure.is_some()).await;
        match reached.as_deref() {
            Ok(outcome) if outcome.durable >= sequence => Ok(()),
            Ok(Outcome { failure: Some(failure), .. }) => Err(StateError::Disk(Arc::clone(failure))),
            _ => Err(StateError::Disk("the store was closed".into())),
        }
    }
}

impl Queue {
    fn push(&mut self, key: Arc<str>, entry: Option<Entry>) {
        let size = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.stored.len() as usize);
        let key_len = key.len();
        let after = size(&entry);
        match self.changes.insert(key, entry) {
            Some(before) => self.bytes = self.bytes + after - size(&before),
            None => self.bytes += key_len + after + CHANGE_BYTES,
        }
    }
}

impl Shared {
    /// Waits for changes; none when the journal is closed and everything was taken.
    fn take(&self) -> Option<(Changes, u64)> {
        let mut queue = self.queue.lock();
        while queue.sequence == self.outcome.borrow().durable {
            if queue.closed {
                return None;
            }
            self.filled.wait(&mut queue);
        }
        queue.bytes = 0;
        Some((std::mem::take(&mut queue.changes), queue.sequence))
    }

    /// Returns whether the journal was closed meanwhile.
    fn pause(&self) -> bool {
        let mut queue = self.queue.lock();
        if !queue.closed {
            self.filled.wait_for(&mut queue, RETRY);
        }
        queue.closed
    }
}

struct Committer {
    shared: Arc<Shared>,
    disk: Option<Disk>,
    open: Open,
}

impl Committer {
    /// Whoever waits for a commit would wait for ever for a thread that is gone.
    fn run_or_say(self) {
        let shared = Arc::clone(&self.shared);
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            let path = shared.path.display();
            let failure =
                format!("{path}: its writer panicked; changes are refused until the router is restarted");
            shared.outcome.send_modify(|outcome| outcome.failure = Some(failure.into()));
        }
    }

    fn run(mut self) {
        while let Some((changes, sequence)) = self.shared.take() {
            if !self.commit(&changes) {
                return;
            }
            let durable = Outcome { durable: sequence, failure: None };
            self.shared.outcome.send_replace(durable);
        }
    }

    /// Commits, however often it takes; false: never.
    fn commit(&mut self, changes: &Changes) -> bool {
        while let Err(error) = self.try_commit(changes) {
            self.report(&error);
            if !matches!(error, DiskError::NoSpace { .. }) || self.shared.pause() {
                return false;
            }
        }
        true
    }

    fn try_commit(&mut self, changes: &Changes) -> Result<(), DiskError> {
        let disk = match self.disk.take() {
            Some(disk) => disk,
            None => (self.open)()?,
        };
        // A database that failed a commit takes no other: it is kept only if this one succeeds.
        disk.commit(changes)?;
        self.disk = Some(disk);
        Ok(())
    }

    fn report(&self, error: &DiskError) {
        let hint = match error {
            DiskError::NoSpace { .. } => "changes are refused until there is some",
            _ => "changes are refused until the router is restarted",
        };
        let failure: Arc<str> = format!("{error}; {hint}").into();
        let first = self.shared.outcome.borrow().failure.is_none();
        if first {
            tracing::error!(path = %self.shared.path.display(), "state was not saved: {failure}");
        }
        self.shared.outcome.send_modify(|outcome| outcome.failure = Some(failure));
    }
}
