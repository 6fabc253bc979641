//! Entries: a hash, and a stream of its changes.

use message_flow_sdk::routing_table::{Change, ChangeSet, Entry, Revision, Snapshot, TableError};

use crate::{
    connection::{ask, prefix, run},
    reply::Reply,
    scripts,
};

/// How long Redis is asked to wait for the next change, in milliseconds.
const WAIT: &str = "20000";
/// Changes that are told at once.
const MOST: &str = "1000";

pub(crate) fn read() -> Result<Snapshot, TableError> {
    let mut parts = run(scripts::READ, &[])?.list()?.into_iter();
    let (revision, pairs) = (next(&mut parts)?.number()?, next(&mut parts)?.list()?);
    let mut pairs = pairs.into_iter();
    let mut entries = Vec::new();
    while let Some(field) = pairs.next() {
        let (field, value) = (field.text()?, next(&mut pairs)?.text()?);
        entries.push(match field.split_once('\0') {
            Some((kind, key)) => Entry { kind: kind.to_owned(), key: key.to_owned(), value },
            None => {
                Entry { kind: "stray".to_owned(), key: field, value: "an entry without a kind".to_owned() }
            }
        });
    }
    Ok(Snapshot { entries, revision })
}

pub(crate) fn write(changes: &[Change], expect: Option<Revision>) -> Result<Revision, TableError> {
    let expect = expect.map(|revision| revision.to_string()).unwrap_or_default();
    let mut arguments = vec![expect.as_str()];
    for change in changes {
        let there = if change.value.is_some() { "1" } else { "0" };
        arguments.extend([&*change.kind, &*change.key, there, change.value.as_deref().unwrap_or_default()]);
    }
    let mut parts = run(scripts::WRITE, &arguments)?.list()?.into_iter();
    let (written, revision) = (next(&mut parts)?.number()?, next(&mut parts)?.number()?);
    if written == 1 { Ok(revision) } else { Err(TableError::Conflict(revision)) }
}

pub(crate) fn changes(after: Revision) -> Result<ChangeSet, TableError> {
    let stream = format!("{}:changes", prefix());
    // Past every change of that revision.
    let last = format!("{after}-{}", u64::MAX);
    // A datastore that was emptied begins anew.
    let now = ask(&["GET", &format!("{}:revision", prefix())])?.option()?;
    if now.and_then(|now| now.parse().ok()).unwrap_or(0) < after {
        return Err(TableError::Compacted);
    }
    let told = ask(&["XREAD", "COUNT", MOST, "BLOCK", WAIT, "STREAMS", &stream, &last])?.list()?;
    let Some(stream) = told.into_iter().next() else {
        return Ok(ChangeSet { changes: vec![], revision: after });
    };
    let mut items = Vec::new();
    for item in stream.list()?.into_iter().nth(1).unwrap_or(Reply::Nothing).list()? {
        items.push(change(item)?);
    }
    // Every revision has a change with the number 0: what is not there was trimmed.
    if items.first().is_some_and(|first| (first.revision, first.number) != (after + 1, 0)) {
        return Err(TableError::Compacted);
    }
    Ok(whole(items, after))
}

/// A change in the stream.
struct Told {
    revision: Revision,
    number: u64,
    change: Change,
}

/// A revision of which the rest did not fit is told next time.
fn whole(mut items: Vec<Told>, after: Revision) -> ChangeSet {
    let full = items.len().to_string() == MOST;
    let last = items.last().map_or(after, |told| told.revision);
    if full {
        items.retain(|told| told.revision != last);
    }
    let revision = items.last().map_or(after, |told| told.revision);
    let mut changes = Vec::with_capacity(items.len());
    let mut items = items.into_iter().peekable();
    while let Some(told) = items.next() {
        changes.push(told.change);
        if items.peek().is_none_or(|next| next.revision != told.revision) {
            changes.push(happened_at(told.revision));
        }
    }
    ChangeSet { changes, revision }
}

/// Says of the changes before it at which revision they happened.
fn happened_at(revision: Revision) -> Change {
    Change { kind: "revision".to_owned(), key: revision.to_string(), value: None, ephemeral: false }
}

fn change(item: Reply) -> Result<Told, TableError> {
    let mut parts = item.list()?.into_iter();
    let id = next(&mut parts)?.text()?;
    let id = id.split_once('-').and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
    let fields = next(&mut parts)?.list()?.into_iter().map(Reply::text).collect::<Result<Vec<_>, _>>()?;
    match (id, &fields[..]) {
        (Some((revision, number)), [_, kind, _, key, _, there, _, value]) => {
            let value = (there == "1").then(|| value.clone());
            let change = Change { kind: kind.clone(), key: key.clone(), value, ephemeral: false };
            Ok(Told { revision, number, change })
        }
        _ => Err(malformed("a change that is none")),
    }
}

fn next(parts: &mut impl Iterator<Item = Reply>) -> Result<Reply, TableError> {
    parts.next().ok_or_else(|| malformed("a short answer"))
}

fn malformed(what: &str) -> TableError {
    TableError::Invalid(format!("redis holds {what}: is the prefix used by something else?"))
}
