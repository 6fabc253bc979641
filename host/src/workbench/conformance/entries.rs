//! Promises about entries: few, read at once, followed by their changes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Held, Table, change, delete, done, following, holds, put, same};
use crate::table::adapter::{Change, Entry, TableError};

pub(super) async fn begin_with_nothing(table: &Table) -> Held {
    let start = done("read", table.snapshot().await)?;
    let entries = start.entries.len();
    holds(entries == 0, || format!("there are {entries} entries: give it an empty datastore or prefix"))
}

pub(super) async fn are_read_and_followed(table: &Table) -> Held {
    let start = done("read", table.snapshot().await)?;
    put(table, "service", "chat@2").await?;
    put(table, "server", "chat@2/a:1").await?;
    put(table, "kind of tomorrow", "x/y").await?;
    let changes = vec![delete("service", "chat@2"), delete("service", "absent")];
    let revision = done("write", table.write(changes, None).await)?;
    let expected = ["+service chat@2", "+server chat@2/a:1", "+kind of tomorrow x/y", "-service chat@2"];
    let mut seen = following(table, start.revision, revision).await?;
    // Whether the deletion of what is not there is told does not matter.
    seen.retain(|change| change != "-service absent");
    same("changes", &seen[..], &expected.map(str::to_owned)[..])?;
    let snapshot = done("read", table.snapshot().await)?;
    let mut entries: Vec<_> =
        snapshot.entries.iter().map(|entry| format!("{} {}", entry.kind, entry.key)).collect();
    entries.sort();
    same("read", &entries[..], &["kind of tomorrow x/y", "server chat@2/a:1"].map(str::to_owned)[..])?;
    holds(snapshot.revision >= revision, || {
        format!("read at revision {} does not hold the write at {revision}", snapshot.revision)
    })
}

pub(super) async fn are_waited_for(table: &Table) -> Held {
    let revision = done("read", table.snapshot().await)?.revision;
    let waiting = tokio::spawn({
        let table = Arc::clone(table);
        async move { following(&table, revision, revision + 1).await }
    });
    let written = put(table, "release", "chat").await?;
    holds(written > revision, || format!("the revision after {revision} is {written}"))?;
    let told = timeout(Duration::from_secs(15), waiting).await;
    let told = told.map_err(|_| "not told within 15 s".to_owned())?.map_err(|error| error.to_string())??;
    same("changes", &told[..], &["+release chat".to_owned()][..])
}

pub(super) async fn are_any_text(table: &Table) -> Held {
    let value = serde_json::json!({ "text": "Zoë's “quotes”, % * [ \\ \n", "n": [1, 2.5, null] }).to_string();
    let entry = Entry { kind: "kind/of %2F".into(), key: "a b/ü@%*?[x]\\".into(), value };
    let Entry { kind, key, value } = entry.clone();
    let written = Change { kind, key, value: Some(value), ephemeral: false };
    let before = done("read", table.snapshot().await)?.revision;
    let revision = done("write", table.write(vec![written.clone()], None).await)?;
    let seen = following(table, before, revision).await?;
    same("changes", &seen[..], &[format!("+{} {}", entry.kind, entry.key)][..])?;
    let entries = done("read", table.snapshot().await)?.entries;
    holds(entries.contains(&entry), || format!("{entry:?} is not among {entries:?}"))?;
    done("write", table.write(vec![Change { value: None, ..written }], None).await).map(drop)
}

pub(super) async fn conflict(table: &Table) -> Held {
    let revision = put(table, "service", "one").await?;
    let expecting = async |revision| table.write(vec![change("service", "two")], Some(revision)).await;
    let next = done("write at the revision there", expecting(revision).await)?;
    match expecting(revision).await {
        Err(TableError::Conflict(at)) if at >= next => {}
        other => return Err(format!("a write at revision {revision}, after {next}, got {other:?}")),
    }
    let late = async |revision, what: &str| {
        let late = expecting(revision).await;
        holds(matches!(late, Err(TableError::Conflict(_))), || format!("{what} is a change, got {late:?}"))
    };
    let deleted = done("write", table.write(vec![delete("service", "two")], None).await)?;
    late(next, "a deletion").await?;
    let again = put(table, "service", "two").await?;
    late(deleted, "a creation").await?;
    late(next, "a deletion and a creation").await?;
    let both = vec![change("service", "three"), change("service", "two")];
    let both = table.write(both, Some(deleted)).await;
    holds(matches!(both, Err(TableError::Conflict(_))), || format!("one of two changed, got {both:?}"))?;
    done("write at the revision there", expecting(again).await)?;
    let entries = done("read", table.snapshot().await)?.entries;
    let services = entries.iter().filter(|entry| entry.kind == "service").count();
    same("services", &services, &2)?;
    done("write", table.write(vec![delete("service", "one")], None).await).map(drop)
}

pub(super) async fn are_written_together(table: &Table) -> Held {
    let before = done("read", table.snapshot().await)?;
    let many: Vec<_> = (0..64).map(|n| change("server", &format!("many/{n}"))).collect();
    let revision = done("write", table.write(many, None).await)?;
    let told = following(table, before.revision, revision).await?.len();
    same("changes of one write", &told, &64)?;
    let many: Vec<_> = (0..64).map(|n| delete("server", &format!("many/{n}"))).collect();
    done("write", table.write(many, None).await)?;
    let after = done("read", table.snapshot().await)?.entries.len();
    same("entries after they were deleted", &after, &before.entries.len())
}

pub(super) async fn are_told_once(table: &Table) -> Held {
    let before = done("read", table.snapshot().await)?.revision;
    let keys: Vec<_> = (0..12).map(|n| format!("at once/{n}")).collect();
    let writes = join_all(keys.iter().map(|key| put(table, "server", key))).await;
    let revisions: BTreeSet<_> = writes.into_iter().collect::<Result<_, _>>()?;
    let last = revisions.iter().next_back().copied().unwrap_or(before);
    let mut told = following(table, before, last).await?;
    told.sort();
    let mut expected: Vec<_> = keys.iter().map(|key| format!("+server {key}")).collect();
    expected.sort();
    same("changes", &told, &expected)?;
    let all = keys.iter().map(|key| delete("server", key)).collect();
    done("write", table.write(all, None).await).map(drop)
}
