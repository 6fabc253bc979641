//! An HTTP/1.1 connection's bytes, shared by whoever answers its messages in turn and the body of
//! the request at hand. Both live on one thread and mostly in one task, so the lock around it is never
//! waited for.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;

use super::{BoxError, socket::Socket, watch::Watch};
use crate::http1::{decode::Decoder, poll_fill};

/// What may be read of the requests that follow before the one at hand is answered.
const AHEAD: usize = 8 << 10;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Both ends of a connection's bytes, and where its requests end.
pub(super) struct Wire {
    /// None once it was given away.
    socket: Option<Socket>,
    /// What was read and not yet understood.
    pub(super) read: BytesMut,
    /// Of the request at hand.
    decoder: Decoder,
    /// Counts requests, so that nobody takes the body of the next for that of his own.
    number: u64,
    /// The client does not send the body before it is told to.
    awaits_word: bool,
    /// Goes out before anything else.
    word: &'static [u8],
    /// Nothing more can be made of what comes.
    spoilt: bool,
}

/// The client closed in the middle of a body.
#[derive(Debug, thiserror::Error)]
#[error("the client closed the connection")]
struct Closed;

impl Wire {
    pub(super) fn new(socket: Socket, read: BytesMut) -> Self {
        let decoder = Decoder::Done;
        Self { socket: Some(socket), read, decoder, number: 0, awaits_word: false, word: b"", spoilt: false }
    }

    /// A request begins, whose body is next on the connection.
    pub(super) fn begin(&mut self, decoder: Decoder, awaits_word: bool) -> u64 {
        self.awaits_word = awaits_word && !decoder.is_done();
        self.decoder = decoder;
        self.number += 1;
        self.number
    }

    /// The response begins: it is too late to ask for the body.
    pub(super) fn answer(&mut self) {
        self.awaits_word = false;
    }

    /// The body was received, so that what comes next is a request.
    pub(super) fn is_at_end(&self) -> bool {
        self.decoder.is_done() && !self.spoilt
    }

    /// Takes what is there of a body that nobody wants.
    pub(super) fn discard(&mut self) {
        while let Ok(Some(_)) = self.decoder.decode(&mut self.read) {}
    }

    /// Reads more; ready with 0 once the client has closed.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(0)) };
        poll_fill(cx, socket, &mut self.read, wanted)
    }

    /// Gives the connection away, to be something else.
    pub(super) fn take(&mut self) -> Option<Upgraded> {
        let read = self.read.split().freeze();
        self.socket.take().map(|socket| Upgraded { socket, read })
    }

    fn socket(&mut self) -> io::Result<Pin<&mut Socket>> {
        let gone = || io::ErrorKind::NotConnected.into();
        self.socket.as_mut().map(Pin::new).ok_or_else(gone)
    }

    /// Ready once the client is gone. Whoever answers is woken then.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.decoder.is_done() && self.read.len() < AHEAD {
            if let Ok(1..) = ready!(self.poll_fill(cx, 0)) {
                continue;
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if std::mem::take(&mut self.awaits_word) && self.read.is_empty() {
            self.word = CONTINUE;
        }
        if !self.word.is_empty() {
            // If it cannot be written, there is nothing to read either, and that is waited for.
            let _ = Pin::new(&mut *self).poll_flush(cx);
        }
        loop {
            match self.decoder.decode(&mut self.read) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.decoder.is_done() => return Poll::Ready(None),
                Ok(None) => {}
                Err(malformed) => return Poll::Ready(Some(Err(self.spoil(malformed)))),
            }
            match ready!(self.poll_fill(cx, self.decoder.wants())) {
                Ok(1..) => {}
                Ok(0) => return Poll::Ready(Some(Err(self.spoil(Closed)))),
                Err(error) => return Poll::Ready(Some(Err(self.spoil(error)))),
            }
        }
    }

    fn spoil(&mut self, error: impl Into<BoxError>) -> BoxError {
        self.spoilt = true;
        error.into()
    }

    fn poll_word(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.word.is_empty() {
            let word = self.word;
            let written = ready!(self.socket()?.poll_write(cx, word))?;
            self.word = &word[written..];
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_word(cx))?;
        self.socket()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_word(cx))?;
        self.socket()?.poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_word(cx))?;
        self.socket()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_shutdown(cx)
    }
}

/// A wire as a response is written to it: locked for each write alone, since the response may come of
/// the request's body. What goes out moves the deadline.
pub(super) struct Writer<'a> {
    pub(super) wire: &'a Mutex<Wire>,
    pub(super) watch: &'a Watch,
}

impl Writer<'_> {
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = written {
            self.watch.touch();
        }
        written
    }
}

impl AsyncWrite for Writer<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote(Pin::new(&mut *self.wire.lock()).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wrote(Pin::new(&mut *self.wire.lock()).poll_write_vectored(cx, bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.wire.lock()).poll_shutdown(cx)
    }
}

/// The body of one request on a wire.
pub struct WireBody {
    wire: Arc<Mutex<Wire>>,
    number: u64,
}

impl WireBody {
    pub(super) fn new(wire: Arc<Mutex<Wire>>, number: u64) -> Self {
        Self { wire, number }
    }
}

impl Body for WireBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut wire = self.wire.lock();
        if wire.number == self.number { wire.poll_body(cx) } else { Poll::Ready(None) }
    }

    fn is_end_stream(&self) -> bool {
        let wire = self.wire.lock();
        wire.number != self.number || wire.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        let wire = self.wire.lock();
        if wire.number == self.number { wire.decoder.size_hint() } else { SizeHint::with_exact(0) }
    }
}

/// A connection's bytes after it was upgraded.
pub struct Upgraded {
    /// To the client.
    pub socket: Socket,
    /// Comes before what is still to be read.
    pub read: Bytes,
}
