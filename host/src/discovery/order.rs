//! What is to be written about one server, and what that comes to in a view. Pure.

use crate::table::{
    Server, ServerRecord, View,
    adapter::Change,
    lease::{Draining, Held, Lease},
    removal,
};

use super::session::Place;

/// What is to be written about one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) place: Place,
    pub(super) wish: Wish,
}

/// What is wished for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is there, exactly so.
    Put(Box<ServerRecord>),
    /// It is there again, if nothing else is and nobody meant it to go.
    Restore(Box<ServerRecord>),
    /// What says that this lease was removed on purpose has been heard.
    Forget(Held),
    /// Its connection has ended, if this is still its lease.
    End(Lease, u64),
    /// It is gone, if this is still its lease.
    Remove(Lease),
    /// It is gone, if this is still its lease and nothing speaks for it any more.
    Expire(Lease),
    /// It drains, if this is still its lease.
    Drain(Option<Lease>, Draining),
    /// The deadline of this drain is over.
    Over(Draining),
    /// A heartbeat came, at this time.
    Renew(u64),
}

impl Order {
    /// Whether it may be written whatever else changed meanwhile.
    pub(super) fn is_unconditional(&self) -> bool {
        matches!(self.wish, Wish::Put(_))
    }

    /// About how many bytes it writes.
    pub(super) fn size(&self) -> usize {
        match &self.wish {
            Wish::Put(record) | Wish::Restore(record) => {
                256 + record.metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
            }
            _ => 1024,
        }
    }

    /// The change that carries it out; none if there is nothing to do (any more).
    pub(super) fn change(&self, view: &View) -> Option<Change> {
        let stored = view.stored(&self.place.service).and_then(|service| service.server(&self.place.server));
        if let Wish::Put(record) = &self.wish {
            let same = stored.is_some_and(|stored| stored.record == **record && !stored.held);
            return (!same).then(|| self.put(record));
        }
        if let Wish::Restore(record) = &self.wish {
            let free = stored.is_none() && !self.is_removed(view, record.lease.as_ref());
            return free.then(|| self.put(record));
        }
        if let Wish::Forget(held) = &self.wish {
            let known = view.removed().get(&self.key()) == Some(held);
            return known.then(|| removal::forgotten(&self.place.service, &self.place.server));
        }
        let stored = stored?;
        match &self.wish {
            Wish::Remove(lease) => {
                stored.record.lease.as_ref().filter(|own| *own == lease).map(|_| self.write(None))
            }
            Wish::Expire(lease) => {
                (stored.record.lease.as_ref() == Some(lease) && is_over(stored)).then(|| self.write(None))
            }
            wish => wished(wish, stored).map(|record| self.put(&record)),
        }
    }

    /// Whether somebody removed this lease on purpose.
    fn is_removed(&self, view: &View, lease: Option<&Lease>) -> bool {
        view.removed().get(&self.key()).is_some_and(|held| lease.is_some_and(|lease| lease.is_held_as(held)))
    }

    fn key(&self) -> String {
        format!("{}/{}", self.place.service, self.place.server)
    }

    fn put(&self, record: &ServerRecord) -> Change {
        self.write(Some(serde_json::to_string(record).expect("records have text keys only")))
    }

    fn write(&self, value: Option<String>) -> Change {
        Change { kind: "server".to_owned(), key: self.key(), value, ephemeral: false }
    }
}

impl Wish {
    /// For the log.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Put(_) | Self::Restore(_) => "put",
            Self::Forget(_) => "forget",
            Self::End(..) => "suspect",
            Self::Remove(_) | Self::Expire(_) => "remove",
            Self::Drain(..) => "drain",
            Self::Over(_) => "move its clients",
            Self::Renew(_) => "renew",
        }
    }
}

/// Whether no connection speaks for it; of heartbeats only whoever counts them can tell.
fn is_over(stored: &Server) -> bool {
    match &stored.record.lease {
        Some(lease @ Lease::Connection(_)) => stored.orphaned || lease.has_ended(),
        Some(Lease::Ttl(_)) => true,
        None => false,
    }
}

/// The record as it is to be from now on, if what is wished for still makes sense.
fn wished(wish: &Wish, stored: &Server) -> Option<ServerRecord> {
    let mut record = stored.record.clone();
    match wish {
        Wish::End(lease, at) => match &mut record.lease {
            Some(Lease::Connection(held)) if stored.record.lease.as_ref() == Some(lease) => {
                *held = Held { ended: Some(*at), ..held.clone() };
            }
            _ => return None,
        },
        Wish::Drain(lease, draining) => {
            let same = lease.is_none() || *lease == record.lease;
            if !same || record.draining.is_some() {
                return None;
            }
            record.draining = Some(draining.clone());
        }
        Wish::Over(draining) => match &mut record.draining {
            Some(known) if known.stamp == draining.stamp && !known.over => known.over = true,
            _ => return None,
        },
        Wish::Renew(at) => match &mut record.lease {
            Some(Lease::Ttl(renewed)) => renewed.renewed = (*at).max(renewed.renewed + 1),
            _ => return None,
        },
        Wish::Put(_) | Wish::Restore(_) | Wish::Forget(_) | Wish::Remove(_) | Wish::Expire(_) => return None,
    }
    Some(record)
}
