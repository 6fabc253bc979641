//! What the parts of a [`Table`](super::Table) share, and the one place where views are made.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    Adapter, Assignments, Numbers, Options, Overlay, Stats, Status, View,
    adapter::{Change, Entry, Revision},
    following,
    history::History,
    hold::{Hold, Obeyed},
    stats::shown,
    view::Draft,
};
use crate::condition::Name;

/// So many records that cannot be read are named in the log at once.
const PROBLEMS: usize = 20;

pub(super) struct Shared {
    pub(super) adapter: Arc<dyn Adapter>,
    pub(super) options: Options,
    pub(super) stats: Arc<Stats>,
    pub(super) assignments: Arc<Assignments>,
    pub(super) history: Arc<History>,
    pub(super) views: watch::Sender<Arc<View>>,
    pub(super) status: watch::Sender<Status>,
    /// The drains that are over as far as this router goes, with their stamps.
    pub(super) drained: watch::Sender<BTreeMap<String, u32>>,
    /// Something was written here: the loop should ask for changes now.
    pub(super) poke: Notify,
    numbers: Arc<Numbers>,
    /// Held while a view is made.
    making: Mutex<Making>,
}

struct Making {
    overlay: Overlay,
    hold: Hold,
    /// Deletions that this router was told to write and that are on their way.
    meant: HashSet<(String, String)>,
}

impl Shared {
    pub(super) fn new(
        adapter: Arc<dyn Adapter>,
        options: Options,
        numbers: Arc<Numbers>,
        stats: Arc<Stats>,
        assignments: Arc<Assignments>,
    ) -> Self {
        let overlay = options.overlay.clone();
        let view = View::build(&[], 0, &overlay, &numbers);
        let making = Making { overlay, hold: Hold::default(), meant: HashSet::new() };
        Self {
            adapter,
            options,
            stats,
            assignments,
            history: History::new(),
            views: watch::Sender::new(Arc::new(view)),
            status: watch::Sender::new(Status::Starting(None)),
            drained: watch::Sender::default(),
            poke: Notify::new(),
            numbers,
            making: Mutex::new(making),
        }
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Makes the view that of a whole table.
    pub(super) fn resync(&self, entries: &[Entry], revision: Revision) {
        let before = self.view();
        let first = !matches!(*self.status.borrow(), Status::Current | Status::Stale { .. });
        let changes = before.difference(entries);
        self.make(&changes, revision);
        if first || revision < before.revision {
            self.history.begin(revision);
        } else {
            self.history.push(&changes, revision);
            // Assignments may have been pinned, forgotten or replaced meanwhile.
            self.assignments.clear();
        }
        self.stats.table_resyncs.inc();
    }

    /// Makes the view that of a table after changes.
    pub(super) fn advance(&self, changes: &[Change], revision: Revision) {
        let (entries, assignments) = following::split(changes);
        assignments.for_each(|key| self.assignments.changed(key));
        self.make(&entries, revision);
        self.history.push(&entries, revision);
        self.stats.table_changes.inc_by(entries.len() as u64);
    }

    fn make(&self, changes: &[Change], revision: Revision) {
        let mut making = self.making.lock();
        let view = self.view();
        let Making { overlay, hold, meant } = &mut *making;
        let is_meant = |change: &Change| meant.contains(&key(change));
        let Obeyed { changes, suspects } = hold.screen(&view, changes, self.options.grace, is_meant);
        let mut draft = Draft::new(&view, &self.numbers);
        changes.iter().for_each(|change| draft.change(change));
        suspects.iter().for_each(|(service, server)| draft.hold(service, server));
        self.publish(draft.finish(revision, overlay));
    }

    /// When the grace of the first held servers ends.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.making.lock().hold.next()
    }

    /// Gives up held servers whose grace has ended.
    pub(super) fn give_up_held(&self) {
        let mut making = self.making.lock();
        let ended = making.hold.ended();
        let view = self.view();
        self.publish(view.apply(&ended, view.revision, &making.overlay, &self.numbers));
    }

    pub(super) fn set_overlay(&self, overlay: Overlay) {
        let mut making = self.making.lock();
        making.overlay = overlay;
        let view = self.view();
        self.publish(view.apply(&[], view.revision, &making.overlay, &self.numbers));
    }

    fn publish(&self, view: View) {
        let (stats, counts) = (&self.stats, view.counts());
        stats.view_revision.set(shown(view.revision));
        stats.view_services.set(shown(view.len()));
        stats.view_servers.set(shown(counts.servers));
        stats.view_suspects.set(shown(counts.suspects));
        stats.view_problems.set(shown(view.problems().len()));
        self.tell_problems(&view);
        self.views.send_replace(Arc::new(view));
    }

    /// Says once of each record that cannot be read that it is not.
    fn tell_problems(&self, view: &View) {
        let before = self.view();
        let (known, problems) = (before.problems(), view.problems());
        if std::ptr::eq(known, problems) || known == problems {
            return;
        }
        let new = problems.iter().filter(|(key, problem)| known.get(*key) != Some(*problem));
        for (_, problem) in new.clone().take(PROBLEMS) {
            tracing::warn!(kind = %problem.kind, key = ?problem.key, "record ignored: {problem}");
        }
        let untold = new.count().saturating_sub(PROBLEMS);
        if untold > 0 {
            tracing::warn!(records = untold, "further records of the routing table are not valid");
        }
        let conditions = self.options.tasks.conditions();
        match problems.len() {
            0 => drop(conditions.clear(Name::TableRecords)),
            records => {
                let detail =
                    format!("{records} records of the routing table cannot be read; the log names them");
                conditions.raise(Name::TableRecords, detail);
            }
        }
    }

    /// Says that these deletions are meant, until the answer is dropped.
    pub(super) fn mean<'a>(&'a self, changes: &[Change]) -> Meant<'a> {
        let keys: Vec<_> = changes.iter().filter(|change| change.value.is_none()).map(key).collect();
        self.making.lock().meant.extend(keys.iter().cloned());
        Meant { shared: self, keys }
    }

    /// Forgets the numbers of servers that are neither in the view nor remembered for a client.
    pub(super) fn forget_numbers(&self) {
        let _making = self.making.lock();
        let (view, next) = (self.view(), self.numbers.next());
        let mut used = HashSet::new();
        for service in view.services().chain(view.stored_services()) {
            used.insert(service.number);
            used.extend(service.servers.iter().map(|server| server.number));
        }
        used.extend(view.names().filter_map(|(_, named)| Some(named.release()?.choices.number)));
        if self.numbers.len() < 2 * used.len() + 4096 {
            return;
        }
        self.assignments.each_number(|number| {
            used.insert(number);
        });
        self.numbers.retain(next, |number| used.contains(&number));
    }
}

fn key(change: &Change) -> (String, String) {
    (change.kind.clone(), change.key.clone())
}

/// Deletions that are meant, for as long as this lives.
pub(super) struct Meant<'a> {
    shared: &'a Shared,
    keys: Vec<(String, String)>,
}

impl Drop for Meant<'_> {
    fn drop(&mut self) {
        let mut making = self.shared.making.lock();
        for key in &self.keys {
            making.meant.remove(key);
        }
    }
}
