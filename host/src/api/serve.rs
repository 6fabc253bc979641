//! The API's listener: accepts connections, bounds them, and serves the router on each.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

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
};

/// Enough for the heads that the API takes.
const HEAD: usize = 32 << 10;

/// After an accept that failed, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A socket that listens, and its certificate.
pub struct Listener {
    socket: TcpListener,
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
    /// Listens as configured.
    pub async fn bind(config: &ApiConfig) -> Result<Self, BindError> {
        let tls = config.tls.as_ref().map(|files| {
            let files = TlsFiles { cert: files.cert.clone(), key: files.key.clone() };
            tls::load(&files).map(|loaded| (files, Arc::new(ArcSwap::new(loaded))))
        });
        let tls = tls.transpose()?;
        let socket = TcpListener::bind(config.listen).await;
        Ok(Self { socket: socket.map_err(|error| BindError::Address(config.listen, error))?, tls })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Serves the API until the drain is requested and every connection has finished. Connections
/// over the bound wait in the listener's backlog.
pub async fn serve(listener: Listener, state: State) {
    let (drain, api) = (state.drain.clone(), state.config.borrow().api.clone());
    let places = Arc::new(Semaphore::new(api.limits.connections));
    let certificate = listener.tls.as_ref().map(|(_, certificate)| Arc::clone(certificate));
    let (head, stall) = (api.timeouts.head, api.timeouts.request);
    let connection = Connection { router: router(state), head, stall, certificate, drain };
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
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = connection.drain.requested() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection.clone();
                tokio::spawn(async move {
                    connection.serve(stream, peer).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "the API could not accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
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
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            hyper::service::Service::call(&service, request.map(Body::new))
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.head).max_buf_size(HEAD);
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
