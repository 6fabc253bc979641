//! An HTTP/2 connection to a server, shared by the messages of one worker.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::{BoxError, Metrics, RequestBody, UpstreamOptions, dial::DialError, endpoint::InFlight};

/// Between pings that find out whether the server is still there, and for the answer.
const PING: Duration = Duration::from_secs(20);
/// So many streams on every connection open another, while there may be more.
const CROWDED: usize = 100;

/// A connection that runs as a task of its own.
#[derive(Clone)]
pub struct Http2 {
    sender: SendRequest<RequestBody>,
    streams: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Http2 {
    /// Begins HTTP/2 on a fresh socket.
    pub(crate) async fn begin(
        stream: TcpStream,
        options: &UpstreamOptions,
        metrics: &Metrics,
    ) -> Result<Self, DialError> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(options.max_head).unwrap_or(u32::MAX))
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        let begun = builder.handshake(TokioIo::new(stream)).await;
        let (sender, driver) = begun.map_err(DialError::Handshake)?;
        let ended = Arc::new(AtomicBool::new(false));
        let (over, connections) = (ended.clone(), metrics.connections.clone());
        connections.inc();
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "HTTP/2 connection to a server broke off");
            }
            over.store(true, Relaxed);
            connections.dec();
        });
        Ok(Self { sender, streams: Arc::default(), ended })
    }

    pub(crate) fn is_usable(&self) -> bool {
        !self.ended.load(Relaxed) && !self.sender.is_closed()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.streams.load(Relaxed) == 0
    }

    pub(crate) fn is_crowded(&self) -> bool {
        self.streams.load(Relaxed) >= CROWDED
    }

    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Relaxed)
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn send(
        mut self,
        request: Request<RequestBody>,
        in_flight: InFlight,
    ) -> Result<Response<Http2Body>, Unanswered> {
        let stream = Stream::begin(self.streams.clone(), in_flight);
        if let Err(error) = self.sender.ready().await {
            return Err(Unanswered { body: Some(request.into_body()), error });
        }
        match self.sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(|incoming| Http2Body { incoming, _stream: stream })),
            Err(mut error) => {
                let body = error.take_message().map(Request::into_body);
                Err(Unanswered { body, error: error.into_error() })
            }
        }
    }
}

/// A request that was not answered.
pub(crate) struct Unanswered {
    /// Its body, given back if not a byte of the request was sent.
    pub(crate) body: Option<RequestBody>,
    /// How the connection ended.
    pub(crate) error: hyper::Error,
}

/// Counts a message on a connection and as in flight.
struct Stream {
    streams: Arc<AtomicUsize>,
    _in_flight: InFlight,
}

impl Stream {
    fn begin(streams: Arc<AtomicUsize>, in_flight: InFlight) -> Self {
        streams.fetch_add(1, Relaxed);
        Self { streams, _in_flight: in_flight }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Relaxed);
    }
}

/// The body of a response on one stream.
pub struct Http2Body {
    incoming: Incoming,
    _stream: Stream,
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
