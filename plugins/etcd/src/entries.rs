//! Entries: read at one revision, followed by their changes, written all or none.

use std::collections::{BTreeMap, BTreeSet};

use message_flow_sdk::{
    etcd::{Comparison, Event, KeyValue, Operation, Put, Revision},
    routing_table::{Change, ChangeSet, Entry, Snapshot, TableError},
};

use crate::{
    cluster::{Cluster, delete, each_page, failed, one, put},
    keys::{Keys, Place},
};

/// A page of the largest entries still fits in a guest.
const PAGE: u32 = 250;
/// How long to wait for a change; the host allows half a minute.
const WAIT_MS: u32 = 25_000;
/// What `wit/routing-table.wit` promises for one write.
const CHANGES: usize = 64;

/// The kind of what is no entry, and why it is none.
const STRAY: &str = "stray";
const UNKNOWN: &str =
    "no kind of record is kept in this folder; look for a typing error, or another use of the prefix";
/// So many of those are told at most.
const STRAYS: usize = 256;

pub(crate) fn read(cluster: &impl Cluster, keys: &Keys) -> Result<Snapshot, TableError> {
    let (mut entries, mut strays) = (Vec::new(), 0);
    let read = each_page(cluster, keys.entries(), PAGE, |page| {
        let mut found: Vec<_> = page.entries.into_iter().filter_map(|found| entry(keys, found)).collect();
        found.retain(|entry| {
            strays += usize::from(entry.kind == STRAY);
            entry.kind != STRAY || strays <= STRAYS
        });
        entries.extend(found);
    });
    Ok(Snapshot { revision: read.map_err(failed)?, entries })
}

fn entry(keys: &Keys, found: KeyValue) -> Option<Entry> {
    match keys.place(&found.key) {
        Place::Entry { kind, key } => Some(Entry { kind, key, value: text(found.value) }),
        Place::Unknown => Some(Entry { kind: STRAY.into(), key: found.key, value: UNKNOWN.into() }),
        Place::Marker | Place::Notice => None,
    }
}

pub(crate) fn changes(cluster: &impl Cluster, keys: &Keys, after: Revision) -> Result<ChangeSet, TableError> {
    let batch = cluster.next(&keys.watched(), after, WAIT_MS).map_err(failed)?;
    let mut changes: Vec<Change> = Vec::with_capacity(batch.events.len());
    let mut timed = 0;
    let mut events = batch.events.into_iter().peekable();
    while let Some(event) = events.next() {
        let revision = event.revision;
        changes.extend(change(keys, event));
        let is_last = events.peek().is_none_or(|next| next.revision != revision);
        if is_last && changes.len() > timed {
            changes.push(happened_at(revision));
            timed = changes.len();
        }
    }
    Ok(ChangeSet { changes, revision: batch.revision })
}

/// Says of the changes before it at which revision they happened.
fn happened_at(revision: Revision) -> Change {
    Change { kind: "revision".to_owned(), key: revision.to_string(), value: None, ephemeral: false }
}

fn change(keys: &Keys, event: Event) -> Option<Change> {
    match (keys.place(&event.key), event.value) {
        (Place::Entry { kind, key }, value) => {
            Some(Change { kind, key, value: value.map(text), ephemeral: false })
        }
        (Place::Notice, Some(assignment)) => {
            let key = String::from_utf8(assignment).ok()?;
            Some(Change { kind: "assignment".to_owned(), key, value: None, ephemeral: false })
        }
        (Place::Unknown, value) => {
            let value = value.map(|_| UNKNOWN.to_owned());
            Some(Change { kind: STRAY.to_owned(), key: event.key, value, ephemeral: false })
        }
        (Place::Notice | Place::Marker, _) => None,
    }
}

pub(crate) fn write(
    cluster: &impl Cluster,
    keys: &Keys,
    changes: &[Change],
    expect: Option<Revision>,
) -> Result<Revision, TableError> {
    if changes.len() > CHANGES {
        return Err(TableError::Invalid(format!(
            "{} changes at once; at most {CHANGES} are taken",
            changes.len()
        )));
    }
    let Some(expect) = expect else {
        let outcome = cluster.transact(&[], &operations(keys, changes), &[]).map_err(failed)?;
        return Ok(outcome.revision);
    };
    let named = named(keys, changes);
    let unchanged = |key: &String| Comparison::NoneModifiedAfter((one(key.clone()), expect));
    let unchanged: Vec<_> = named.iter().map(unchanged).collect();
    let look: Vec<_> = named.into_iter().map(Operation::Get).collect();
    let outcome = cluster.transact(&unchanged, &operations(keys, changes), &look).map_err(failed)?;
    if outcome.succeeded {
        return Ok(outcome.revision);
    }
    // What routers are told of, where the cluster's revision grows with every assignment.
    let changed = outcome.found.iter().flatten().map(|found| found.modified).max();
    Err(TableError::Conflict(changed.unwrap_or(outcome.revision)))
}

/// The keys that must not have changed for these changes to hold. A deleted key leaves no revision
/// behind; the marker that is written with its deletion does. Earlier versions, which may run beside
/// this one, write `revision` in place of it.
fn named(keys: &Keys, changes: &[Change]) -> BTreeSet<String> {
    let entries = changes.iter().map(|change| keys.entry(&change.kind, &change.key));
    entries.flat_map(|entry| [keys.marker(&entry), entry]).chain([keys.revision()]).collect()
}

/// etcd takes one operation for each key: the last holds.
fn operations(keys: &Keys, changes: &[Change]) -> Vec<Operation> {
    let last: BTreeMap<_, _> =
        changes.iter().map(|change| (keys.entry(&change.kind, &change.key), change)).collect();
    let deleted = last.iter().filter(|(_, change)| change.value.is_none());
    let mut markers: BTreeSet<_> = deleted.map(|(key, _)| keys.marker(key)).collect();
    if last.is_empty() {
        // Who follows sees this write as well.
        markers.insert(keys.marker(""));
    }
    let operations = last.into_iter().map(|(key, change)| match &change.value {
        Some(value) => Operation::Put(Put { key, value: value.clone().into(), leased: change.ephemeral }),
        None => delete(key),
    });
    operations.chain(markers.into_iter().map(|marker| put(marker, b"{}".to_vec()))).collect()
}

/// What is no text is no record. That is for the host to say of this entry, which no JSON document
/// begins like; the others are read all the same.
fn text(value: Vec<u8>) -> String {
    String::from_utf8(value)
        .unwrap_or_else(|error| format!("not UTF-8 text: {} bytes", error.as_bytes().len()))
}
