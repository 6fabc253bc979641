//! What keeps a server in the table, and how it leaves. Part of the server's record, so that every
//! router that shares the table can end what one of them began.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::RouterRecord;
use crate::units::Span;

/// What keeps a server in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Lease {
    /// A connection that a router holds.
    Connection(Held),
    /// Heartbeats.
    Ttl(Renewed),
}

/// A connection that a router holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Held {
    /// The router's id.
    pub router: String,
    /// Which start of it.
    pub incarnation: String,
    /// Unique within the incarnation.
    pub connection: u64,
    /// When the connection ended, in milliseconds since the Unix epoch; none: it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
}

/// Heartbeats that must come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Renewed {
    /// Without a heartbeat for so long the server is removed.
    #[schema(value_type = String)]
    pub ttl: Span,
    /// When the last one came, in milliseconds since the Unix epoch. Routers do not compare it with
    /// their own clocks: they count from when they saw it change.
    pub renewed: u64,
}

impl Lease {
    /// Whether both are of the same connection, ended or not; leases by heartbeat are all alike.
    pub fn is_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Connection(_), Self::Connection(other)) => self.is_held_as(other),
            (Self::Ttl(_), Self::Ttl(_)) => true,
            _ => false,
        }
    }

    /// Whether it is this connection, ended or not. A router's id may change while it runs; its incarnation is
    /// its alone.
    pub fn is_held_as(&self, other: &Held) -> bool {
        matches!(self, Self::Connection(held)
            if (&held.incarnation, held.connection) == (&other.incarnation, other.connection))
    }

    /// Whether it is a connection to this start of a router.
    pub fn is_with(&self, incarnation: &str) -> bool {
        matches!(self, Self::Connection(held) if held.incarnation == incarnation)
    }

    /// Whether its connection has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Connection(held) if held.ended.is_some())
    }

    /// Whether it is a connection to a router that is gone.
    pub fn is_orphaned<K: std::borrow::Borrow<str> + Ord>(
        &self,
        routers: &BTreeMap<K, RouterRecord>,
    ) -> bool {
        let Self::Connection(held) = self else { return false };
        routers.get(held.router.as_str()).is_none_or(|router| router.incarnation != held.incarnation)
    }
}

/// A server that is leaving: it gets no new clients, and in the end none at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Draining {
    /// Tells one drain of a server from another.
    pub stamp: u32,
    /// How long its clients may stay.
    #[schema(value_type = String)]
    pub deadline: Span,
    /// That time is over: its clients go elsewhere with their next message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over: bool,
}
