//! The routing table: the seam to the datastore, and what a router knows of it.
//!
//! [`adapter`] is the seam: a routing-table plugin behind a trait, so that this module knows
//! neither WebAssembly nor any datastore. [`view`] is the immutable snapshot that routing reads;
//! its watch loop keeps it in step. [`assignments`] is the bounded local cache of who goes where.
//! This module may not know `proxy`, `plugin`, `api` or any other sibling.

pub mod adapter;
mod announcing;
pub mod assignments;
mod catalog;
mod clock;
mod following;
mod found;
pub mod hash;
pub mod history;
mod hold;
pub mod horizon;
pub mod identity;
mod jitter;
mod keeping;
pub mod lease;
mod numbers;
pub mod record;
pub mod removal;
mod revising;
mod saved;
mod shared;
mod stats;
mod status;
mod sweeping;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod ticking;
pub mod time;
pub mod view;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{condition::Name, durable::whole::Unreadable, supervise::Supervisor};

use adapter::{Change, ClientRecord, Entry, Revision};
use following::Next;
use identity::{Claim, Identity};
use keeping::Keeping;
use record::RouterRecord;
use saved::Saved;
use shared::Shared;

pub use adapter::{Adapter, TableError};
pub use assignments::Assignments;
pub use clock::Clock;
pub use jitter::Jitter;
pub use numbers::Numbers;
pub use record::{ServerRecord, ServiceId, ServiceRecord};
pub use revising::Revised;
pub use stats::Stats;
pub use status::Status;
pub use time::TableTime;
pub use view::{Named, Overlay, Release, Server, Service, View};

/// What a [`Table`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// This router's id; the same after a restart, so that no record of it is left behind. If another router that
    /// runs has it, this one goes by another, or does not start.
    pub router: String,
    /// Where the id comes from.
    pub source: identity::Source,
    /// No other process can use the table.
    pub alone: bool,
    /// What the table says of this router.
    pub record: RouterRecord,
    /// The adapter's name: a view saved from another is not used.
    pub adapter: String,
    /// Where the last known view is kept, as `view.json`; none: nowhere.
    pub dir: Option<PathBuf>,
    /// The services of the configuration.
    pub overlay: Overlay,
    /// At most so many assignments are remembered here.
    pub assignments: usize,
    /// A message of a client that is not remembered waits for the table no longer, over all that it asks.
    pub wait: Duration,
    /// For so long most of the servers are kept as suspect when they go all at once.
    pub grace: Duration,
    /// From one removal of expired assignments to the next, on average.
    pub sweep: Duration,
    /// The time of day, by which the first router of a table sets its time.
    pub clock: Clock,
    /// What keeps it from doing the same as other routers at the same time.
    pub jitter: Jitter,
    /// Under which its tasks run.
    pub tasks: Supervisor,
}

impl Options {
    /// The defaults: a million assignments, a second of waiting, 10 s of grace, a sweep every 30 s, nothing saved.
    pub fn new(router: impl Into<String>, adapter: impl Into<String>) -> Self {
        Self {
            router: router.into(),
            source: identity::Source::default(),
            alone: false,
            record: RouterRecord::default(),
            adapter: adapter.into(),
            dir: None,
            overlay: Overlay::new(),
            assignments: 1_000_000,
            wait: Duration::from_secs(1),
            grace: Duration::from_secs(10),
            sweep: Duration::from_secs(30),
            clock: Clock::System,
            jitter: Jitter::default(),
            tasks: Supervisor::default(),
        }
    }
}

/// At most so many changes are written at once.
pub const WRITE_AT_ONCE: usize = 64;
/// A write is waited for in the view no longer than this; it holds all the same.
const READ_OWN_WRITE: Duration = Duration::from_secs(5);
/// A start is not kept longer by the question who this router is.
const CLAIM: Duration = Duration::from_secs(20);
/// Removing this router's record when it stops takes no longer.
const LEAVE: Duration = Duration::from_secs(2);

/// The routing table as one router sees it: a view that follows the table, and the way to write.
/// Dropping it stops what follows the table.
pub struct Table {
    shared: Arc<Shared>,
    saved: Option<Saved>,
    tasks: Mutex<JoinSet<()>>,
}

impl Table {
    /// Starts to follow the table, on the current runtime. Returns once there is a view, or once
    /// the first attempt to get one has failed: then it goes on trying, and [`Table::status`]
    /// says so.
    pub async fn start(adapter: Arc<dyn Adapter>, options: Options) -> Arc<Self> {
        let (numbers, stats) = (Arc::<Numbers>::default(), Arc::<Stats>::default());
        let (assignments, due) =
            Assignments::new(Arc::clone(&adapter), Arc::clone(&numbers), Arc::clone(&stats), &options);
        let saved = options.dir.clone().map(|dir| Saved { dir, adapter: options.adapter.clone() });
        let shared = Arc::new(Shared::new(adapter, options, numbers, stats, assignments));
        let next = shared.begin(saved.as_ref()).await;
        let tasks = spawn(&shared, next, due, saved.as_ref());
        Arc::new(Self { shared, saved, tasks: Mutex::new(tasks) })
    }

    /// Under which its tasks run, and what follows it may.
    pub fn tasks(&self) -> &Supervisor {
        &self.shared.options.tasks
    }

    /// The latest view.
    pub fn view(&self) -> Arc<View> {
        self.shared.view()
    }

    /// The latest view, and a notice of each that follows and says something new.
    pub fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.shared.views.subscribe()
    }

    /// This router's id and what it says of itself; the id may change while it runs, see [`identity`].
    pub fn router(&self) -> (Arc<str>, &RouterRecord) {
        (self.shared.identity().id, &self.shared.options.record)
    }

    /// Under which id this router is in the table, and a notice of each change of that.
    pub fn identity(&self) -> watch::Receiver<Identity> {
        self.shared.identity.subscribe()
    }

    /// Waits until the id is known to be this router's, for no longer than a dead router's record stays, and not at
    /// all while the table is away. Then it serves under that id.
    ///
    /// # Errors
    /// Another router has the id that the configuration says.
    pub async fn claim(&self) -> Result<Arc<str>, String> {
        let (mut identity, mut status) = (self.identity(), self.status());
        let away = status.wait_for(|status| *status != Status::Current);
        tokio::select! {
            _ = timeout(CLAIM, identity.wait_for(|identity| identity.claim != Claim::Open)) => {}
            _ = away => {}
        }
        self.shared.begin_to_serve();
        let Identity { id, claim, .. } = self.shared.identity();
        match claim {
            Claim::Refused(why) => Err(why),
            Claim::Open | Claim::Held => Ok(id),
        }
    }

    /// The table's own time, which is the same at every router of it.
    pub fn time(&self) -> &Arc<TableTime> {
        &self.shared.time
    }

    /// The revision of the latest view, and a notice of each that follows, also of those at which the view
    /// says nothing new.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.shared.revisions.subscribe()
    }

    /// The time of day at this router.
    pub fn clock(&self) -> Clock {
        self.shared.options.clock
    }

    /// Says in this router's record to which servers no message goes from here any more, by
    /// `SERVICE/SERVER` with the stamp of the drain.
    pub fn report(&self, drained: BTreeMap<String, u32>) {
        self.shared.drained.send_if_modified(|known| {
            let changed = *known != drained;
            *known = drained;
            changed
        });
    }

    /// How well the view agrees with the table, and a notice of each change of that.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Who goes where.
    pub fn assignments(&self) -> &Arc<Assignments> {
        &self.shared.assignments
    }

    /// How often the table said that nothing is newer than the view, so that one who waits can tell that it said so
    /// again; none while it says nothing.
    pub fn confirmed(&self) -> Option<u64> {
        let current = *self.shared.status.borrow() == Status::Current;
        current.then(|| self.shared.confirmed.load(Relaxed))
    }

    /// Asks the table for changes now, where an adapter does not wait for them.
    pub fn hurry(&self) {
        self.shared.poke.notify_one();
    }

    /// What is counted.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.shared.stats
    }

    /// Writes entries; up to [`WRITE_AT_ONCE`] changes are all written or none, more go in
    /// batches in this order. With `expect`, only if none of these entries changed since that
    /// revision, and then not more than that at once. Returns once the view holds them.
    pub async fn write(
        &self,
        changes: Vec<Change>,
        expect: Option<Revision>,
    ) -> Result<Revision, TableError> {
        let shared = &*self.shared;
        let mut changes = changes;
        let view = shared.view();
        let found = found::releases(&view, &changes, shared.options.clock.now());
        match expect {
            Some(_) if changes.len() + found.len() <= WRITE_AT_ONCE => changes.extend(found),
            Some(_) => {}
            // Under a condition of its own: what somebody else made live meanwhile stays.
            None if !found.is_empty() => drop(shared.adapter.write(found, Some(view.revision)).await),
            None => {}
        }
        if expect.is_some() && changes.len() > WRITE_AT_ONCE {
            return Err(TableError::Invalid(format!(
                "{} changes under one condition; at most {WRITE_AT_ONCE}",
                changes.len()
            )));
        }
        let _meant = shared.mean(&changes);
        let mut revision = shared.view().revision;
        for batch in shared.batches(changes) {
            let written = shared.adapter.write(batch, expect).await;
            shared.note(&written);
            revision = written?;
            shared.poke.notify_one();
        }
        let mut revisions = self.revisions();
        let seen = revisions.wait_for(|seen| *seen >= revision);
        if timeout(READ_OWN_WRITE, seen).await.is_err() {
            tracing::warn!(revision, "a write to the routing table is not in the view yet");
        }
        Ok(revision)
    }

    /// Replaces the services of the configuration.
    pub fn set_overlay(&self, overlay: Overlay) {
        self.shared.set_overlay(overlay);
    }

    /// Follows the changes after a revision; none: from now on.
    pub fn watch(&self, after: Option<Revision>) -> history::Watch {
        self.shared.history.watch(after, self.subscribe())
    }

    /// What the table knows of a client.
    pub async fn client(&self, client: &str) -> Result<ClientRecord, TableError> {
        self.shared.adapter.client(client.to_owned()).await
    }

    /// Stops following, removes this router's record and saves the view.
    pub async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
        if !matches!(timeout(LEAVE, announcing::leave(&self.shared)).await, Ok(Ok(()))) {
            tracing::debug!("this router's record was not removed");
        }
        if self.status().borrow().is_ready() {
            self.save().await;
        }
    }

    /// Saves the view now, where it is saved at all.
    pub async fn save(&self) {
        if let Some(saved) = &self.saved {
            saved::save(saved, self.view(), &self.shared.stats).await;
            keeping::save(Keeping::new(saved), &self.shared).await;
        }
    }
}

fn spawn(
    shared: &Arc<Shared>,
    next: Next,
    due: mpsc::Receiver<assignments::Renewal>,
    saved: Option<&Saved>,
) -> JoinSet<()> {
    let supervisor = &shared.options.tasks;
    let keep = |name, start: fn(Arc<Shared>) -> BoxFuture<'static, ()>| {
        let shared = Arc::clone(shared);
        supervisor.clone().keep(name, move || start(Arc::clone(&shared)))
    };
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let (shared, mut next) = (Arc::clone(shared), Some(next));
        let follow = move || following::follow(Arc::clone(&shared), next.take().unwrap_or(Next::Snapshot));
        supervisor.clone().keep("table-following", follow)
    });
    tasks.spawn(keep("table-announcing", |shared| Box::pin(announcing::announce(shared))));
    tasks.spawn(keep("table-ticking", |shared| Box::pin(ticking::tick(shared))));
    tasks.spawn(keep("table-sweeping", |shared| Box::pin(sweeping::sweep(shared))));
    tasks.spawn({
        let (assignments, due) = (Arc::clone(&shared.assignments), Arc::new(tokio::sync::Mutex::new(due)));
        let renew = move || assignments::renew(Arc::clone(&assignments), Arc::clone(&due));
        supervisor.clone().keep("table-renewing", renew)
    });
    if let Some(saved) = saved.cloned() {
        let shared = Arc::clone(shared);
        let save = move || {
            let mut views = shared.views.subscribe();
            views.mark_changed();
            saved::follow(saved.clone(), views, Arc::clone(&shared.stats))
        };
        tasks.spawn(supervisor.clone().keep("table-saving", save));
    }
    if let Some(saved) = saved {
        let (keeping, shared) = (Keeping::new(saved), Arc::clone(shared));
        let follow = move || keeping::follow(keeping.clone(), Arc::clone(&shared));
        tasks.spawn(supervisor.clone().keep("table-keeping", follow));
    }
    tasks
}

impl Shared {
    /// The first view: what the table holds, else what was saved.
    async fn begin(&self, saved: Option<&Saved>) -> Next {
        let Err(error) = following::resync(self).await else {
            self.current();
            ticking::begin(self).await;
            return Next::Changes;
        };
        self.failed(&error);
        match saved.map(Saved::load) {
            Some(Ok((entries, revision))) => {
                self.boot(&entries, revision, &error);
                let kept = saved.map_or(0, |saved| Keeping::new(saved).put_back(&self.assignments));
                tracing::info!(kept, "assignments are those that were remembered last");
            }
            Some(Err(saved::Unusable::File(Unreadable::Absent(_)))) | None => {
                tracing::error!(%error, "the routing table cannot be read and no view was saved; trying on");
            }
            Some(Err(unusable)) => {
                tracing::error!(%error, %unusable, "the routing table cannot be read, nor the view saved last");
            }
        }
        Next::Snapshot
    }

    fn boot(&self, entries: &[Entry], revision: Revision, error: &TableError) {
        self.resync(entries, revision);
        let since = self.options.clock.now();
        self.status.send_replace(Status::Stale { since, error: error.to_string() });
        self.options.tasks.conditions().raise(Name::TableStale, error.to_string());
        tracing::warn!(%error, revision, "the routing table cannot be read: starting with the last known view");
    }

    /// Takes note of what came of a write.
    fn note(&self, written: &Result<Revision, TableError>) {
        let (stats, conditions) = (&self.stats, self.options.tasks.conditions());
        match written {
            Ok(_) => {
                stats.table_writes.inc();
                stats.table_full.set(0);
                if conditions.clear(Name::TableFull) {
                    tracing::info!("the routing table takes writes again");
                }
            }
            Err(TableError::Refused(why)) => {
                stats.table_errors.inc();
                stats.table_refused.inc();
                if stats.table_full.get() == 0 {
                    tracing::error!("the routing table refuses writes: {why}");
                }
                stats.table_full.set(1);
                conditions.raise(Name::TableFull, format!("the routing table refuses writes: {why}"));
            }
            Err(_) => stats.table_errors.inc(),
        }
    }

    /// As many changes at a time as can be written. To each batch with deletions the mark is added
    /// that tells every router that they are meant.
    fn batches(&self, changes: Vec<Change>) -> Vec<Vec<Change>> {
        if !changes.iter().any(hold::is_deletion) || changes.len() == WRITE_AT_ONCE {
            return changes.chunks(WRITE_AT_ONCE).map(<[Change]>::to_vec).collect();
        }
        let marked = |batch: &[Change]| batch.iter().cloned().chain(self.mark(batch)).collect();
        changes.chunks(WRITE_AT_ONCE - 1).map(marked).collect()
    }

    fn mark(&self, batch: &[Change]) -> Option<Change> {
        let deleted: HashSet<String> =
            batch.iter().filter(|change| hold::is_deletion(change)).map(hold::name).collect();
        if deleted.is_empty() {
            return None;
        }
        let mark = hold::Mark { at: self.options.clock.now(), deleted: Some(deleted) };
        let value = Some(serde_json::to_string(&mark).expect("texts and a number"));
        // Each deletion under way has one to itself: else they would be in the way of each other.
        let number = self.marks.fetch_add(1, Relaxed) % hold::MARKS;
        let (kind, key) = (hold::EXPLICIT.to_owned(), format!("{}/{number}", self.identity().id));
        Some(Change { kind, key, value, ephemeral: true })
    }
}
