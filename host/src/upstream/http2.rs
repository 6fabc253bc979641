//! An HTTP/2 connection to a server, shared by the messages of one worker.
//!
//! Each message drives its own stream, and the connection is a task of its own. How many streams there
//! are is counted here, by what the server has said that it takes; where they go is
//! [`super::pool`]'s.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, SendStream,
    client::{Connection, ResponseFuture, SendRequest},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    task::AbortHandle,
    time::{Sleep, sleep, timeout},
};

use super::{
    BoxError, Metrics, OnInterim, RequestBody, UpstreamOptions, dial::DialError, endpoint::InFlight,
    pool::Stream, replay::Recorded,
};
use crate::{
    http1::outbox::length,
    http2::{
        outgoing::{Outgoing, Unsent},
        received::Received,
        settings, strip_forbidden,
        tunnel::StreamTunnel,
    },
};

/// So many streams on one connection, if the server takes as many; more open another. What a
/// connection loses when a packet is lost is shared by all of them.
const MOST_STREAMS: usize = 100;

/// How often the kernel asks a silent server whether it is there, and for how long it tries to get
/// something to it. Frames would do as well, but servers of gRPC take repeated pings for an attack.
const SILENCE: Duration = Duration::from_secs(20);
const UNACKNOWLEDGED: Duration = Duration::from_secs(40);

/// For a server to say whether it wants a body that its client holds back; many never do (RFC 9110,
/// section 10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);
/// Interim responses to one request.
const MOST_INTERIM: usize = 32;

/// What a message wants besides its response.
#[derive(Clone, Copy)]
pub struct Wishes<'a> {
    /// The client holds its body back until it is asked for it.
    pub expects_continue: bool,
    /// Is told of what comes before the response.
    pub interim: &'a dyn OnInterim,
}

/// How a stream failed its message.
#[derive(Debug, thiserror::Error)]
pub enum Http2Error {
    /// The server says that it has not begun it, or it could not have been sent.
    #[error("the server did not take the request")]
    Refused(#[source] h2::Error),
    /// The server has ended the stream, and has maybe begun it.
    #[error("the server reset the stream")]
    Reset(#[source] h2::Error),
    /// The connection.
    #[error("the connection failed")]
    Connection(#[source] h2::Error),
    /// The client's body failed, not the server.
    #[error("the body of the request failed")]
    Request(#[source] BoxError),
    /// HTTP/2 has no way to say it.
    #[error("the request cannot be sent over HTTP/2")]
    Unsendable(#[source] h2::Error),
    /// Interim responses and no other.
    #[error("interim responses without end")]
    Endless,
    /// What the client wants to speak needs extended CONNECT (RFC 8441).
    #[error("the server takes no tunnels over HTTP/2: it does not announce extended CONNECT")]
    NoTunnels,
}

/// A connection that runs as a task of its own, until nobody holds this and no stream is left.
#[derive(Clone)]
pub(crate) struct Http2(Arc<Shared>);

struct Shared {
    /// Unique among the connections of the process.
    number: u64,
    sender: Mutex<SendRequest<Bytes>>,
    streams: AtomicUsize,
    /// Nothing new is to be sent on it.
    retired: AtomicBool,
    /// Milliseconds of the worker's clock, since when there is no stream.
    idle_since: AtomicU64,
}

impl Http2 {
    /// Begins HTTP/2 on a fresh socket, and waits for the server's settings: they say how many streams
    /// it takes, and that it is HTTP/2 that it speaks.
    pub(crate) async fn begin(
        stream: TcpStream,
        options: &UpstreamOptions,
        metrics: &Metrics,
    ) -> Result<Self, DialError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        notice_death(&stream);
        let limit = options.connect_timeout;
        let begun = timeout(limit, handshake(stream, options)).await;
        let (sender, driver) = begun.map_err(|_| DialError::Timeout(limit))?.map_err(DialError::Handshake)?;
        let shared = Arc::new(Shared {
            number: NUMBER.fetch_add(1, Relaxed),
            sender: Mutex::new(sender),
            streams: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
        });
        let (over, connections) = (Arc::downgrade(&shared), metrics.connections.clone());
        connections.inc();
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "HTTP/2 connection to a server broke off");
            }
            if let Some(shared) = over.upgrade() {
                shared.retired.store(true, Relaxed);
            }
            connections.dec();
        });
        Ok(Self(shared))
    }

    /// Tells this connection from others.
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    /// Whether streams can be opened on it: it is neither closed nor used up, and the server has not
    /// said that it goes away.
    pub(crate) fn is_usable(&self) -> bool {
        // A handle that has sent nothing itself is ready at once, or never.
        let mut cx = Context::from_waker(Waker::noop());
        !self.0.retired.load(Relaxed)
            && !matches!(self.0.sender.lock().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Sends nothing new on it.
    pub(crate) fn retire(&self) {
        self.0.retired.store(true, Relaxed);
    }

    /// How many more streams the server takes.
    pub(crate) fn room(&self) -> usize {
        let most = self.0.sender.lock().current_max_send_streams().min(MOST_STREAMS);
        most.saturating_sub(self.streams())
    }

    pub(crate) fn streams(&self) -> usize {
        self.0.streams.load(Relaxed)
    }

    /// Counts a stream.
    pub(crate) fn take_stream(&self) {
        self.0.streams.fetch_add(1, Relaxed);
    }

    /// A stream is over, at this time of the worker's clock.
    pub(crate) fn give_stream_back(&self, now: u64) {
        if self.0.streams.fetch_sub(1, Relaxed) == 1 {
            self.0.idle_since.store(now, Relaxed);
        }
    }

    /// Whether it has had no stream for longer than this, in milliseconds.
    pub(crate) fn is_idle(&self, now: u64, timeout: u64) -> bool {
        self.streams() == 0 && now.saturating_sub(self.0.idle_since.load(Relaxed)) > timeout
    }

    /// Sends a request and waits for the head of its response. An upgrade in it, as HTTP/1.1 says it,
    /// is asked for by extended CONNECT, and answered as HTTP/1.1 answers it.
    pub(crate) async fn send(
        &self,
        stream: Stream,
        request: Request<RequestBody>,
        wishes: Wishes<'_>,
        in_flight: InFlight,
    ) -> Result<Response<Http2Body>, Unanswered> {
        let (mut head, body) = request.into_parts();
        let protocol = head.headers.remove(header::UPGRADE);
        let mut sender = self.0.sender.lock().clone();
        if let Some(protocol) = &protocol {
            let protocol = protocol.to_str().ok().filter(|_| sender.is_extended_connect_protocol_enabled());
            let Some(protocol) = protocol else {
                return Err(Unanswered::unsent(body, Http2Error::NoTunnels));
            };
            head.method = Method::CONNECT;
            head.extensions.insert(h2::ext::Protocol::from(protocol));
            head.headers.remove(header::SEC_WEBSOCKET_KEY);
        }
        strip_forbidden(&mut head.headers);
        head.version = Version::HTTP_2;
        let tunnels = protocol.is_some();
        let ended = body.is_end_stream() && !tunnels;
        let length = if tunnels { None } else { length(&head.headers, &body) };
        let held = (wishes.expects_continue && !ended && !tunnels).then(|| {
            head.headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
            Box::pin(sleep(CONTINUE))
        });
        if let Err(error) = std::future::poll_fn(|cx| sender.poll_ready(cx)).await {
            return Err(Unanswered::unsent(body, Http2Error::Refused(error)));
        }
        let (response, send) = match sender.send_request(Request::from_parts(head, ()), ended) {
            Ok(sent) => sent,
            Err(error) if error.is_io() || error.is_go_away() => {
                return Err(Unanswered::unsent(body, Http2Error::Refused(error)));
            }
            Err(error) => return Err(Unanswered::unsent(body, Http2Error::Unsendable(error))),
        };
        let sending = match (tunnels, ended) {
            (true, _) => Sending::Tunnel(send),
            (false, true) => Sending::Nothing,
            (false, false) => Sending::Body(Outgoing::new(Recorded::new(body), send, length)),
        };
        let exchange = Exchange { response, sending, held, interim: wishes.interim, informed: 0 };
        exchange.answer(Held { _stream: stream, _in_flight: in_flight }).await
    }
}

/// Without this a server that is gone is noticed after a quarter of an hour.
fn notice_death(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / 2);
    // Only fails on a socket that is dead already.
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

type Begun = (SendRequest<Bytes>, Connection<TcpStream, Bytes>);

async fn handshake(stream: TcpStream, options: &UpstreamOptions) -> Result<Begun, h2::Error> {
    let (sender, mut connection) = settings::to_servers(options.max_head).handshake(stream).await?;
    let mut driver = Pin::new(&mut connection);
    std::future::poll_fn(|cx| match driver.as_mut().poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(h2::Error::from(Reason::PROTOCOL_ERROR))),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending if sender.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await?;
    Ok((sender, connection))
}

/// A request that was not answered.
pub(crate) struct Unanswered {
    /// Its body, if it is still whole and the server has seen nothing that it acted on.
    pub(crate) body: Option<RequestBody>,
    /// Why.
    pub(crate) error: Http2Error,
}

impl Unanswered {
    fn unsent(body: RequestBody, error: Http2Error) -> Self {
        Self { body: Some(body), error }
    }
}

/// What goes to the server while its answer is waited for.
enum Sending {
    Nothing,
    Body(Outgoing<Recorded>),
    /// The body went out, or the server wants no more of it.
    Sent(Recorded),
    /// A tunnel, if the server agrees.
    Tunnel(SendStream<Bytes>),
}

/// A request that was sent, in part or as a whole.
struct Exchange<'a> {
    response: ResponseFuture,
    sending: Sending,
    /// Until when the server is waited for to ask for the body.
    held: Option<Pin<Box<Sleep>>>,
    interim: &'a dyn OnInterim,
    /// Interim responses that came.
    informed: usize,
}

impl Exchange<'_> {
    async fn answer(mut self, held: Held) -> Result<Response<Http2Body>, Unanswered> {
        let answered = std::future::poll_fn(|cx| self.poll_answer(cx)).await;
        let response = match answered {
            Ok(response) => response,
            Err(error) => return Err(self.unanswered(error)),
        };
        let (mut head, receive) = response.into_parts();
        let mut body = Http2Body { received: None, upload: None, tunnel: None, held: Some(held) };
        match self.sending {
            Sending::Tunnel(send) if head.status.is_success() => {
                head.status = StatusCode::SWITCHING_PROTOCOLS;
                body.tunnel = Some(StreamTunnel::new(send, receive));
                return Ok(Response::from_parts(head, body));
            }
            // A body that was not asked for, and that the server has refused to look at.
            Sending::Body(_) if self.held.is_some() && !head.status.is_success() => {}
            // Others than the head of the response wait for the rest of the body.
            Sending::Body(rest) => body.upload = Some(Upload::begin(rest)),
            Sending::Tunnel(_) | Sending::Sent(_) | Sending::Nothing => {}
        }
        let received = Received::new(receive, &head.headers);
        if received.is_end_stream() {
            body.held = None;
        }
        body.received = Some(received);
        Ok(Response::from_parts(head, body))
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<h2::RecvStream>, Http2Error>> {
        while let Poll::Ready(Some(interim)) = self.response.poll_informational(cx) {
            self.inform(interim.map_err(failed)?)?;
        }
        if let Some(held) = &mut self.held
            && held.as_mut().poll(cx).is_ready()
        {
            self.held = None;
        }
        if let (Sending::Body(body), None) = (&mut self.sending, &self.held) {
            match body.poll(cx) {
                Poll::Ready(Err(Unsent::Body(error))) => {
                    body.reset(Reason::CANCEL);
                    return Poll::Ready(Err(Http2Error::Request(error)));
                }
                // The answer says what became of it; a server may have answered and want no more.
                Poll::Ready(Ok(()) | Err(_)) => self.sent(),
                Poll::Pending => {}
            }
        }
        Pin::new(&mut self.response).poll(cx).map_err(failed)
    }

    /// What came before the response.
    fn inform(&mut self, interim: Response<()>) -> Result<(), Http2Error> {
        self.informed += 1;
        if self.informed > MOST_INTERIM {
            return Err(Http2Error::Endless);
        }
        let (head, ()) = interim.into_parts();
        match head.status {
            StatusCode::CONTINUE => self.held = None,
            // HTTP/2 has none (RFC 9113, section 8.6).
            StatusCode::SWITCHING_PROTOCOLS => {}
            status => self.interim.on_interim(status, head.headers),
        }
        Ok(())
    }

    fn sent(&mut self) {
        if let Sending::Body(body) = std::mem::replace(&mut self.sending, Sending::Nothing) {
            self.sending = Sending::Sent(body.into_body());
        }
    }

    fn unanswered(self, error: Http2Error) -> Unanswered {
        let refused = matches!(error, Http2Error::Refused(_));
        let body = match self.sending {
            _ if !refused => None,
            Sending::Body(body) => body.into_body().rewind(),
            Sending::Sent(body) => body.rewind(),
            Sending::Nothing | Sending::Tunnel(_) => Some(RequestBody::Empty),
        };
        Unanswered { body, error }
    }
}

/// What the error of a stream means for its message. Streams above the last that a server says it will
/// look at fail with its GOAWAY, and no others do (RFC 9113, section 6.8).
fn failed(error: h2::Error) -> Http2Error {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    if error.is_remote() && (refused || error.is_go_away()) {
        Http2Error::Refused(error)
    } else if error.is_reset() {
        Http2Error::Reset(error)
    } else {
        Http2Error::Connection(error)
    }
}

/// The rest of a request's body, which goes on while the response comes: the two may wait for each
/// other, in either order.
struct Upload(AbortHandle);

impl Upload {
    fn begin(mut body: Outgoing<Recorded>) -> Self {
        body.body_mut().forget();
        let sending = tokio::spawn(async move {
            if let Err(Unsent::Body(_)) = std::future::poll_fn(|cx| body.poll(cx)).await {
                body.reset(Reason::CANCEL);
            }
        });
        Self(sending.abort_handle())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a message holds until it is over.
struct Held {
    _stream: Stream,
    _in_flight: InFlight,
}

/// A stream after the server agreed to a tunnel.
pub struct Tunnel {
    /// To the server.
    pub(crate) stream: StreamTunnel,
    /// The message goes on.
    _held: Held,
}

/// The body of a response on one stream.
pub struct Http2Body {
    /// None if there is a tunnel.
    received: Option<Received>,
    upload: Option<Upload>,
    tunnel: Option<StreamTunnel>,
    held: Option<Held>,
}

impl Http2Body {
    /// Takes the tunnel. None if the message does not end in one.
    pub(crate) fn tunnel(&mut self) -> Option<Tunnel> {
        Some(Tunnel { stream: self.tunnel.take()?, _held: self.held.take()? })
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(received) = &mut self.received else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(received).poll_frame(cx));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.received.as_ref().is_none_or(Received::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.received.as_ref().map_or(SizeHint::with_exact(0), Received::size_hint)
    }
}
