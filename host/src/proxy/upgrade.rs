//! Connections that become something else: WebSocket and whatever else a client and its server
//! agree on.
//!
//! The router steps aside only after the server's own 101, never on the client's word, and neither
//! connection is used for another message afterwards.

use std::{sync::Arc, task::Poll, time::Duration};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    Worker,
    exchange::Inbound,
    reply::Reply,
    respond::Refusal,
    websocket::{Frames, GOING_AWAY},
};
use crate::{
    listener::{Connection, OnUpgrade, Phase, Watch},
    upstream::{body::ResponseBody, http1::Http1Body},
};

/// One read of a tunnel.
const BUFFER: usize = 16 << 10;

/// What a client would like to speak.
pub(super) struct Wanted {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Wanted {
    /// As the head of its request says.
    pub(super) fn by(head: &Parts, client: OnUpgrade) -> Option<Self> {
        Some(Self { protocol: head.headers.get(header::UPGRADE)?.clone(), client })
    }

    /// Asks the server for it.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// The server agreed: passes its answer on, and from then on whatever comes.
    pub(super) fn begin(
        self,
        inbound: &Inbound,
        response: Response<ResponseBody>,
        silence: Duration,
    ) -> Result<Response<Reply>, Refusal> {
        let (mut head, body) = response.into_parts();
        let ResponseBody::Http1(body) = body else {
            return Err(Refusal::Unacceptable(
                StatusCode::BAD_GATEWAY,
                "the server switched protocols over HTTP/2",
            ));
        };
        let protocol = head.headers.get(header::UPGRADE).cloned().unwrap_or(self.protocol);
        super::head::strip_response(&mut head.headers);
        let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
        let connection = inbound.exchange.connection.clone();
        let tunnel = Tunnel { connection, worker: inbound.worker().clone(), silence, websocket };
        tokio::spawn(tunnel.run(self.client, body));
        Ok(Response::from_parts(head, Reply::own(bytes::Bytes::new())))
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
    async fn run(self, client: OnUpgrade, mut body: Http1Body) {
        let Some(server) = body.tunnel() else { return };
        let Some(client) = client.connection().await else { return };
        let _counted = Counted::begin(&self.worker);
        let (client_in, mut client_out) = tokio::io::split(client.socket);
        let client_in = (&*client.read).chain(client_in);
        let (server_in, server_out) = server.socket.into_split();
        let watch = self.connection.clock.watch();
        watch.arm(Phase::Tunnel, self.silence);
        if client_out.write_all(&server.read).await.is_err() {
            return;
        }
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
