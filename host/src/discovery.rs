//! Discovery: services that announce themselves over one connection, say what they need, and are
//! told the moment each need is there, and when it goes.
//!
//! A message on a connection is read ([`frame`]), judged by the connection's `session`, and comes to
//! orders for the routing table (`writer`) and to requirements in the `index`. Every change of the
//! view goes through the index, which wakes exactly the connections that need what changed; each
//! then tells its peer what the latest state is. `keeper` ends the leases that nobody vouches for.
//!
//! This module knows [`crate::table`], and neither `api` nor `proxy`.

mod bell;
mod connection;
pub mod definition;
mod doubts;
pub mod fault;
pub mod frame;
mod holdings;
mod index;
mod keeper;
mod metrics;
mod offer;
mod options;
mod order;
pub mod requirement;
mod session;
mod writer;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    drain::Drain,
    table::{ServiceId, Table, TableError},
};
use definition::Limits;
use holdings::Holdings;
use index::Index;
use order::{Order, Wish};
use session::Place;
use writer::Job;

pub use connection::Peer;
pub use metrics::Metrics;
pub use options::Options;

/// The connections of services to this router, and what follows from them. Dropping every copy of
/// it leaves the tasks that follow the table until [`Discovery::stop`].
pub struct Discovery {
    table: Arc<Table>,
    options: ArcSwap<Options>,
    metrics: Metrics,
    index: Index,
    holdings: Mutex<Holdings>,
    jobs: mpsc::Sender<Job>,
    connections: AtomicU64,
    places: Arc<Semaphore>,
    tasks: Mutex<JoinSet<()>>,
}

impl Discovery {
    /// Starts to follow the table, on the current runtime.
    pub fn start(table: Arc<Table>, options: Options, metrics: Metrics) -> Arc<Self> {
        let view = table.view();
        let (jobs, waiting) = mpsc::channel(writer::QUEUE);
        let places = Arc::new(Semaphore::new(options.connections));
        let discovery = Arc::new(Self {
            index: Index::new(&view),
            options: ArcSwap::from_pointee(options),
            metrics: metrics.clone(),
            holdings: Mutex::default(),
            jobs,
            connections: AtomicU64::new(1),
            places,
            tasks: Mutex::default(),
            table: Arc::clone(&table),
        });
        let mut tasks = discovery.tasks.lock();
        tasks.spawn(writer::write(table, waiting, metrics));
        tasks.spawn(keeper::keep(Arc::clone(&discovery), view));
        drop(tasks);
        discovery
    }

    /// Room for one more connection, for as long as it is held.
    pub fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if place.is_none() {
            self.metrics.refused.inc();
        }
        place
    }

    /// Serves a connection that has just become a WebSocket, until it ends.
    pub async fn serve(
        self: Arc<Self>,
        io: impl AsyncRead + AsyncWrite + Unpin + Send,
        peer: Peer,
        drain: Drain,
    ) {
        connection::serve(self, io, peer, drain).await;
    }

    /// Takes new options; how many connections there may be stays.
    pub fn configure(&self, options: Options) {
        self.options.store(Arc::new(options));
    }

    /// Stops to follow the table.
    pub async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }

    /// Takes note of a heartbeat for a server that is kept by heartbeats; does nothing for others.
    pub async fn renew(&self, service: &ServiceId, server: &str) -> Result<(), TableError> {
        let place = Place { service: service.clone(), server: server.into() };
        let wish = Wish::Renew(self.table.clock().now());
        let outcome = self.order_and_answer(Order { place, wish }).await.await;
        outcome.unwrap_or_else(|_| Err(TableError::Unavailable("the router is stopping".to_owned())))
    }

    fn options(&self) -> Arc<Options> {
        self.options.load_full()
    }

    fn limits(&self) -> Limits {
        Limits { requirements: self.options.load().requirements }
    }

    fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Relaxed)
    }

    async fn order(&self, order: Order) {
        // Refused only when this stops.
        let _ = self.jobs.send(Job { order, answer: None }).await;
    }

    async fn order_and_answer(&self, order: Order) -> oneshot::Receiver<Result<(), TableError>> {
        let (answer, outcome) = oneshot::channel();
        let _ = self.jobs.send(Job { order, answer: Some(answer) }).await;
        outcome
    }
}
