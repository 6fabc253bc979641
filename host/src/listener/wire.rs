//! An HTTP/1.1 connection's bytes, shared by whoever answers its messages in turn and the body of
//! the request at hand. Both live on one thread and mostly in one task, so the lock around it is never
//! waited for.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
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
    /// Goes out before anything else: interim responses.
    interim: BytesMut,
    /// Nothing more can be made of what comes.
    spoilt: bool,
}

/// The client closed in the middle of a body.
#[derive(Debug, thiserror::Error)]
#[error("the client closed the connection")]
struct Closed;

impl Wire {
    pub(super) fn new(socket: Socket, read: BytesMut) -> Self {
        Self {
            socket: Some(socket),
            read,
            decoder: Decoder::Done,
            number: 0,
            awaits_word: false,
            interim: BytesMut::new(),
            spoilt: false,
        }
    }

    /// A request begins, whose body is next on the connection.
    pub(super) fn begin(&mut self, decoder: Decoder, awaits_word: bool) -> u64 {
        self.awaits_word = awaits_word && !decoder.is_done();
        self.decoder = decoder;
        self.number += 1;
        self.number
    }

    /// Interim responses go out before what is written next, or before anything is waited for.
    pub(super) fn inform(&mut self, interim: &[u8]) {
        self.interim.extend_from_slice(interim);
    }

    /// The response begins: it is too late to ask for the body. Whether the client waited for that in
    /// vain, so that nobody can tell whether it will send the body.
    pub(super) fn answer(&mut self) -> bool {
        std::mem::take(&mut self.awaits_word) && self.read.is_empty()
    }

    /// Bytes of the body that are still to come, as far as that was said; at least one if it has not ended.
    pub(super) fn rest(&self) -> u64 {
        match self.decoder {
            Decoder::Done => 0,
            Decoder::Length(left) => left.saturating_sub(self.read.len() as u64),
            Decoder::Chunked(_) | Decoder::UntilClose => 1,
        }
    }

    /// The body was received, so that what comes next is a request.
    pub(super) fn is_at_end(&self) -> bool {
        self.decoder.is_done() && !self.spoilt
    }

    /// Reads a body that nobody wants to its end, and throws it away. Ready with whether the end was
    /// reached, which it is not if the body breaks off or has more than `most` bytes, which are counted down.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>, most: &mut u64) -> Poll<bool> {
        loop {
            match self.decoder.decode(&mut self.read) {
                Ok(Some(_)) => continue,
                Ok(None) if self.decoder.is_done() => return Poll::Ready(true),
                Ok(None) => {}
                Err(_) => break,
            }
            if *most == 0 {
                return Poll::Ready(false);
            }
            match ready!(self.poll_fill(cx, self.decoder.wants())) {
                Ok(read @ 1..) => *most = most.saturating_sub(read as u64),
                Ok(0) | Err(_) => break,
            }
        }
        self.spoilt = true;
        Poll::Ready(false)
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
        self.poll_inform(cx);
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
            self.inform(CONTINUE);
        }
        self.poll_inform(cx);
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

    /// Writes interim responses, if there are any.
    fn poll_inform(&mut self, cx: &mut Context<'_>) {
        if !self.interim.is_empty() {
            // If they cannot be written, there is nothing to read either, and that is waited for.
            let _ = Pin::new(self).poll_flush(cx);
        }
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let Some(socket) = &mut self.socket else { break };
            let written = ready!(Pin::new(socket).poll_write(cx, &self.interim))?;
            self.interim.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.socket()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.socket()?.poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
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
