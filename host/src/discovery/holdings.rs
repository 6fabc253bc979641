//! What the connections of this router hold in the table, and whether the table says so too.
//!
//! Most of it is written once and never looked at again. What is written in vain is tried again, what
//! was lost without anybody's will (in a mass loss, or while this router was cut off and taken
//! for dead) is written again, and what somebody else removed or took over is given up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    bell::{Bell, News},
    order::{Order, Wish},
    session::Place,
};
use crate::table::{Server, ServerRecord, ServiceId, View, lease::Lease};

/// Servers by service and id.
#[derive(Default)]
pub(super) struct Holdings {
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
    /// The table has said so once.
    written: bool,
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

/// What a view says of a holding.
enum Found {
    /// As it is wanted.
    Settled,
    /// Not yet.
    Open,
    /// It is to be written.
    Order(Wish),
    /// It is ours no longer.
    Lost(News),
    /// Nothing is left to do.
    Done,
}

impl Holdings {
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
        let holding = Holding { connection, record, lease, wanted: Wanted::There, written: false, bell };
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

    /// Compares what is held of these services with a view. While this router is `estranged`, the
    /// others may have removed what they took for lost.
    pub(super) fn compare<'a>(
        &mut self,
        view: &View,
        services: impl Iterator<Item = &'a ServiceId>,
        estranged: bool,
    ) -> Vec<Order> {
        let mut places = Vec::new();
        for service in services {
            let servers = self.held.get(service).into_iter().flat_map(BTreeMap::keys);
            places
                .extend(servers.map(|server| Place { service: service.clone(), server: Arc::clone(server) }));
        }
        places.into_iter().filter_map(|place| self.settle(view, place, estranged, false)).collect()
    }

    /// What is still to be written.
    pub(super) fn again(&mut self, view: &View, estranged: bool) -> Vec<Order> {
        let open: Vec<Place> = self.open.iter().cloned().collect();
        open.into_iter().filter_map(|place| self.settle(view, place, estranged, true)).collect()
    }

    fn settle(&mut self, view: &View, place: Place, estranged: bool, again: bool) -> Option<Order> {
        let Some(holding) = self.holding(&place) else {
            self.open.remove(&place);
            return None;
        };
        match holding.find(stored(view, &place), estranged, again) {
            Found::Settled => drop(self.open.remove(&place)),
            Found::Open => drop(self.open.insert(place)),
            Found::Order(wish) => {
                self.open.insert(place.clone());
                return Some(Order { place, wish });
            }
            Found::Lost(news) => {
                holding.bell.tell(news);
                self.forget(&place);
            }
            Found::Done => self.forget(&place),
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
    fn find(&mut self, stored: Option<&Arc<Server>>, estranged: bool, again: bool) -> Found {
        let ours = stored.filter(|stored| is_of(stored, &self.lease));
        match (self.wanted, ours) {
            (Wanted::There, Some(ours)) => {
                self.written = true;
                // A loss that nobody meant.
                if ours.held { Found::Order(self.put(ours)) } else { Found::Settled }
            }
            (Wanted::There, None) if !self.written && again => {
                Found::Order(Wish::Put(Box::new(self.record.clone())))
            }
            (Wanted::There, None) if !self.written => Found::Open,
            (Wanted::There, None) if stored.is_some() => Found::Lost(News::Taken),
            (Wanted::There, None) if estranged => {
                self.written = false;
                Found::Open
            }
            (Wanted::There, None) => Found::Lost(News::Removed),
            (Wanted::Ended(at), Some(ours)) => match &ours.record.lease {
                Some(lease) if !lease.has_ended() => Found::Order(Wish::End(lease.clone(), at)),
                _ => Found::Done,
            },
            (Wanted::Gone, Some(ours)) => match &ours.record.lease {
                Some(lease) => Found::Order(Wish::Remove(lease.clone())),
                None => Found::Done,
            },
            // Its registration may still be on its way.
            (Wanted::Ended(_) | Wanted::Gone, None) if !self.written && !again => Found::Open,
            (Wanted::Ended(_) | Wanted::Gone, None) => Found::Done,
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
