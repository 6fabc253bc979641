//! One plugin's store: the entries behind a lock, their limit, and who is told of changes.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{RwLock, RwLockWriteGuard};
use tokio::sync::Notify;

use crate::durable::log::Begin;

use super::{
    MAX_KEY, StateError, Value,
    clock::Clock,
    disk::{Change, Changes, DiskError, Page, Place},
    entries::{self, Entries, Entry, Full, NoSum, Stored},
    journal::{Journal, Mirror, Progress},
    stores::handed_over,
};

/// The most keys that one scan returns.
const SCAN_LIMIT: usize = 10_000;

/// What one key holds.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// The key.
    pub key: &'a str,
    /// None: it is absent.
    pub value: Option<&'a [u8]>,
}

/// What one plugin remembers. Every function but the two `async` ones is short and never waits
/// for anything but other such calls.
pub struct StateStore {
    kept: Arc<Kept>,
    clock: Clock,
}

struct Kept {
    inner: RwLock<Inner>,
    /// How many changes there were; written under the lock.
    sequence: AtomicU64,
    changed: Notify,
}

struct Inner {
    entries: Entries,
    limit: u64,
    journal: Option<Journal>,
    /// The file is another process's, so that nothing may change here. How far it came is for those who
    /// wait for a change of before.
    handed_over: Option<Progress>,
}

impl StateStore {
    /// An empty store in memory, that takes at most `limit` bytes of it.
    pub fn volatile(limit: u64) -> Self {
        Self::with_clock(limit, Clock::default())
    }

    pub(super) fn with_clock(limit: u64, clock: Clock) -> Self {
        let inner = Inner { entries: Entries::default(), limit, journal: None, handed_over: None };
        let kept = Kept { inner: RwLock::new(inner), sequence: AtomicU64::new(0), changed: Notify::new() };
        Self { kept: Arc::new(kept), clock }
    }

    /// What is stored under a key.
    pub fn get(&self, key: &str) -> Option<Value> {
        let now = self.clock.now();
        self.kept.inner.read().entries.get(key, now).map(|entry| entry.stored.value())
    }

    /// Stores a value, which does not expire.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), StateError> {
        let mut writing = self.write()?;
        writing.admit(&[Cell { key, value: Some(value) }])?;
        let stored = Stored::Bytes(value.into());
        writing.put(key, Entry { stored, expires: None })?;
        writing.done();
        Ok(())
    }

    /// Removes a key; returns whether it was there.
    pub fn delete(&self, key: &str) -> Result<bool, StateError> {
        let mut writing = self.write()?;
        let there = writing.guard.entries.get(key, writing.now).is_some();
        if there {
            writing.remove(key);
            writing.done();
        }
        Ok(there)
    }

    /// Sets, or with none deletes, if what is there equals `expected`; returns whether it did.
    pub fn swap(&self, key: &str, expected: Option<&[u8]>, value: Option<&[u8]>) -> Result<bool, StateError> {
        self.apply(&[Cell { key, value }], &[Cell { key, value: expected }])
    }

    /// Carries out all changes if everything expected is what is there, else none; returns whether
    /// it did. Of two changes to one key the later holds. All of them together are no more than the
    /// store may hold.
    pub fn apply(&self, changes: &[Cell<'_>], expected: &[Cell<'_>]) -> Result<bool, StateError> {
        let mut writing = self.write()?;
        writing.admit(changes)?;
        writing.admit(expected)?;
        let now = writing.now;
        let entries = &writing.guard.entries;
        if !expected.iter().all(|expected| entries.holds(expected.key, expected.value, now)) {
            return Ok(false);
        }
        writing.make_room(changes)?;
        for change in changes {
            match change.value {
                Some(value) => {
                    let entry = Entry { stored: Stored::Bytes(value.into()), expires: None };
                    writing.put_within(change.key, entry, u64::MAX)?;
                }
                None => writing.remove(change.key),
            }
        }
        if !changes.is_empty() {
            writing.done();
        }
        Ok(true)
    }

    /// Adds to a number and returns the sum; an absent one counts as 0. One that this call creates
    /// goes away after `ttl_ms`.
    pub fn add(&self, key: &str, amount: i64, ttl_ms: Option<u64>) -> Result<i64, StateError> {
        let mut writing = self.write()?;
        writing.admit(&[Cell { key, value: None }])?;
        let sum = writing.add(key, amount, ttl_ms)?;
        writing.done();
        Ok(sum)
    }

    /// Up to `limit` (and at most 10,000) keys and values, in the order of the keys' bytes, that
    /// start with `prefix` and come after `after`.
    pub fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<(Arc<str>, Value)> {
        let now = self.clock.now();
        let inner = self.kept.inner.read();
        let found = inner.entries.scan(prefix, after, now).take(limit.min(SCAN_LIMIT));
        found.map(|(key, entry)| (Arc::clone(key), entry.stored.value())).collect()
    }

    /// Memory that keys and values take, those included that expired and were not yet removed.
    pub fn bytes(&self) -> u64 {
        self.kept.inner.read().entries.bytes()
    }

    /// How many keys there are, counted like [`Self::bytes`].
    pub fn keys(&self) -> usize {
        self.kept.inner.read().entries.len()
    }

    /// How much memory keys and values may take.
    pub fn limit(&self) -> u64 {
        self.kept.inner.read().limit
    }

    /// Changes the limit. One below what is there keeps what is there from growing.
    pub fn set_limit(&self, limit: u64) {
        self.kept.inner.write().limit = limit;
    }

    /// Grows with every change; what [`Self::wait_durable`] and [`Self::stirred`] compare with.
    /// Taken after a guest's call returned, it covers every change that the guest made or saw.
    pub fn commit_sequence(&self) -> u64 {
        self.kept.sequence.load(Ordering::Acquire)
    }

    /// Waits until every change up to `sequence` is on disk; at once if the store is not durable. An error says that
    /// one of them, or one that was on its way to disk at `seen`, is not kept, or that nobody knows. Both numbers are
    /// [`Self::commit_sequence`]s, from before and after what the caller did.
    pub async fn wait_durable(&self, seen: u64, sequence: u64) -> Result<(), StateError> {
        let progress = {
            let inner = self.kept.inner.read();
            inner.journal.as_ref().map(Journal::progress).or_else(|| inner.handed_over.clone())
        };
        match progress {
            Some(progress) => progress.wait(seen, sequence).await,
            None => Ok(()),
        }
    }

    /// Keeps the store on disk from now on. An empty store takes over what the file holds; what is
    /// in one that was in use replaces it. Blocks on the disk.
    pub(super) fn persist(&self, place: Place) -> Result<(), DiskError> {
        let (mut log, on_disk) = place.open()?;
        let mut inner = self.kept.inner.write();
        if inner.entries.len() == 0 {
            inner.entries = on_disk;
        } else {
            let begin = log.position().begin;
            let begin = Begin { generation: begin.generation + 1, ..begin };
            log = place.write(begin, &inner.entries).map_err(|source| place.failed(source))?;
        }
        let sequence = self.kept.sequence.load(Ordering::Relaxed) + 1;
        let mirror = Arc::downgrade(&self.kept) as Weak<dyn Mirror>;
        let journal = Journal::start(place.clone(), log, mirror, sequence);
        inner.journal = Some(journal.map_err(|source| place.failed(source))?);
        self.kept.sequence.store(sequence, Ordering::Release);
        drop(inner);
        self.kept.changed.notify_waiters();
        Ok(())
    }

    /// Why it takes no changes: its disk does not.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.kept.inner.read().journal.as_ref()?.failure()
    }

    /// Keeps the store in memory only from now on. Blocks until what is queued is on disk.
    pub(super) fn stay_in_memory(&self) {
        let journal = self.kept.inner.write().journal.take();
        drop(journal);
    }

    /// Closes the file of a durable store, for another process to open it. Blocks until what is queued is
    /// on disk.
    pub(super) fn hand_over(&self) {
        let mut inner = self.kept.inner.write();
        let journal = inner.journal.take();
        inner.handed_over = journal.as_ref().map(Journal::progress).or_else(|| inner.handed_over.take());
        // Without the lock: what cannot be written is taken back under it.
        drop(inner);
        drop(journal);
    }

    /// Whether changes are written to disk.
    pub fn is_durable(&self) -> bool {
        self.kept.inner.read().journal.is_some()
    }

    /// Waits until there is a change after `seen`, a [`Self::commit_sequence`]; returns the newest.
    pub async fn stirred(&self, seen: u64) -> u64 {
        loop {
            let changed = self.kept.changed.notified();
            let sequence = self.commit_sequence();
            if sequence > seen {
                return sequence;
            }
            changed.await;
        }
    }

    fn write(&self) -> Result<Writing<'_>, StateError> {
        let now = self.clock.now();
        let guard = self.kept.inner.write();
        if guard.handed_over.is_some() {
            return Err(handed_over());
        }
        if let Some(journal) = &guard.journal {
            journal.admit()?;
        }
        let mut writing = Writing { kept: &self.kept, guard, now };
        writing.remove_expired(2);
        Ok(writing)
    }
}

/// The lock held for one change.
struct Writing<'a> {
    kept: &'a Kept,
    guard: RwLockWriteGuard<'a, Inner>,
    now: u64,
}

impl Writing<'_> {
    /// Refuses what cannot fit before any of it is copied or compared: a guest may name the same bytes
    /// many times.
    fn admit(&self, cells: &[Cell<'_>]) -> Result<(), StateError> {
        let bytes =
            |cell: &Cell<'_>| cell.value.map_or(0, |value| entries::size(cell.key, value.len() as u64, None));
        if cells.iter().any(|cell| cell.key.len() > MAX_KEY) {
            return Err(StateError::Key);
        }
        let limit = self.guard.limit;
        let most = limit.max(self.guard.entries.bytes());
        if cells.iter().map(bytes).sum::<u64>() > most { Err(StateError::Full(limit)) } else { Ok(()) }
    }

    fn put(&mut self, key: &str, entry: Entry) -> Result<(), StateError> {
        let limit = self.guard.limit;
        if self.put_within(key, entry.clone(), limit).is_ok() {
            return Ok(());
        }
        self.remove_expired(usize::MAX);
        self.put_within(key, entry, limit)
    }

    fn put_within(&mut self, key: &str, entry: Entry, limit: u64) -> Result<(), StateError> {
        let after = self.guard.journal.is_some().then(|| entry.clone());
        let put = self.guard.entries.put(key, entry, limit);
        let (key, before) = put.map_err(|Full| StateError::Full(limit))?;
        if let (Some(journal), Some(_)) = (&mut self.guard.journal, &after) {
            journal.record(key, Change { before, after });
        }
        Ok(())
    }

    fn add(&mut self, key: &str, amount: i64, ttl_ms: Option<u64>) -> Result<i64, StateError> {
        let Inner { entries, limit, journal, .. } = &mut *self.guard;
        let before = journal.as_ref().and_then(|_| entries.get(key, self.now).cloned());
        let Some(sum) = entries.add(key, amount, self.now, *limit) else {
            let expires = ttl_ms.map(|ttl| self.now.saturating_add(ttl));
            self.put(key, Entry { stored: Stored::Number(amount), expires })?;
            return Ok(amount);
        };
        if sum.is_ok()
            && let Some(journal) = journal
            && let Some((key, entry)) = entries.get_with_key(key)
        {
            journal.record(Arc::clone(key), Change { before, after: Some(entry.clone()) });
        }
        sum.map_err(|no| match no {
            NoSum::NotANumber => StateError::NotANumber,
            NoSum::Overflow => StateError::Overflow,
            NoSum::Full => StateError::Full(*limit),
        })
    }

    fn remove(&mut self, key: &str) {
        let removed = self.guard.entries.remove(key);
        if let (Some(journal), Some((key, before))) = (&mut self.guard.journal, removed) {
            journal.record(key, Change { before: Some(before), after: None });
        }
    }

    fn remove_expired(&mut self, at_most: usize) {
        let Inner { entries, journal, .. } = &mut *self.guard;
        for (key, before) in std::iter::from_fn(|| entries.remove_expired(self.now)).take(at_most) {
            if let Some(journal) = journal {
                journal.record(key, Change { before: Some(before), after: None });
            }
        }
    }

    /// Fails if the changes, taken together, do not fit.
    fn make_room(&mut self, changes: &[Cell<'_>]) -> Result<(), StateError> {
        let limit = self.guard.limit;
        if self.guard.entries.bytes_after(changes) <= limit {
            return Ok(());
        }
        self.remove_expired(usize::MAX);
        let after = self.guard.entries.bytes_after(changes);
        if after > limit && after > self.guard.entries.bytes() {
            Err(StateError::Full(limit))
        } else {
            Ok(())
        }
    }

    /// Counts the change and tells those who wait for one, after the lock is released.
    fn done(self) {
        let Self { kept, mut guard, .. } = self;
        let sequence = kept.sequence.load(Ordering::Relaxed) + 1;
        kept.sequence.store(sequence, Ordering::Release);
        if let Some(journal) = &mut guard.journal {
            journal.submit(sequence);
        }
        drop(guard);
        kept.changed.notify_waiters();
    }
}

impl Mirror for Kept {
    fn page(&self, after: Option<&str>, page: &mut Page, and: &dyn Fn(&mut Page)) -> Option<Arc<str>> {
        let inner = self.inner.read();
        let last = inner.entries.after(after).find_map(|(key, entry)| {
            page.add(key, Some(entry));
            page.is_full().then(|| Arc::clone(key))
        });
        and(page);
        last
    }

    fn undo(&self, changes: &mut dyn FnMut(u64) -> [Changes; 2]) {
        let mut inner = self.inner.write();
        let sequence = self.sequence.load(Ordering::Relaxed) + 1;
        for (key, change) in changes(sequence).into_iter().flatten() {
            match change.before {
                Some(before) => drop(inner.entries.put(&key, before, u64::MAX)),
                None => drop(inner.entries.remove(&key)),
            }
        }
        self.sequence.store(sequence, Ordering::Release);
        drop(inner);
        self.changed.notify_waiters();
    }

    fn bytes(&self) -> u64 {
        self.inner.read().entries.bytes()
    }
}

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.kept.inner.read();
        f.debug_struct("StateStore")
            .field("bytes", &inner.entries.bytes())
            .field("limit", &inner.limit)
            .field("durable", &inner.journal.is_some())
            .finish()
    }
}
