//! Mass loss: most servers of the registry gone in one update, as when a router or the datastore
//! misbehaves. They are kept as suspect for the grace period and only then given up, unless they
//! come back. What was deleted by an explicit write is obeyed at once: the router that writes it adds
//! a mark that names it, because a deletion of what the table has lost already is no change of its own.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{ServiceId, View, adapter::Change};
use crate::units::Span;

/// A loss of fewer servers is never a mass loss: small registries change like this every day.
pub(super) const FEWEST: usize = 3;
/// The kind of the entry that a router writes together with deletions that are meant.
pub(super) const EXPLICIT: &str = "explicit";

/// So many of these a router writes in turn.
pub(super) const MARKS: u32 = 16;

/// The value of that entry.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Mark {
    /// When it was written, in milliseconds since the Unix epoch, so that each differs.
    pub(super) at: u64,
    /// What is meant, as `KIND/KEY`; none: every deletion that comes with it.
    #[serde(default)]
    pub(super) deleted: Option<HashSet<String>>,
}

impl Mark {
    fn read(change: &Change) -> Option<Self> {
        let value = change.value.as_ref().filter(|_| change.kind == EXPLICIT)?;
        serde_json::from_str(value).ok()
    }

    fn means(&self, change: &Change) -> bool {
        let named = |deleted: &HashSet<String>| deleted.contains(&name(change));
        self.deleted.as_ref().is_none_or(named)
    }
}

/// As a mark names a deletion.
pub(super) fn name(change: &Change) -> String {
    format!("{}/{}", change.kind, change.key)
}

/// Whether a deletion is one that a mark should name.
pub(super) fn is_deletion(change: &Change) -> bool {
    change.value.is_none() && matches!(change.kind.as_str(), "service" | "server" | "release")
}

/// What is kept although the table has lost it.
#[derive(Default)]
pub(super) struct Hold {
    kept: HashMap<(String, String), Instant>,
}

/// What to do about changes.
#[derive(Debug, Default)]
pub(super) struct Obeyed {
    /// Make these.
    pub(super) changes: Vec<Change>,
    /// Mark these servers as suspect.
    pub(super) suspects: Vec<(ServiceId, String)>,
}

impl Hold {
    /// Takes the deletions of a mass loss out of `changes`. `meant` says which deletions this
    /// router was told to write.
    pub(super) fn screen(
        &mut self,
        view: &View,
        changes: &[Change],
        grace: Duration,
        meant: impl Fn(&Change) -> bool,
    ) -> Obeyed {
        self.release(changes);
        let marks: Vec<Mark> = changes.iter().filter_map(Mark::read).collect();
        let given_up = self.given_up(&marks);
        let changes: Vec<Change> = changes.iter().chain(&given_up).cloned().collect();
        let meant = |change: &Change| meant(change) || marks.iter().any(|mark| mark.means(change));
        let lost: HashSet<_> = lost(view, &changes).filter(|place| !meant(&changes[*place])).collect();
        let suspects: Vec<_> = lost.iter().filter_map(|place| server(view, &changes[*place])).collect();
        if suspects.len() < FEWEST || suspects.len() * 2 <= view.counts().stored {
            return Obeyed { changes, suspects: Vec::new() };
        }
        let until = Instant::now() + grace;
        self.kept.extend(lost.iter().map(|place| (key(&changes[*place]), until)));
        let (servers, grace) = (suspects.len(), Span(grace));
        tracing::warn!(servers, %grace, "most servers went from the routing table at once: kept as suspect");
        let obeyed = changes.iter().enumerate().filter(|(place, _)| !lost.contains(place));
        Obeyed { changes: obeyed.map(|(_, change)| change.clone()).collect(), suspects }
    }

    /// What is there again, or was deleted once more, is no longer kept.
    fn release(&mut self, changes: &[Change]) {
        for change in changes {
            self.kept.remove(&key(change));
        }
    }

    /// What is kept and was deleted once more by somebody who meant it.
    fn given_up(&mut self, marks: &[Mark]) -> Vec<Change> {
        let named = |kind: &str, key: &str| {
            let name = format!("{kind}/{key}");
            marks.iter().any(|mark| mark.deleted.as_ref().is_some_and(|deleted| deleted.contains(&name)))
        };
        let given_up = self.kept.extract_if(|(kind, key), _| named(kind, key));
        given_up.map(|((kind, key), _)| Change { kind, key, value: None, ephemeral: false }).collect()
    }

    /// When the first of them is to be given up.
    pub(super) fn next(&self) -> Option<Instant> {
        self.kept.values().min().copied()
    }

    /// The deletions whose grace has ended.
    pub(super) fn ended(&mut self) -> Vec<Change> {
        let now = Instant::now();
        let ended = self.kept.extract_if(|_, until| *until <= now);
        ended.map(|((kind, key), _)| Change { kind, key, value: None, ephemeral: false }).collect()
    }
}

fn key(change: &Change) -> (String, String) {
    (change.kind.clone(), change.key.clone())
}

/// Where services, releases and servers of the view are deleted and not brought back.
fn lost<'a>(view: &'a View, changes: &'a [Change]) -> impl Iterator<Item = usize> + 'a {
    let keys = changes.iter().enumerate().map(|(place, change)| ((&change.kind, &change.key), place));
    let last: HashMap<_, _> = keys.collect();
    last.into_values().filter(move |place| {
        let change = &changes[*place];
        let held = matches!(change.kind.as_str(), "service" | "release") || server(view, change).is_some();
        change.value.is_none() && held
    })
}

/// The server of the view that a change of kind `server` is about.
fn server(view: &View, change: &Change) -> Option<(ServiceId, String)> {
    let (service, server) = change.key.split_once('/').filter(|_| change.kind == "server")?;
    let service = service.parse().ok()?;
    view.stored(&service)?.server(server)?;
    Some((service, server.to_owned()))
}
