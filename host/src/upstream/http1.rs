//! An HTTP/1.1 connection to a server, driven by whoever uses it.
//!
//! The usual way gives each connection a task of its own and talks to it by channels: two more
//! wake-ups for every message. Here the connection is polled by the task of the message it serves:
//! first for its response, then by the response's body. In between it lies in its pool.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::{BoxError, RequestBody, UpstreamOptions, dial::DialError, endpoint::InFlight, pool::Lease};

/// What one connection's reads are buffered in at most.
const BUFFER: usize = 64 << 10;

/// A connection and the handle to send on it.
pub struct Http1 {
    sender: SendRequest<RequestBody>,
    /// None once it has ended: dropping it is what gives an unsent request back.
    driver: Option<http1::Connection<TokioIo<TcpStream>, RequestBody>>,
    /// Once it has ended without an error: the socket, and what was read of it and is not HTTP.
    left: Option<(TcpStream, Bytes)>,
    relay: Arc<Relay>,
    waker: Waker,
}

impl Http1 {
    /// Begins HTTP on a fresh socket.
    pub(crate) async fn begin(stream: TcpStream, options: &UpstreamOptions) -> Result<Self, DialError> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER.max(options.max_head)).max_header_size(options.max_head);
        let begun = builder.handshake(TokioIo::new(stream)).await;
        let (sender, driver) = begun.map_err(DialError::Handshake)?;
        let relay = Arc::new(Relay { task: Mutex::new(Waker::noop().clone()), deaf: AtomicBool::new(false) });
        let waker = Waker::from(relay.clone());
        Ok(Self { sender, driver: Some(driver), left: None, relay, waker })
    }

    /// Reads and writes what can be.
    fn drive(&mut self, cx: &mut Context<'_>) {
        self.relay.pass_to(cx.waker());
        self.drive_as_registered();
    }

    fn drive_as_registered(&mut self) {
        let Some(driver) = &mut self.driver else { return };
        let ended = Pin::new(driver).poll(&mut Context::from_waker(&self.waker));
        let Poll::Ready(ended) = ended else { return };
        let driver = self.driver.take().filter(|_| ended.is_ok());
        self.left = driver.map(|driver| {
            let parts = driver.into_parts();
            (parts.io.into_inner(), parts.read_buf)
        });
    }

    /// Whether another message can be sent on it now.
    pub(crate) fn is_reusable(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Nobody is to be woken by it any more.
    pub(crate) fn rest(&self) {
        self.relay.pass_to(Waker::noop());
    }

    /// Finds out whether a connection at rest was closed by the server.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.drive_as_registered();
        self.is_reusable()
    }
}

/// Wakes the task that drives a connection at the time.
///
/// A connection keeps this one waker for life, so that moving it from task to task re-registers
/// nothing; and it is deaf while the task talks to its own connection, which would otherwise wake
/// the very task that is running.
struct Relay {
    task: Mutex<Waker>,
    deaf: AtomicBool,
}

impl Relay {
    fn pass_to(&self, waker: &Waker) {
        let mut task = self.task.lock();
        if !task.will_wake(waker) {
            task.clone_from(waker);
        }
    }

    fn deafly<T>(&self, act: impl FnOnce() -> T) -> T {
        self.deaf.store(true, Relaxed);
        let done = act();
        self.deaf.store(false, Relaxed);
        done
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.deaf.load(Relaxed) {
            self.task.lock().wake_by_ref();
        }
    }
}

/// A request that was not answered.
pub struct Unanswered {
    /// Given back if not a byte of it was sent.
    pub request: Option<Request<RequestBody>>,
    /// How the connection ended.
    pub error: hyper::Error,
}

/// Sends a request and waits for the head of its response.
pub async fn send(
    mut lease: Lease,
    request: Request<RequestBody>,
    in_flight: InFlight,
) -> Result<Response<Http1Body>, Unanswered> {
    let http1 = lease.connection();
    let answer = http1.relay.deafly(|| http1.sender.try_send_request(request));
    let mut answer = pin!(answer);
    let answered = std::future::poll_fn(|cx| {
        http1.drive(cx);
        // Only driving the connection can bring the answer, so nobody else need be woken.
        answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    });
    match answered.await {
        Ok(response) => {
            let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            Ok(response.map(|incoming| Http1Body::new(incoming, lease, in_flight, upgraded)))
        }
        Err(mut error) => Err(Unanswered { request: error.take_message(), error: error.into_error() }),
    }
}

/// What is left of a connection after it was upgraded.
pub struct Tunnel {
    /// To the server.
    pub socket: TcpStream,
    /// Comes before what is still to be read.
    pub read: Bytes,
    /// The message goes on.
    pub in_flight: InFlight,
}

/// The body of a response, which drives its connection and gives it back at the end.
pub struct Http1Body {
    incoming: Incoming,
    /// None once given back.
    lease: Option<Lease>,
    in_flight: Option<InFlight>,
}

impl Http1Body {
    /// An upgraded connection is kept for [`Self::tunnel`].
    fn new(incoming: Incoming, lease: Lease, in_flight: InFlight, upgraded: bool) -> Self {
        let mut body = Self { incoming, lease: Some(lease), in_flight: Some(in_flight) };
        if body.incoming.is_end_stream() && !upgraded {
            body.finish();
        }
        body
    }

    /// Takes the socket for a tunnel, with what was read of it beyond the response's head. None if
    /// the connection does not end in one.
    pub(crate) async fn tunnel(&mut self) -> Option<Tunnel> {
        let mut lease = self.lease.take()?;
        lease.never_again();
        let http1 = lease.connection();
        std::future::poll_fn(|cx| {
            http1.drive(cx);
            if http1.driver.is_none() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let (socket, read) = http1.left.take()?;
        Some(Tunnel { socket, read, in_flight: self.in_flight.take()? })
    }

    /// Everything was received: the pool decides what becomes of the connection.
    fn finish(&mut self) {
        self.in_flight = None;
        self.lease = None;
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let mut here = Context::from_waker(Waker::noop());
        let incoming = &mut this.incoming;
        let mut polled = match &mut this.lease {
            Some(lease) => {
                let relay = &lease.connection().relay;
                relay.deafly(|| Pin::new(&mut *incoming).poll_frame(&mut here))
            }
            None => Pin::new(&mut *incoming).poll_frame(&mut here),
        };
        if let (Poll::Pending, Some(lease)) = (&polled, &mut this.lease) {
            lease.connection().drive(cx);
            polled = Pin::new(incoming).poll_frame(&mut here);
        }
        match &polled {
            Poll::Ready(None) => this.finish(),
            Poll::Ready(Some(Ok(_))) if this.incoming.is_end_stream() => this.finish(),
            Poll::Ready(Some(Err(_))) => {
                if let Some(lease) = &mut this.lease {
                    lease.never_again();
                }
                this.finish();
            }
            _ => {}
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Http1Body {
    fn drop(&mut self) {
        // A response that was not read to its end would be taken for the next one's.
        if let Some(lease) = &mut self.lease
            && !self.incoming.is_end_stream()
        {
            lease.never_again();
        }
    }
}
