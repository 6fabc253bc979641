//! Who needs what, and what there is of it: so that a change to a service costs only those who
//! need that service.
//!
//! The index follows the view. Of each service it keeps the [`Offer`] and the revision at which
//! what is told of it changed last, so that one who was told everything up to a revision can be told
//! the rest and nothing twice. What is said to a connection is always made from the latest state, so
//! nothing stale can be told after what supersedes it, and a slow reader misses intermediate states
//! and nothing else.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::RwLock;

use super::{bell::Bell, offer::Offer};
use crate::table::{ServiceId, View, adapter::Revision};

/// So many services that are gone are remembered.
const GONE: usize = 10_000;

/// Offers by requirement, and the connections that need them.
pub(super) struct Index(RwLock<State>);

struct State {
    revision: Revision,
    /// What changed up to here is not known.
    floor: Revision,
    settled: bool,
    /// None of a service that was never there.
    offers: HashMap<ServiceId, Arc<Offer>>,
    needed: HashMap<ServiceId, HashMap<u64, Arc<Bell>>>,
}

/// What the index holds for one connection, all of one moment.
pub(super) struct Looked {
    /// Of the view that this was made from.
    pub(super) revision: Revision,
    /// What changed up to here is not known.
    pub(super) floor: Revision,
    /// The process runs for long enough that what is not there is gone.
    pub(super) settled: bool,
    /// In the order in which they were asked for.
    pub(super) offers: Vec<Option<Arc<Offer>>>,
}

impl Index {
    /// Begins with a view; what was before it is not known.
    pub(super) fn new(view: &View) -> Self {
        let state = State {
            revision: view.revision,
            floor: view.revision,
            settled: false,
            offers: HashMap::new(),
            needed: HashMap::new(),
        };
        let index = Self(RwLock::new(state));
        index.apply(&View::default(), view);
        index
    }

    /// Takes a new view; returns the services of which something changed.
    pub(super) fn apply(&self, before: &View, now: &View) -> BTreeSet<ServiceId> {
        let changed = changed(before, now);
        let mut concerned = changed.clone();
        concerned.extend(changed.iter().filter_map(|id| id.name().parse().ok()));
        concerned.extend(promoted(before, now));
        let offers: Vec<_> = concerned.into_iter().map(|id| (Offer::of(now, &id), id)).collect();
        let mut bells = Vec::new();
        let mut state = self.0.write();
        state.restart_if_older(now.revision);
        state.revision = now.revision;
        for (offer, id) in offers {
            if state.put(&id, offer) {
                bells.extend(state.needed.get(&id).into_iter().flat_map(HashMap::values).cloned());
            }
        }
        state.forget_gone();
        drop(state);
        bells.iter().for_each(|bell| bell.ring());
        changed
    }

    /// From now on what is not there is gone.
    pub(super) fn settle(&self) {
        let mut state = self.0.write();
        state.settled = true;
        let bells: Vec<_> = state.needed.values().flat_map(HashMap::values).cloned().collect();
        drop(state);
        bells.iter().for_each(|bell| bell.ring());
    }

    /// A connection needs a service: its bell rings when something changes.
    pub(super) fn need(&self, service: ServiceId, connection: u64, bell: &Arc<Bell>) {
        self.0.write().needed.entry(service).or_default().insert(connection, Arc::clone(bell));
    }

    /// A connection no longer needs a service.
    pub(super) fn unneed(&self, service: &ServiceId, connection: u64) {
        let mut state = self.0.write();
        let Some(connections) = state.needed.get_mut(service) else { return };
        connections.remove(&connection);
        if connections.is_empty() {
            state.needed.remove(service);
        }
    }

    /// What there is of these services now.
    pub(super) fn look<'a>(&self, services: impl Iterator<Item = &'a ServiceId>) -> Looked {
        let state = self.0.read();
        Looked {
            revision: state.revision,
            floor: state.floor,
            settled: state.settled,
            offers: services.map(|service| state.offers.get(service).cloned()).collect(),
        }
    }
}

impl State {
    /// Takes an offer; returns whether it tells something new.
    fn put(&mut self, id: &ServiceId, mut offer: Offer) -> bool {
        let known = self.offers.get(id);
        let same = known.map_or(offer.servers.is_empty(), |known| known.tells_as(&offer));
        match known {
            Some(known) if same => offer.changed = known.changed,
            None if same => return false,
            _ => {}
        }
        self.offers.insert(id.clone(), Arc::new(offer));
        !same
    }

    /// A table whose revisions went back is another one.
    fn restart_if_older(&mut self, revision: Revision) {
        if revision < self.revision {
            self.floor = revision;
        }
    }

    fn forget_gone(&mut self) {
        let gone = |offer: &Arc<Offer>| offer.servers.is_empty();
        if self.offers.len() < GONE || self.offers.values().filter(|offer| gone(offer)).count() < GONE {
            return;
        }
        let latest = self.offers.values().filter(|offer| gone(offer)).map(|offer| offer.changed).max();
        self.floor = self.floor.max(latest.unwrap_or_default());
        self.offers.retain(|_, offer| !gone(offer));
    }
}

/// Services that are another object in one view than in the other: both are in the order of ids.
fn changed(before: &View, now: &View) -> BTreeSet<ServiceId> {
    let (mut old, mut new) = (before.services().peekable(), now.services().peekable());
    let mut changed = BTreeSet::new();
    loop {
        let (gone, came) = match (old.peek(), new.peek()) {
            (None, None) => return changed,
            (Some(_), None) => (true, false),
            (None, Some(_)) => (false, true),
            (Some(one), Some(other)) => (one.id <= other.id, other.id <= one.id),
        };
        let (one, other) = (gone.then(|| old.next()).flatten(), came.then(|| new.next()).flatten());
        let same = one.zip(other).is_some_and(|(one, other)| Arc::ptr_eq(one, other));
        if !same {
            changed.extend(one.or(other).map(|service| service.id.clone()));
        }
    }
}

/// Names whose live versions changed.
fn promoted(before: &View, now: &View) -> Vec<ServiceId> {
    let names = before.releases().keys().chain(now.releases().keys());
    let changed = names.filter(|name| before.release(name) != now.release(name));
    changed.filter_map(|name| name.parse().ok()).collect()
}
