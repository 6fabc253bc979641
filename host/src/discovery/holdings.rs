//! What the connections of this router hold in the table, and whether the table says so too.
//!
//! Most of it is written once and never looked at again. What is written in vain is tried again. What went
//! from the table while its connection is open is written again, whenever and however it went: it was taken
//! for dead while this router was cut off, or lost with the datastore. Only two things end that: a removal
//! record that names the lease (see [`crate::table::removal`]), as an operator's removal leaves it, and
//! another connection that registered the same server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    bell::{Bell, News},
    order::{Order, Wish},
    session::Place,
};
use crate::table::{
    Server, ServerRecord, ServiceId, View,
    lease::{Held, Lease},
};

/// Servers by service and id.
#[derive(Default)]
pub(super) struct Holdings {
    /// This start of the router.
    incarnation: String,
    held: BTreeMap<ServiceId, BTreeMap<Arc<str>, Holding>>,
    /// What the table does not say yet.
    open: BTreeSet<Place>,
    count: usize,
}

struct Holding {
    connection: u64,
    /// As registered; with the lease.
    record: ServerRecord,
    lease: Lease,
    wanted: Wanted,
    known: Known,
    bell: Arc<Bell>,
}

/// How a server is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    There,
    /// Suspect since this time, in milliseconds since the Unix epoch.
    Ended(u64),
    Gone,
}

/// What the table has said of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nothing yet.
    New,
    /// It was there when the table was last looked at.
    Written,
    /// It was there, and went.
    Missing,
}

/// What a view says of a holding.
enum Found {
    /// As it is wanted.
    Settled,
    /// Not yet.
    Open,
    /// It is to be written.
    Order(Wish),
    /// Another connection has registered it.
    Taken,
    /// Somebody removed it on purpose; with what is still to be written.
    Removed(Option<Wish>),
    /// Nothing is left to do.
    Done,
}

impl Holdings {
    /// Of this start of the router.
    pub(super) fn new(incarnation: &str) -> Self {
        Self { incarnation: incarnation.to_owned(), ..Self::default() }
    }

    /// A connection registers a server; a record there of the same connection keeps draining.
    pub(super) fn register(
        &mut self,
        view: &View,
        place: &Place,
        connection: u64,
        mut record: ServerRecord,
        lease: Lease,
        bell: Arc<Bell>,
    ) -> Order {
        let stored = stored(view, place).filter(|stored| is_of(stored, &lease));
        record.draining = stored.and_then(|stored| stored.record.draining.clone());
        record.lease = Some(lease.clone());
        let wish = Wish::Put(Box::new(record.clone()));
        let holding = Holding { connection, record, lease, wanted: Wanted::There, known: Known::New, bell };
        let servers = self.held.entry(place.service.clone()).or_default();
        match servers.insert(Arc::clone(&place.server), holding) {
            Some(before) if before.connection != connection && before.wanted == Wanted::There => {
                before.bell.tell(News::Taken);
            }
            Some(_) => {}
            None => self.count += 1,
        }
        self.open.insert(place.clone());
        Order { place: place.clone(), wish }
    }

    /// A connection has ended; at which time.
    pub(super) fn end(&mut self, view: &View, place: &Place, connection: u64, at: u64) -> Option<Order> {
        let leaving = stored(view, place).is_some_and(|stored| stored.record.draining.is_some());
        let wanted = if leaving { Wanted::Gone } else { Wanted::Ended(at) };
        self.want(place, connection, wanted)
    }

    /// A connection no longer serves it.
    pub(super) fn remove(&mut self, place: &Place, connection: u64) -> Option<Order> {
        self.want(place, connection, Wanted::Gone)
    }

    fn want(&mut self, place: &Place, connection: u64, wanted: Wanted) -> Option<Order> {
        let holding = self.holding(place).filter(|holding| holding.connection == connection)?;
        holding.wanted = wanted;
        // One that is not in the view yet may still be on its way there: the order finds out.
        let wish = match wanted {
            Wanted::Ended(at) => Wish::End(holding.lease.clone(), at),
            _ => Wish::Remove(holding.lease.clone()),
        };
        self.open.insert(place.clone());
        Some(Order { place: place.clone(), wish })
    }

    /// The lease of a server that this connection holds.
    pub(super) fn lease(&self, place: &Place, connection: u64) -> Option<&Lease> {
        let holding = self.held.get(&place.service)?.get(&place.server)?;
        (holding.connection == connection).then_some(&holding.lease)
    }

    /// Tells the connection that holds a server what happened to it.
    pub(super) fn tell(&self, place: &Place, news: News) {
        let holding = self.held.get(&place.service).and_then(|servers| servers.get(&place.server));
        if let Some(holding) = holding {
            holding.bell.tell(news);
        }
    }

    /// Whether something is not as the table says.
    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// How many servers there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether an open connection to this router holds this lease.
    pub(super) fn vouches(&self, place: &Place, lease: &Lease) -> bool {
        let holding = self.held.get(&place.service).and_then(|servers| servers.get(&place.server));
        holding.is_some_and(|holding| holding.wanted == Wanted::There && holding.lease.is_of(lease))
    }

    /// Compares what is held of these services with a view. What the view holds for this router and no
    /// connection does (it was written after all, when that was given up) is removed.
    pub(super) fn compare<'a>(
        &mut self,
        view: &View,
        services: impl Iterator<Item = &'a ServiceId>,
    ) -> Vec<Order> {
        let (mut places, mut orders) = (Vec::new(), Vec::new());
        for service in services {
            let place = |server: &Arc<str>| Place { service: service.clone(), server: Arc::clone(server) };
            let held = self.held.get(service);
            places.extend(held.into_iter().flat_map(BTreeMap::keys).map(place));
            let stored = view.stored(service).map_or(&[][..], |stored| &stored.servers);
            let unheld =
                stored.iter().filter(|server| held.is_none_or(|held| !held.contains_key(&server.id)));
            orders.extend(unheld.filter_map(|server| {
                let lease = server.record.lease.as_ref()?;
                let left = lease.is_with(&self.incarnation) && !lease.has_ended();
                left.then(|| Order { place: place(&server.id), wish: Wish::Remove(lease.clone()) })
            }));
        }
        orders.extend(places.into_iter().filter_map(|place| self.settle(view, place, false)));
        orders
    }

    /// This router goes by this id: what is held under another is written under this one.
    pub(super) fn rename(&mut self, router: &str, view: &View) -> Vec<Order> {
        let mut renamed = Vec::new();
        for (service, servers) in &mut self.held {
            for (server, holding) in servers {
                if holding.rename(router) {
                    renamed.push(Place { service: service.clone(), server: Arc::clone(server) });
                }
            }
        }
        renamed.into_iter().filter_map(|place| self.settle(view, place, false)).collect()
    }

    /// What is still to be written.
    pub(super) fn again(&mut self, view: &View) -> Vec<Order> {
        let open: Vec<Place> = self.open.iter().cloned().collect();
        open.into_iter().filter_map(|place| self.settle(view, place, true)).collect()
    }

    fn settle(&mut self, view: &View, place: Place, again: bool) -> Option<Order> {
        let incarnation = std::mem::take(&mut self.incarnation);
        let found = self.holding(&place).map(|holding| {
            let removed = view.removed().get(&format!("{}/{}", place.service, place.server));
            holding.find(stored(view, &place), removed, &incarnation, again)
        });
        self.incarnation = incarnation;
        match found {
            Some(Found::Settled) => drop(self.open.remove(&place)),
            Some(Found::Open) => drop(self.open.insert(place)),
            Some(Found::Order(wish) | Found::Removed(Some(wish))) => {
                self.open.insert(place.clone());
                return Some(Order { place, wish });
            }
            Some(Found::Taken | Found::Removed(None) | Found::Done) => self.forget(&place),
            None => drop(self.open.remove(&place)),
        }
        None
    }

    fn holding(&mut self, place: &Place) -> Option<&mut Holding> {
        self.held.get_mut(&place.service)?.get_mut(&place.server)
    }

    fn forget(&mut self, place: &Place) {
        self.open.remove(place);
        let Some(servers) = self.held.get_mut(&place.service) else { return };
        self.count -= usize::from(servers.remove(&place.server).is_some());
        if servers.is_empty() {
            self.held.remove(&place.service);
        }
    }
}

impl Holding {
    fn find(
        &mut self,
        stored: Option<&Arc<Server>>,
        removed: Option<&Held>,
        incarnation: &str,
        again: bool,
    ) -> Found {
        let ours = stored.filter(|stored| is_of(stored, &self.lease));
        match self.wanted {
            Wanted::There if removed.is_some_and(|held| self.lease.is_held_as(held)) => {
                self.bell.tell(News::Removed);
                self.wanted = Wanted::Gone;
                Found::Removed(ours.and_then(|ours| ours.record.lease.clone()).map(Wish::Remove))
            }
            Wanted::There => match ours {
                Some(ours) => {
                    self.known = Known::Written;
                    // A loss that nobody meant, or another id of this router.
                    let same = !ours.held && ours.record.lease.as_ref() == Some(&self.lease);
                    if same { Found::Settled } else { Found::Order(self.put(ours)) }
                }
                None => self.missing(stored, incarnation, again),
            },
            Wanted::Ended(_) | Wanted::Gone => match ours.map(|ours| &ours.record.lease) {
                Some(Some(lease)) => self.leaving(lease),
                Some(None) => Found::Done,
                // Its registration may still be on its way.
                None if self.known == Known::New && !again => Found::Open,
                None => Found::Done,
            },
        }
    }

    /// Whether it was held under another id of this router.
    fn rename(&mut self, router: &str) -> bool {
        match &mut self.lease {
            Lease::Connection(held) if held.router != router => {
                router.clone_into(&mut held.router);
                self.record.lease = Some(self.lease.clone());
                true
            }
            _ => false,
        }
    }

    /// It is wanted, and something else is there or nothing.
    fn missing(&mut self, stored: Option<&Arc<Server>>, incarnation: &str, again: bool) -> Found {
        let lease = stored.and_then(|stored| stored.record.lease.as_ref());
        match self.known {
            Known::New if again => Found::Order(Wish::Put(Box::new(self.record.clone()))),
            Known::New => Found::Open,
            // What an earlier connection to this router wrote came late.
            _ if lease.is_some_and(|lease| lease.is_with(incarnation)) => {
                Found::Order(Wish::Put(Box::new(self.record.clone())))
            }
            _ if stored.is_some() => {
                self.bell.tell(News::Taken);
                Found::Taken
            }
            Known::Missing if !again => Found::Open,
            _ => {
                self.known = Known::Missing;
                Found::Order(Wish::Restore(Box::new(self.record.clone())))
            }
        }
    }

    /// It is there and not wanted, with this lease.
    fn leaving(&self, lease: &Lease) -> Found {
        match self.wanted {
            Wanted::Ended(_) if lease.has_ended() => Found::Done,
            Wanted::Ended(at) => Found::Order(Wish::End(lease.clone(), at)),
            _ => Found::Order(Wish::Remove(lease.clone())),
        }
    }

    fn put(&self, ours: &Server) -> Wish {
        let draining = ours.record.draining.clone();
        Wish::Put(Box::new(ServerRecord { draining, ..self.record.clone() }))
    }
}

fn stored<'a>(view: &'a View, place: &Place) -> Option<&'a Arc<Server>> {
    view.stored(&place.service)?.server(&place.server)
}

fn is_of(stored: &Server, lease: &Lease) -> bool {
    stored.record.lease.as_ref().is_some_and(|own| own.is_of(lease))
}
