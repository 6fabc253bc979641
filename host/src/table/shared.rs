//! What the parts of a [`Table`](super::Table) share, and the one place where views are made.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
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
    identity::{Claim, Identity},
    stats::shown,
    time::{self, TableTime},
    view::{self, Draft},
};
use crate::condition::Name;

/// So many records that cannot be read are named in the log at once.
const PROBLEMS: usize = 20;
/// And so many by the condition that says that there are some.
const NAMED: usize = 5;

pub(super) struct Shared {
    pub(super) adapter: Arc<dyn Adapter>,
    pub(super) options: Options,
    pub(super) stats: Arc<Stats>,
    pub(super) assignments: Arc<Assignments>,
    pub(super) history: Arc<History>,
    pub(super) time: Arc<TableTime>,
    pub(super) views: watch::Sender<Arc<View>>,
    /// The revision of the view, also when the view says nothing new.
    pub(super) revisions: watch::Sender<Revision>,
    pub(super) status: watch::Sender<Status>,
    /// Who this router is.
    pub(super) identity: watch::Sender<Identity>,
    serves: AtomicBool,
    /// The drains that are over as far as this router goes, with their stamps.
    pub(super) drained: watch::Sender<BTreeMap<String, u32>>,
    /// Something was written here: the loop should ask for changes now.
    pub(super) poke: Notify,
    /// Counts the marks that were written beside deletions.
    pub(super) marks: AtomicU32,
    /// How often the view was found to be that of the table.
    pub(super) confirmed: AtomicU64,
    numbers: Arc<Numbers>,
    /// Held while a view is made.
    making: Mutex<Making>,
}

/// How a view follows the one before it.
#[derive(Clone, Copy)]
enum Begin {
    /// It is the first.
    Anew,
    /// What happened in between was not seen.
    Unseen,
    /// It is of another table, or of one that went back.
    Back,
    /// By these changes alone.
    After,
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
        let view = View::unread(&overlay, &numbers);
        let time = Arc::clone(assignments.time());
        let id = options.router.as_str().into();
        let identity = Identity { id, instead_of: None, claim: Claim::Open };
        let making = Making { overlay, hold: Hold::default(), meant: HashSet::new() };
        Self {
            adapter,
            options,
            stats,
            assignments,
            history: History::new(),
            time,
            revisions: watch::Sender::new(0),
            views: watch::Sender::new(Arc::new(view)),
            status: watch::Sender::new(Status::Starting(None)),
            identity: watch::Sender::new(identity),
            serves: AtomicBool::new(false),
            drained: watch::Sender::default(),
            poke: Notify::new(),
            marks: AtomicU32::new(0),
            confirmed: AtomicU64::new(0),
            numbers,
            making: Mutex::new(making),
        }
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Connections may hold something under this router's id from now on.
    pub(super) fn begin_to_serve(&self) {
        self.serves.store(true, Relaxed);
    }

    pub(super) fn serves(&self) -> bool {
        self.serves.load(Relaxed)
    }

    /// Makes the view that of a whole table.
    pub(super) fn resync(&self, entries: &[Entry], revision: Revision) {
        let before = self.view();
        let first = !matches!(*self.status.borrow(), Status::Current | Status::Stale { .. });
        let changes = before.difference(entries);
        let back = !first && went_back(&before, &changes, revision);
        // Before the view: what is remembered later was asked for later than this was read.
        match back {
            true => self.assignments.doubt(),
            // Assignments may have been replaced, pinned or forgotten meanwhile.
            false => self.assignments.clear(),
        }
        if back {
            tracing::warn!(
                revision,
                before = before.revision,
                "the routing table went back or is another: what was remembered of it is asked for again"
            );
        }
        let begin = match (first, back) {
            (true, _) => Begin::Anew,
            (false, true) => Begin::Back,
            (false, false) => Begin::Unseen,
        };
        let view = self.make(&changes, revision, begin);
        match view.time {
            Some(now) if back => self.time.reset(now),
            Some(now) => self.time.reach(now),
            None => {}
        }
        self.assignments.time_set();
        match first || back {
            true => self.history.begin(revision),
            false => self.history.jump(&changes, revision),
        }
        self.stats.table_resyncs.inc();
    }

    /// Makes the view that of a table after changes.
    pub(super) fn advance(&self, changes: &[Change], revision: Revision) {
        let (entries, assignments) = following::split(changes);
        assignments.for_each(|key| self.assignments.changed(key));
        let passes =
            |change: &Change| time::is(&change.kind, &change.key) || view::revision(change).is_some();
        let news = entries.iter().filter(|change| !passes(change)).count();
        let view = match news == 0 {
            true => self.pass(&entries, revision),
            false => self.make(&entries, revision, Begin::After),
        };
        if let Some(now) = view.time {
            self.time.reach(now);
        }
        self.history.push(&entries, revision);
        self.stats.table_changes.inc_by(news as u64);
    }

    fn make(&self, changes: &[Change], revision: Revision, begin: Begin) -> Arc<View> {
        let mut making = self.making.lock();
        let view = self.view();
        let Making { overlay, hold, meant } = &mut *making;
        let is_meant = |change: &Change| meant.contains(&key(change));
        let Obeyed { changes, suspects } = hold.screen(&view, changes, self.options.grace, is_meant);
        let mut draft = Draft::new(&view, &self.numbers);
        changes.iter().for_each(|change| draft.change(change));
        suspects.iter().for_each(|(service, server)| draft.hold(service, server));
        match begin {
            Begin::Anew => draft.begin(revision),
            Begin::Unseen => draft.jump(revision),
            Begin::Back => draft.back(revision),
            Begin::After => {}
        }
        self.publish(draft.finish(revision, overlay).of_table())
    }

    /// The view is as it was, at another revision and time: nobody who follows views is told.
    fn pass(&self, times: &[Change], revision: Revision) -> Arc<View> {
        let _making = self.making.lock();
        let read = |change: &Change| time::read(&change.kind, &change.key, change.value.as_deref()?);
        let before = self.view();
        let view = Arc::new(before.at(revision, times.iter().filter_map(read).next_back().or(before.time)));
        self.views.send_if_modified(|known| {
            *known = Arc::clone(&view);
            false
        });
        self.pass_revision(revision);
        view
    }

    fn pass_revision(&self, revision: Revision) {
        self.stats.view_revision.set(shown(revision));
        self.revisions.send_replace(revision);
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

    /// A view as it is after changes that nobody has told yet.
    pub(super) fn preview(&self, view: &View, changes: &[Change], revision: Revision) -> View {
        let overlay = self.making.lock().overlay.clone();
        view.apply(changes, revision, &overlay, &self.numbers)
    }

    pub(super) fn set_overlay(&self, overlay: Overlay) {
        let mut making = self.making.lock();
        making.overlay = overlay;
        let view = self.view();
        self.publish(view.apply(&[], view.revision, &making.overlay, &self.numbers));
    }

    fn publish(&self, view: View) -> Arc<View> {
        let (stats, counts) = (&self.stats, view.counts());
        stats.view_services.set(shown(view.len()));
        stats.view_servers.set(shown(counts.servers));
        stats.view_suspects.set(shown(counts.suspects));
        stats.view_problems.set(shown(view.problems().len()));
        self.tell_problems(&view);
        let view = Arc::new(view);
        self.views.send_replace(Arc::clone(&view));
        self.pass_revision(view.revision);
        view
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
                let named: Vec<_> = problems.values().take(NAMED).map(ToString::to_string).collect();
                let more = if records > NAMED { "; GET /v1/routers and the log name the others" } else { "" };
                let named = named.join("; ");
                let detail = format!("{records} records of the routing table cannot be read: {named}{more}");
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

/// Whether the table is not the one that led to a view: its revision went back, or says something else.
fn went_back(before: &View, changes: &[Change], revision: Revision) -> bool {
    // What is saved of a view holds no routers.
    let other = |change: &Change| matches!(change.kind.as_str(), "service" | "server" | "release");
    revision < before.revision || (revision == before.revision && changes.iter().any(other))
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
