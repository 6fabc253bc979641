//! What `wit/routing-table.wit` promises, held against an adapter: every one must pass all of it.
//!
//! It writes, so it is run over a datastore (or a prefix of one) that is empty at first.

mod assignments;
mod entries;

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};

use crate::table::adapter::{Adapter, Change, Proposal, Revision, TableError};

/// The adapter under test.
pub type Table = Arc<dyn Adapter>;

/// A promise that holds, or how it was broken.
pub type Held = Result<(), String>;

/// A promise and how it is held against an adapter.
struct Promise {
    says: &'static str,
    hold: fn(Table) -> BoxFuture<'static, Held>,
}

macro_rules! promises {
    ($($says:literal => $hold:path,)*) => {
        &[$(Promise { says: $says, hold: |table| Box::pin(async move { $hold(&table).await }) }),*]
    };
}

/// In this order: some begin with what those before them left.
const PROMISES: &[Promise] = promises! {
    "a datastore to try it on is empty" => entries::begin_with_nothing,
    "what is written is read, and told in order" => entries::are_read_and_followed,
    "who waits for a change gets it" => entries::are_waited_for,
    "kinds, keys and values of any text are kept" => entries::are_any_text,
    "a write holds if what it names is unchanged, else conflicts" => entries::conflict,
    "64 changes are one write" => entries::are_written_together,
    "writers at once are all told, each once" => entries::are_told_once,
    "an assignment is created once, whoever is first" => assignments::are_created_once,
    "an assignment is renewed by who knows its stamp" => assignments::are_renewed_by_stamp,
    "what is pinned and forgotten is told" => assignments::are_told_when_pinned,
    "what is replaced by another server is told, what is renewed is not" => assignments::are_told_when_replaced,
    "a client is known by its assignments and its router" => assignments::make_a_client,
    "sweeping spares what has not expired" => assignments::are_swept,
};

/// No promise takes longer to hold.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holds an adapter to every promise; each is told to `each`. Returns how many were broken. Nothing
/// is written to a datastore that is not empty.
pub async fn run(table: Table, mut each: impl FnMut(&str, &Held)) -> usize {
    let mut broken = 0;
    for (number, promise) in PROMISES.iter().enumerate() {
        let late = || Err(format!("not held within {PATIENCE:?}"));
        let held = timeout(PATIENCE, (promise.hold)(Arc::clone(&table))).await.unwrap_or_else(|_| late());
        each(promise.says, &held);
        broken += usize::from(held.is_err());
        if broken > 0 && number == 0 {
            break;
        }
    }
    broken
}

/// A call that should have succeeded.
fn done<T>(what: &str, answer: Result<T, TableError>) -> Result<T, String> {
    answer.map_err(|error| format!("{what}: {error}"))
}

fn same<T: PartialEq + Debug + ?Sized>(what: &str, found: &T, expected: &T) -> Held {
    if found == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {found:?}")) }
}

fn holds(condition: bool, what: impl FnOnce() -> String) -> Held {
    if condition { Ok(()) } else { Err(what()) }
}

/// What happened after a revision, until another.
async fn following(table: &Table, mut after: Revision, until: Revision) -> Result<Vec<String>, String> {
    let mut seen = Vec::new();
    let late = Instant::now() + Duration::from_secs(20);
    while after < until {
        let set = done("changes", table.changes(after).await)?;
        // It may say at which revision they happened.
        for change in set.changes.into_iter().filter(|change| change.kind != "revision") {
            let sign = if change.value.is_some() { '+' } else { '-' };
            seen.push(format!("{sign}{} {}", change.kind, change.key));
        }
        holds(set.revision >= after, || format!("changes after {after} end at {}", set.revision))?;
        holds(Instant::now() < late, || format!("changes never reach revision {until}; seen: {seen:?}"))?;
        if set.revision == after {
            sleep(Duration::from_millis(5)).await;
        }
        after = set.revision;
    }
    Ok(seen)
}

async fn put(table: &Table, kind: &str, key: &str) -> Result<Revision, String> {
    done("write", table.write(vec![change(kind, key)], None).await)
}

fn change(kind: &str, key: &str) -> Change {
    Change { kind: kind.into(), key: key.into(), value: Some("{}".into()), ephemeral: false }
}

fn delete(kind: &str, key: &str) -> Change {
    Change { value: None, ..change(kind, key) }
}

fn proposal(client: &str, server: &str) -> Proposal {
    let (client, service, server) = (client.into(), "chat".into(), server.into());
    Proposal { client, service, server, expires: Some(1000), router: "r1".into() }
}
