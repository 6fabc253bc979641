//! The latest changes to the table, for `GET /v1/watch`.
//!
//! It says what the table says: servers that went in a mass loss are deleted here at once, while
//! the view still keeps them as suspect. The services of the configuration are not in it.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    View,
    adapter::{Change, Revision},
};

/// So many events are kept.
const KEPT: usize = 4096;

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
    /// Changes after this revision are known.
    floor: Revision,
    /// The latest revision, whether or not it holds an event.
    last: Revision,
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
        *kept = Kept { floor: revision, last: revision, era: kept.era + 1, ..Kept::default() };
        drop(kept);
        self.notice.send_modify(|count| *count += 1);
    }

    /// Adds what led to a revision.
    pub(super) fn push(&self, changes: &[Change], revision: Revision) {
        let events: Vec<_> = changes.iter().filter_map(event).collect();
        let mut kept = self.kept.lock();
        kept.last = revision;
        if events.is_empty() {
            return;
        }
        kept.events += events.len();
        kept.groups.push_back(Arc::new(Group { revision, events }));
        while kept.events > KEPT && kept.groups.len() > 1 {
            let Some(oldest) = kept.groups.pop_front() else { break };
            kept.events -= oldest.events.len();
            kept.floor = oldest.revision;
        }
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
        let (after, era) = (after.unwrap_or(kept.last), kept.era);
        drop(kept);
        Watch { history: Arc::clone(self), views, notice, after, era }
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
            }
        }
    }

    /// The revision up to which everything was returned.
    pub fn revision(&self) -> Revision {
        self.after
    }

    fn step(&mut self) -> Option<Update> {
        let kept = self.history.kept.lock();
        if self.era != kept.era || self.after < kept.floor || self.after > kept.last {
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
