//! A bounded map from (service, client) to what is remembered of the assignment. From 85 to 128
//! bytes for each client whose id has up to 37 bytes; longer ids share a budget that keeps the
//! average of a full cache below 200.

use std::{
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use foldhash::quality::RandomState;
use parking_lot::{Mutex, MutexGuard};

use super::shard::{Hash, Key, Remembered, Shard};

/// Longer client ids are not remembered at all.
const LONGEST: usize = 1024;
/// For each entry that the cache may hold, so many bytes of client ids that are not inline.
const LONG_BYTES: usize = 56;
/// A tick is 64 ms, rounded down: an entry may expire that much early, and 32 bits last for years.
const TICK: u32 = 6;
/// Ticks begin so many milliseconds, four years, before the time at which they were set: a table's time
/// may be another than was thought.
const BEFORE: u64 = (u32::MAX as u64 / 2) << TICK;
/// In place of a time: never.
pub(super) const NEVER: u64 = u64::MAX;

pub(super) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    len: AtomicUsize,
    /// Grows with everything that is remembered or forgotten.
    changes: AtomicU64,
    limit: usize,
    /// Ticks count from here, in Unix milliseconds.
    base: AtomicU64,
}

/// What is to be remembered of an assignment. Times are in Unix milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The number of the server's id or URI.
    pub(super) server: u32,
    /// As the table has it.
    pub(super) stamp: u64,
    pub(super) expires: u64,
    /// When it is due to be renewed.
    pub(super) renew: u64,
}

/// What is remembered of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) server: u32,
    pub(super) stamp: u64,
    /// It should be renewed now.
    pub(super) due: bool,
    /// It does not expire.
    pub(super) pinned: bool,
}

/// What came of storing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) evicted: u64,
}

impl Cache {
    /// Holds up to `limit` entries; `now` is in Unix milliseconds.
    pub(super) fn new(limit: usize, now: u64) -> Self {
        let shards = (limit / 1024).next_power_of_two().clamp(1, 256);
        Self {
            shards: std::iter::repeat_with(Mutex::default).take(shards).collect(),
            hasher: RandomState::default(),
            len: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            limit: limit.max(1),
            base: now.saturating_sub(BEFORE).into(),
        }
    }

    /// Forgets everything if ticks cannot tell times about this one apart.
    pub(super) fn set_time(&self, now: u64) {
        let base = now.saturating_sub(BEFORE);
        if base.abs_diff(self.base.load(Relaxed)) > BEFORE / 2 {
            self.clear();
            self.base.store(base, Relaxed);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Differs when what is remembered may differ.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// Memory taken, allocated and not yet used included.
    pub(super) fn bytes(&self) -> usize {
        let shards: usize = self.shards.iter().map(|shard| shard.lock().bytes()).sum();
        shards + size_of_val(&*self.shards)
    }

    /// What is remembered and has not expired. One that is due for renewal says so once in `again`
    /// milliseconds.
    pub(super) fn get(&self, service: u32, client: &str, now: u64, again: u64) -> Option<Found> {
        let (key, ticks) = (self.key(service, client), self.ticks(now));
        let mut shard = self.shard(key);
        let found = shard.get(key).filter(|found| found.expires > ticks)?;
        let due = found.renew <= ticks;
        if due {
            shard.renew_at(key, self.ticks(now.saturating_add(again)));
        }
        let pinned = found.expires == u32::MAX;
        Some(Found { server: found.server, stamp: found.stamp, due, pinned })
    }

    /// What is remembered and has not expired, for one who does not use it: nothing changes.
    pub(super) fn peek(&self, service: u32, client: &str, now: u64) -> Option<Found> {
        let (key, ticks) = (self.key(service, client), self.ticks(now));
        let found = self.shard(key).look(key).filter(|found| found.expires > ticks)?;
        let Remembered { server, stamp, expires, renew } = found;
        Some(Found { server, stamp, due: renew <= ticks, pinned: expires == u32::MAX })
    }

    /// Marks the moment before a question to the table; [`Cache::put`] with it stores nothing if
    /// something was removed since.
    pub(super) fn epoch(&self, service: u32, client: &str) -> u32 {
        self.shard(self.key(service, client)).epoch
    }

    /// Remembers, in place of what was there.
    pub(super) fn put(&self, service: u32, client: &str, entry: Entry, epoch: Option<u32>) -> Stored {
        if client.len() > LONGEST {
            return Stored::default();
        }
        let (key, new) = (self.key(service, client), self.remembered(entry));
        let mut shard = self.shard(key);
        if epoch.is_some_and(|epoch| epoch != shard.epoch) {
            return Stored::default();
        }
        self.changes.fetch_add(1, Relaxed);
        if shard.replace(key, new) {
            return Stored::default();
        }
        let mut evicted = 0;
        while shard.long() + client.len() > self.long_limit() && shard.evict(self.hash()) {
            evicted += 1;
        }
        if self.len.fetch_add(1, Relaxed) - evicted >= self.limit && shard.evict(self.hash()) {
            evicted += 1;
        }
        shard.insert(key, new, self.hash());
        drop(shard);
        self.len.fetch_sub(evicted, Relaxed);
        evicted += self.shrink();
        Stored { evicted: evicted as u64 }
    }

    pub(super) fn remove(&self, service: u32, client: &str) {
        let key = self.key(service, client);
        if self.shard(key).remove(key, self.hash()) {
            self.len.fetch_sub(1, Relaxed);
            self.changes.fetch_add(1, Relaxed);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            self.len.fetch_sub(shard.len(), Relaxed);
            shard.clear();
        }
        self.changes.fetch_add(1, Relaxed);
    }

    /// Forgets what has expired in one of [`Cache::parts`].
    pub(super) fn expire(&self, part: usize, now: u64) {
        let expired = self.shards[part].lock().expire(self.ticks(now), self.hash());
        self.len.fetch_sub(expired, Relaxed);
        self.changes.fetch_add(expired as u64, Relaxed);
    }

    /// Everything in one of [`Cache::parts`]: service, client and what is remembered.
    pub(super) fn part(&self, part: usize) -> Vec<(u32, String, Entry)> {
        let shard = self.shards[part].lock();
        let text = |client: &[u8]| String::from_utf8_lossy(client).into_owned();
        shard.entries().map(|(service, client, found)| (service, text(client), self.entry(found))).collect()
    }

    /// The same, and forgets it.
    pub(super) fn take(&self, part: usize) -> Vec<(u32, String, Entry)> {
        let taken = self.part(part);
        let mut shard = self.shards[part].lock();
        self.len.fetch_sub(shard.len(), Relaxed);
        shard.clear();
        self.changes.fetch_add(1, Relaxed);
        taken
    }

    pub(super) fn parts(&self) -> usize {
        self.shards.len()
    }

    /// Calls with the numbers of service and server of each.
    pub(super) fn each(&self, mut call: impl FnMut(u32, u32)) {
        self.shards.iter().for_each(|shard| shard.lock().each(&mut call));
    }

    /// Where the part of a new entry was empty, another part gives up one.
    fn shrink(&self) -> usize {
        let mut evicted = 0;
        for shard in &self.shards {
            if self.len.load(Relaxed) <= self.limit {
                break;
            }
            if shard.lock().evict(self.hash()) {
                self.len.fetch_sub(1, Relaxed);
                evicted += 1;
            }
        }
        evicted
    }

    fn long_limit(&self) -> usize {
        (self.limit / self.shards.len()).max(LONGEST / LONG_BYTES + 1) * LONG_BYTES
    }

    fn remembered(&self, entry: Entry) -> Remembered {
        let Entry { server, stamp, expires, renew } = entry;
        Remembered { stamp, server, expires: self.ticks(expires), renew: self.ticks(renew) }
    }

    fn entry(&self, remembered: Remembered) -> Entry {
        let Remembered { stamp, server, expires, renew } = remembered;
        Entry { server, stamp, expires: self.time(expires), renew: self.time(renew) }
    }

    fn time(&self, ticks: u32) -> u64 {
        match ticks {
            u32::MAX => NEVER,
            _ => self.base.load(Relaxed) + (u64::from(ticks) << TICK),
        }
    }

    /// The largest only for [`NEVER`].
    fn ticks(&self, time: u64) -> u32 {
        match time {
            NEVER => u32::MAX,
            _ => {
                let since = time.saturating_sub(self.base.load(Relaxed)) >> TICK;
                u32::try_from(since).unwrap_or(u32::MAX).min(u32::MAX - 1)
            }
        }
    }

    fn key<'a>(&self, service: u32, client: &'a str) -> Key<'a> {
        Key { service, client, hash: self.hash()(service, client.as_bytes()) }
    }

    fn hash(&self) -> impl Hash {
        |service, client: &[u8]| {
            let mut hasher = self.hasher.build_hasher();
            hasher.write_u32(service);
            hasher.write(client);
            hasher.finish()
        }
    }

    /// By the upper half of the hash; the lower one places the key within.
    fn shard(&self, key: Key<'_>) -> MutexGuard<'_, Shard> {
        self.shards[(key.hash >> 32) as usize % self.shards.len()].lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times are in ticks, to be readable.
    fn until(expires: u64) -> Entry {
        Entry { server: 1, expires: expires << TICK, renew: NEVER, stamp: 7 }
    }

    fn get(cache: &Cache, service: u32, client: &str, now: u64) -> Option<Found> {
        cache.get(service, client, now << TICK, 20 << TICK)
    }

    const FOUND: Option<Found> = Some(Found { server: 1, stamp: 7, due: false, pinned: false });

    #[test]
    fn remembers_until_expiry_or_removal() {
        let cache = Cache::new(10, 0);
        cache.put(1, "alice", until(100), None);
        assert_eq!(get(&cache, 1, "alice", 99), FOUND);
        assert_eq!(get(&cache, 1, "alice", 100), None);
        assert_eq!((get(&cache, 2, "alice", 0), get(&cache, 1, "bob", 0)), (None, None));
        cache.remove(1, "alice");
        assert_eq!((get(&cache, 1, "alice", 0), cache.len()), (None, 0));
    }

    #[test]
    fn is_due_for_renewal_once_in_a_while() {
        let cache = Cache::new(10, 0);
        cache.put(1, "alice", Entry { renew: 50 << TICK, ..until(100) }, None);
        let due = |now| get(&cache, 1, "alice", now).map(|found| found.due);
        assert_eq!([49, 50, 51, 69, 70, 71].map(due), [false, true, false, false, true, false].map(Some));
    }

    #[test]
    fn an_answer_older_than_a_removal_is_not_kept() {
        let cache = Cache::new(10, 0);
        let epoch = cache.epoch(1, "alice");
        cache.remove(1, "alice");
        cache.put(1, "alice", until(100), Some(epoch));
        assert_eq!(get(&cache, 1, "alice", 0), None);
        cache.put(1, "alice", until(100), Some(cache.epoch(1, "alice")));
        assert!(get(&cache, 1, "alice", 0).is_some());
    }

    /// Few keys and many changes, so that slots are pushed on, moved back, grown and shrunk.
    #[test]
    fn is_a_map() {
        let (cache, mut model) = (Cache::new(2000, 0), std::collections::HashMap::new());
        let mut bits = 1_u64;
        for step in 0..40_000_u64 {
            bits = crate::table::hash::stable(&bits.to_string());
            let spread = if step / 5000 % 2 == 0 { 100 } else { 10 };
            let client = format!("{}{}", "x".repeat((bits % 4 * 15) as usize), bits % spread);
            let (service, expires) = ((bits >> 32) as u32 % 3, 1 + (bits >> 40) % 100);
            let key = (service, client.clone());
            match (bits >> 50) % 8 {
                0 if step % 50 == 0 => {
                    cache.expire(0, 30 << TICK);
                    model.retain(|_, expires| *expires > 30);
                }
                0..5 => {
                    cache.put(service, &client, until(expires), None);
                    model.insert(key, expires);
                }
                _ => {
                    cache.remove(service, &client);
                    model.remove(&key);
                }
            }
            let there = get(&cache, service, &client, 0).is_some();
            assert_eq!(there, model.contains_key(&(service, client)), "at step {step}");
            assert_eq!(cache.len(), model.len());
            if step % 500 == 0 {
                let all = model.iter().all(|((service, client), expires)| {
                    let until = |time| get(&cache, *service, client, time).is_some();
                    until(expires - 1) && !until(*expires)
                });
                assert!(all, "at step {step}");
            }
        }
    }

    #[test]
    fn stays_within_its_limit_and_keeps_what_is_used() {
        for limit in [1, 7, 300, 5000] {
            let cache = Cache::new(limit, 0);
            cache.put(1, "regular", until(100), None);
            let mut evicted = 0;
            for client in 0..3 * limit {
                let _ = get(&cache, 1, "regular", 0);
                evicted += cache.put(1, &format!("client-{client}"), until(100), None).evicted;
                assert!(cache.len() <= limit, "{limit}: {}", cache.len());
            }
            assert_eq!(evicted as usize, 3 * limit + 1 - cache.len(), "{limit}");
            assert!(limit < 7 || get(&cache, 1, "regular", 0).is_some(), "{limit}");
        }
    }

    /// At every fill from an eighth on; longer ids make it hold fewer entries, not more bytes.
    #[test]
    fn an_entry_takes_at_most_two_hundred_bytes() {
        for (limit, length) in [(100_000, 8), (1_000_000, 36), (100_000, 64), (10_000, 300), (10_000, 1000)] {
            let cache = Cache::new(limit, 0);
            for client in 0..limit + limit / 10 {
                cache.put(1, &format!("{client:0>length$}"), until(100), None);
                if client % 1000 == 999 && client > limit / 8 {
                    let entries = if length <= 64 { cache.len() } else { limit };
                    assert!(cache.bytes() <= 200 * entries, "{entries} of {length}: {}", cache.bytes());
                }
            }
        }
    }

    #[test]
    fn expired_entries_and_long_ids_give_their_room_back() {
        let cache = Cache::new(100, 0);
        let long = |client: usize| format!("{client:0>200}");
        for client in 0..100 {
            cache.put(1, &long(client), until(100), None);
        }
        assert!((16..=32).contains(&cache.len()), "{}", cache.len());
        cache.put(1, &"x".repeat(LONGEST + 1), until(100), None);
        cache.put(1, "short", until(200), None);
        (0..cache.parts()).for_each(|part| cache.expire(part, 100 << TICK));
        assert_eq!(cache.len(), 1);
        cache.clear();
        assert_eq!(cache.len(), 0);
    }
}
