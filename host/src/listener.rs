//! Sockets: accepts connections, finds out what is spoken on them, and serves it to a handler.
//!
//! Each worker is a thread with its own single-threaded runtime, its own listening socket
//! (`SO_REUSEPORT`) and everything that belongs to the connections it accepted, so that the path
//! of a message crosses no thread. This module knows bytes, TLS, HTTP framing and limits of
//! connections; what a request means it leaves to its [`Handler`]. It may not know `proxy`.

pub mod options;
pub mod socket;
pub mod tls;
pub mod watch;

pub(crate) mod refuse;

mod accept;
mod bind;
mod connection;
mod http1;
mod http2;
mod incoming;
mod interim;
mod io;
mod limit;
mod linger;
mod wire;
mod worker;

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Body;

pub use crate::http1::BoxError;
use crate::supervise::Supervisor;
pub use incoming::{Incoming, OnUpgrade};
pub use interim::{Informs, Interim};
pub use options::{ListenerOptions, TlsFiles};
pub use refuse::Unserved;
pub use watch::{Clock, Phase, Watch};
pub use wire::Upgraded;
pub use worker::{ListenError, Running, Stop, start};

/// What requests on a worker's connections are handed to.
pub trait Handler: Send + Sync + 'static {
    /// What responses carry.
    type Body: Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static;

    /// Answers one request; an error breaks its connection or stream off without an answer.
    fn handle(
        self: Arc<Self>,
        carrier: Carrier,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Self::Body>, BoxError>> + Send + 'static;

    /// Told when a phase of a connection, rather than of a message, took too long.
    fn overdue(&self, _phase: Phase, _peer: SocketAddr) {}

    /// Told when a connection or a head is refused.
    fn unserved(&self, _why: Unserved, _peer: Option<SocketAddr>) {}

    /// Called a few times a second on the worker.
    fn tick(&self, _now: u64) {}

    /// Under which the worker's own tasks run.
    fn supervisor(&self) -> Supervisor {
        Supervisor::default()
    }
}

/// What carries one message.
pub struct Carrier {
    /// On which it came.
    pub connection: Arc<Connection>,
    /// Its deadlines: those of the connection, unless that carries several at a time. Once there is a
    /// response, the listener ends it when the client does not take it by then.
    pub watch: Arc<Watch>,
    /// Where its interim responses go.
    pub interim: Interim,
}

/// What is known of the connection on which a request came.
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// Its IP address as a header says it.
    pub peer_text: HeaderValue,
    /// Whether it is encrypted.
    pub tls: bool,
    /// Whether it carries several messages at a time.
    pub multiplexed: bool,
    /// The worker's time.
    pub clock: Arc<Clock>,
    /// Deadlines of the connection; on HTTP/1.1 of its only message, too.
    pub watch: Arc<Watch>,
    /// Between requests.
    pub keep_alive: std::time::Duration,
    /// Whether the listener is stopping.
    pub stop: Arc<Stop>,
    /// What goes out before the response at hand, on HTTP/1.1.
    interim: interim::Waiting,
    /// Counted as open for as long as anything of it runs, a tunnel too.
    _place: limit::Place,
    _open: worker::Open,
}

#[cfg(test)]
impl Connection {
    /// One that nothing runs on.
    pub(crate) fn for_tests(peer: &str) -> Self {
        let clock = Arc::new(Clock::default());
        let limits = limit::Limits::new(1, 0);
        let address = peer.parse().unwrap();
        Self {
            peer: SocketAddr::new(address, 1),
            peer_text: peer.parse().unwrap(),
            tls: false,
            multiplexed: false,
            watch: clock.watch(),
            clock,
            keep_alive: std::time::Duration::ZERO,
            stop: Arc::default(),
            interim: interim::Waiting::default(),
            _place: limits.admit(address).unwrap(),
            _open: worker::Open::for_tests(),
        }
    }
}
