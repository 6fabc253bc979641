//! Entries: read at one revision, followed by their changes, written all or none.

use std::collections::BTreeMap;

use message_flow_sdk::{
    etcd::{Comparison, Event, KeyValue, Operation, Put, Revision},
    routing_table::{Change, ChangeSet, Entry, Snapshot, TableError},
};

use crate::{
    cluster::{Cluster, delete, each_page, failed},
    keys::{Keys, Place},
};

/// A page of the largest entries still fits in a guest.
const PAGE: u32 = 250;
/// How long to wait for a change; the host allows half a minute.
const WAIT_MS: u32 = 25_000;
/// What `wit/routing-table.wit` promises for one write.
const CHANGES: usize = 64;

pub(crate) fn read(cluster: &impl Cluster, keys: &Keys) -> Result<Snapshot, TableError> {
    let mut entries = Vec::new();
    let read = each_page(cluster, keys.entries(), PAGE, |page| {
        entries.extend(page.entries.into_iter().filter_map(|found| entry(keys, found)));
    });
    Ok(Snapshot { revision: read.map_err(failed)?, entries })
}

fn entry(keys: &Keys, found: KeyValue) -> Option<Entry> {
    let Place::Entry { kind, key } = keys.place(&found.key) else { return None };
    Some(Entry { kind, key, value: text(found.value) })
}

pub(crate) fn changes(cluster: &impl Cluster, keys: &Keys, after: Revision) -> Result<ChangeSet, TableError> {
    let batch = cluster.next(&keys.watched(), after, WAIT_MS).map_err(failed)?;
    let changes = batch.events.into_iter().filter_map(|event| change(keys, event));
    Ok(ChangeSet { changes: changes.collect(), revision: batch.revision })
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
        (Place::Notice | Place::Revision | Place::Unknown, _) => None,
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
    // `revision` is among the entries, so deletions count as well.
    let unchanged = expect.map(|revision| Comparison::NoneModifiedAfter((keys.entries(), revision)));
    let unchanged: Vec<_> = unchanged.into_iter().collect();
    let outcome = cluster.transact(&unchanged, &operations(keys, changes), &[]).map_err(failed)?;
    if outcome.succeeded { Ok(outcome.revision) } else { Err(TableError::Conflict(outcome.revision)) }
}

/// etcd takes one operation for each key: the last holds.
fn operations(keys: &Keys, changes: &[Change]) -> Vec<Operation> {
    let last: BTreeMap<_, _> =
        changes.iter().map(|change| (keys.entry(&change.kind, &change.key), change)).collect();
    let operations = last.into_iter().map(|(key, change)| match &change.value {
        Some(value) => Operation::Put(Put { key, value: value.clone().into(), leased: change.ephemeral }),
        None => delete(key),
    });
    let marker = Operation::Put(Put { key: keys.revision(), value: b"{}".to_vec(), leased: false });
    operations.chain([marker]).collect()
}

/// What is no text is no record. That is for the host to say of this entry, which no JSON document
/// begins like; the others are read all the same.
fn text(value: Vec<u8>) -> String {
    String::from_utf8(value)
        .unwrap_or_else(|error| format!("not UTF-8 text: {} bytes", error.as_bytes().len()))
}
