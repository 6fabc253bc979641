//! Removal records: what says of a server that went that somebody meant it, although a connection holds
//! it. A server that merely went from the table is written again by the router that it is connected to;
//! one that an operator removes must not be. So the removal is written with the deletion, and names the
//! very lease: the router finds it whenever and in whatever order it learns of both.

use std::collections::HashSet;

use super::{
    ServiceId, View,
    adapter::Change,
    lease::{Held, Lease},
};

/// The kind of these entries. The key is `SERVICE/SERVER`, the value the [`Held`] that was removed.
pub const KIND: &str = "removed";

/// The entry that says that this lease was removed on purpose.
pub fn of(service: &ServiceId, server: &str, held: &Held) -> Change {
    let value = Some(serde_json::to_string(held).expect("texts and numbers"));
    Change { kind: KIND.to_owned(), key: format!("{service}/{server}"), value, ephemeral: false }
}

/// The deletion of such an entry.
pub fn forgotten(service: &ServiceId, server: &str) -> Change {
    Change { kind: KIND.to_owned(), key: format!("{service}/{server}"), value: None, ephemeral: false }
}

/// Changes that somebody wants, with what says so to the connections that hold what they delete.
pub fn meant(view: &View, changes: Vec<Change>) -> Vec<Change> {
    let mut meant = Vec::with_capacity(changes.len());
    let mut named: HashSet<String> = HashSet::new();
    for change in changes {
        // Before the deletion: if the two are not written at once, this one alone comes to the same.
        meant.extend(removal(view, &change).filter(|removal| named.insert(removal.key.clone())));
        meant.push(change);
    }
    meant
}

fn removal(view: &View, change: &Change) -> Option<Change> {
    if change.kind != "server" || change.value.is_some() {
        return None;
    }
    let (service, server) = change.key.split_once('/')?;
    let service: ServiceId = service.parse().ok()?;
    match &view.stored(&service)?.server(server)?.record.lease {
        Some(Lease::Connection(held)) => Some(of(&service, server, held)),
        Some(Lease::Ttl(_)) | None => None,
    }
}
