//! The HTTP proxy: one message's life, from its request's head to its response's end.
//!
//! [`exchange`] tells it in order. What a message needs to know is in the [`Plan`], compiled
//! whenever something changes; what it needs to use is its worker's. Where it goes is decided by
//! `resolve`, what plugins say by `plugin`, how it gets there by `upstream`. This module may not
//! know `api` or `gateway`.

pub mod explain;
pub mod metrics;
pub mod plan;
pub mod respond;
pub mod settings;

mod address;
mod bearer;
mod exchange;
mod filter;
mod forward;
mod gather;
mod head;
mod health;
mod identify;
mod origin;
mod reply;
mod report;
mod route;
mod routes;
mod sources;
mod stall;
#[cfg(test)]
mod tests;
mod upgrade;
mod upload;
mod version;
mod websocket;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use http::{Request, Response};

use crate::{
    listener::{
        self, BoxError, Carrier, Handler, Incoming, ListenError, ListenerOptions, Phase, Running, Unserved,
    },
    resolve::{Explanation, Question},
    supervise::Supervisor,
    table::Assignments,
    token,
    upstream::{Endpoints, Pools, whole::Room},
};

pub use explain::Unexplained;
pub use health::Seen;
pub use metrics::Metrics;
pub use plan::{Compiler, Plan, Planner};
pub use reply::Reply;
pub use settings::{Settings, listener_options, upstream_options};

/// What a proxy works with.
#[derive(Clone)]
pub struct Parts {
    /// Swapped when something changes.
    pub plan: Arc<ArcSwap<Plan>>,
    /// Who goes where.
    pub assignments: Arc<Assignments>,
    /// Servers, as all workers know them.
    pub endpoints: Arc<Endpoints>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Under which the workers' own tasks run.
    pub tasks: Supervisor,
}

/// A proxy that runs.
pub struct Proxy {
    parts: Parts,
    running: Running,
}

impl Proxy {
    /// Binds its address and starts its workers; sockets that are inherited listen there already.
    pub fn start(
        options: ListenerOptions,
        inherited: Vec<TcpListener>,
        parts: Parts,
    ) -> Result<Self, ListenError> {
        let running = listener::start(options, inherited, |_, _| Arc::new(Worker::new(parts.clone())))?;
        Ok(Self { parts, running })
    }

    /// The listening sockets once more, for another process to go on with.
    pub fn sockets(&self) -> std::io::Result<Vec<TcpListener>> {
        self.running.sockets()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.running.address()
    }

    /// Connections and tunnels open now.
    pub fn open_connections(&self) -> usize {
        self.running.open_connections()
    }

    /// Where a message would go, and why. Changes nothing.
    pub async fn explain(&self, question: Question) -> Result<Explanation, Unexplained> {
        self.parts.explain(question).await
    }

    /// Accepts nothing more, finishes what runs, and cuts off what still runs after `grace`.
    pub async fn drain(self, grace: Duration) {
        self.running.drain(grace).await;
    }
}

impl Parts {
    /// As [`Proxy::explain`].
    pub async fn explain(&self, question: Question) -> Result<Explanation, Unexplained> {
        let plan = self.plan.load_full();
        explain::explain(&plan, &self.assignments, question, self.assignments.time().now()).await
    }
}

/// What the messages of one worker share.
struct Worker {
    plan: Arc<ArcSwap<Plan>>,
    assignments: Arc<Assignments>,
    endpoints: Arc<Endpoints>,
    metrics: Arc<Metrics>,
    pools: Pools,
    budget: forward::Budget,
    tokens: token::Cache,
    /// For small bodies that are read before they are sent.
    room: Room,
    /// The time of day in milliseconds since the Unix epoch, as of the last tick.
    unix: AtomicU64,
    /// The table's own time, as of the last tick.
    now: AtomicU64,
    tasks: Supervisor,
}

impl Worker {
    fn new(parts: Parts) -> Self {
        let Parts { plan, assignments, endpoints, metrics, tasks } = parts;
        let pools = Pools::new(&endpoints);
        let (unix, now) = (AtomicU64::new(unix_now()), AtomicU64::new(assignments.time().now()));
        let (budget, tokens) = (forward::Budget::default(), token::Cache::default());
        let room = Room::new(gather::ROOM);
        Self { plan, assignments, endpoints, metrics, pools, budget, tokens, room, unix, now, tasks }
    }

    /// The table's own time.
    fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// The time of day.
    fn unix(&self) -> u64 {
        self.unix.load(Relaxed)
    }
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Handler for Worker {
    type Body = Reply;

    fn handle(
        self: Arc<Self>,
        carrier: Carrier,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Reply>, BoxError>> + Send + 'static {
        exchange::answer(self, carrier, request)
    }

    fn overdue(&self, phase: Phase, peer: SocketAddr) {
        self.metrics.overdue(phase);
        if phase == Phase::RequestHead {
            self.metrics.reports.unserved("head-timeout", peer);
        }
    }

    fn unserved(&self, why: Unserved, peer: Option<SocketAddr>) {
        self.metrics.unserved(why);
        if let Some(peer) = peer {
            self.metrics.reports.unserved(why.name(), peer);
        }
    }

    fn tick(&self, now: u64) {
        self.unix.store(unix_now(), Relaxed);
        self.now.store(self.assignments.time().now(), Relaxed);
        self.pools.tick(now);
    }

    fn supervisor(&self) -> Supervisor {
        self.tasks.clone()
    }
}
