//! A routing table written by hand, for tests: it can go away, be compacted, lose everything and
//! be changed by another router.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::adapter::{
    Adapter, Answer, Assignment, Change, ChangeSet, ClientRecord, Condition, Entry, Proposal, Revision,
    Snapshot, TableError,
};

/// The datastore and, at once, an adapter to it.
pub(crate) struct TestTable {
    data: Mutex<Data>,
    changed: watch::Sender<()>,
    /// Nothing can be reached.
    pub(crate) down: AtomicBool,
    /// `changes` waits by itself, as etcd's does; else `stirred` tells.
    pub(crate) waits: AtomicBool,
    /// Calls to `snapshot`.
    pub(crate) snapshots: AtomicU32,
    /// Calls to `assigned` and `assign`.
    pub(crate) asked: AtomicU32,
    /// So many answers of `assign` are lost after it was carried out.
    pub(crate) lost: AtomicU32,
    /// How often it was restored: an adapter sees by such a thing that it is another table.
    pub(crate) restored: AtomicU64,
    /// Each call takes so many milliseconds.
    pub(crate) takes: AtomicU64,
    /// Of assignments, given out so far.
    stamps: AtomicU64,
}

/// All of it at one moment.
pub(crate) struct Saved(Data);

#[derive(Clone, Default)]
struct Data {
    entries: BTreeMap<(String, String), String>,
    revision: Revision,
    log: Vec<(Revision, Change)>,
    floor: Revision,
    assignments: BTreeMap<(String, String), Assignment>,
}

impl Default for TestTable {
    fn default() -> Self {
        let data = Data { revision: 100, floor: 100, ..Data::default() };
        Self {
            data: Mutex::new(data),
            changed: watch::Sender::new(()),
            down: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            snapshots: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            restored: AtomicU64::new(0),
            takes: AtomicU64::new(0),
            stamps: AtomicU64::new(0),
        }
    }
}

pub(crate) fn put(kind: &str, key: &str, value: &str) -> Change {
    Change { kind: kind.into(), key: key.into(), value: Some(value.into()), ephemeral: false }
}

pub(crate) fn delete(kind: &str, key: &str) -> Change {
    Change { kind: kind.into(), key: key.into(), value: None, ephemeral: false }
}

/// A server `http://ID` of a service.
pub(crate) fn server(service: &str, id: &str) -> Change {
    put("server", &format!("{service}/{id}"), &format!(r#"{{"uri":"http://{id}"}}"#))
}

impl TestTable {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes changes as another router would.
    pub(crate) fn change(&self, changes: &[Change]) -> Revision {
        let mut data = self.data.lock();
        data.revision += 1;
        let revision = data.revision;
        for change in changes {
            let key = (change.kind.clone(), change.key.clone());
            match &change.value {
                _ if change.kind == "assignment" => {}
                Some(value) => drop(data.entries.insert(key, value.clone())),
                None => drop(data.entries.remove(&key)),
            }
            data.log.push((revision, change.clone()));
        }
        drop(data);
        self.changed.send_replace(());
        revision
    }

    /// Forgets what changed so far.
    pub(crate) fn compact(&self) {
        let mut data = self.data.lock();
        data.floor = data.revision;
        data.log.clear();
    }

    /// As it is now.
    pub(crate) fn save(&self) -> Saved {
        Saved(self.data.lock().clone())
    }

    /// As it was then, as when a snapshot is restored.
    pub(crate) fn restore(&self, saved: Saved) {
        *self.data.lock() = saved.0;
        self.restored.fetch_add(1, SeqCst);
        self.changed.send_replace(());
    }

    /// Loses everything, and its revision with it.
    pub(crate) fn wipe(&self) {
        *self.data.lock() = Data { revision: 1, floor: 1, ..Data::default() };
        self.changed.send_replace(());
    }

    pub(crate) fn has(&self, kind: &str, key: &str) -> bool {
        self.data.lock().entries.contains_key(&(kind.to_owned(), key.to_owned()))
    }

    /// What is stored for a client.
    pub(crate) fn assignment(&self, client: &str, service: &str) -> Option<Assignment> {
        self.data.lock().assignments.get(&(client.to_owned(), service.to_owned())).cloned()
    }

    /// Fails while down; lets others run first, as a real call would.
    async fn reach(&self) -> Result<(), TableError> {
        tokio::task::yield_now().await;
        match self.takes.load(SeqCst) {
            0 => {}
            takes => tokio::time::sleep(Duration::from_millis(takes)).await,
        }
        match self.down.load(SeqCst) {
            true => Err(TableError::Unavailable("it is down".into())),
            false => Ok(()),
        }
    }

    fn since(&self, after: Revision) -> Result<ChangeSet, TableError> {
        let data = self.data.lock();
        if after < data.floor || after > data.revision {
            return Err(TableError::Compacted);
        }
        let new: Vec<_> = data.log.iter().filter(|(revision, _)| *revision > after).collect();
        let mut changes = Vec::new();
        for group in new.chunk_by(|(one, _), (other, _)| one == other) {
            changes.extend(group.iter().map(|(_, change)| change.clone()));
            changes.push(delete("revision", &group[0].0.to_string()));
        }
        Ok(ChangeSet { changes, revision: data.revision })
    }

    /// The table's revision, if one of the entries that are named changed since another.
    fn conflict(&self, named: &[Change], expect: Revision) -> Option<Revision> {
        let data = self.data.lock();
        let same = |one: &Change, other: &Change| (&one.kind, &one.key) == (&other.kind, &other.key);
        let mut since = data.log.iter().filter(|(revision, _)| *revision > expect);
        let changed = since.any(|(_, change)| named.iter().any(|named| same(named, change)));
        (changed || expect < data.floor).then_some(data.revision)
    }

    /// What is stored afterwards, and whether routers are told of it.
    fn store(&self, proposal: Proposal, condition: Condition) -> (Option<Assignment>, bool) {
        let mut data = self.data.lock();
        let key = (proposal.client, proposal.service);
        let stored = data.assignments.get(&key);
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => stored.is_none(),
            Condition::Unchanged(stamp) => stored.is_some_and(|stored| stored.stamp == stamp),
        };
        let replaces = stored.is_some_and(|stored| stored.server != proposal.server);
        let tell = holds && (condition == Condition::Always || replaces);
        if holds {
            // No stamp comes twice, as none does in a datastore: neither after a removal nor after a restore.
            let stamp = self.stamps.fetch_add(1, SeqCst) + 1;
            let Proposal { server, expires, router, .. } = proposal;
            data.assignments.insert(key.clone(), Assignment { server, expires, router, stamp });
        }
        (data.assignments.get(&key).cloned(), tell)
    }
}

impl Adapter for TestTable {
    fn snapshot(&self) -> Answer<'_, Snapshot> {
        async {
            self.reach().await?;
            self.snapshots.fetch_add(1, SeqCst);
            let data = self.data.lock();
            let entry = |((kind, key), value): (&(String, String), &String)| Entry {
                kind: kind.clone(),
                key: key.clone(),
                value: value.clone(),
            };
            Ok(Snapshot { entries: data.entries.iter().map(entry).collect(), revision: data.revision })
        }
        .boxed()
    }

    fn changes(&self, after: Revision) -> Answer<'_, ChangeSet> {
        let mut changed = self.changed.subscribe();
        async move {
            self.reach().await?;
            let set = self.since(after)?;
            if self.waits.load(SeqCst) && set.changes.is_empty() {
                let _ = tokio::time::timeout(Duration::from_secs(20), changed.changed()).await;
                self.reach().await?;
            }
            self.since(after)
        }
        .boxed()
    }

    fn stirred(&self) -> BoxFuture<'_, ()> {
        let mut changed = self.changed.subscribe();
        let waits = self.waits.load(SeqCst);
        async move {
            match waits {
                true => std::future::pending().await,
                false => drop(changed.changed().await),
            }
        }
        .boxed()
    }

    fn write(&self, changes: Vec<Change>, expect: Option<Revision>) -> Answer<'_, Revision> {
        async move {
            self.reach().await?;
            match expect.and_then(|expect| self.conflict(&changes, expect)) {
                Some(revision) => Err(TableError::Conflict(revision)),
                None => Ok(self.change(&changes)),
            }
        }
        .boxed()
    }

    fn assigned(&self, client: String, service: String) -> Answer<'_, Option<Assignment>> {
        async move {
            self.asked.fetch_add(1, SeqCst);
            self.reach().await?;
            Ok(self.assignment(&client, &service))
        }
        .boxed()
    }

    fn assign(&self, proposal: Proposal, condition: Condition) -> Answer<'_, Option<Assignment>> {
        async move {
            self.asked.fetch_add(1, SeqCst);
            self.reach().await?;
            let key = format!("{}/{}", proposal.client, proposal.service);
            let (stored, tell) = self.store(proposal, condition);
            if tell {
                self.change(&[delete("assignment", &key)]);
            }
            match self.lost.fetch_update(SeqCst, SeqCst, |lost| lost.checked_sub(1)) {
                Ok(_) => Err(TableError::Unavailable("the answer was lost".into())),
                Err(_) => Ok(stored),
            }
        }
        .boxed()
    }

    fn forget(&self, client: String, service: String) -> Answer<'_, ()> {
        async move {
            self.reach().await?;
            self.data.lock().assignments.remove(&(client.clone(), service.clone()));
            self.change(&[delete("assignment", &format!("{client}/{service}"))]);
            Ok(())
        }
        .boxed()
    }

    fn client(&self, client: String) -> Answer<'_, ClientRecord> {
        async move {
            self.reach().await?;
            let data = self.data.lock();
            let its = data.assignments.iter().filter(|((whose, _), _)| *whose == client);
            let assignments = its.map(|((_, service), assignment)| (service.clone(), assignment.clone()));
            Ok(ClientRecord { router: None, assignments: assignments.collect() })
        }
        .boxed()
    }

    fn locate(&self, _: String, _: Option<String>) -> Answer<'_, ()> {
        self.reach().boxed()
    }

    fn sweep(&self, now: u64, limit: u32) -> Answer<'_, u32> {
        async move {
            self.reach().await?;
            let mut data = self.data.lock();
            let expired = |assignment: &Assignment| assignment.expires.is_some_and(|expires| expires < now);
            let gone: Vec<_> = data
                .assignments
                .iter()
                .filter(|(_, assignment)| expired(assignment))
                .map(|(key, _)| key.clone())
                .take(limit as usize)
                .collect();
            gone.iter().for_each(|key| drop(data.assignments.remove(key)));
            Ok(u32::try_from(gone.len()).expect("at most limit"))
        }
        .boxed()
    }
}
