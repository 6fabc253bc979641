//! Read, plan, write: how everything is changed that depends on what is there, and the one policy by
//! which that is tried again.
//!
//! A plan is made of the view and written only if none of the records that it names changed meanwhile;
//! else it is made again, once the view has followed. Whoever writes other records is never in the way,
//! so what is tried again has lost a race for the same record, which somebody else has won.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    Table, TableError, View, WRITE_AT_ONCE,
    adapter::{Change, Revision},
};

/// So often a plan is made for one change.
const ATTEMPTS: u32 = 64;
/// And in no more time than this.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long the view may take to follow the table before the next attempt.
const CATCH_UP: Duration = Duration::from_secs(1);
/// Pauses between attempts, so that many writers of one record do not run into each other for ever: up
/// to the first, twice as long each time, never longer than the last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What was written.
#[derive(Clone, Debug)]
pub struct Revised<T> {
    /// What the plan said besides.
    pub answer: T,
    /// Of the table; the view holds it.
    pub revision: Revision,
    /// Of which the plan was made.
    before: Arc<View>,
    changes: Vec<Change>,
}

impl Table {
    /// Writes what `plan` makes of the view, if none of the records that its changes name changed
    /// meanwhile, else plans again. More changes than one write takes cannot be all or none: they are
    /// written whatever happened. Fails as [`Table::write`] does, or with what the plan fails with; when
    /// others were faster every time, the table is unavailable for this.
    pub async fn revise<T, E: From<TableError>>(
        &self,
        plan: impl Fn(&View) -> Result<(T, Vec<Change>), E>,
    ) -> Result<Revised<T>, E> {
        let deadline = Instant::now() + DEADLINE;
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            let view = self.view();
            let (answer, changes) = plan(&view)?;
            if changes.is_empty() {
                return Ok(Revised { answer, revision: view.revision, before: view, changes });
            }
            let expect = (changes.len() <= WRITE_AT_ONCE).then_some(view.revision);
            match self.write(changes.clone(), expect).await {
                Ok(revision) => return Ok(Revised { answer, revision, before: view, changes }),
                Err(TableError::Conflict(there)) => self.catch_up(there, deadline).await,
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= deadline {
                return Err(outrun(attempt).into());
            }
            sleep(pause.mul_f64(rand::random_range(0.0..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(outrun(ATTEMPTS).into())
    }

    /// A view that holds what was written, whatever became of it since.
    pub fn as_written<T>(&self, revised: &Revised<T>) -> View {
        self.shared.preview(&revised.before, &revised.changes, revised.revision)
    }

    async fn catch_up(&self, there: Revision, deadline: Instant) {
        let mut revisions = self.revisions();
        let patience = CATCH_UP.min(deadline.saturating_duration_since(Instant::now()));
        let _ = timeout(patience, revisions.wait_for(|revision| *revision >= there)).await;
    }
}

fn outrun(attempts: u32) -> TableError {
    TableError::Unavailable(format!(
        "others changed the same records at each of {attempts} attempts, and nothing was written"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;
    use crate::table::{
        Options,
        testing::{TestTable, put, server},
    };

    async fn start(far: &Arc<TestTable>) -> Arc<Table> {
        Table::start(Arc::clone(far) as Arc<dyn crate::table::Adapter>, Options::new("r1", "test")).await
    }

    fn servers(view: &View) -> usize {
        view.service(&"chat".parse().unwrap()).map_or(0, |service| service.servers.len())
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_change_is_planned_with() {
        let far = TestTable::new();
        let table = start(&far).await;
        let plans = AtomicU32::new(0);
        let revised = table.revise(|view| {
            let meanwhile = match plans.fetch_add(1, SeqCst) {
                0 => vec![server("chat", "other"), server("chat", "own")],
                // Nothing of ours.
                1 => vec![put("service", "mail", "{}")],
                _ => Vec::new(),
            };
            far.change(&meanwhile);
            Ok::<_, TableError>((servers(view), vec![server("chat", "own")]))
        });
        let revised = revised.await.unwrap();
        assert_eq!((revised.answer, plans.load(SeqCst)), (2, 2), "only the first was in the way");
        assert_eq!((servers(&table.as_written(&revised)), table.view().revision), (2, revised.revision));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_always_outrun_hears_that_nothing_was_written() {
        let far = TestTable::new();
        let table = start(&far).await;
        let (began, plans) = (Instant::now(), AtomicU32::new(0));
        let outrun = table.revise(|_| {
            plans.fetch_add(1, SeqCst);
            far.change(&[server("chat", "own")]);
            Ok::<_, TableError>(((), vec![server("chat", "own")]))
        });
        let error = outrun.await.map(|revised| revised.revision).unwrap_err();
        assert!(
            matches!(&error, TableError::Unavailable(why) if why.contains("nothing was written")),
            "{error}"
        );
        assert!(
            plans.load(SeqCst) <= ATTEMPTS && began.elapsed() <= DEADLINE + CATCH_UP,
            "{:?}",
            began.elapsed()
        );
    }
}
