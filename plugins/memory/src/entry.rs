//! Entries: services, servers, releases, routers.

use message_flow_sdk::{
    keys::{escape, unescape},
    routing_table::{Change, Entry, Revision, Snapshot, TableError},
    state,
};

use crate::{Cell, Purpose, apply_for, head::Head, log, until_applied};

const PREFIX: &str = "e/";
const PAGE: u32 = 1000;
const CHANGES: usize = 64;
const KEY_BYTES: usize = 1024;
const VALUE_BYTES: usize = 64 * 1024;

/// Every entry, at one revision.
pub(crate) fn snapshot() -> Result<Snapshot, TableError> {
    until_applied(|| {
        let head = Head::read()?;
        let entries = entries()?;
        let still = Head::read()?.revision == head.revision;
        Ok(still.then_some(Snapshot { entries, revision: head.revision }))
    })
}

fn entries() -> Result<Vec<Entry>, TableError> {
    let mut entries = Vec::new();
    let mut last: Option<String> = None;
    loop {
        let page = state::scan(PREFIX, last.as_deref(), PAGE);
        let more = page.len() == PAGE as usize;
        last = page.last().map(|(key, _)| key.clone());
        entries.extend(page.into_iter().filter_map(|(key, value)| entry(&key, value)));
        if !more {
            return Ok(entries);
        }
    }
}

fn entry(key: &str, value: Vec<u8>) -> Option<Entry> {
    let (kind, key) = key.strip_prefix(PREFIX)?.split_once('/')?;
    // What is no text is no record: the host says so of this entry, and reads the others.
    let value = String::from_utf8(value).unwrap_or_else(|_| "not UTF-8 text".to_owned());
    Some(Entry { kind: unescape(kind)?, key: unescape(key)?, value })
}

/// Makes all of these changes or none, if none of the entries that they name changed since `expect`.
pub(crate) fn write(changes: &[Change], expect: Option<Revision>) -> Result<Revision, TableError> {
    check(changes)?;
    until_applied(|| {
        let head = Head::read()?;
        if let Some(expect) = expect
            && log::may_have_changed(&head, expect, changes)?
        {
            return Err(TableError::Conflict(head.revision));
        }
        if changes.is_empty() {
            return Ok(Some(head.revision));
        }
        let (new, mut cells) = log::append(head, changes);
        let new = Head { entries: new.revision, ..new };
        cells.push(new.cell());
        cells.extend(last_of_each(changes).map(cell));
        let purpose = if changes.iter().any(registers) { Purpose::Growth } else { Purpose::Upkeep };
        Ok(apply_for(purpose, &cells, &[head.cell()])?.then_some(new.revision))
    })
}

/// Whether a change makes a service or a server that was not there.
fn registers(change: &Change) -> bool {
    let registered = change.value.is_some() && matches!(&*change.kind, "service" | "server");
    registered && state::get(&cell(change).0).is_none()
}

fn cell(change: &Change) -> Cell {
    let value = change.value.as_ref().map(|value| value.as_bytes().to_vec());
    (format!("{PREFIX}{}/{}", escape(&change.kind), escape(&change.key)), value)
}

/// The last change of each entry: a batch changes a key once.
fn last_of_each(changes: &[Change]) -> impl Iterator<Item = &Change> {
    changes.iter().enumerate().filter_map(|(place, change)| {
        let same = |later: &Change| later.kind == change.kind && later.key == change.key;
        (!changes[place + 1..].iter().any(same)).then_some(change)
    })
}

fn check(changes: &[Change]) -> Result<(), TableError> {
    if changes.len() > CHANGES {
        return Err(TableError::Invalid(format!("{} changes at once; at most {CHANGES}", changes.len())));
    }
    changes.iter().try_for_each(check_one)
}

fn check_one(change: &Change) -> Result<(), TableError> {
    let Change { kind, key, value, .. } = change;
    let invalid = |why: &str| Err(TableError::Invalid(format!("{kind} `{key:.100}`: {why}")));
    if kind.is_empty() || kind == "assignment" || kind.len() > 64 {
        return invalid("not a kind of entry");
    }
    if key.is_empty() || key.len() > KEY_BYTES || key.chars().any(char::is_control) {
        return invalid("a key has 1 to 1024 bytes and no control characters");
    }
    match value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES) {
        true => invalid("its value is longer than 64 KiB"),
        false => Ok(()),
    }
}
