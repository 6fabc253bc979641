//! An etcd written by hand, as far as the adapter can tell: revisions, history, compaction and
//! transactions, and a hook that lets a test act between two calls.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use message_flow_sdk::etcd::{
    Batch, Comparison, EtcdError, Event, KeyRange, KeyValue, Operation, Outcome, Page, Revision,
};

use crate::cluster::Cluster;

/// What another router does meanwhile.
type Meddle = Box<dyn FnOnce(&Fake)>;

#[derive(Default)]
pub(crate) struct Fake {
    events: RefCell<Vec<Event>>,
    revision: Cell<Revision>,
    compacted: Cell<Revision>,
    /// Keys that were put under the lease.
    pub(crate) leased: RefCell<Vec<String>>,
    pub(crate) down: Cell<bool>,
    /// Runs before the next transaction, once.
    pub(crate) before_transaction: RefCell<Option<Meddle>>,
    pub(crate) gets: Cell<u32>,
}

impl Fake {
    pub(crate) fn compact(&self, revision: Revision) {
        self.compacted.set(revision);
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision.get()
    }

    /// Every key with its value.
    pub(crate) fn dump(&self) -> BTreeMap<String, String> {
        let text = |kv: KeyValue| (kv.key, String::from_utf8(kv.value).unwrap());
        self.at(self.revision.get()).into_values().map(text).collect()
    }

    /// As somebody else would.
    pub(crate) fn edit(&self, key: &str, value: Option<&str>) {
        self.edit_bytes(key, value.map(str::as_bytes));
    }

    /// The same, with what need not be text.
    pub(crate) fn edit_bytes(&self, key: &str, value: Option<&[u8]>) {
        let revision = self.revision.get() + 1;
        self.revision.set(revision);
        self.record(key, value.map(<[u8]>::to_vec), revision);
    }

    fn record(&self, key: &str, value: Option<Vec<u8>>, revision: Revision) {
        let before = self.at(revision).get(key).map_or(0, |kv| kv.version);
        let version = if value.is_some() { before + 1 } else { 0 };
        self.events.borrow_mut().push(Event { key: key.to_owned(), value, revision, version });
    }

    fn at(&self, revision: Revision) -> BTreeMap<String, KeyValue> {
        let mut keys = BTreeMap::new();
        for event in self.events.borrow().iter().filter(|event| event.revision <= revision) {
            let (key, modified, version) = (event.key.clone(), event.revision, event.version);
            match event.value.clone() {
                Some(value) => keys.insert(key.clone(), KeyValue { key, value, modified, version }),
                None => keys.remove(&key),
            };
        }
        keys
    }

    fn holds(&self, comparison: &Comparison) -> bool {
        let keys = self.at(self.revision.get());
        match comparison {
            Comparison::Modified((key, revision)) => keys.get(key).map_or(0, |kv| kv.modified) == *revision,
            Comparison::NoneModifiedAfter((range, revision)) => {
                keys.values().all(|kv| !within(range, &kv.key) || kv.modified <= *revision)
            }
        }
    }

    fn check_up(&self) -> Result<(), EtcdError> {
        if self.down.get() { Err(EtcdError::Unavailable("it is down".into())) } else { Ok(()) }
    }
}

impl Cluster for Fake {
    fn get(&self, range: &KeyRange, limit: u32, at: Option<Revision>) -> Result<Page, EtcdError> {
        self.check_up()?;
        self.gets.set(self.gets.get() + 1);
        if at.is_some_and(|at| at < self.compacted.get()) {
            return Err(EtcdError::Compacted(0));
        }
        let keys = self.at(at.unwrap_or(self.revision.get()));
        let mut entries: Vec<_> = keys.into_values().filter(|kv| within(range, &kv.key)).collect();
        let more = entries.len() > limit as usize;
        entries.truncate(limit as usize);
        Ok(Page { entries, more, revision: self.revision.get() })
    }

    fn transact(
        &self,
        when: &[Comparison],
        then: &[Operation],
        otherwise: &[Operation],
    ) -> Result<Outcome, EtcdError> {
        self.check_up()?;
        let hook = self.before_transaction.borrow_mut().take();
        if let Some(hook) = hook {
            hook(self);
        }
        let succeeded = when.iter().all(|comparison| self.holds(comparison));
        let revision = self.revision.get() + 1;
        let mut found = Vec::new();
        let mut changed = false;
        for operation in if succeeded { then } else { otherwise } {
            match operation {
                Operation::Put(put) => {
                    self.record(&put.key, Some(put.value.clone()), revision);
                    self.leased.borrow_mut().extend(put.leased.then(|| put.key.clone()));
                    changed = true;
                }
                Operation::Delete(range) => {
                    let there: Vec<_> =
                        self.at(revision).into_keys().filter(|key| within(range, key)).collect();
                    changed |= !there.is_empty();
                    there.iter().for_each(|key| self.record(key, None, revision));
                }
                Operation::Get(key) => found.push(self.at(revision).remove(key)),
            }
        }
        self.revision.set(self.revision.get() + u64::from(changed));
        Ok(Outcome { succeeded, found, revision: self.revision.get() })
    }

    fn next(&self, range: &KeyRange, after: Revision, _: u32) -> Result<Batch, EtcdError> {
        self.check_up()?;
        if after + 1 < self.compacted.get() {
            return Err(EtcdError::Compacted(self.compacted.get()));
        }
        let events = self.events.borrow();
        let events: Vec<_> = events
            .iter()
            .filter(|event| event.revision > after && within(range, &event.key))
            .cloned()
            .collect();
        let revision = events.last().map_or(after, |event| event.revision);
        Ok(Batch { events, revision })
    }
}

fn within(range: &KeyRange, key: &str) -> bool {
    match &range.end {
        None => key == range.start,
        Some(end) => *range.start <= *key && *key < **end,
    }
}
