//! Which servers of the view will be gone if nothing happens, and when. Every router watches
//! all of them, counting from when it saw the doubt arise, so that none depends on the clock or the
//! life of another; the table decides who is first. Knows no socket and no task.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{
    order::{Order, Wish},
    session::Place,
};
use crate::table::{
    Server, ServiceId, View,
    lease::{Draining, Lease},
};

/// When a removal that came to nothing is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is doubted.
#[derive(Default)]
pub(super) struct Doubts {
    known: HashMap<Place, Doubt>,
}

struct Doubt {
    cause: Cause,
    due: Instant,
}

/// What is waited for, and what makes it another.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// A connection ended, or its router did.
    Lost(Lease),
    /// A heartbeat.
    Silent(Lease),
    /// The end of a drain's deadline.
    Leaving(Draining),
}

/// What decides how long a doubt lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience<'a> {
    /// How long a server whose connection ended is kept.
    pub(super) grace: Duration,
    /// This router: what it holds itself it is the first to give up.
    pub(super) router: &'a str,
    /// How much later the others are.
    pub(super) others: Duration,
}

impl Doubts {
    /// Looks at the servers of these services anew.
    pub(super) fn look<'a>(
        &mut self,
        view: &View,
        services: impl Iterator<Item = &'a ServiceId>,
        patience: Patience<'_>,
        now: Instant,
    ) {
        for id in services {
            let servers = view.stored(id).map_or(&[][..], |service| &service.servers);
            self.known.retain(|place, _| {
                place.service != *id || servers.iter().any(|server| server.id == place.server)
            });
            for server in servers {
                let place = Place { service: id.clone(), server: server.id.clone() };
                match cause(server) {
                    None => drop(self.known.remove(&place)),
                    Some(cause) => self.note(place, cause, patience, now),
                }
            }
        }
    }

    fn note(&mut self, place: Place, cause: Cause, patience: Patience<'_>, now: Instant) {
        if self.known.get(&place).is_some_and(|known| known.cause == cause) {
            return;
        }
        let due = now + cause.lasts(patience);
        self.known.insert(place, Doubt { cause, due });
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.known.values().map(|doubt| doubt.due).min()
    }

    /// What is due now; due again later, unless by then the view says that it was done.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Order> {
        let mut orders = Vec::new();
        for (place, doubt) in self.known.iter_mut().filter(|(_, doubt)| doubt.due <= now) {
            doubt.due = now + AGAIN;
            let wish = match &doubt.cause {
                Cause::Lost(lease) | Cause::Silent(lease) => Wish::Expire(lease.clone()),
                Cause::Leaving(draining) => Wish::Over(draining.clone()),
            };
            orders.push(Order { place: place.clone(), wish });
        }
        orders
    }

    /// Begins to count anew: for some time nothing was known.
    pub(super) fn postpone(&mut self, patience: Patience<'_>, now: Instant) {
        for doubt in self.known.values_mut() {
            doubt.due = doubt.due.max(now + doubt.cause.lasts(patience));
        }
    }
}

impl Cause {
    fn lasts(&self, patience: Patience<'_>) -> Duration {
        match self {
            Self::Lost(Lease::Connection(held)) if held.router == patience.router => patience.grace,
            Self::Lost(_) => patience.grace + patience.others,
            Self::Silent(Lease::Ttl(renewed)) => renewed.ttl.0 + patience.others,
            Self::Silent(Lease::Connection(_)) => patience.grace,
            Self::Leaving(draining) => draining.deadline.0 + patience.others,
        }
    }
}

/// Why a server may not stay as it is.
fn cause(server: &Server) -> Option<Cause> {
    let lease = server.record.lease.as_ref();
    let lost = lease.filter(|lease| server.orphaned || lease.has_ended());
    if let Some(lease) = lost {
        return Some(Cause::Lost(lease.clone()));
    }
    if let Some(draining) = server.record.draining.as_ref().filter(|draining| !draining.over) {
        return Some(Cause::Leaving(draining.clone()));
    }
    lease.filter(|lease| matches!(lease, Lease::Ttl(_))).cloned().map(Cause::Silent)
}
