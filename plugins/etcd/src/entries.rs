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
    let mut invalid = None;
    let read = each_page(cluster, keys.entries(), PAGE, |page| {
        for found in page.entries {
            match entry(keys, found) {
                Ok(entry) => entries.extend(entry),
                Err(error) => invalid = Some(error),
            }
        }
    });
    let revision = read.map_err(failed)?;
    match invalid {
        Some(error) => Err(error),
        None => Ok(Snapshot { entries, revision }),
    }
}

fn entry(keys: &Keys, found: KeyValue) -> Result<Option<Entry>, TableError> {
    let Place::Entry { kind, key } = keys.place(&found.key) else { return Ok(None) };
    Ok(Some(Entry { kind, key, value: text(&found.key, found.value)? }))
}

pub(crate) fn changes(cluster: &impl Cluster, keys: &Keys, after: Revision) -> Result<ChangeSet, TableError> {
    let batch = cluster.next(&keys.watched(), after, WAIT_MS).map_err(failed)?;
    let changes = batch.events.into_iter().filter_map(|event| change(keys, event).transpose());
    Ok(ChangeSet { changes: changes.collect::<Result<_, _>>()?, revision: batch.revision })
}

fn change(keys: &Keys, event: Event) -> Result<Option<Change>, TableError> {
    Ok(match (keys.place(&event.key), event.value) {
        (Place::Entry { kind, key }, Some(value)) => {
            let value = Some(text(&event.key, value)?);
            Some(Change { kind, key, value, ephemeral: false })
        }
        (Place::Entry { kind, key }, None) => Some(Change { kind, key, value: None, ephemeral: false }),
        (Place::Notice, Some(assignment)) => {
            let key = text(&event.key, assignment)?;
            Some(Change { kind: "assignment".to_owned(), key, value: None, ephemeral: false })
        }
        (Place::Notice | Place::Revision | Place::Unknown, _) => None,
    })
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

fn text(key: &str, value: Vec<u8>) -> Result<String, TableError> {
    String::from_utf8(value)
        .map_err(|_| TableError::Invalid(format!("etcd key `{key}` holds bytes that are not text")))
}
