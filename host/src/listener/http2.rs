//! Serves an HTTP/2 connection: accepts its streams, each of which is a task, and ends it when it is
//! idle, dead, abusive or the listener stops.

mod request;
mod stream;

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason,
    server::{self, SendResponse},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Connection, Handler, Phase,
    io::{Traffic, Watched},
    socket::Socket,
    worker::Worker,
};
use crate::http2::{settings, tunnel::StreamTunnel};

pub(super) use request::StreamBody;

/// Between bytes of a client and a ping that finds out whether it is still there, and for the answer.
const PING: Duration = Duration::from_secs(20);
/// For a client that was told that the connection ends to take what is on its way.
const LINGER: Duration = Duration::from_secs(2);
/// So many streams more than were answered may be cancelled, in a row. Each costs a route and maybe a
/// message to a server, so who goes on ("rapid reset", CVE-2023-44487) is cut off. Clients that hedge
/// their requests cancel one for each that is answered, and browsers a page's worth.
const CANCELS: u32 = 1000;
/// Cancels that are forgiven in each second besides.
const FORGIVEN: u64 = 100;

/// What the streams of a connection and its own task share.
struct Streams {
    connection: Arc<Connection>,
    keep_alive: Duration,
    /// Requests being answered, and tunnels.
    active: AtomicUsize,
    /// Cancelled and not outweighed by answers.
    cancelled: AtomicU32,
}

impl Streams {
    fn forgive(&self, cancels: u32) {
        let left = self.cancelled.load(Relaxed).saturating_sub(cancels);
        self.cancelled.store(left, Relaxed);
    }
}

/// A stream that is not over. While there is one, the connection is not idle, whatever goes over it;
/// and while there is none, nothing that goes over it keeps it.
struct Active(Arc<Streams>);

impl Active {
    fn connection(&self) -> &Arc<Connection> {
        &self.0.connection
    }

    /// The client gave its stream up before it was answered.
    fn cancelled(&self) {
        self.0.cancelled.fetch_add(1, Relaxed);
    }

    /// The stream was answered.
    fn answered(&self) {
        self.0.forgive(1);
    }

    fn begin(streams: &Arc<Streams>) -> Self {
        if streams.active.fetch_add(1, Relaxed) == 0 {
            streams.connection.watch.disarm();
        }
        Self(streams.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Relaxed) == 1 {
            self.0.connection.watch.arm(Phase::Streams, self.0.keep_alive);
        }
    }
}

/// A stream that became a tunnel.
pub struct ClientTunnel {
    tunnel: StreamTunnel,
    _active: Active,
}

impl AsyncRead for ClientTunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientTunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tunnel).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_shutdown(cx)
    }
}

/// Serves a connection to its end. `read` was read already.
pub(super) async fn serve<H: Handler>(
    worker: &Arc<Worker<H>>,
    connection: Arc<Connection>,
    socket: Socket,
    read: bytes::BytesMut,
) {
    let options = &worker.options;
    let traffic = Arc::new(Traffic::new(connection.clock.watch()));
    let io = Watched::new(socket, read, traffic.clone());
    connection.watch.arm(Phase::FirstByte, options.first_byte_timeout);
    let mut handshake = pin!(settings::of_clients(options.max_streams, options.max_head).handshake(io));
    let begun = std::future::poll_fn(|cx| {
        connection.watch.register(cx.waker());
        if connection.stop.is_aborting() || connection.watch.overdue().is_some() {
            return Poll::Ready(None);
        }
        handshake.as_mut().poll(cx).map(Some)
    });
    let mut http2 = match begun.await {
        Some(Ok(http2)) => http2,
        Some(Err(error)) => {
            return tracing::debug!(peer = %connection.peer, %error, "HTTP/2 did not begin");
        }
        None if connection.stop.is_aborting() => return,
        None => return worker.handler.overdue(Phase::FirstByte, connection.peer),
    };
    let keep_alive = options.keep_alive_timeout;
    connection.watch.arm(Phase::Streams, keep_alive);
    traffic.watch.arm(Phase::Streams, PING);
    let pings = http2.ping_pong().map(|ping| Pings { ping, awaited: false });
    let (active, cancelled) = Default::default();
    let forgiven = connection.clock.now();
    let streams = Arc::new(Streams { connection, keep_alive, active, cancelled });
    let mut client =
        Client { worker, http2, streams, traffic, pings, forgiven, cut_off: false, leaving: false };
    std::future::poll_fn(|cx| client.poll(cx)).await;
}

/// One connection's.
struct Client<'a, H: Handler> {
    worker: &'a Arc<Worker<H>>,
    http2: server::Connection<Watched, Bytes>,
    streams: Arc<Streams>,
    traffic: Arc<Traffic>,
    pings: Option<Pings>,
    /// When cancels were forgiven last, in milliseconds of the clock.
    forgiven: u64,
    /// The client has cancelled too much.
    cut_off: bool,
    /// The client was told that the connection ends because it is idle.
    leaving: bool,
}

/// Whether the client is still there.
struct Pings {
    ping: PingPong,
    /// One was sent and not answered.
    awaited: bool,
}

/// What a look at the deadlines came to.
enum Look {
    /// Nothing has changed.
    Wait,
    /// Something is to be sent.
    Changed,
    /// The connection is over.
    Over,
}

impl<H: Handler> Client<'_, H> {
    /// Ready once the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let connection = self.streams.connection.clone();
        connection.watch.register(cx.waker());
        self.traffic.watch.register(cx.waker());
        if connection.stop.is_aborting() {
            return Poll::Ready(());
        }
        if connection.stop.is_stopping() {
            self.http2.graceful_shutdown();
        }
        loop {
            while let Poll::Ready(accepted) = self.http2.poll_accept(cx) {
                match accepted {
                    Some(Ok((request, respond))) => self.accept(request, respond),
                    Some(Err(error)) => {
                        tracing::debug!(peer = %connection.peer, %error, "connection broke off");
                        return Poll::Ready(());
                    }
                    None => {
                        self.traffic.part(connection);
                        return Poll::Ready(());
                    }
                }
            }
            match (self.look_at_silence(cx), self.look_at_idleness()) {
                (Look::Over, _) | (_, Look::Over) => return Poll::Ready(()),
                (Look::Wait, Look::Wait) => return Poll::Pending,
                _ => {}
            }
        }
    }

    fn accept(&mut self, request: http::Request<h2::RecvStream>, respond: SendResponse<Bytes>) {
        if self.cut_off || self.cancels_too_much() {
            // Only once: what the library has said of the last stream it may not say differently.
            if !std::mem::replace(&mut self.cut_off, true) {
                tracing::debug!(peer = %self.streams.connection.peer, "connection closed: too many cancels");
                self.http2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            return;
        }
        self.leaving = false;
        let active = Active::begin(&self.streams);
        tokio::spawn(stream::serve(self.worker.clone(), active, request, respond));
    }

    fn cancels_too_much(&mut self) -> bool {
        if self.streams.cancelled.load(Relaxed) == 0 {
            return false;
        }
        let now = self.streams.connection.clock.now();
        let forgiven = now.saturating_sub(self.forgiven) * FORGIVEN / 1000;
        if forgiven > 0 {
            self.forgiven = now;
            self.streams.forgive(u32::try_from(forgiven).unwrap_or(u32::MAX));
        }
        self.streams.cancelled.load(Relaxed) > CANCELS
    }

    /// Asks a client of which nothing was heard for a while whether it is there.
    fn look_at_silence(&mut self, cx: &mut Context<'_>) -> Look {
        let Some(pings) = &mut self.pings else { return Look::Wait };
        if pings.awaited && pings.ping.poll_pong(cx).is_ready() {
            pings.awaited = false;
        }
        if self.traffic.watch.overdue().is_none() {
            return Look::Wait;
        }
        if pings.awaited || pings.ping.send_ping(Ping::opaque()).is_err() {
            tracing::debug!(peer = %self.streams.connection.peer, "connection closed: no answer to a ping");
            return Look::Over;
        }
        pings.awaited = true;
        self.traffic.watch.arm(Phase::Streams, PING);
        Look::Changed
    }

    /// Ends the connection when no message has been on it for a while: first by telling the client,
    /// then by closing it. What is on its way to a client that still takes it is waited for.
    fn look_at_idleness(&mut self) -> Look {
        let watch = &self.streams.connection.watch;
        if watch.overdue().is_none() || self.streams.active.load(Relaxed) > 0 {
            return Look::Wait;
        }
        if self.http2.has_streams() && self.traffic.wrote() {
            watch.arm(Phase::Streams, self.streams.keep_alive);
            return Look::Wait;
        }
        if std::mem::replace(&mut self.leaving, true) {
            return Look::Over;
        }
        self.worker.handler.overdue(Phase::Streams, self.streams.connection.peer);
        self.http2.graceful_shutdown();
        watch.arm(Phase::Streams, LINGER);
        Look::Changed
    }
}
