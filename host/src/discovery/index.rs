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

use super::{
    Failing,
    bell::Bell,
    memory::{Known, Seen},
    offer::Offer,
};
use crate::table::{ServiceId, View, horizon::Horizon};

/// So many services that are gone are remembered.
const GONE: usize = 10_000;

/// Offers by requirement, and the connections that need them.
pub(super) struct Index(RwLock<State>);

struct State {
    horizon: Horizon,
    settled: bool,
    /// Servers that fail their active checks.
    failing: Failing,
    /// None of a service that was never there.
    offers: HashMap<ServiceId, Arc<Offer>>,
    needed: HashMap<ServiceId, HashMap<u64, Arc<Bell>>>,
}

/// What the index holds for one connection, all of one moment.
pub(super) struct Looked {
    /// Up to the revision of the view that this was made from.
    pub(super) horizon: Horizon,
    /// The process runs for long enough that what is not there is gone.
    pub(super) settled: bool,
    /// In the order in which they were asked for.
    pub(super) offers: Vec<Option<Arc<Offer>>>,
}

impl Index {
    /// Begins with a view; what was before it is not known.
    pub(super) fn new(view: &View) -> Self {
        let state = State {
            horizon: view.horizon().clone(),
            settled: false,
            failing: Failing::default(),
            offers: HashMap::new(),
            needed: HashMap::new(),
        };
        let index = Self(RwLock::new(state));
        index.apply(&View::default(), view);
        index
    }

    /// Takes what the run before knew. What is told now as it was told then has not changed since; what was
    /// told then and is not there may still come.
    pub(super) fn recall(&self, known: Known) {
        let mut state = self.0.write();
        let begun = state.horizon.floor;
        if !state.horizon.follow(known.horizon) {
            return;
        }
        for (id, seen) in known.offers {
            let offer = state.offers.entry(id).or_insert_with(|| {
                let awaited = seen.print.is_some();
                Arc::new(Offer { changed: begun, awaited, ..Offer::default() })
            });
            let offer = Arc::make_mut(offer);
            offer.local |= seen.local;
            if offer.told() == seen.print {
                offer.changed = seen.changed;
            }
        }
    }

    /// What is known now, for the next run.
    pub(super) fn known(&self) -> Known {
        let state = self.0.read();
        let seen = |(id, offer): (&ServiceId, &Arc<Offer>)| {
            // What may still come is awaited by the next run as well.
            let awaited = (offer.awaited && !state.settled).then_some(offer.print);
            let print = offer.told().or(awaited);
            (id.clone(), Seen { changed: offer.changed, print, local: offer.local })
        };
        Known { horizon: state.horizon.clone(), offers: state.offers.iter().map(seen).collect() }
    }

    /// Takes a new view; returns the services of which something changed.
    pub(super) fn apply(&self, before: &View, now: &View) -> BTreeSet<ServiceId> {
        let changed = changed(before, now);
        let mut concerned = changed.clone();
        concerned.extend(changed.iter().filter_map(|id| id.name().parse().ok()));
        concerned.extend(renamed(before, now));
        // Among them what came and went in between.
        concerned.extend(now.told_since(before).cloned());
        self.offer(now, concerned);
        changed
    }

    /// Takes note of which servers fail their active checks.
    pub(super) fn check(&self, view: &View, failing: &Failing) {
        let known = std::mem::replace(&mut self.0.write().failing, Arc::clone(failing));
        let services = known.keys().chain(failing.keys());
        let changed = services.filter(|id| known.get(*id) != failing.get(*id));
        let concerned = changed.flat_map(|id| [Some(id.clone()), id.name().parse().ok()]).flatten();
        self.offer(view, concerned.collect());
    }

    /// Makes these offers anew, and wakes those who need one that tells something new.
    fn offer(&self, view: &View, concerned: BTreeSet<ServiceId>) {
        let failing = Arc::clone(&self.0.read().failing);
        let offers: Vec<_> = concerned.into_iter().map(|id| (Offer::of(view, &failing, &id), id)).collect();
        let mut bells = Vec::new();
        let mut state = self.0.write();
        if !state.horizon.catch_up(view.horizon()) {
            // What was known is of other numbers.
            state.offers.values_mut().for_each(|offer| Arc::make_mut(offer).changed = view.revision);
        }
        for (offer, id) in offers {
            if state.put(&id, offer) {
                bells.extend(state.needed.get(&id).into_iter().flat_map(HashMap::values).cloned());
            }
        }
        state.forget_gone();
        drop(state);
        bells.iter().for_each(|bell| bell.ring());
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
            horizon: state.horizon.clone(),
            settled: state.settled,
            offers: services.map(|service| state.offers.get(service).cloned()).collect(),
        }
    }
}

impl State {
    /// Takes an offer; returns whether it tells something new.
    fn put(&mut self, id: &ServiceId, mut offer: Offer) -> bool {
        let known = self.offers.get(id);
        offer.local |= known.is_some_and(|known| known.local);
        let same = known.map_or(offer.servers.is_empty(), |known| known.tells_as(&offer));
        let before = known.map_or(0, |known| known.changed);
        match known {
            // What came and went again is no news here; to one who saw it come elsewhere it is.
            _ if same && (known.is_some() || offer.changed > 0 || offer.local) => {
                offer.changed = offer.changed.max(before);
                offer.awaited = known.is_some_and(|known| known.awaited);
            }
            _ if same => return false,
            // It was not the table that changed it, or nobody saw when that did.
            _ if offer.changed <= before => offer.changed = self.horizon.latest,
            _ => {}
        }
        self.offers.insert(id.clone(), Arc::new(offer));
        !same
    }

    fn forget_gone(&mut self) {
        let gone = |offer: &Arc<Offer>| offer.servers.is_empty();
        if self.offers.len() < GONE || self.offers.values().filter(|offer| gone(offer)).count() < GONE {
            return;
        }
        let latest = self.offers.values().filter(|offer| gone(offer)).map(|offer| offer.changed).max();
        self.horizon.floor = self.horizon.floor.max(latest.unwrap_or_default());
        self.offers.retain(|_, offer| !gone(offer));
    }
}

/// Services that are another object in one view than in the other.
fn changed(before: &View, now: &View) -> BTreeSet<ServiceId> {
    now.changed_since(before).map(|changed| changed.id.clone()).collect()
}

/// Names that mean something else.
fn renamed(before: &View, now: &View) -> Vec<ServiceId> {
    now.renamed_since(before).filter_map(|(name, _)| name.parse().ok()).collect()
}
