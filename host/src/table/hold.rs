//! Mass loss: most servers of the registry gone in one update, as when a router or the datastore
//! misbehaves. They are kept as suspect for the grace period and only then given up, unless they
//! come back. What was deleted by an explicit write is obeyed at once.

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
        let marked = changes.iter().any(|change| change.kind == EXPLICIT && change.value.is_some());
        let lost: HashSet<_> = lost(view, changes).filter(|place| !meant(&changes[*place])).collect();
        let suspects: Vec<_> = lost.iter().filter_map(|place| server(view, &changes[*place])).collect();
        if marked || suspects.len() < FEWEST || suspects.len() * 2 <= total(view) {
            return Obeyed { changes: changes.to_vec(), suspects: Vec::new() };
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

fn total(view: &View) -> usize {
    view.stored_services().map(|service| service.servers.len()).sum()
}
