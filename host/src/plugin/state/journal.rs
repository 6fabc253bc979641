//! How a durable store gets to disk: changes queue, and one OS thread commits whatever queued
//! while its last commit was under way. Nothing is timed: the disk sets the pace.
//!
//! A commit that fails is undone in memory before anybody hears of it: a change that was refused is not there, and
//! is not found later. Until the disk takes changes again they are refused. Where a disk failed to sync, or the file
//! is not in its place any more, the whole store is written into a new file; only if that fails too it is not known
//! whether the change at hand was kept, and that is what is said.
//!
//! As changes make the log grow, it is written anew from the store in memory, page by page between commits; what
//! changes meanwhile goes into both.

use std::{
    collections::VecDeque,
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::{
    StateError,
    disk::{Anew, Change, Changes, Page, Place},
};
use crate::durable::log::{Begin, Failure, Log};

/// Keys and values that may wait for the disk, and what each counts besides.
const QUEUE_BYTES: usize = 64 << 20;
const CHANGE_BYTES: usize = 64;
/// From one attempt to have the disk take changes to the next.
const RETRY: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });
/// After so long without a change the log is marked: what it ends with was acknowledged.
const IDLE: Duration = Duration::from_millis(200);
/// So often it is looked whether the file is still there, when nothing changes.
const LOOK: Duration = Duration::from_secs(1);
/// How far the log has come is noted so often.
const NOTE: Duration = Duration::from_secs(10);
/// A log is written anew when it is longer than this and twice of what the store takes in memory.
const SMALL: u64 = if cfg!(test) { 8 << 10 } else { 4 << 20 };
/// Lost changes are remembered for those who wait for them; each stops the store for [`RETRY`].
const LOST: usize = 64;

/// What the journal asks of its store, which may be gone.
pub(super) trait Mirror: Send + Sync {
    /// Adds what there is to a page until it is full, in the order of the keys, after one of them; returns the last,
    /// unless there are no more. Before the store changes again, calls with the page.
    fn page(&self, after: Option<&str>, page: &mut Page, and: &dyn Fn(&mut Page)) -> Option<Arc<str>>;
    /// Takes changes back, the latest first, under the store's lock. What is called gets the number that the store
    /// has afterwards.
    fn undo(&self, changes: &mut dyn FnMut(u64) -> [Changes; 2]);
    /// Memory taken.
    fn bytes(&self) -> u64;
}

/// A store's way to disk. Dropped, it commits what is queued and closes the file.
pub(super) struct Journal {
    staged: Vec<(Arc<str>, Change)>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Tells how far the disk is; outlives the journal.
#[derive(Clone)]
pub(super) struct Progress(watch::Receiver<Outcome>);

#[derive(Clone, Debug, Default)]
struct Outcome {
    durable: u64,
    /// Changes that are not there: after the first number, up to the second, and why.
    lost: VecDeque<(u64, u64, Arc<str>)>,
    /// Why changes are refused.
    failure: Option<Arc<str>>,
    /// They are refused for good.
    ended: bool,
}

struct Shared {
    place: Place,
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

enum Next {
    Changes(Changes, u64),
    Nothing,
    Closed,
}

impl Journal {
    /// Starts the thread, over a log that holds what the store holds at this number.
    pub(super) fn start(place: Place, log: Log, mirror: Weak<dyn Mirror>, sequence: u64) -> io::Result<Self> {
        let outcome = watch::Sender::new(Outcome { durable: sequence, ..Outcome::default() });
        let queue = Mutex::new(Queue { sequence, ..Queue::default() });
        let shared = Arc::new(Shared { place, queue, filled: Condvar::new(), outcome });
        let committer = Committer {
            shared: Arc::clone(&shared),
            looked: log.bytes(),
            log,
            mirror,
            rewrite: None,
            noted: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("state".into());
        let thread = thread.spawn(move || committer.run_or_say())?;
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
        let path = self.shared.place.log.display();
        Err(StateError::Disk(format!("more changes wait for {path} than its disk can take").into()))
    }

    /// Adds to the change at hand.
    pub(super) fn record(&mut self, key: Arc<str>, change: Change) {
        self.staged.push((key, change));
    }

    /// Queues the change at hand, as a whole.
    pub(super) fn submit(&mut self, sequence: u64) {
        let mut queue = self.shared.queue.lock();
        for (key, change) in self.staged.drain(..) {
            queue.push(key, change);
        }
        queue.sequence = sequence;
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// Why changes are refused, if they are.
    pub(super) fn failure(&self) -> Option<Arc<str>> {
        self.shared.outcome.borrow().failure.clone()
    }

    pub(super) fn progress(&self) -> Progress {
        Progress(self.shared.outcome.subscribe())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.filled.notify_one();
        // The last to hold the store may be the thread itself, which looks at it now and then.
        let other = |thread: &JoinHandle<()>| thread.thread().id() != std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(other) {
            // A panic in it was reported when it happened, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Progress {
    /// Waits until every change up to `sequence` is on disk; fails if one of those is lost that were made after
    /// `seen`, or were not yet on disk then.
    pub(super) async fn wait(mut self, seen: u64, sequence: u64) -> Result<(), StateError> {
        let reached = self.0.wait_for(|outcome| {
            outcome.ended || outcome.durable >= sequence || outcome.lost(seen, sequence).is_some()
        });
        match reached.await.as_deref() {
            Ok(outcome) => match outcome.lost(seen, sequence) {
                Some(why) => Err(StateError::Disk(why)),
                None if outcome.durable >= sequence => Ok(()),
                None => Err(StateError::Disk(outcome.failure.clone().unwrap_or_default())),
            },
            Err(_) => Err(StateError::Disk("the store was closed".into())),
        }
    }
}

impl Outcome {
    /// Why a call lost what it made or saw, which began at the first number and ended at the second.
    fn lost(&self, seen: u64, sequence: u64) -> Option<Arc<str>> {
        let lost = self.lost.iter().find(|(after, to, _)| *to >= seen && *after < sequence);
        lost.map(|(_, _, why)| Arc::clone(why))
    }
}

impl Queue {
    fn push(&mut self, key: Arc<str>, change: Change) {
        let size = |change: &Change| change.after.as_ref().map_or(0, |entry| entry.stored.len() as usize);
        let (key_len, after) = (key.len(), size(&change));
        match self.changes.get_mut(&key) {
            Some(known) => {
                self.bytes = self.bytes + after - size(known);
                known.after = change.after;
            }
            None => {
                self.bytes += key_len + after + CHANGE_BYTES;
                self.changes.insert(key, change);
            }
        }
    }

    fn take(&mut self) -> Changes {
        self.bytes = 0;
        std::mem::take(&mut self.changes)
    }
}

impl Shared {
    /// Waits for changes, for so long; closed only when everything was taken.
    fn next(&self, patience: Duration) -> Next {
        let mut queue = self.queue.lock();
        if queue.sequence == self.outcome.borrow().durable && !queue.closed && !patience.is_zero() {
            self.filled.wait_for(&mut queue, patience);
        }
        match queue.sequence == self.outcome.borrow().durable {
            true if queue.closed => Next::Closed,
            true => Next::Nothing,
            false => Next::Changes(queue.take(), queue.sequence),
        }
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
    log: Log,
    mirror: Weak<dyn Mirror>,
    rewrite: Option<Rewrite>,
    /// How long the log was when it was looked whether it is too long.
    looked: u64,
    noted: Instant,
}

/// The log on its way to be written anew.
struct Rewrite {
    anew: Anew,
    step: Step,
}

enum Step {
    /// After this key.
    Pages(Option<Arc<str>>),
    /// Most of it gets to disk without anybody waiting.
    Syncing(JoinHandle<io::Result<()>>),
}

impl Committer {
    /// Whoever waits for a commit would wait for ever for a thread that is gone.
    fn run_or_say(self) {
        let shared = Arc::clone(&self.shared);
        if std::panic::catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            let path = shared.place.log.display();
            let failure =
                format!("{path}: its writer panicked; changes are refused until the router is restarted");
            shared.outcome.send_modify(|outcome| {
                outcome.failure = Some(failure.into());
                outcome.ended = true;
            });
        }
    }

    fn run(mut self) {
        loop {
            match self.shared.next(self.patience()) {
                Next::Changes(changes, sequence) => self.commit(changes, sequence),
                Next::Nothing => self.rest(),
                Next::Closed => break,
            }
            self.rewrite_on();
        }
        self.close();
    }

    fn patience(&self) -> Duration {
        match &self.rewrite {
            Some(Rewrite { step: Step::Pages(_), .. }) => Duration::ZERO,
            Some(_) => Duration::from_millis(5),
            None if self.log.is_marked() => LOOK,
            None => IDLE,
        }
    }

    fn commit(&mut self, changes: Changes, sequence: u64) {
        let body = Page::of(&changes);
        let written = match body.is_empty() {
            true => Ok(()),
            false => self.log.append(&body).and_then(|()| self.log.sync()),
        };
        match written {
            Ok(()) => {
                self.shared.outcome.send_modify(|outcome| outcome.durable = sequence);
                let copied = self.rewrite.as_mut().map_or(Ok(()), |rewrite| rewrite.anew.append(&body));
                copied.unwrap_or_else(|failure| self.give_up_rewrite(&failure.into_io()));
            }
            Err(failure) => self.fail(changes, failure),
        }
    }

    /// When nothing is to be done: marks what is there as acknowledged, and looks whether it is still there.
    fn rest(&mut self) {
        if self.rewrite.is_some() {
            return;
        }
        let rested = match self.log.is_marked() {
            true => self.log.stays(),
            false => self.log.mark().and_then(|()| self.log.sync()),
        };
        match rested {
            Ok(()) if self.noted.elapsed() >= NOTE => self.note(),
            // A mark that does not fit is needed by nobody.
            Ok(()) | Err(Failure::Refused(_)) => {}
            Err(failure) => self.fail(Changes::new(), failure),
        }
    }

    fn note(&mut self) {
        self.noted = Instant::now();
        let place = &self.shared.place;
        if let Err(error) = place.note(self.log.position()) {
            tracing::warn!(path = %place.high_water.display(), %error, "cannot write; check the data directory");
        }
    }

    fn close(&mut self) {
        self.rewrite = None;
        if !self.log.is_poisoned() && self.log.mark().and_then(|()| self.log.sync()).is_ok() {
            self.note();
        }
    }

    /// Takes back what cannot be kept, says so, and has the disk take changes again, however often it takes.
    fn fail(&mut self, changes: Changes, failure: Failure) {
        self.rewrite = None;
        let after = self.shared.outcome.borrow().durable;
        let refused = format!("{}: {}", self.shared.place.log.display(), describe(&failure));
        tracing::error!("state is not saved: {refused}; changes are refused until it can be");
        let to = self.undo(changes, format!("{refused}; changes are refused until it can be saved").into());
        // What is known of the disk is known once everything could be written to it, or not.
        let mut recovered = self.log.is_poisoned().then(|| self.recover());
        let not_there = matches!(failure, Failure::Refused(_)) || matches!(recovered, Some(Ok(())));
        let lost = match (not_there, &failure) {
            (true, _) | (_, Failure::Displaced(_)) => "the change was not stored",
            _ => "it is not known whether the change was stored",
        };
        self.shared.outcome.send_modify(|outcome| {
            outcome.lost.push_back((after, to, format!("{refused}; {lost}").into()));
            while outcome.lost.len() > LOST {
                outcome.lost.pop_front();
            }
            outcome.durable = to + 1;
        });
        while !matches!(recovered, Some(Ok(()))) {
            if self.shared.pause() {
                return;
            }
            recovered = Some(self.recover());
            if let Some(Err(error)) = &recovered {
                let failure = format!("{refused}; changes are refused until it can be saved: {error}");
                self.shared.outcome.send_modify(|outcome| outcome.failure = Some(failure.into()));
            }
        }
        self.shared.outcome.send_modify(|outcome| outcome.failure = None);
        tracing::info!(path = %self.log.path().display(), "state is saved again");
    }

    /// Returns the number of the last change that was taken back. One follows, which is this one.
    fn undo(&self, changes: Changes, failure: Arc<str>) -> u64 {
        let mut in_flight = Some(changes);
        let mut last = 0;
        let mut undone = |sequence: u64| {
            let mut queue = self.shared.queue.lock();
            last = queue.sequence;
            queue.sequence = sequence.max(last + 1);
            self.shared.outcome.send_modify(|outcome| outcome.failure = Some(Arc::clone(&failure)));
            [queue.take(), in_flight.take().unwrap_or_default()]
        };
        match self.mirror.upgrade() {
            Some(mirror) => mirror.undo(&mut undone),
            None => drop(undone(0)),
        }
        last
    }

    /// Whether the disk takes changes again.
    fn recover(&mut self) -> io::Result<()> {
        if !self.log.is_poisoned() {
            return self.log.probe().map_err(Failure::into_io);
        }
        let place = self.shared.place.clone();
        place.secure()?;
        let mirror = self.mirror.upgrade().ok_or_else(|| io::Error::other("the store was closed"))?;
        let mut rewrite = Rewrite::begin(&place, self.next_generation())?;
        while rewrite.page(&*mirror, &self.shared)? {}
        self.log = rewrite.anew.finish()?;
        self.looked = self.log.bytes();
        self.note();
        Ok(())
    }

    fn next_generation(&self) -> Begin {
        let begin = self.log.position().begin;
        Begin { generation: begin.generation + 1, ..begin }
    }

    /// A step of writing the log anew, where that is due.
    fn rewrite_on(&mut self) {
        if let Err(error) = self.try_rewrite_on() {
            self.give_up_rewrite(&error);
        }
    }

    fn give_up_rewrite(&mut self, error: &io::Error) {
        self.rewrite = None;
        self.looked = self.log.bytes();
        tracing::warn!(path = %self.log.path().display(), %error, "the file cannot be written anew and goes on growing");
    }

    fn try_rewrite_on(&mut self) -> io::Result<()> {
        let Some(mut rewrite) = self.rewrite.take() else { return self.begin_rewrite() };
        let Some(mirror) = self.mirror.upgrade() else { return Ok(()) };
        match rewrite.step {
            Step::Pages(_) => {
                if !rewrite.page(&*mirror, &self.shared)? {
                    rewrite.sync()?;
                }
            }
            Step::Syncing(ref thread) if !thread.is_finished() => {}
            Step::Syncing(thread) => {
                thread.join().map_err(|_| io::Error::other("panicked"))??;
                self.log = rewrite.anew.finish()?;
                self.looked = self.log.bytes();
                self.note();
                return Ok(());
            }
        }
        self.rewrite = Some(rewrite);
        Ok(())
    }

    fn begin_rewrite(&mut self) -> io::Result<()> {
        if self.log.bytes() < self.looked + SMALL {
            return Ok(());
        }
        self.looked = self.log.bytes();
        let Some(mirror) = self.mirror.upgrade() else { return Ok(()) };
        if self.log.bytes() > SMALL + 2 * mirror.bytes() {
            self.rewrite = Some(Rewrite::begin(&self.shared.place, self.next_generation())?);
        }
        Ok(())
    }
}

impl Rewrite {
    fn begin(place: &Place, begin: Begin) -> io::Result<Self> {
        Ok(Self { anew: Anew::begin(place, begin)?, step: Step::Pages(None) })
    }

    /// Writes a page; false: there is none after the last.
    fn page(&mut self, mirror: &dyn Mirror, shared: &Shared) -> io::Result<bool> {
        let Step::Pages(after) = &mut self.step else { return Ok(false) };
        let mut page = Page::default();
        // The store is ahead of the disk by what is queued, which may yet be refused.
        let last = mirror.page(after.as_deref(), &mut page, &|page| {
            let queue = shared.queue.lock();
            queue.changes.iter().for_each(|(key, change)| page.add(key, change.before.as_ref()));
        });
        self.anew.append(&page.take()).map_err(Failure::into_io)?;
        let more = last.is_some();
        *after = last;
        Ok(more)
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(log) = self.anew.log() else { return Ok(()) };
        let file = log.again()?;
        let thread = std::thread::Builder::new().name("state-sync".into());
        self.step = Step::Syncing(thread.spawn(move || file.sync())?);
        Ok(())
    }
}

/// What happened, for an operator.
fn describe(failure: &Failure) -> String {
    match failure {
        failure if failure.is_no_space() => format!("no space left ({failure})"),
        failure => failure.to_string(),
    }
}
