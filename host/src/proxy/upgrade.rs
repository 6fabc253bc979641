//! Connections that become something else: WebSocket, and what else the configuration lets a client
//! and its server agree on. Never another HTTP: no route, filter or token would be looked at any more.
//!
//! The router steps aside only after the server's own 101, never on the client's word, and neither
//! connection is used for another message afterwards.

use std::{sync::Arc, task::Poll, time::Duration};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts, response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::{
    Worker,
    exchange::Inbound,
    reply::Reply,
    respond::Refusal,
    websocket::{Frames, GOING_AWAY},
};
use crate::{
    listener::{Connection, OnUpgrade, Phase, Upgraded, Watch},
    upstream::body::{ResponseBody, ServerTunnel},
};

/// One read of a tunnel.
const BUFFER: usize = 16 << 10;

/// What a client would like to speak.
pub(super) struct Wanted {
    protocol: HeaderValue,
    client: OnUpgrade,
    handshake: Handshake,
}

/// Whose key the handshake of a WebSocket goes by. HTTP/2 has none (RFC 8441, section 5), so one that
/// changes between the versions is made or answered here.
enum Handshake {
    /// The client's, if it has sent one.
    Client(Option<HeaderValue>),
    /// This router's, because the client speaks HTTP/2.
    Own(HeaderValue),
}

impl Wanted {
    /// As the head of its request says, on a connection that carries several messages at a time or not.
    pub(super) fn new(protocol: HeaderValue, head: &Parts, client: OnUpgrade, multiplexed: bool) -> Self {
        let handshake = match multiplexed {
            true => Handshake::Own(HeaderValue::try_from(generate_key()).expect("base64 is a header value")),
            false => Handshake::Client(head.headers.get(header::SEC_WEBSOCKET_KEY).cloned()),
        };
        Self { protocol, client, handshake }
    }

    /// Asks the server for it.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
        if let Handshake::Own(key) = &self.handshake {
            headers.insert(header::SEC_WEBSOCKET_KEY, key.clone());
        }
    }

    /// Whether an answer other than 101 may reach the client: over HTTP/2 it would take a success for the
    /// beginning of the tunnel.
    pub(super) fn may_be_declined_by(&self, status: StatusCode) -> bool {
        !(status.is_success() && matches!(self.handshake, Handshake::Own(_)))
    }

    /// The server agreed: passes its answer on, and from then on whatever comes.
    pub(super) fn begin(
        self,
        inbound: &Inbound,
        response: Response<ResponseBody>,
        silence: Duration,
    ) -> Result<Response<Reply>, Refusal> {
        let broken = |why| Refusal::Unacceptable(StatusCode::BAD_GATEWAY, why);
        let (mut head, mut body) = response.into_parts();
        let server = body.tunnel().ok_or(broken("the server switched protocols and sent a body"))?;
        let Self { protocol, client, handshake } = self;
        // HTTP/2 has the client's word for it alone.
        if matches!(server, ServerTunnel::Http1(_)) && !switches_to(&protocol, &head.headers) {
            return Err(broken("the server switched to another protocol than it was asked for"));
        }
        super::head::strip_response(&mut head.headers, head.status);
        let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        if websocket {
            handshake.complete(&mut head, &server)?;
        }
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
        let connection = inbound.exchange.connection.clone();
        let tunnel = Tunnel { connection, worker: inbound.worker().clone(), silence, websocket };
        tokio::spawn(tunnel.run(client, server));
        Ok(Response::from_parts(head, Reply::own(bytes::Bytes::new())))
    }
}

/// Whether a server that switched protocols says that it is to this one.
fn switches_to(protocol: &HeaderValue, headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::UPGRADE).iter();
    let same = |to: &HeaderValue| to.as_bytes().eq_ignore_ascii_case(protocol.as_bytes());
    lines.next().is_some_and(same) && lines.next().is_none()
}

impl Handshake {
    /// Makes the answer fit the key.
    fn complete(&self, head: &mut response::Parts, server: &ServerTunnel) -> Result<(), Refusal> {
        let accept = |key: &HeaderValue| derive_accept_key(key.as_bytes());
        match (self, server) {
            // They know each other's.
            (Self::Client(_), ServerTunnel::Http1(_)) | (Self::Own(_), ServerTunnel::Http2(_)) => Ok(()),
            (Self::Client(key), ServerTunnel::Http2(_)) => {
                let key = key.as_ref().ok_or(Refusal::Malformed("a WebSocket without sec-websocket-key"))?;
                let accept = HeaderValue::try_from(accept(key)).expect("base64 is a header value");
                head.headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                Ok(())
            }
            (Self::Own(key), ServerTunnel::Http1(_)) => {
                let accepted = head.headers.get(header::SEC_WEBSOCKET_ACCEPT);
                match accepted.is_some_and(|accepted| *accepted == *accept(key)) {
                    true => Ok(()),
                    false => Err(Refusal::Unacceptable(
                        StatusCode::BAD_GATEWAY,
                        "the server accepted a WebSocket that it was not asked for",
                    )),
                }
            }
        }
    }
}

/// Two connections that are one.
struct Tunnel {
    connection: Arc<Connection>,
    worker: Arc<Worker>,
    silence: Duration,
    websocket: bool,
}

impl Tunnel {
    async fn run(self, client: OnUpgrade, server: ServerTunnel) {
        let Some(client) = client.connection().await else { return };
        match server {
            ServerTunnel::Http1(server) => {
                let (from, to) = server.socket.into_split();
                self.join(client, (&*server.read).chain(from), to).await;
            }
            ServerTunnel::Http2(server) => {
                let (from, to) = tokio::io::split(server.stream);
                self.join(client, from, to).await;
            }
        }
    }

    async fn join(
        &self,
        client: Upgraded,
        server_in: impl AsyncRead + Unpin,
        server_out: impl AsyncWrite + Unpin,
    ) {
        let _counted = Counted::begin(&self.worker);
        let (client_in, mut client_out) = tokio::io::split(client.socket);
        let client_in = (&*client.read).chain(client_in);
        let watch = self.connection.clock.watch();
        watch.arm(Phase::Tunnel, self.silence);
        let there = pass(client_in, server_out, &watch);
        let back = async {
            if self.websocket {
                self.pass_frames(server_in, &mut client_out, &watch).await;
            } else {
                pass(server_in, &mut client_out, &watch).await;
            }
        };
        let overdue = std::future::poll_fn(|cx| {
            watch.register(cx.waker());
            watch.overdue().map_or(Poll::Pending, Poll::Ready)
        });
        let both = async {
            // Either side may close its half first and still listen.
            tokio::join!(there, back);
        };
        tokio::select! {
            () = both => {}
            phase = overdue => self.worker.metrics.overdue(phase),
            () = self.connection.stop.aborting() => {}
        }
    }

    /// As [`pass`], but says goodbye between two frames once the listener stops. The client's own
    /// goodbye then goes to the server, and both close.
    async fn pass_frames(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        watch: &Watch,
    ) {
        let mut buffer = vec![0; BUFFER];
        let mut frames = Frames::default();
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                () = self.connection.stop.stopping(), if frames.between_frames() => {
                    let _ = to.write_all(&GOING_AWAY).await;
                    break;
                }
            };
            let Ok(read @ 1..) = read else { break };
            frames.pass(&buffer[..read]);
            watch.touch();
            if to.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }
}

struct Counted<'a>(&'a Worker);

impl<'a> Counted<'a> {
    fn begin(worker: &'a Worker) -> Self {
        worker.metrics.tunnels.inc();
        Self(worker)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.tunnels.dec();
    }
}

/// Passes one direction on to its end, with backpressure; ends the other side's half.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, watch: &Watch) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        watch.touch();
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        watch.touch();
    }
    let _ = to.shutdown().await;
}
