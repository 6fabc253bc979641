//! What a store holds, as plain data: a sorted map, bounded in bytes, whose entries may expire.
//! It knows no lock, no disk and no clock; the time is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use super::Cell;

/// Bytes that a plugin stored.
pub type Value = Arc<[u8]>;

/// The change would take more bytes than are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Why a number was not added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSum {
    NotANumber,
    Overflow,
    Full,
}

/// A value, kept as a number while only `add` writes it: counting must not parse and format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Bytes(Value),
    Number(i64),
}

impl Stored {
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Bytes(bytes) => Arc::clone(bytes),
            Self::Number(number) => number.to_string().into_bytes().into(),
        }
    }

    /// None: it is not the decimal text of a number.
    pub(super) fn number(&self) -> Option<i64> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            Self::Number(number) => Some(*number),
        }
    }

    fn equals(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Bytes(mine) => **mine == *bytes,
            Self::Number(number) => number.to_string().as_bytes() == bytes,
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Number(number) => {
                let digits = number.unsigned_abs().checked_ilog10().unwrap_or(0) + 1;
                u64::from(digits) + u64::from(*number < 0)
            }
        }
    }
}

/// A value and when it goes away, in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stored: Stored,
    pub(super) expires: Option<u64>,
}

impl Entry {
    fn is_live(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// A bounded sorted map. Expired entries are as absent, whether or not they were removed yet.
#[derive(Debug, Default)]
pub(super) struct Entries {
    by_key: BTreeMap<Arc<str>, Entry>,
    expiring: BTreeSet<(u64, Arc<str>)>,
    bytes: u64,
}

impl Entries {
    pub(super) fn get(&self, key: &str, now: u64) -> Option<&Entry> {
        self.by_key.get(key).filter(|entry| entry.is_live(now))
    }

    /// An entry with its key as it is kept, expired or not.
    pub(super) fn get_with_key(&self, key: &str) -> Option<(&Arc<str>, &Entry)> {
        self.by_key.get_key_value(key)
    }

    /// How many bytes there would be after these changes.
    pub(super) fn bytes_after(&self, changes: &[Cell<'_>]) -> u64 {
        let last: BTreeMap<&str, Option<&[u8]>> = changes.iter().map(|cell| (cell.key, cell.value)).collect();
        last.into_iter().fold(self.bytes, |bytes, (key, value)| {
            let before = self.by_key.get(key).map_or(0, |entry| size_of(key, entry));
            let after = value.map_or(0, |value| size(key, value.len() as u64, None));
            bytes - before + after
        })
    }

    pub(super) fn holds(&self, key: &str, expected: Option<&[u8]>, now: u64) -> bool {
        match (self.get(key, now), expected) {
            (None, None) => true,
            (Some(entry), Some(expected)) => entry.stored.equals(expected),
            _ => false,
        }
    }

    /// Puts an entry in place of what is there, expired or not. Returns the key as it is kept, and what was there.
    pub(super) fn put(
        &mut self,
        key: &str,
        entry: Entry,
        limit: u64,
    ) -> Result<(Arc<str>, Option<Entry>), Full> {
        let (kept, before) = match self.by_key.get_key_value(key) {
            Some((kept, old)) => (Arc::clone(kept), size_of(key, old)),
            None => (Arc::from(key), 0),
        };
        let after = self.bytes - before + size_of(key, &entry);
        if after > limit && after > self.bytes {
            return Err(Full);
        }
        self.bytes = after;
        if let Some(expires) = entry.expires {
            self.expiring.insert((expires, Arc::clone(&kept)));
        }
        let new_expiry = entry.expires;
        let old = self.by_key.insert(Arc::clone(&kept), entry);
        if let Some(expires) = old.as_ref().and_then(|old| old.expires.filter(|_| old.expires != new_expiry))
        {
            self.expiring.remove(&(expires, Arc::clone(&kept)));
        }
        Ok((kept, old))
    }

    /// Adds to the number of an entry that is there, whose expiry stays. None: it is absent.
    pub(super) fn add(&mut self, key: &str, amount: i64, now: u64, limit: u64) -> Option<Result<i64, NoSum>> {
        let entry = self.by_key.get_mut(key).filter(|entry| entry.is_live(now))?;
        let sum = match entry.stored.number().map(|number| number.checked_add(amount)) {
            None => return Some(Err(NoSum::NotANumber)),
            Some(None) => return Some(Err(NoSum::Overflow)),
            Some(Some(sum)) => sum,
        };
        let stored = Stored::Number(sum);
        let after = self.bytes - entry.stored.len() + stored.len();
        if after > limit && after > self.bytes {
            return Some(Err(NoSum::Full));
        }
        self.bytes = after;
        entry.stored = stored;
        Some(Ok(sum))
    }

    /// Returns the key and entry that were there, expired or not.
    pub(super) fn remove(&mut self, key: &str) -> Option<(Arc<str>, Entry)> {
        let (key, entry) = self.by_key.remove_entry(key)?;
        self.bytes -= size_of(&key, &entry);
        if let Some(expires) = entry.expires {
            self.expiring.remove(&(expires, Arc::clone(&key)));
        }
        Some((key, entry))
    }

    /// Removes the entry that expired first, if one has.
    pub(super) fn remove_expired(&mut self, now: u64) -> Option<(Arc<str>, Entry)> {
        let (expires, key) = self.expiring.first()?;
        if *expires > now {
            return None;
        }
        let key = Arc::clone(key);
        self.remove(&key)
    }

    pub(super) fn scan<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        now: u64,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.by_key
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter(move |(_, entry)| entry.is_live(now))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Expired or not, in the order of the keys.
    pub(super) fn after<'a>(
        &'a self,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_key.range::<str, _>((from, Bound::Unbounded))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.by_key.iter()
    }
}

/// What an entry takes besides the bytes of its key and value: its place in the map, whose nodes are two thirds full,
/// and two allocations with their counts, rounded up.
pub(super) const OVERHEAD: u64 = 140;
/// What one takes besides that expires: its place among those that do.
const EXPIRING: u64 = 40;

/// Memory that an entry takes; a test measures it.
pub(super) fn size(key: &str, value: u64, expires: Option<u64>) -> u64 {
    OVERHEAD + key.len() as u64 + value + expires.map_or(0, |_| EXPIRING)
}

fn size_of(key: &str, entry: &Entry) -> u64 {
    size(key, entry.stored.len(), entry.expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Entry {
        Entry { stored: Stored::Bytes(text.as_bytes().into()), expires: None }
    }

    fn number(number: i64, expires: Option<u64>) -> Entry {
        Entry { stored: Stored::Number(number), expires }
    }

    fn keys(entries: &Entries, prefix: &str, after: Option<&str>) -> Vec<String> {
        entries.scan(prefix, after, 0).map(|(key, _)| key.to_string()).collect()
    }

    #[test]
    fn counts_what_keys_and_values_take() {
        let mut entries = Entries::default();
        entries.put("key", bytes("value"), 1000).unwrap();
        assert_eq!(entries.bytes(), OVERHEAD + 8);
        entries.put("key", number(-10, None), 1000).unwrap();
        assert_eq!(entries.bytes(), OVERHEAD + 6);
        assert_eq!(entries.add("key", 10, 0, 1000), Some(Ok(0)));
        assert_eq!(entries.bytes(), OVERHEAD + 4);
        entries.put("key", number(5, Some(7)), 1000).unwrap();
        entries.put("key", number(5, Some(9)), 1000).unwrap();
        assert_eq!(entries.bytes(), OVERHEAD + EXPIRING + 4);
        assert_eq!(entries.remove_expired(8), None);
        assert!(entries.remove("key").is_some());
        assert_eq!((entries.bytes(), entries.len()), (0, 0));
        assert_eq!(entries.remove_expired(u64::MAX), None);
    }

    #[test]
    fn refuses_what_exceeds_the_limit_and_changes_nothing() {
        let mut entries = Entries::default();
        let limit = OVERHEAD + 5;
        entries.put("a", bytes("1234"), limit).unwrap();
        assert_eq!(entries.put("b", bytes(""), limit), Err(Full));
        assert_eq!(entries.put("a", bytes("12345"), limit), Err(Full));
        assert!(entries.holds("a", Some(b"1234"), 0));
        // A limit that was lowered below what is there still lets it shrink.
        entries.put("a", bytes("123"), 1).unwrap();
        assert_eq!(entries.bytes(), OVERHEAD + 4);
    }

    #[test]
    fn what_expired_is_absent() {
        let mut entries = Entries::default();
        entries.put("a", number(1, Some(10)), 1000).unwrap();
        entries.put("b", number(1, Some(5)), 1000).unwrap();
        assert!(entries.get("a", 9).is_some());
        assert!(entries.get("a", 10).is_none());
        assert!(entries.holds("a", None, 10));
        assert_eq!(entries.remove_expired(7).map(|(key, _)| key).as_deref(), Some("b"));
        assert_eq!(entries.remove_expired(7), None);
    }

    #[test]
    fn adds_to_what_is_there() {
        let mut entries = Entries::default();
        assert_eq!(entries.add("n", 1, 0, 100), None);
        let limit = OVERHEAD + EXPIRING + 2;
        entries.put("n", number(9, Some(5)), limit).unwrap();
        assert_eq!(entries.add("n", 1, 0, limit), Some(Err(NoSum::Full)));
        assert_eq!(entries.add("n", i64::MAX, 0, 1000), Some(Err(NoSum::Overflow)));
        assert_eq!(entries.add("n", 1, 4, 1000), Some(Ok(10)));
        assert_eq!(entries.add("n", 1, 5, 1000), None);
        entries.put("text", bytes("9x"), 1000).unwrap();
        assert_eq!(entries.add("text", 1, 0, 1000), Some(Err(NoSum::NotANumber)));
    }

    #[test]
    fn scans_in_order_after_a_key() {
        let mut entries = Entries::default();
        for key in ["a/2", "a/1", "b", "a", "a/1/x"] {
            entries.put(key, bytes(""), 1000).unwrap();
        }
        assert_eq!(keys(&entries, "a/", None), ["a/1", "a/1/x", "a/2"]);
        assert_eq!(keys(&entries, "a/", Some("a/1")), ["a/1/x", "a/2"]);
        assert_eq!(keys(&entries, "a/", Some("a")), ["a/1", "a/1/x", "a/2"]);
        assert_eq!(keys(&entries, "a/", Some("b")), Vec::<String>::new());
        assert_eq!(keys(&entries, "", None).len(), 5);
    }

    #[test]
    fn numbers_and_their_text_are_the_same() {
        for number in [0, 1, 9, 10, -1, -10, i64::MAX, i64::MIN] {
            let stored = Stored::Number(number);
            assert_eq!(stored.value().len() as u64, stored.len(), "{number}");
            assert!(stored.equals(number.to_string().as_bytes()));
            assert_eq!(Stored::Bytes(stored.value()).number(), Some(number));
        }
        assert_eq!(Stored::Bytes(b"1.5".as_slice().into()).number(), None);
    }
}
