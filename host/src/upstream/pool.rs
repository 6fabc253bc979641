//! One worker's connections to every server, bounded.

mod http2;

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::Response;
use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use super::{
    Break, Endpoint, Endpoints, Metrics, Outgoing, RequestBody, UpstreamError, UpstreamOptions,
    body::ResponseBody,
    dial::{DialError, dial},
    http1::{self, Http1},
    http2::{Http2, Http2Error, Unanswered},
    name::Counted,
    uploads::{Placed, Uploads},
};

pub(crate) use http2::Stream;

/// The pools of one worker, by endpoint.
pub struct Pools {
    by_endpoint: Mutex<HashMap<u64, Arc<Pool>, foldhash::fast::RandomState>>,
    shared: Arc<Shared>,
}

/// What every pool of a worker needs.
struct Shared {
    options: Arc<UpstreamOptions>,
    metrics: Metrics,
    /// The worker's coarse time, in milliseconds.
    now: AtomicU64,
}

/// Which connections will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// One that is open and free, else a new one.
    Any,
    /// Only a new one: one that was open has just turned out to be dead.
    New,
    /// Any but this one of HTTP/2, on which the server has just refused the message.
    Except(u64),
}

/// What became of a request.
pub enum Sent {
    /// It has a response.
    Answered(Response<ResponseBody>),
    /// No connection could be had; the body, as it was.
    Unsent(RequestBody, UpstreamError),
    /// The connection that was to carry it broke.
    Broken {
        /// As it was, if not a byte of the request was sent.
        body: Option<RequestBody>,
        /// The connection had carried messages before, so the server may just have closed it.
        reused: bool,
        /// What happened.
        error: UpstreamError,
    },
    /// The server said that it has not begun the message. That is nobody's failure.
    Refused {
        /// As it was, if it can be sent again.
        body: Option<RequestBody>,
        /// Which connections of the same server may take it.
        next: Connections,
        /// What happened.
        error: UpstreamError,
    },
}

impl Pools {
    /// All empty.
    pub fn new(endpoints: &Endpoints) -> Self {
        let options = endpoints.options().clone();
        let shared = Shared { options, metrics: endpoints.metrics().clone(), now: AtomicU64::new(0) };
        Self { by_endpoint: Mutex::default(), shared: Arc::new(shared) }
    }

    /// Sends a request on a free connection, or on a new one. `peer` is who sends its body.
    pub async fn send(
        &self,
        endpoint: &Arc<Endpoint>,
        connections: Connections,
        request: Outgoing<'_>,
        peer: Option<IpAddr>,
    ) -> Sent {
        let in_flight = endpoint.begin();
        match request {
            Outgoing::Http1(head, mut body) => {
                if let (RequestBody::Stream(_), Some(peer)) = (&body, peer) {
                    body = match Box::pin(self.pool(endpoint).place_upload(peer, body)).await {
                        Ok(placed) => placed,
                        Err((body, error)) => return Sent::Unsent(body, error),
                    };
                }
                let (lease, reused) = match self.http1(endpoint, connections).await {
                    Ok(leased) => leased,
                    Err(error) => return Sent::Unsent(body, error),
                };
                match http1::send(lease, endpoint, head, body, in_flight).await {
                    Ok(response) => Sent::Answered(response.map(ResponseBody::Http1)),
                    Err(failed) => broken(endpoint, failed.body, reused, failed.error.into()),
                }
            }
            Outgoing::Http2(request, wishes) => {
                let pool = self.pool(endpoint);
                let stream = match pool.stream(connections) {
                    Some(stream) => stream,
                    // Rare, and large: kept out of the future of every message.
                    None => match Box::pin(pool.wait_for_stream(connections)).await {
                        Ok(stream) => stream,
                        Err(error) => return Sent::Unsent(request.into_body(), error),
                    },
                };
                let (connection, reused) = (stream.connection().clone(), stream.is_on_reused());
                match connection.send(stream, request, wishes, in_flight).await {
                    Ok(response) => Sent::Answered(response.map(ResponseBody::Http2)),
                    Err(failed) => unanswered(endpoint, &connection, reused, failed),
                }
            }
        }
    }

    async fn http1(
        &self,
        endpoint: &Arc<Endpoint>,
        connections: Connections,
    ) -> Result<(Lease, bool), UpstreamError> {
        if connections == Connections::Any
            && let Some(lease) = self.idle(endpoint, endpoint.addresses())
        {
            return Ok((lease, true));
        }
        // Rare, and large: kept out of the future of every message.
        let opened = Box::pin(self.pool(endpoint).wait_or_open()).await;
        opened.or_else(|error| match connections {
            // There was one, but not one for each address of the server.
            Connections::Any => self.idle(endpoint, 1).map(|lease| (lease, true)).ok_or(error),
            Connections::New | Connections::Except(_) => Err(error),
        })
    }

    /// A connection at rest that its server has not closed meanwhile.
    fn idle(&self, endpoint: &Endpoint, addresses: usize) -> Option<Lease> {
        loop {
            let mut lease = self.by_endpoint.lock().get(&endpoint.number)?.idle(addresses)?;
            if lease.leads(endpoint) && lease.connection().is_alive() {
                self.shared.metrics.reused.inc();
                return Some(lease);
            }
            lease.never_again();
        }
    }

    fn pool(&self, endpoint: &Arc<Endpoint>) -> Arc<Pool> {
        let mut pools = self.by_endpoint.lock();
        let pool = pools.entry(endpoint.number).or_insert_with(|| {
            let (endpoint, shared) = (endpoint.clone(), self.shared.clone());
            let (state, http2, uploads) = (Mutex::default(), http2::Shared::default(), Uploads::default());
            Arc::new(Pool { endpoint, shared, state, http2, uploads })
        });
        pool.clone()
    }

    /// Closes what was idle for too long or was closed by its server; call it now and then.
    pub fn tick(&self, now: u64) {
        self.shared.now.store(now, Relaxed);
        let idle_timeout = u64::try_from(self.shared.options.idle_timeout.as_millis()).unwrap_or(u64::MAX);
        let pools: Vec<_> = self.by_endpoint.lock().values().cloned().collect();
        for pool in &pools {
            if !pool.is_empty() {
                pool.endpoint.refresh_name();
            }
            // Dropped after the lock is released: their destructors take it.
            let closed = pool.close_idle(now, idle_timeout);
            drop(closed);
        }
        drop(pools);
        self.by_endpoint.lock().retain(|_, pool| !pool.is_forgotten());
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        for pool in std::mem::take(&mut *self.by_endpoint.lock()).into_values() {
            // Connections at rest and their pool hold each other.
            let idle = std::mem::take(&mut pool.state.lock().idle);
            drop(idle);
        }
    }
}

fn broken(endpoint: &Endpoint, body: Option<RequestBody>, reused: bool, source: Break) -> Sent {
    let error = UpstreamError::Broken { server: endpoint.uri.to_string(), source };
    Sent::Broken { body, reused, error }
}

fn unanswered(endpoint: &Endpoint, connection: &Http2, reused: bool, failed: Unanswered) -> Sent {
    let Unanswered { body, error } = failed;
    match error {
        Http2Error::Refused(_) => {
            let next = Connections::Except(connection.number());
            let error = UpstreamError::Refused { server: endpoint.uri.to_string(), source: error };
            Sent::Refused { body, next, error }
        }
        Http2Error::Connection(_) => {
            connection.retire();
            broken(endpoint, body, reused, error.into())
        }
        error => broken(endpoint, body, reused, error.into()),
    }
}

/// One worker's connections to one server.
struct Pool {
    endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// Those of HTTP/2.
    http2: http2::Shared,
    uploads: Uploads,
}

#[derive(Default)]
struct State {
    /// The one used last is at the end, and used next.
    idle: Vec<Resting>,
    /// HTTP/1.1 connections, idle or not, and permissions to open one.
    open: usize,
    waiting: VecDeque<oneshot::Sender<Grant>>,
}

struct Resting {
    connection: Lease,
    since: u64,
}

/// What one who waits gets.
enum Grant {
    Connection(Lease),
    /// A connection went: another may be opened.
    Place(Place),
}

impl Pool {
    /// The connection used last. Of a server with several addresses the one that has rested longest,
    /// once there are as many as addresses: so each of them gets its share of the messages.
    fn idle(&self, addresses: usize) -> Option<Lease> {
        let mut state = self.state.lock();
        if addresses < 2 {
            return Some(state.idle.pop()?.connection);
        }
        let options = &self.shared.options;
        let enough = addresses.min(options.max_idle).min(options.max_connections);
        let turn = state.open >= enough && !state.idle.is_empty() && !self.lacks_connection(state.open);
        turn.then(|| state.idle.remove(0).connection)
    }

    /// Whether another connection is to be opened, for an address that has none.
    fn lacks_connection(&self, open: usize) -> bool {
        open < self.shared.options.max_connections && self.endpoint.lacks_connection()
    }

    async fn wait_or_open(self: Arc<Self>) -> Result<(Lease, bool), UpstreamError> {
        let place = match self.place() {
            Ok(place) => place,
            Err(Some(granted)) => match timeout(self.shared.options.queue_timeout, granted).await {
                Ok(Ok(Grant::Connection(lease))) => return Ok((lease, true)),
                Ok(Ok(Grant::Place(place))) => place,
                _ => return Err(self.busy()),
            },
            Err(None) => return Err(self.busy()),
        };
        self.open(place).await.map(|lease| (lease, false)).map_err(|source| self.unreachable(source))
    }

    /// Permission to open a connection; else a promise of one, unless too many wait already.
    fn place(self: &Arc<Self>) -> Result<Place, Option<oneshot::Receiver<Grant>>> {
        let mut state = self.state.lock();
        if state.open < self.shared.options.max_connections {
            state.open += 1;
            return Ok(Place(self.clone()));
        }
        state.waiting.retain(|waiting| !waiting.is_closed());
        if state.waiting.len() >= self.shared.options.max_queue {
            return Err(None);
        }
        let (grant, granted) = oneshot::channel();
        state.waiting.push_back(grant);
        Err(Some(granted))
    }

    async fn open(&self, place: Place) -> Result<Lease, DialError> {
        let options = &self.shared.options;
        let stream = dial(&self.endpoint, options.connect_timeout).await?;
        let origin = Origin::of(&stream, self);
        let connection = Http1::begin(stream, options);
        self.shared.metrics.opened.inc();
        self.shared.metrics.connections.inc();
        Ok(Lease(Some(Box::new(Held { connection, place, origin, spent: false }))))
    }

    /// A body that is passed on as it comes, once its peer has a place for it: half of the connections
    /// that there may be are enough for one.
    async fn place_upload(
        &self,
        peer: IpAddr,
        body: RequestBody,
    ) -> Result<RequestBody, (RequestBody, UpstreamError)> {
        let RequestBody::Stream(stream) = body else { return Ok(body) };
        let options = &self.shared.options;
        let places = self.uploads.of(peer, (options.max_connections / 2).max(1));
        match timeout(options.queue_timeout, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(Placed::body(stream, place)),
            _ => Err((RequestBody::Stream(stream), self.busy())),
        }
    }

    fn unreachable(&self, source: DialError) -> UpstreamError {
        let server = self.endpoint.uri.to_string();
        if source.is_local() {
            self.shared.metrics.lacking(&source);
            return UpstreamError::Local { server, source };
        }
        self.shared.metrics.failed.inc();
        UpstreamError::Connect { server, source }
    }

    fn busy(&self) -> UpstreamError {
        self.shared.metrics.busy.inc();
        UpstreamError::Busy {
            server: self.endpoint.uri.to_string(),
            limit: self.shared.options.max_connections,
        }
    }

    fn close_idle(&self, now: u64, idle_timeout: u64) -> Vec<Resting> {
        let mut state = self.state.lock();
        let over = |resting: &mut Resting| {
            let too_long = now.saturating_sub(resting.since) > idle_timeout;
            too_long
                || resting.connection.is_old(now)
                || !resting.connection.leads(&self.endpoint)
                || !resting.connection.connection().is_alive()
        };
        let mut closed: Vec<_> = state.idle.extract_if(.., over).collect();
        drop(state);
        self.http2.close_idle(self, now, idle_timeout);
        closed.iter_mut().for_each(|resting| resting.connection.never_again());
        closed
    }

    /// No connection is open.
    fn is_empty(&self) -> bool {
        self.state.lock().open == 0 && self.http2.is_empty()
    }

    /// Nothing is open, and no plan knows the server any more.
    fn is_forgotten(self: &Arc<Self>) -> bool {
        let state = self.state.lock();
        Arc::strong_count(&self.endpoint) == 1 && state.open == 0 && self.http2.is_unused()
    }

    /// Takes a connection back, for one who waits or to rest.
    fn give_back(&self, mut lease: Lease) {
        let mut state = self.state.lock();
        while let Some(waiting) = state.waiting.pop_front() {
            match waiting.send(Grant::Connection(lease)) {
                Ok(()) => return,
                Err(Grant::Connection(unwanted)) => lease = unwanted,
                Err(Grant::Place(_)) => return,
            }
        }
        if state.idle.len() >= self.shared.options.max_idle {
            drop(state);
            return lease.never_again();
        }
        state.idle.push(Resting { connection: lease, since: self.shared.now.load(Relaxed) });
    }
}

/// Permission for one connection to be open.
struct Place(Arc<Pool>);

impl Drop for Place {
    fn drop(&mut self) {
        let pool = &self.0;
        let mut state = pool.state.lock();
        while let Some(waiting) = state.waiting.pop_front() {
            if !waiting.is_closed() {
                let passed_on = Place(pool.clone());
                drop(state);
                // If that one gave up just now, its place comes back here.
                let _ = waiting.send(Grant::Place(passed_on));
                return;
            }
        }
        state.open -= 1;
    }
}

struct Held {
    connection: Http1,
    place: Place,
    origin: Origin,
    spent: bool,
}

/// Whence a connection is: to which address of its server, and until when it is used.
pub(super) struct Origin {
    address: Option<IpAddr>,
    /// What [`Endpoint::leads_to`] was asked last.
    generation: u64,
    /// Milliseconds of the worker's time.
    until: u64,
    _counted: Option<Counted>,
}

impl Origin {
    fn of(stream: &TcpStream, pool: &Pool) -> Self {
        let shared = &pool.shared;
        let address = stream.peer_addr().ok().map(|address| address.ip());
        let counted = pool.endpoint.name.as_ref().zip(address).and_then(|(name, ip)| name.count(ip));
        // By chance up to a tenth less, or connections that began together would end together.
        let age = shared.options.max_age.mul_f64(rand::random_range(0.9..1.0));
        let until = match u64::try_from(age.as_millis()) {
            Ok(age @ 1..) => shared.now.load(Relaxed).saturating_add(age),
            _ => u64::MAX,
        };
        Self { address, generation: 0, until, _counted: counted }
    }

    /// Whether it is used for no further message.
    pub(super) fn is_old(&self, now: u64) -> bool {
        now >= self.until
    }

    /// Whether the name of its server still leads where it is connected to.
    pub(super) fn leads(&mut self, endpoint: &Endpoint) -> bool {
        self.address.is_none_or(|address| endpoint.leads_to(address, &mut self.generation))
    }
}

/// A connection in use; returns to its pool when dropped, if it can carry another message.
pub struct Lease(Option<Box<Held>>);

impl Lease {
    /// The connection.
    pub(crate) fn connection(&mut self) -> &mut Http1 {
        &mut self.0.as_mut().expect("held until dropped").connection
    }

    /// The connection alone, out of its pool.
    pub(crate) fn into_connection(mut self) -> Http1 {
        let held = self.0.take().expect("held until dropped");
        held.place.0.shared.metrics.connections.dec();
        held.connection
    }

    fn leads(&mut self, endpoint: &Endpoint) -> bool {
        self.0.as_mut().is_some_and(|held| held.origin.leads(endpoint))
    }

    fn is_old(&self, now: u64) -> bool {
        self.0.as_ref().is_some_and(|held| held.origin.is_old(now))
    }

    /// It is not to be used for another message.
    pub(crate) fn never_again(&mut self) {
        if let Some(held) = &mut self.0 {
            held.spent = true;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(held) = self.0.take() else { return };
        let pool = held.place.0.clone();
        let old = held.origin.is_old(pool.shared.now.load(Relaxed));
        if !held.spent && !old && held.connection.is_reusable() {
            pool.give_back(Self(Some(held)));
        } else {
            pool.shared.metrics.connections.dec();
        }
    }
}

#[cfg(test)]
mod tests;
