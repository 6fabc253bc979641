//! The change log: what each revision changed, bounded in records and in bytes.

use std::collections::HashSet;

use message_flow_sdk::{
    routing_table::{Change, ChangeSet, Revision, TableError},
    state,
};

use crate::{
    Cell,
    codec::{Reader, Writer},
    head::Head,
};

const PREFIX: &str = "l/";
/// So many revisions are kept, if their changes are not longer than [`BYTES`] together.
const RECORDS: u64 = 1024;
const BYTES: u64 = 1 << 20;
/// So many old records make room for a new one at most.
const TRIMMED: u64 = 128;
/// So many revisions are told at once.
const AT_ONCE: u32 = 128;

/// What changed after a revision.
pub(crate) fn changes(after: Revision) -> Result<ChangeSet, TableError> {
    let head = Head::read()?;
    if after == head.revision {
        return Ok(ChangeSet { changes: Vec::new(), revision: after });
    }
    if after < head.floor || after > head.revision {
        return Err(TableError::Compacted);
    }
    let mut set = ChangeSet { changes: Vec::new(), revision: after };
    for (found, record) in state::scan(PREFIX, Some(&key(after)), AT_ONCE) {
        // A record may have been trimmed since the head was read.
        if found != key(set.revision + 1) {
            return Err(TableError::Compacted);
        }
        set.revision += 1;
        // What cannot be read is not known: who follows reads the entries, each by itself.
        decode(&record, &mut set.changes).map_err(|_| TableError::Compacted)?;
    }
    match set.revision == after {
        true => Err(TableError::Compacted),
        false => Ok(set),
    }
}

/// Whether one of the entries that these changes name changed after a revision, or may have: what is
/// older than the log cannot be told.
pub(crate) fn may_have_changed(head: &Head, after: Revision, named: &[Change]) -> Result<bool, TableError> {
    if after >= head.entries && after <= head.revision {
        return Ok(false);
    }
    // Older than the log, or of another table.
    if after < head.floor || after > head.revision {
        return Ok(true);
    }
    let named: HashSet<_> = named.iter().map(|change| (&*change.kind, &*change.key)).collect();
    let mut at = after;
    while at < head.entries {
        let records = state::scan(PREFIX, Some(&key(at)), AT_ONCE);
        if records.is_empty() {
            return Ok(true);
        }
        for (_, record) in records {
            let mut changed = Vec::new();
            decode(&record, &mut changed)?;
            if changed.iter().any(|change| named.contains(&(&*change.kind, &*change.key))) {
                return Ok(true);
            }
            at += 1;
        }
    }
    Ok(false)
}

/// What appending a record to the log takes: the new head, and the cells to write beside it.
pub(crate) fn append(head: Head, changes: &[Change]) -> (Head, Vec<Cell>) {
    let record = encode(changes);
    let mut new = Head { revision: head.revision + 1, bytes: head.bytes + record.len() as u64, ..head };
    let mut cells = vec![(key(new.revision), Some(record))];
    while new.floor + 1 < new.revision && new.floor - head.floor < TRIMMED {
        if new.revision - new.floor <= RECORDS && new.bytes <= BYTES {
            break;
        }
        new.floor += 1;
        let trimmed = state::get(&key(new.floor)).map_or(0, |record| record.len() as u64);
        new.bytes = new.bytes.saturating_sub(trimmed);
        cells.push((key(new.floor), None));
    }
    (new, cells)
}

/// Makes room: drops the oldest records until there are at most `bytes`, or [`TRIMMED`] are gone. Who
/// has not seen them yet takes a snapshot. False: there are no more than that.
pub(crate) fn shrink(bytes: u64) -> Result<bool, TableError> {
    let head = Head::read()?;
    let (mut new, mut cells) = (head, Vec::new());
    while new.bytes > bytes && new.floor < new.revision && new.floor - head.floor < TRIMMED {
        new.floor += 1;
        let dropped = state::get(&key(new.floor)).map_or(0, |record| record.len() as u64);
        new.bytes = new.bytes.saturating_sub(dropped);
        cells.push((key(new.floor), None));
    }
    if cells.is_empty() {
        return Ok(false);
    }
    cells.push(new.cell());
    // Outrun by a writer: that has changed what there is, so whoever needs room looks again.
    crate::apply(&cells, &[head.cell()])?;
    Ok(true)
}

fn key(revision: Revision) -> String {
    format!("{PREFIX}{revision:016x}")
}

fn encode(changes: &[Change]) -> Vec<u8> {
    let mut writer = Writer::default();
    for change in changes {
        writer.text(&change.kind).text(&change.key).option(change.value.as_deref());
    }
    writer.0
}

fn decode(record: &[u8], changes: &mut Vec<Change>) -> Result<(), TableError> {
    let mut reader = Reader(record);
    while !reader.is_empty() {
        let (kind, key, value) = (reader.text()?, reader.text()?, reader.option()?);
        changes.push(Change { kind, key, value, ephemeral: false });
    }
    Ok(())
}
