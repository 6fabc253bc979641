//! The watch loop: keeps the view in step with the table.
//!
//! It reads everything once, then asks for what changed since. When what changed is no longer
//! known it reads everything again and takes the difference. While the table is away the last
//! known view stays, and the loop tries again with growing, jittered pauses.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    Status, TableError,
    adapter::{Change, ChangeSet, Snapshot},
    shared::Shared,
};
use crate::condition::Name;

/// An adapter that does not wait for changes is asked again at the latest after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// And at the earliest after this one, however much stirs.
const AT_LEAST: Duration = Duration::from_millis(5);
/// One that took longer than this to say that nothing changed has waited by itself.
const WAITED: Duration = Duration::from_millis(100);
/// No call is waited for longer, whatever the adapter's own deadline.
const DEADLINE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Short, as an outage is over for this router when it asks next.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What the loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Reads everything.
    Snapshot,
    /// Asks for changes since the view's revision.
    Changes,
}

/// Follows the table until dropped.
pub(super) async fn follow(shared: Arc<Shared>, mut next: Next) {
    let mut pause = FIRST_PAUSE;
    loop {
        let outcome = match next {
            Next::Snapshot => resync(&shared).await,
            Next::Changes => advance(&shared).await,
        };
        match outcome {
            Ok(()) => {
                (next, pause) = (Next::Changes, FIRST_PAUSE);
                shared.current();
            }
            Err(TableError::Compacted) => next = Next::Snapshot,
            Err(error) => {
                shared.failed(&error);
                give_up_held(&shared, sleep(pause.mul_f64(shared.options.jitter.within(0.5..1.0)))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Reads everything and makes it the view.
pub(super) async fn resync(shared: &Shared) -> Result<(), TableError> {
    let Snapshot { entries, revision } = limited(shared.adapter.snapshot()).await?;
    shared.resync(&entries, revision);
    Ok(())
}

/// Applies the changes since the view; waits until asking again makes sense.
async fn advance(shared: &Shared) -> Result<(), TableError> {
    let (stirred, began) = (shared.adapter.stirred(), Instant::now());
    let after = shared.view().revision;
    let changes = limited(shared.adapter.changes(after));
    let ChangeSet { changes, revision } = give_up_held(shared, changes).await?;
    if !changes.is_empty() || revision != after {
        shared.advance(&changes, revision);
        return Ok(());
    }
    let was_current = *shared.status.borrow() == Status::Current;
    shared.confirmed.fetch_add(1, Relaxed);
    shared.current();
    // One that is back says so at once, and waits for what comes next.
    if began.elapsed() < WAITED && was_current {
        give_up_held(shared, pause(shared, stirred, began)).await;
    }
    Ok(())
}

async fn pause(shared: &Shared, stirred: impl Future<Output = ()>, began: Instant) {
    let stirred = async {
        stirred.await;
        sleep_until(began + AT_LEAST).await;
    };
    tokio::select! {
        () = stirred => {}
        () = shared.poke.notified() => {}
        () = sleep(ASK_AGAIN) => {}
    }
}

/// Waits for a future, and meanwhile gives up held servers whose grace ends.
async fn give_up_held<T>(shared: &Shared, waiting: impl Future<Output = T>) -> T {
    let mut waiting = std::pin::pin!(waiting);
    loop {
        let Some(at) = shared.held_until() else { return waiting.await };
        tokio::select! {
            done = &mut waiting => return done,
            () = sleep_until(at) => shared.give_up_held(),
        }
    }
}

async fn limited<T>(answer: impl Future<Output = Result<T, TableError>>) -> Result<T, TableError> {
    let late = |_| TableError::Unavailable(format!("no answer within {DEADLINE:?}"));
    timeout(DEADLINE, answer).await.map_err(late)?
}

/// The changes that routing is concerned with, apart from those to assignments.
pub(super) fn split(changes: &[Change]) -> (Vec<Change>, impl Iterator<Item = &str>) {
    let (entries, assignments): (Vec<_>, Vec<_>) =
        changes.iter().partition(|change| change.kind != "assignment");
    (entries.into_iter().cloned().collect(), assignments.into_iter().map(|change| change.key.as_str()))
}

impl Shared {
    pub(super) fn current(&self) {
        self.stats.table_current.set(1);
        self.options.tasks.conditions().clear(Name::TableStale);
        self.status.send_if_modified(|status| {
            let changed = *status != Status::Current;
            if let Status::Stale { .. } = status {
                tracing::info!("the routing table can be read again");
            }
            *status = Status::Current;
            changed
        });
    }

    pub(super) fn failed(&self, error: &TableError) {
        self.stats.table_errors.inc();
        self.stats.table_current.set(0);
        let now = self.options.clock.now();
        self.status.send_if_modified(|status| status.fail(error, now));
        if matches!(*self.status.borrow(), Status::Stale { .. }) {
            self.options.tasks.conditions().raise(Name::TableStale, error.to_string());
        }
    }
}

impl Status {
    /// Takes note of a failure; returns whether that changes anything.
    pub(super) fn fail(&mut self, error: &TableError, now: u64) -> bool {
        let error = error.to_string();
        let failed = match self {
            Self::Starting(_) => Self::Starting(Some(error)),
            Self::Current => {
                tracing::warn!(%error, "the routing table cannot be read: going on with the last known view");
                Self::Stale { since: now, error }
            }
            Self::Stale { since, .. } => Self::Stale { since: *since, error },
        };
        let changed = *self != failed;
        *self = failed;
        changed
    }
}
