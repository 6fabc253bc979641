//! Writes what is ordered to the routing table, whatever has queued up meanwhile in one batch: so
//! that a thousand services that come at once cost a few dozen writes.
//!
//! What depends on what is there is planned on the view and written only if the records that it names
//! have not changed since; then it is planned again. So whoever else does the same (another router that removes
//! the same server) is second, and finds nothing left to do.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::{Mutex, mpsc, oneshot};

use super::{Metrics, order::Order, session::Place};
use crate::table::{Table, TableError, View, adapter::Change};

/// Orders that wait, at most; who orders more waits.
pub(super) const QUEUE: usize = 1024;
/// With the mark that goes with deletions this is as many as the table takes at once.
const BATCH: usize = 63;
/// Bytes of values in one batch, well below what etcd takes.
const BYTES: usize = 512 << 10;

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
    let plan = |view: &View| orders.iter().filter_map(|order| order.change(view)).collect::<Vec<Change>>();
    if !orders.iter().all(|order| order.is_unconditional()) {
        return table.revise(|view| Ok(((), plan(view)))).await.map(drop);
    }
    match plan(&table.view()) {
        changes if changes.is_empty() => Ok(()),
        changes => table.write(changes, None).await.map(drop),
    }
}
