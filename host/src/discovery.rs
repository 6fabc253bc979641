//! Discovery: services that announce themselves over one connection, say what they need, and are
//! told the moment each need is there, and when it goes.
//!
//! A message on a connection is read ([`frame`]), judged by the connection's `session`, and comes to
//! orders for the routing table (`writer`) and to requirements in the `index`. Every change of the
//! view goes through the index, which wakes exactly the connections that need what changed; each
//! then tells its peer what the latest state is. `keeper` ends the leases that nobody vouches for, and
//! `memory` keeps what is known of changes for the next run.
//!
//! This module knows [`crate::table`], and neither `api` nor `proxy`.

mod bell;
mod connection;
pub mod definition;
mod doubts;
mod drains;
pub mod fault;
pub mod frame;
mod goodbye;
mod holdings;
mod index;
mod keeper;
mod memory;
mod metrics;
mod offer;
mod options;
mod order;
mod peer;
mod primus;
mod removals;
pub mod requirement;
mod session;
mod writer;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    drain::Drain,
    table::{ServiceId, Table, TableError, lease::Draining},
    units::Span,
};
use bell::News;
use definition::Limits;
use holdings::Holdings;
use index::Index;
use order::{Order, Wish};
use session::Place;
use writer::Job;

pub use drains::{Progress, Traffic};
pub use memory::Memory;
pub use metrics::Metrics;
pub use options::Options;
pub use peer::Peer;
pub use primus::Dialect;

/// The servers that fail their active checks at this router, by service: ids of the server list, and
/// the URI of a `server`.
type Failing = Arc<HashMap<ServiceId, BTreeSet<Arc<str>>>>;

/// The connections of services to this router, and what follows from them. Dropping every copy of
/// it leaves the tasks that follow the table until [`Discovery::stop`].
pub struct Discovery {
    table: Arc<Table>,
    options: ArcSwap<Options>,
    metrics: Metrics,
    index: Index,
    failing: watch::Sender<Failing>,
    holdings: Mutex<Holdings>,
    jobs: mpsc::Sender<Job>,
    connections: AtomicU64,
    places: Arc<Semaphore>,
    memory: Option<Memory>,
    tasks: Mutex<JoinSet<()>>,
}

impl Discovery {
    /// Starts to follow the table, on the current runtime, from where the run before has left off; without a
    /// memory it is the first.
    pub fn start(table: Arc<Table>, options: Options, metrics: Metrics, memory: Option<Memory>) -> Arc<Self> {
        let view = table.view();
        let index = Index::new(&view);
        if let Some(known) = memory.as_ref().and_then(Memory::load) {
            index.recall(known);
        }
        let (jobs, waiting) = mpsc::channel(writer::QUEUE);
        let places = Arc::new(Semaphore::new(options.connections));
        let discovery = Arc::new(Self {
            index,
            failing: watch::Sender::default(),
            options: ArcSwap::from_pointee(options),
            metrics: metrics.clone(),
            holdings: Mutex::new(Holdings::new(&table.router().1.incarnation)),
            jobs,
            connections: AtomicU64::new(1),
            places,
            memory: memory.clone(),
            tasks: Mutex::default(),
            table: Arc::clone(&table),
        });
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        discovery.keep("discovery-writer", move |discovery| {
            writer::write(Arc::clone(&discovery.table), Arc::clone(&waiting), metrics.clone())
        });
        let mut first = Some(view);
        discovery.keep("discovery-keeper", move |discovery| {
            let view = first.take().unwrap_or_else(|| discovery.table.view());
            keeper::keep(discovery, view)
        });
        if let Some(memory) = memory {
            discovery.keep("discovery-memory", move |discovery| memory::follow(discovery, memory.clone()));
        }
        discovery
    }

    /// Runs a task until this stops, again if it ends.
    fn keep<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        mut start: impl FnMut(Arc<Self>) -> F + Send + 'static,
    ) {
        let discovery = Arc::clone(self);
        let task = self.table.tasks().clone().keep(name, move || start(Arc::clone(&discovery)));
        self.tasks.lock().spawn(task);
    }

    /// Follows the drains of servers, now that there is somebody to ask what is on its way to them.
    pub fn follow_drains(self: &Arc<Self>, traffic: Arc<dyn Traffic>) {
        self.keep("discovery-drains", move |discovery| drains::follow(discovery, Arc::clone(&traffic)));
    }

    /// Follows which servers fail their active checks: these are not there for those who need them.
    pub fn follow_checks(
        self: &Arc<Self>,
        failing: watch::Receiver<Arc<HashMap<ServiceId, BTreeSet<Arc<str>>>>>,
    ) {
        self.keep("discovery-checks", move |discovery| {
            let mut failing = failing.clone();
            failing.mark_changed();
            async move {
                while failing.changed().await.is_ok() {
                    discovery.failing.send_replace(Arc::clone(&failing.borrow_and_update()));
                }
            }
        });
    }

    /// A server is to leave: it gets no new clients from now on, and none at all when `deadline` has
    /// passed. Waits until that is done, at most for `wait`.
    pub async fn drain(
        &self,
        service: &ServiceId,
        server: &str,
        deadline: Option<Duration>,
        wait: Option<Duration>,
    ) -> Result<Progress, TableError> {
        let place = Place { service: service.clone(), server: server.into() };
        let usual = self.options().drain;
        // Whoever waits wants it to be done by then.
        let deadline = deadline.unwrap_or_else(|| wait.map_or(usual, |wait| usual.min(wait / 2)));
        let draining = Draining { stamp: rand::random(), deadline: Span(deadline), over: deadline.is_zero() };
        let wish = Wish::Drain(None, draining);
        let outcome = self.order_and_answer(vec![Order { place: place.clone(), wish }]).await.await;
        outcome.unwrap_or_else(|_| Err(TableError::Unavailable("the router is stopping".to_owned())))?;
        let mut views = self.table.subscribe();
        let view = Arc::clone(&views.borrow_and_update());
        let stored = view.stored(service).and_then(|stored| stored.server(server));
        let Some(draining) = stored.and_then(|stored| stored.record.draining.as_ref()) else {
            return Ok(if stored.is_none() { Progress::Drained } else { Progress::Cancelled });
        };
        let over =
            views.wait_for(|view| drains::progress(view, &place, draining.stamp) != Progress::Draining);
        let _ = timeout(wait.unwrap_or_default(), over).await;
        let view = self.table.view();
        Ok(drains::progress(&view, &place, draining.stamp))
    }

    /// A server is drained: its connection is told, if that is here.
    fn drained(&self, place: &Place) {
        tracing::info!(service = %place.service, server = %place.server, "drained");
        self.metrics.drained.inc();
        self.holdings.lock().tell(place, News::Drained);
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
        if let Some(memory) = &self.memory {
            memory::save(self, memory).await;
        }
    }

    /// Takes note of a heartbeat for a server that is kept by heartbeats; does nothing for others.
    pub async fn renew(&self, service: &ServiceId, server: &str) -> Result<(), TableError> {
        let place = Place { service: service.clone(), server: server.into() };
        let wish = Wish::Renew(self.table.clock().now());
        let outcome = self.order_and_answer(vec![Order { place, wish }]).await.await;
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
        let _ = self.jobs.send(Job { orders: vec![order], answer: None }).await;
    }

    /// Orders that are carried out at once, each about another server.
    async fn order_and_answer(&self, orders: Vec<Order>) -> oneshot::Receiver<Result<(), TableError>> {
        let (answer, outcome) = oneshot::channel();
        let _ = self.jobs.send(Job { orders, answer: Some(answer) }).await;
        outcome
    }
}

#[cfg(test)]
mod tests;
