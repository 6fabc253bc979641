//! The API's listener: accepts connections, bounds them, and serves the router on each.

mod reserve;

use std::{io, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{State, guard::Peer, router};
use crate::{
    config::ApiConfig,
    drain::Drain,
    listener::{TlsFiles, tls},
    pace::Pace,
};
use reserve::Reserve;

pub(super) use reserve::Asked;

/// Enough for the heads that the API takes.
const HEAD: usize = 32 << 10;

/// After an accept that failed, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A socket that listens, and its certificate.
pub struct Listener {
    socket: TcpListener,
    connections: usize,
    tls: Option<(TlsFiles, Arc<ArcSwap<ServerConfig>>)>,
}

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, or not of this machine.
    #[error("cannot listen on {0}, the API's address; set another with `[api] listen` or --api")]
    Address(SocketAddr, #[source] io::Error),
    /// The certificate or its key.
    #[error("the API's certificate cannot be used: see `[api] tls`")]
    Tls(#[from] tls::TlsError),
}

impl Listener {
    /// Listens as configured, for at most so many connections; on what is inherited, if that is where it
    /// should be.
    pub async fn bind(
        config: &ApiConfig,
        connections: usize,
        inherited: Option<std::net::TcpListener>,
    ) -> Result<Self, BindError> {
        let tls = config.tls.as_ref().map(|files| {
            let files = TlsFiles { cert: files.cert.clone(), key: files.key.clone() };
            tls::load(&files).map(|loaded| (files, Arc::new(ArcSwap::new(loaded))))
        });
        let tls = tls.transpose()?;
        let wanted = config.listen;
        let is_wanted = |at: SocketAddr| at.ip() == wanted.ip() && [0, at.port()].contains(&wanted.port());
        let inherited = inherited.filter(|socket| socket.local_addr().is_ok_and(is_wanted));
        let socket = match inherited {
            Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
            None => TcpListener::bind(wanted).await,
        };
        let socket = socket.map_err(|error| BindError::Address(config.listen, error))?;
        Ok(Self { socket, connections, tls })
    }

    /// The socket once more, for another process to go on with.
    pub fn socket(&self) -> io::Result<std::net::TcpListener> {
        self.socket.as_fd().try_clone_to_owned().map(Into::into)
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Serves the API until the drain is requested and every connection has finished. Of the connections
/// over the bound some are served for health checks and operators; the rest are closed.
pub async fn serve(listener: Arc<Listener>, state: State) {
    let (drain, api) = (state.drain.clone(), state.config.borrow().api.clone());
    let places = Arc::new(Semaphore::new(listener.connections));
    let certificate = listener.tls.as_ref().map(|(_, certificate)| Arc::clone(certificate));
    let (head, stall) = (api.timeouts.head, api.timeouts.request);
    let connection = Connection { router: router(state), head, stall, certificate, drain, asked: None };
    let accepting = accept(&listener.socket, places, &connection);
    match listener.tls.clone() {
        Some((files, certificate)) => tokio::select! {
            () = accepting => {}
            () = tls::follow(files, tls::Acceptor::new(certificate)) => {}
        },
        None => accepting.await,
    }
}

async fn accept(socket: &TcpListener, places: Arc<Semaphore>, connection: &Connection) {
    let (reserve, said) = (Reserve::default(), Pace::default());
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = connection.drain.requested() => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(connection, &places, &reserve, (stream, peer)),
            Err(error) => {
                if let Some(unsaid) = said.turn() {
                    tracing::warn!(%error, unsaid, "the API cannot accept connections; trying again");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn admit(
    connection: &Connection,
    places: &Arc<Semaphore>,
    reserve: &Reserve,
    (stream, peer): (TcpStream, SocketAddr),
) {
    let connection = connection.clone();
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        tokio::spawn(async move {
            connection.serve(stream, peer).await;
            drop(place);
        });
        return;
    }
    let head = connection.head.min(reserve::HEAD);
    let served = |asked| Connection { head, asked: Some(asked), ..connection }.serve(stream, peer);
    if !reserve.serve(served) {
        tracing::debug!(%peer, "a connection to the API was refused: too many are open");
    }
}

/// What every connection is served with.
#[derive(Clone)]
struct Connection {
    router: Router,
    head: Duration,
    stall: Duration,
    certificate: Option<Arc<ArcSwap<ServerConfig>>>,
    drain: Drain,
    /// It is one over the bound, for a single request.
    asked: Option<Asked>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        // A peer that reads nothing is as good as gone.
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(self.stall));
        match &self.certificate {
            None => self.http(stream, peer).await,
            Some(certificate) => {
                let handshake = handshake(certificate.load_full(), stream);
                if let Ok(Ok(stream)) = timeout(self.head, handshake).await {
                    self.http(stream, peer).await;
                }
            }
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr) {
        let service = TowerToHyperService::new(self.router.clone());
        let asked = self.asked.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            if let Some(asked) = asked.clone().filter(Asked::asks) {
                request.extensions_mut().insert(asked);
            }
            hyper::service::Service::call(&service, request.map(Body::new))
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.head).max_buf_size(HEAD);
        http.keep_alive(self.asked.is_none());
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::pin!(connection);
        tokio::select! {
            _ = &mut connection => return,
            () = self.drain.requested() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

/// The proxy's certificates offer HTTP/2 as well, which the API does not speak.
async fn handshake(certificate: Arc<ServerConfig>, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let mut certificate = ServerConfig::clone(&certificate);
    certificate.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(certificate)).accept(stream).await
}
