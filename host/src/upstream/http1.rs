//! An HTTP/1.1 connection to a server, driven by whoever uses it.
//!
//! The usual way gives each connection a task of its own and talks to it by channels: two more
//! wake-ups and several allocations for every message. Here the connection is polled by the task of
//! the message it serves: first for the head of its response, then by the response's body. In
//! between it lies in its pool. How messages are written and read is [`crate::http1`]'s.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{
    BoxError, Endpoint, RequestBody, UpstreamOptions, endpoint::InFlight, outgoing::RequestHead, pool::Lease,
};
use crate::http1::{
    Malformed, Unwritten,
    decode::Decoder,
    outbox::{Framing, Outbox, length, write_framing, write_headers, write_line},
    poll_fill,
    response::{Parser, ResponseHead, Unreadable},
};

/// For a server to say whether it wants a body that its client holds back. Many never do, so that the
/// body has to be sent without a word some time (RFC 9110, section 10.1.1); curl waits for as long.
const CONTINUE: Duration = Duration::from_secs(1);

/// How a connection failed its message.
#[derive(Debug, thiserror::Error)]
pub enum Http1Error {
    /// Before the response was complete.
    #[error("the server closed the connection")]
    Closed,
    /// The socket.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// Not HTTP, or HTTP that can be understood in two ways.
    #[error("malformed response: {0}")]
    Malformed(#[from] Malformed),
    /// Longer than a head may be.
    #[error("the head of the response is longer than {0} bytes")]
    HeadTooLong(usize),
    /// The client's body failed, not the server.
    #[error("the body of the request failed")]
    Request(#[source] BoxError),
}

impl From<Unreadable> for Http1Error {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Malformed(malformed) => Self::Malformed(malformed),
            Unreadable::TooLong(most) => Self::HeadTooLong(most),
        }
    }
}

/// A connection.
pub struct Http1 {
    socket: TcpStream,
    /// What was read and not yet understood.
    read: BytesMut,
    outbox: Outbox<RequestBody>,
    parser: Parser,
    /// Until when the server is waited for to ask for the body.
    asked: Option<Pin<Box<Sleep>>>,
    /// Why no more is written; the server may still have answered.
    unwritable: Option<Http1Error>,
    /// Nothing is under way on it, and the server keeps it open.
    at_rest: bool,
}

impl Http1 {
    /// Takes a fresh socket.
    pub(crate) fn begin(socket: TcpStream, options: &UpstreamOptions) -> Self {
        Self {
            socket,
            read: BytesMut::new(),
            outbox: Outbox::default(),
            parser: Parser::new(options.max_head),
            asked: None,
            unwritable: None,
            at_rest: true,
        }
    }

    /// Whether another message can be sent on it, as far as is known without looking.
    pub(crate) fn is_reusable(&self) -> bool {
        self.at_rest
    }

    /// Looks whether a connection at rest was closed by the server, or holds what nobody asked for.
    pub(crate) fn is_alive(&self) -> bool {
        let nothing = self.socket.try_read(&mut [0]);
        self.at_rest && nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Polls for the head of the response, sending the request meanwhile.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        request: &RequestHead<'_>,
    ) -> Poll<Result<ResponseHead, Http1Error>> {
        loop {
            self.upload(cx)?;
            if let Some(head) = self.parser.parse(&mut self.read, request.method)? {
                match head.status {
                    StatusCode::CONTINUE => self.send_body(),
                    StatusCode::SWITCHING_PROTOCOLS => return Poll::Ready(self.answered(head)),
                    status if status.is_informational() => request.interim.on_interim(status, head.headers),
                    _ => return Poll::Ready(self.answered(head)),
                }
                continue;
            }
            match self.poll_fill(cx, 0) {
                Poll::Pending => match &mut self.asked {
                    Some(asked) => {
                        ready!(asked.as_mut().poll(cx));
                        self.send_body();
                    }
                    None => return Poll::Pending,
                },
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(self.unwritable.take().unwrap_or(Http1Error::Closed)));
                }
                Poll::Ready(Err(error)) => {
                    let error = Http1Error::Io(error);
                    return Poll::Ready(Err(self.unwritable.take().unwrap_or(error)));
                }
            }
        }
    }

    /// The client holds the body back until the server asks for it, or has been asked for long enough.
    fn hold_body(&mut self) {
        self.outbox.hold();
        self.asked = self.outbox.is_held().then(|| Box::pin(sleep(CONTINUE)));
    }

    fn send_body(&mut self) {
        self.outbox.release();
        self.asked = None;
    }

    /// The response begins. A body that was not asked for is sent if the server seems to have accepted
    /// the request, as clients do; one that cannot be sent any more is given up, so that its client is
    /// not left to send what nobody reads.
    fn answered(&mut self, head: ResponseHead) -> Result<ResponseHead, Http1Error> {
        let refused = self.outbox.is_held() && !head.status.is_success() && !head.status.is_informational();
        if refused || self.unwritable.is_some() {
            self.outbox.abandon();
        }
        self.send_body();
        // What can be seen to be malformed is found before anything of the response was passed on.
        head.decoder.check(&self.read)?;
        Ok(head)
    }

    /// Sends what can be sent. A server that takes no more may have answered all the same.
    fn upload(&mut self, cx: &mut Context<'_>) -> Result<(), Http1Error> {
        if self.unwritable.is_some() {
            return Ok(());
        }
        match self.outbox.poll(cx, &mut self.socket) {
            Poll::Ready(Err(Unwritten::Io(error))) => self.unwritable = Some(Http1Error::Io(error)),
            Poll::Ready(Err(Unwritten::Body(error))) => return Err(Http1Error::Request(error)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        Ok(())
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        poll_fill(cx, &mut self.socket, &mut self.read, wanted)
    }

    /// The message is over; whether another may follow depends on how it went.
    fn settle(&mut self, keep_alive: bool) {
        self.at_rest =
            keep_alive && self.unwritable.is_none() && self.outbox.is_empty() && self.read.is_empty();
    }
}

/// A request that was not answered.
pub(crate) struct Unanswered {
    /// Its body, given back if not a byte of the request was sent.
    pub(crate) body: Option<RequestBody>,
    /// How the connection ended.
    pub(crate) error: Http1Error,
}

/// Sends a request and waits for the head of its response.
pub(crate) async fn send(
    mut lease: Lease,
    endpoint: &Endpoint,
    request: RequestHead<'_>,
    body: RequestBody,
    in_flight: InFlight,
) -> Result<Response<Http1Body>, Unanswered> {
    let http1 = lease.connection();
    http1.at_rest = false;
    http1.parser.begin();
    let framing = framing(&request, &body);
    http1.outbox.begin(body, framing, |text| write_head(text, endpoint, &request, framing));
    if request.expects_continue {
        http1.hold_body();
    }
    match std::future::poll_fn(|cx| http1.poll_head(cx, &request)).await {
        Ok(head) => Ok(Http1Body::response(head, lease, in_flight)),
        Err(error) => {
            let body = http1.outbox.take_back();
            Err(Unanswered { body, error })
        }
    }
}

/// None: there is no body, and nothing need be said of it.
fn framing(head: &RequestHead<'_>, body: &RequestBody) -> Option<Framing> {
    let said = head.headers.get(header::CONTENT_LENGTH);
    if body.is_end_stream() {
        let expected = matches!(*head.method, Method::POST | Method::PUT | Method::PATCH);
        return (expected || said.is_some()).then_some(Framing::Length(0));
    }
    let length = length(head.headers, body);
    Some(length.map_or(Framing::Chunked { trailers: true }, Framing::Length))
}

fn write_head(text: &mut Vec<u8>, endpoint: &Endpoint, head: &RequestHead<'_>, framing: Option<Framing>) {
    text.extend_from_slice(head.method.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(endpoint.base.as_bytes());
    text.extend_from_slice(head.target.as_bytes());
    text.extend_from_slice(b" HTTP/1.1\r\n");
    if !head.headers.contains_key(header::HOST) {
        write_line(text, "host", endpoint.authority.as_bytes());
    }
    write_headers(text, head.headers, |name| {
        !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING)
    });
    write_framing(text, framing);
    if head.expects_continue && !matches!(framing, None | Some(Framing::Length(0))) {
        write_line(text, "expect", b"100-continue");
    }
    text.extend_from_slice(b"\r\n");
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
    decoder: Decoder,
    keep_alive: bool,
    /// None once given back.
    lease: Option<Lease>,
    in_flight: Option<InFlight>,
}

impl Http1Body {
    fn response(head: ResponseHead, lease: Lease, in_flight: InFlight) -> Response<Self> {
        let ResponseHead { status, headers, decoder, keep_alive } = head;
        let mut body = Self { decoder, keep_alive, lease: Some(lease), in_flight: Some(in_flight) };
        // An upgraded connection is kept for [`Self::tunnel`].
        if body.decoder.is_done() && status != StatusCode::SWITCHING_PROTOCOLS {
            body.finish();
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    /// Takes the socket for a tunnel, with what was read of it beyond the response's head. None if
    /// the connection does not end in one.
    pub(crate) fn tunnel(&mut self) -> Option<Tunnel> {
        let Http1 { socket, read, .. } = self.lease.take()?.into_connection();
        Some(Tunnel { socket, read: read.freeze(), in_flight: self.in_flight.take()? })
    }

    /// Everything was received: the pool decides what becomes of the connection.
    fn finish(&mut self) {
        self.in_flight = None;
        if let Some(mut lease) = self.lease.take() {
            lease.connection().settle(self.keep_alive);
        }
    }

    fn poll_decoded(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Http1Error>> {
        let Some(lease) = &mut self.lease else { return Poll::Ready(Ok(None)) };
        let http1 = lease.connection();
        loop {
            http1.upload(cx)?;
            if http1.unwritable.is_some() {
                http1.outbox.abandon();
            }
            if let Some(frame) = self.decoder.decode(&mut http1.read)? {
                return Poll::Ready(Ok(Some(frame)));
            }
            if self.decoder.is_done() {
                return Poll::Ready(Ok(None));
            }
            match ready!(http1.poll_fill(cx, self.decoder.wants())) {
                Ok(1..) => {}
                Ok(0) if self.decoder.end_of_stream() => {}
                Ok(0) => return Poll::Ready(Err(Http1Error::Closed)),
                Err(error) => return Poll::Ready(Err(Http1Error::Io(error))),
            }
        }
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
        match ready!(this.poll_decoded(cx)) {
            Ok(frame) => {
                if this.decoder.is_done() {
                    this.finish();
                }
                Poll::Ready(frame.map(Ok))
            }
            Err(error) => {
                // Dropped before it has come to rest, which closes it.
                this.lease = None;
                this.in_flight = None;
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;
    use crate::upstream::{Endpoints, Metrics, UpstreamOptions, interim::Ignored};

    fn endpoint(uri: &str) -> std::sync::Arc<Endpoint> {
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        Endpoints::new(UpstreamOptions::default(), metrics).get(&uri.parse().unwrap())
    }

    fn filtered(
        body: impl Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
    ) -> RequestBody {
        RequestBody::Stream(body.map_err(Into::into).boxed_unsync())
    }

    fn pieces(pieces: &[&'static str]) -> RequestBody {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok(http_body::Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        filtered(StreamBody::new(futures_util::stream::iter(pieces)))
    }

    /// What a server gets.
    async fn sent(method: Method, headers: &[(&'static str, &'static str)], body: RequestBody) -> String {
        use tokio::io::AsyncReadExt;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let mut outbox = Outbox::default();
        let (expects_continue, interim) = (false, &Ignored);
        let head = RequestHead { method: &method, target: "/a?b", headers: &map, expects_continue, interim };
        let (endpoint, framing) = (endpoint("http://h:81/base"), framing(&head, &body));
        outbox.begin(body, framing, |text| write_head(text, &endpoint, &head, framing));
        let written = std::future::poll_fn(|cx| outbox.poll(cx, &mut socket)).await;
        let complete = written.is_ok();
        assert!(!complete || outbox.is_empty());
        drop(socket);
        let mut got = String::new();
        listener.accept().await.unwrap().0.read_to_string(&mut got).await.unwrap();
        got + if complete { "" } else { "!" }
    }

    #[tokio::test]
    async fn heads_say_how_long_the_body_is() {
        let get = sent(Method::GET, &[("x", "y")], RequestBody::Empty).await;
        assert_eq!(get, "GET /base/a?b HTTP/1.1\r\nhost: h:81\r\nx: y\r\n\r\n");
        let post = sent(Method::POST, &[("host", "a")], RequestBody::Empty).await;
        assert_eq!(post, "POST /base/a?b HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        let full = sent(
            Method::POST,
            &[("host", "a"), ("content-length", "999")],
            filtered(Full::new(Bytes::from_static(b"abc"))),
        );
        let expect = "POST /base/a?b HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(full.await, expect, "what the body says goes before what the header says");
    }

    #[tokio::test]
    async fn pieces_of_unknown_length_are_chunks() {
        let big: &'static str = Box::leak("x".repeat(4097).into_boxed_str());
        let got = sent(Method::PUT, &[("host", "a")], pieces(&["ab", "", big, "c"])).await;
        let (head, body) = got.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with("transfer-encoding: chunked"), "{head}");
        assert_eq!(body, format!("2\r\nab\r\n1001\r\n{big}\r\n1\r\nc\r\n0\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_body_must_be_as_long_as_its_header_says() {
        for (length, ends) in [("3", "abc"), ("2", "!"), ("4", "!")] {
            let got =
                sent(Method::PUT, &[("host", "a"), ("content-length", length)], pieces(&["ab", "c"])).await;
            assert!(got.ends_with(ends), "{length}: {got}");
        }
    }
}
