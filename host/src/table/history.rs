//! The latest changes to the table, for `GET /v1/watch`.
//!
//! It says what the table says: servers that went in a mass loss are deleted here at once, while
//! the view still keeps them as suspect. The services of the configuration are not in it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    View,
    adapter::{Change, Revision},
    horizon::Horizon,
    view::revision,
};

/// So many events are kept.
const KEPT: usize = 4096;
/// One who has seen more than this router, because another is ahead of it, is kept waiting for so long. Then its
/// revision is one of another table.
const AHEAD: Duration = Duration::from_secs(5);
/// How often it is looked whether this router has caught up.
const LOOK: Duration = Duration::from_millis(100);

/// Changes that were applied together. All of them belong to one revision: only after the last
/// may a reader say that it has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Of the view that holds them.
    pub revision: Revision,
    /// In the order in which they happened; never empty.
    pub events: Vec<Event>,
}

/// One change to a service, server, release or router.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Event {
    /// What was done.
    pub op: Op,
    /// `service`, `server`, `release` or `router`.
    pub kind: String,
    /// Unique within its kind, such as `chat@2/10.0.0.7:8080`.
    pub key: String,
    /// The record; none once it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
}

/// What was done to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// It is there, with this value.
    Put,
    /// It is gone.
    Delete,
}

/// What a reader of the history gets.
#[derive(Clone, Debug)]
pub enum Update {
    /// What came next.
    Changes(Arc<Group>),
    /// What came next is no longer known, or the resume point is none of this table's: everything
    /// that is there now. The reader goes on from its revision.
    Resync(Arc<View>),
}

/// The latest groups of changes.
pub(super) struct History {
    kept: Mutex<Kept>,
    /// Counts the groups; what it says is not used, that it changes is.
    notice: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    groups: VecDeque<Arc<Group>>,
    events: usize,
    /// Up to the latest revision, whether or not it holds an event.
    horizon: Horizon,
    /// Differs when revisions are no longer those of the table before.
    era: u64,
}

impl History {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), notice: watch::Sender::new(0) })
    }

    /// Begins anew: what comes next follows this revision.
    pub(super) fn begin(&self, revision: Revision) {
        let mut kept = self.kept.lock();
        let mut horizon = std::mem::take(&mut kept.horizon);
        match kept.era {
            0 => horizon = Horizon::at(revision),
            _ => horizon.back(revision),
        }
        *kept = Kept { horizon, era: kept.era + 1, ..Kept::default() };
        drop(kept);
        self.notice.send_modify(|count| *count += 1);
    }

    /// Adds what led to a revision; where the changes say in between at which they happened, each group is of its own.
    pub(super) fn push(&self, changes: &[Change], latest: Revision) {
        let mut kept = self.kept.lock();
        let mut added = false;
        for changes in changes.split_inclusive(|change| revision(change).is_some()) {
            let at = changes.last().and_then(revision).unwrap_or(latest);
            added |= kept.push(changes, at);
        }
        kept.horizon.advance(latest);
        drop(kept);
        if added {
            self.notice.send_modify(|count| *count += 1);
        }
    }

    /// Adds the difference that a revision makes to the one before, when what happened in between was not seen.
    pub(super) fn jump(&self, changes: &[Change], latest: Revision) {
        let mut kept = self.kept.lock();
        kept.push(changes, latest);
        kept.horizon.jump(latest);
        drop(kept);
        self.notice.send_modify(|count| *count += 1);
    }

    pub(super) fn watch(
        self: &Arc<Self>,
        after: Option<Revision>,
        views: watch::Receiver<Arc<View>>,
    ) -> Watch {
        let notice = self.notice.subscribe();
        let kept = self.kept.lock();
        let (after, era) = (after.unwrap_or(kept.horizon.latest), kept.era);
        // Only who comes may be ahead, not who was here.
        let patience = (after > kept.horizon.latest).then(|| Instant::now() + AHEAD);
        drop(kept);
        Watch { history: Arc::clone(self), views, notice, after, era, patience }
    }
}

impl Kept {
    /// Returns whether there is an event in it.
    fn push(&mut self, changes: &[Change], revision: Revision) -> bool {
        let events: Vec<_> = changes.iter().filter_map(event).collect();
        if events.is_empty() {
            return false;
        }
        self.events += events.len();
        self.groups.push_back(Arc::new(Group { revision, events }));
        while self.events > KEPT && self.groups.len() > 1 {
            let Some(oldest) = self.groups.pop_front() else { break };
            self.events -= oldest.events.len();
            self.horizon.floor = self.horizon.floor.max(oldest.revision);
        }
        true
    }
}

fn event(change: &Change) -> Option<Event> {
    if !matches!(change.kind.as_str(), "service" | "server" | "release" | "router") {
        return None;
    }
    let value = change.value.as_deref().map(serde_json::from_str).transpose().ok()?;
    let op = if value.is_some() { Op::Put } else { Op::Delete };
    Some(Event { op, kind: change.kind.clone(), key: change.key.clone(), value })
}

/// Follows the history.
pub struct Watch {
    history: Arc<History>,
    views: watch::Receiver<Arc<View>>,
    notice: watch::Receiver<u64>,
    after: Revision,
    era: u64,
    /// Until when the view may catch up with what the reader has seen elsewhere.
    patience: Option<Instant>,
}

impl Watch {
    /// Waits for what comes next; none once the table has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            self.notice.mark_unchanged();
            if let Some(update) = self.step() {
                return Some(update);
            }
            tokio::select! {
                changed = self.notice.changed() => changed.ok()?,
                () = closed(&mut self.views) => return None,
                () = sleep(LOOK), if self.patience.is_some() => {}
            }
        }
    }

    /// The revision up to which everything was returned.
    pub fn revision(&self) -> Revision {
        self.after
    }

    fn step(&mut self) -> Option<Update> {
        let kept = self.history.kept.lock();
        let ahead = self.era == kept.era && self.after > kept.horizon.latest;
        if ahead && self.patience.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        self.patience = None;
        if self.era != kept.era || !kept.horizon.covers(self.after) {
            self.era = kept.era;
            drop(kept);
            let view = Arc::clone(&self.views.borrow());
            self.after = view.revision;
            return Some(Update::Resync(view));
        }
        let next = kept.groups.partition_point(|group| group.revision <= self.after);
        let group = Arc::clone(kept.groups.get(next)?);
        drop(kept);
        self.after = group.revision;
        Some(Update::Changes(group))
    }
}

async fn closed(views: &mut watch::Receiver<Arc<View>>) {
    while views.changed().await.is_ok() {}
}
