//! A store as it would be after changes that nobody makes: for a plugin that is only asked what it would do.
//!
//! Refusing such changes would have the plugin say something else than it would say to a message, and
//! making them would count a question as one. So its changes are kept beside the store for the length
//! of the call, seen by that call, and forgotten.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::{Cell, MAX_KEY, StateError, StateStore, Value, entries};

/// Changes of one call, by key; none: the key would be absent.
#[derive(Debug, Default)]
pub(in crate::plugin) struct Imagined(Mutex<BTreeMap<Arc<str>, Option<Value>>>);

/// A plugin's store as the call at hand sees it.
#[derive(Clone, Copy)]
pub(in crate::plugin) struct Seen<'a> {
    pub(in crate::plugin) store: &'a StateStore,
    /// Where the call is to change nothing.
    pub(in crate::plugin) imagined: Option<&'a Imagined>,
}

type Found = Vec<(Arc<str>, Value)>;

impl Seen<'_> {
    /// As [`StateStore::get`].
    pub(in crate::plugin) fn get(self, key: &str) -> Option<Value> {
        match self.imagined.and_then(|imagined| imagined.0.lock().get(key).cloned()) {
            Some(imagined) => imagined,
            None => self.store.get(key),
        }
    }

    /// As [`StateStore::set`].
    pub(in crate::plugin) fn set(self, key: &str, value: &[u8]) -> Result<(), StateError> {
        match self.imagined {
            None => self.store.set(key, value),
            Some(imagined) => self.imagine(imagined, &[Cell { key, value: Some(value) }]),
        }
    }

    /// As [`StateStore::delete`].
    pub(in crate::plugin) fn delete(self, key: &str) -> Result<bool, StateError> {
        let Some(imagined) = self.imagined else { return self.store.delete(key) };
        let there = self.get(key).is_some();
        self.imagine(imagined, &[Cell { key, value: None }])?;
        Ok(there)
    }

    /// As [`StateStore::swap`].
    pub(in crate::plugin) fn swap(
        self,
        key: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StateError> {
        self.apply(&[Cell { key, value }], &[Cell { key, value: expected }])
    }

    /// As [`StateStore::apply`].
    pub(in crate::plugin) fn apply(
        self,
        changes: &[Cell<'_>],
        expected: &[Cell<'_>],
    ) -> Result<bool, StateError> {
        let Some(imagined) = self.imagined else { return self.store.apply(changes, expected) };
        let holds = |cell: &Cell<'_>| self.get(cell.key).as_deref() == cell.value;
        if !expected.iter().all(holds) {
            return Ok(false);
        }
        self.imagine(imagined, changes)?;
        Ok(true)
    }

    /// As [`StateStore::add`]; what would go away later does not, in one call.
    pub(in crate::plugin) fn add(
        self,
        key: &str,
        amount: i64,
        ttl_ms: Option<u64>,
    ) -> Result<i64, StateError> {
        let Some(imagined) = self.imagined else { return self.store.add(key, amount, ttl_ms) };
        let number = match self.get(key) {
            None => 0,
            Some(value) => {
                let text = std::str::from_utf8(&value).ok();
                text.and_then(|text| text.parse::<i64>().ok()).ok_or(StateError::NotANumber)?
            }
        };
        let sum = number.checked_add(amount).ok_or(StateError::Overflow)?;
        self.imagine(imagined, &[Cell { key, value: Some(sum.to_string().as_bytes()) }])?;
        Ok(sum)
    }

    /// As [`StateStore::scan`].
    pub(in crate::plugin) fn scan(self, prefix: &str, after: Option<&str>, limit: usize) -> Found {
        let Some(imagined) = self.imagined else { return self.store.scan(prefix, after, limit) };
        let imagined = imagined.0.lock();
        let wanted = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        // Each of them can hide at most one of those that are stored.
        let stored = self.store.scan(prefix, after, limit.saturating_add(imagined.len()));
        let mut found: BTreeMap<Arc<str>, Value> = stored.into_iter().collect();
        for (key, value) in imagined.iter().filter(|(key, _)| wanted(key)) {
            match value {
                Some(value) => drop(found.insert(Arc::clone(key), Arc::clone(value))),
                None => drop(found.remove(key)),
            }
        }
        found.into_iter().take(limit).collect()
    }

    fn imagine(self, imagined: &Imagined, changes: &[Cell<'_>]) -> Result<(), StateError> {
        if changes.iter().any(|change| change.key.len() > MAX_KEY) {
            return Err(StateError::Key);
        }
        let size =
            |key: &str, value: Option<&[u8]>| entries::size(key, value.map_or(0, <[u8]>::len) as u64, None);
        let mut imagined = imagined.0.lock();
        let before: u64 = imagined.iter().map(|(key, value)| size(key, value.as_deref())).sum();
        let more: u64 = changes.iter().map(|change| size(change.key, change.value)).sum();
        let limit = self.store.limit();
        if before + more > limit {
            return Err(StateError::Full(limit));
        }
        imagined.extend(changes.iter().map(|change| (change.key.into(), change.value.map(Value::from))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(found: Found) -> Vec<String> {
        found.into_iter().map(|(key, _)| key.to_string()).collect()
    }

    #[test]
    fn what_is_imagined_is_seen_and_changes_nothing() {
        let store = StateStore::volatile(1024);
        for key in ["a", "b", "c"] {
            store.set(key, b"1").unwrap();
        }
        let (imagined, before) = (Imagined::default(), store.commit_sequence());
        let seen = Seen { store: &store, imagined: Some(&imagined) };
        assert_eq!(seen.add("a", 1, Some(1000)), Ok(2));
        assert_eq!(seen.add("a", 1, None), Ok(3));
        assert_eq!(seen.add("n", 7, None), Ok(7));
        assert_eq!((seen.delete("b"), seen.delete("b"), seen.delete("x")), (Ok(true), Ok(false), Ok(false)));
        assert_eq!(seen.swap("c", Some(b"1"), Some(b"word")), Ok(true));
        assert_eq!(seen.swap("c", Some(b"1"), None), Ok(false));
        assert_eq!(seen.add("c", 1, None), Err(StateError::NotANumber));
        seen.set("d", b"2").unwrap();
        assert_eq!(keys(seen.scan("", None, 10)), ["a", "c", "d", "n"]);
        assert_eq!(keys(seen.scan("", Some("a"), 2)), ["c", "d"]);
        assert_eq!(keys(seen.scan("b", None, 2)), Vec::<String>::new());
        assert_eq!(seen.set("e", &[0; 1024]), Err(StateError::Full(1024)));
        assert_eq!(seen.set(&"k".repeat(MAX_KEY + 1), b""), Err(StateError::Key));
        assert_eq!(seen.get("a").as_deref(), Some(&b"3"[..]));
        assert_eq!(store.commit_sequence(), before);
        assert_eq!(keys(store.scan("", None, 10)), ["a", "b", "c"]);
        let really = Seen { store: &store, imagined: None };
        assert_eq!(really.add("a", 1, None), Ok(2));
        assert_eq!(store.get("a").as_deref(), Some(&b"2"[..]));
    }
}
