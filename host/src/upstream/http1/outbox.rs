//! A request on its way out: the head at once, then the body as it comes, with backpressure.

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, header};
use http_body::Body;
use tokio::{io::AsyncWrite, net::TcpStream};

use super::Http1Error;
use crate::upstream::{Endpoint, RequestBody, outgoing::RequestHead};

/// Pieces of a body up to this are copied behind what comes before them: one plain write is cheaper
/// than one of several parts.
const SMALL: usize = 4 << 10;
/// What the buffer may hold on to between messages.
const KEPT: usize = 16 << 10;

/// What is still to be written of a request.
#[derive(Default)]
pub(super) struct Outbox {
    /// The head, and what stands around the pieces of a body.
    text: Vec<u8>,
    /// So much of it is written.
    written: usize,
    /// Comes after the text.
    data: Bytes,
    /// Comes after the data.
    tail: &'static [u8],
    upload: Option<Upload>,
    /// Any byte of the request went out.
    sent: bool,
}

/// A body that has not ended.
struct Upload {
    body: RequestBody,
    framing: Framing,
}

/// How the server is told where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    Chunked,
}

impl Outbox {
    /// Takes a request. What was there before has been written, or its connection is of no use.
    pub(super) fn begin(&mut self, endpoint: &Endpoint, head: &RequestHead<'_>, body: RequestBody) {
        self.text.clear();
        (self.written, self.sent) = (0, false);
        let framing = framing(head, &body);
        write_head(&mut self.text, endpoint, head, framing);
        self.upload = framing.filter(|_| !body.is_end_stream()).map(|framing| Upload { body, framing });
    }

    /// Everything went out.
    pub(super) fn is_empty(&self) -> bool {
        self.upload.is_none() && self.text.is_empty() && self.data.is_empty() && self.tail.is_empty()
    }

    /// The body, if not a byte of the request went out.
    pub(super) fn take_back(&mut self) -> Option<RequestBody> {
        (!self.sent).then(|| self.upload.take().map_or(RequestBody::Empty, |upload| upload.body))
    }

    /// Ready once everything went out. An [`Http1Error::Io`] is the socket's.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut TcpStream,
    ) -> Poll<Result<(), Http1Error>> {
        loop {
            ready!(self.poll_write(cx, socket)).map_err(Http1Error::Io)?;
            let Some(upload) = &mut self.upload else { return Poll::Ready(Ok(())) };
            match ready!(Pin::new(&mut upload.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.push(data)?,
                    Err(frame) => self.end(frame.trailers_ref())?,
                },
                Some(Err(error)) => return Poll::Ready(Err(Http1Error::Request(error))),
                None => self.end(None)?,
            }
        }
    }

    fn push(&mut self, data: Bytes) -> Result<(), Http1Error> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        if data.is_empty() {
            return Ok(());
        }
        match &mut upload.framing {
            Framing::Length(left) => {
                let rest = left.checked_sub(data.len() as u64);
                *left = rest.ok_or_else(|| unlike("longer than its content-length"))?;
            }
            Framing::Chunked => {
                write!(self.text, "{:x}\r\n", data.len()).expect("a vector takes everything");
                self.tail = b"\r\n";
            }
        }
        if data.len() <= SMALL {
            self.text.extend_from_slice(&data);
            self.text.extend_from_slice(std::mem::take(&mut self.tail));
        } else {
            self.data = data;
        }
        match self.upload.as_ref().is_some_and(|upload| upload.body.is_end_stream()) {
            true => self.end(None),
            false => Ok(()),
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Http1Error> {
        match self.upload.take().map(|upload| upload.framing) {
            Some(Framing::Length(1..)) => Err(unlike("shorter than its content-length")),
            Some(Framing::Length(0)) | None => Ok(()),
            Some(Framing::Chunked) if trailers.is_none() && !self.data.is_empty() => {
                self.tail = b"\r\n0\r\n\r\n";
                Ok(())
            }
            Some(Framing::Chunked) => {
                self.text.extend_from_slice(b"0\r\n");
                trailers.into_iter().for_each(|trailers| write_headers(&mut self.text, trailers, is_trailer));
                self.text.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, socket: &mut TcpStream) -> Poll<io::Result<()>> {
        while !self.text.is_empty() || !self.data.is_empty() || !self.tail.is_empty() {
            let text = &self.text[self.written..];
            let socket = Pin::new(&mut *socket);
            let wrote = match self.data.is_empty() && self.tail.is_empty() {
                true => ready!(socket.poll_write(cx, text))?,
                false => {
                    let parts = [text, &*self.data, self.tail].map(IoSlice::new);
                    ready!(socket.poll_write_vectored(cx, &parts))?
                }
            };
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent = true;
            self.advance(wrote);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut wrote: usize) {
        let text = wrote.min(self.text.len() - self.written);
        self.written += text;
        wrote -= text;
        if self.written == self.text.len() {
            self.text.clear();
            self.text.shrink_to(KEPT);
            self.written = 0;
        }
        let data = wrote.min(self.data.len());
        self.data.advance(data);
        self.tail = &self.tail[wrote - data..];
    }
}

fn unlike(what: &'static str) -> Http1Error {
    Http1Error::Request(format!("the body is {what}").into())
}

/// None: there is no body, and nothing need be said of it.
fn framing(head: &RequestHead<'_>, body: &RequestBody) -> Option<Framing> {
    let said = head.headers.get(header::CONTENT_LENGTH);
    if body.is_end_stream() {
        let expected = matches!(*head.method, Method::POST | Method::PUT | Method::PATCH);
        return (expected || said.is_some()).then_some(Framing::Length(0));
    }
    let said = || said.and_then(|length| length.to_str().ok()?.parse().ok());
    Some(body.size_hint().exact().or_else(said).map_or(Framing::Chunked, Framing::Length))
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
    match framing {
        None => {}
        Some(Framing::Length(length)) => {
            write!(text, "content-length: {length}\r\n").expect("a vector takes everything");
        }
        Some(Framing::Chunked) => write_line(text, "transfer-encoding", b"chunked"),
    }
    text.extend_from_slice(b"\r\n");
}

fn write_headers(text: &mut Vec<u8>, headers: &HeaderMap, wanted: impl Fn(&header::HeaderName) -> bool) {
    for (name, value) in headers {
        if wanted(name) {
            write_line(text, name.as_str(), value.as_bytes());
        }
    }
}

fn write_line(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    text.reserve(name.len() + value.len() + 4);
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

/// What may come after a body: nothing that says where the message goes or how long it is
/// (RFC 9110, section 6.5.1).
fn is_trailer(name: &header::HeaderName) -> bool {
    !matches!(
        *name,
        header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::HOST
            | header::CONNECTION
            | header::TE
            | header::TRAILER
            | header::UPGRADE
            | header::AUTHORIZATION
    )
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;
    use crate::upstream::{Endpoints, Metrics, UpstreamOptions};

    fn endpoint(uri: &str) -> std::sync::Arc<Endpoint> {
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        Endpoints::new(UpstreamOptions::default(), metrics).get(&uri.parse().unwrap())
    }

    fn filtered(
        body: impl Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
    ) -> RequestBody {
        RequestBody::Filtered(body.map_err(Into::into).boxed_unsync())
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
        let head = RequestHead { method: &method, target: "/a?b", headers: &map };
        outbox.begin(&endpoint("http://h:81/base"), &head, body);
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
        let big: &'static str = Box::leak("x".repeat(SMALL + 1).into_boxed_str());
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
