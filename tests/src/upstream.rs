//! A server behind the gateway: says who it is, remembers what it was asked, and misbehaves when
//! the path or the test says so.
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | the request's body, as it comes, with its content type |
//! | `/answer` | the request's body, with the status and headers that its `answer-NAME` headers say |
//! | `/status/503` | that status |
//! | `/slow/250` | after so many milliseconds |
//! | `/close` | none: the connection is closed |
//! | `/cut` | a body that breaks off before its `content-length` |
//! | `/big/1000000` | so many bytes |
//! | `/drip/5` | so many chunks, one every 50 ms |
//! | `/trailers` | a body, then `grpc-status: 0` as a trailer |
//! | `/hop` | headers that must not be passed on |
//! | `/websocket` | 101, then an echo |
//! | anything else | 200 and the upstream's name |

mod answer;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
};

use http::{HeaderMap, Method, Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinSet,
};

/// A running upstream; stopped on drop.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: JoinSet<()>,
}

struct Shared {
    name: String,
    seen: std::sync::Mutex<Vec<Seen>>,
    /// Answer everything with this; 0: as the path says.
    status: AtomicU16,
    connections: AtomicUsize,
    tasks: Mutex<JoinSet<()>>,
}

/// A request as the upstream got it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Whether it came over HTTP/2.
    pub http2: bool,
}

impl Seen {
    /// A header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Upstream {
    /// Starts one that calls itself `name`. Speaks HTTP/1.1 and, with prior knowledge, HTTP/2.
    pub async fn start(name: &str) -> Self {
        Self::start_at(name, "127.0.0.1:0".parse().expect("an address")).await
    }

    /// Starts one at a given address, such as that of one that was stopped.
    pub async fn start_at(name: &str, address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("reuse the address");
        socket.bind(address).expect("bind the upstream");
        let listener = socket.listen(1024).expect("listen");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            seen: Default::default(),
            status: AtomicU16::new(0),
            connections: AtomicUsize::new(0),
            tasks: Default::default(),
        });
        let mut running = JoinSet::new();
        running.spawn(accept(listener, shared.clone()));
        Self { address, shared, running }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As the registry writes it.
    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The id that the registry gives it.
    pub fn id(&self) -> String {
        self.address.to_string()
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no test panics while holding it").clone()
    }

    /// The latest request.
    pub fn last(&self) -> Seen {
        self.seen().pop().unwrap_or_else(|| panic!("upstream {} saw no request", self.shared.name))
    }

    /// The number of connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Answers everything with this status from now on; 0 ends that.
    pub fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::Relaxed);
    }

    /// Closes its listener and every connection at once; gives the address, to start it again.
    pub async fn stop(mut self) -> SocketAddr {
        self.running.shutdown().await;
        self.shared.tasks.lock().await.shutdown().await;
        self.address
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let _ = stream.set_nodelay(true);
        let mut tasks = shared.tasks.lock().await;
        while tasks.try_join_next().is_some() {}
        tasks.spawn(serve(stream, shared.clone()));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut first = [0; 3];
    let http2 = matches!(stream.peek(&mut first).await, Ok(3)) && &first == b"PRI";
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = shared.clone();
        async move {
            shared.remember(&request, http2);
            answer::to(request, &shared.name, shared.status.load(Ordering::Relaxed)).await
        }
    });
    let io = TokioIo::new(stream);
    let _ = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await
    };
}

impl Shared {
    fn remember(&self, request: &Request<Incoming>, http2: bool) {
        let target = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
        let (method, headers) = (request.method().clone(), request.headers().clone());
        self.seen.lock().expect("never poisoned").push(Seen { method, target, headers, http2 });
    }
}
