//! Writes what is ordered to the routing table, whatever has queued up meanwhile in one batch: so
//! that a thousand services that come at once cost a few dozen writes.
//!
//! What depends on what is there is planned on the view and written only if nothing has changed
//! since; then it is planned again. So whoever else does the same (another router that removes
//! the same server) is second, and finds nothing left to do.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use super::{Metrics, order::Order, session::Place};
use crate::table::{
    Table, TableError,
    adapter::{Change, Revision},
};

/// Orders that wait, at most; who orders more waits.
pub(super) const QUEUE: usize = 1024;
/// With the mark that goes with deletions this is as many as the table takes at once.
const BATCH: usize = 63;
/// Bytes of values in one batch, well below what etcd takes.
const BYTES: usize = 512 << 10;
/// How often a batch is planned anew.
const ATTEMPTS: usize = 100;
/// How long the view may take to follow the table before the next attempt.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Orders that are carried out at once, each about another server, and who waits for them.
pub(super) struct Job {
    pub(super) orders: Vec<Order>,
    pub(super) answer: Option<oneshot::Sender<Result<(), TableError>>>,
}

/// Writes until every sender is gone.
pub(super) async fn write(table: Arc<Table>, jobs: Arc<Mutex<mpsc::Receiver<Job>>>, metrics: Metrics) {
    let mut jobs = jobs.lock().await;
    let mut carried = None;
    loop {
        let first = match carried.take() {
            Some(job) => job,
            None => match jobs.recv().await {
                Some(job) => job,
                None => return,
            },
        };
        let batch = gather(first, &mut jobs, &mut carried);
        let orders: Vec<&Order> = batch.iter().flat_map(|job| &job.orders).collect();
        let outcome = carry_out(&table, &orders).await;
        metrics.writes.inc();
        for job in batch {
            if let Some(answer) = job.answer {
                // Nobody may be waiting any more.
                let _ = answer.send(outcome.clone());
            }
        }
    }
}

/// What is there already, in its order, as long as no two are about the same server.
fn gather(first: Job, jobs: &mut mpsc::Receiver<Job>, carried: &mut Option<Job>) -> Vec<Job> {
    let mut places: HashSet<Place> = first.orders.iter().map(|order| order.place.clone()).collect();
    let mut bytes: usize = first.orders.iter().map(Order::size).sum();
    let mut batch = vec![first];
    while bytes < BYTES {
        let Ok(job) = jobs.try_recv() else { break };
        let twice = job.orders.iter().any(|order| places.contains(&order.place));
        if twice || places.len() + job.orders.len() > BATCH {
            *carried = Some(job);
            break;
        }
        places.extend(job.orders.iter().map(|order| order.place.clone()));
        bytes += job.orders.iter().map(Order::size).sum::<usize>();
        batch.push(job);
    }
    batch
}

async fn carry_out(table: &Table, orders: &[&Order]) -> Result<(), TableError> {
    let conditional = !orders.iter().all(|order| order.is_unconditional());
    let mut last = TableError::Unavailable("outrun by other writers".to_owned());
    for _ in 0..ATTEMPTS {
        let view = table.view();
        let changes: Vec<Change> = orders.iter().filter_map(|order| order.change(&view)).collect();
        if changes.is_empty() {
            return Ok(());
        }
        match table.write(changes, conditional.then_some(view.revision)).await {
            Ok(_) => return Ok(()),
            Err(TableError::Conflict(there)) => {
                last = TableError::Conflict(there);
                catch_up(table, there).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

async fn catch_up(table: &Table, there: Revision) {
    let mut views = table.subscribe();
    let _ = timeout(CATCH_UP, views.wait_for(|view| view.revision >= there)).await;
}
