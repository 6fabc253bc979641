//! A message on its way out: the head at once, then the body as it comes, with backpressure.

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, header};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::{BoxError, Unwritten};

/// Pieces of a body up to this are copied behind what comes before them: one plain write is cheaper
/// than one of several parts.
const SMALL: usize = 4 << 10;
/// What the buffer may hold on to between messages.
const KEPT: usize = 16 << 10;

/// What is still to be written of a message.
pub struct Outbox<B> {
    /// The head, and what stands around the pieces of a body.
    text: Vec<u8>,
    /// So much of it is written.
    written: usize,
    /// Comes after the text.
    data: Bytes,
    /// Comes after the data.
    tail: &'static [u8],
    upload: Option<Upload<B>>,
    /// The body is not to be asked for anything yet.
    held: bool,
    /// The body was given up before its end.
    abandoned: bool,
    /// Any byte of the message went out.
    sent: bool,
}

/// A body that has not ended.
struct Upload<B> {
    body: B,
    framing: Framing,
}

/// How the other end is told where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// Each piece says how long it is.
    Chunked {
        /// Whether trailers may follow.
        trailers: bool,
    },
    /// By the end of the connection.
    UntilClose,
}

impl<B> Default for Outbox<B> {
    fn default() -> Self {
        let (text, data) = (Vec::new(), Bytes::new());
        Self { text, written: 0, data, tail: b"", upload: None, held: false, abandoned: false, sent: false }
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Outbox<B> {
    /// Takes a message, whose head `write` writes. What was there before has been written, or its
    /// connection is of no use. Without a framing there is no body to be written.
    pub fn begin(&mut self, body: B, framing: Option<Framing>, write: impl FnOnce(&mut Vec<u8>)) {
        self.text.clear();
        (self.written, self.sent, self.held, self.abandoned) = (0, false, false, false);
        write(&mut self.text);
        self.upload = framing.filter(|_| !body.is_end_stream()).map(|framing| Upload { body, framing });
    }

    /// Has the body of the message at hand wait for [`Self::release`]; its head goes out.
    pub fn hold(&mut self) {
        self.held = self.upload.is_some();
    }

    /// Whether the body waits to be released.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Has the body go out after all.
    pub fn release(&mut self) {
        self.held = false;
    }

    /// Gives the body up. The message stays incomplete, so the connection can carry no other.
    pub fn abandon(&mut self) {
        self.abandoned |= self.upload.take().is_some();
        self.held = false;
    }

    /// Everything went out.
    pub fn is_empty(&self) -> bool {
        let written = self.text.is_empty() && self.data.is_empty() && self.tail.is_empty();
        written && self.upload.is_none() && !self.abandoned
    }

    /// The body, if not a byte of the message went out.
    pub fn take_back(&mut self) -> Option<B>
    where
        B: Default,
    {
        (!self.sent).then(|| self.upload.take().map(|upload| upload.body).unwrap_or_default())
    }

    /// Has the first piece of the body go out together with the head, if it is there already.
    pub fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), Unwritten> {
        match &mut self.upload {
            Some(upload) if !self.sent => match Pin::new(&mut upload.body).poll_frame(cx) {
                Poll::Ready(frame) => self.take(frame),
                Poll::Pending => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Ready once everything went out.
    pub fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
    ) -> Poll<Result<(), Unwritten>> {
        loop {
            ready!(self.poll_write(cx, socket)).map_err(Unwritten::Io)?;
            let Some(upload) = &mut self.upload else {
                return Pin::new(socket).poll_flush(cx).map_err(Unwritten::Io);
            };
            let frame = match self.held {
                true => Poll::Pending,
                false => Pin::new(&mut upload.body).poll_frame(cx),
            };
            match frame {
                Poll::Ready(frame) => self.take(frame)?,
                Poll::Pending => {
                    // What went out must not wait for what is to come.
                    let _ = Pin::new(socket).poll_flush(cx).map_err(Unwritten::Io)?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, BoxError>>) -> Result<(), Unwritten> {
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.push(data),
                Err(frame) => self.end(frame.trailers_ref()),
            },
            Some(Err(error)) => Err(Unwritten::Body(error)),
            None => self.end(None),
        }
    }

    fn push(&mut self, data: Bytes) -> Result<(), Unwritten> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        if data.is_empty() {
            return Ok(());
        }
        match &mut upload.framing {
            Framing::Length(left) => {
                let rest = left.checked_sub(data.len() as u64);
                *left = rest.ok_or_else(|| unlike("longer than its content-length"))?;
            }
            Framing::Chunked { .. } => {
                write!(self.text, "{:x}\r\n", data.len()).expect("a vector takes everything");
                self.tail = b"\r\n";
            }
            Framing::UntilClose => {}
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

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Unwritten> {
        match self.upload.take().map(|upload| upload.framing) {
            Some(Framing::Length(1..)) => Err(unlike("shorter than its content-length")),
            Some(Framing::Length(0) | Framing::UntilClose) | None => Ok(()),
            Some(Framing::Chunked { .. }) if trailers.is_none() && !self.data.is_empty() => {
                self.tail = b"\r\n0\r\n\r\n";
                Ok(())
            }
            Some(Framing::Chunked { trailers: wanted }) => {
                self.text.extend_from_slice(b"0\r\n");
                let trailers = trailers.filter(|_| wanted);
                trailers.into_iter().for_each(|trailers| write_headers(&mut self.text, trailers, |_| true));
                self.text.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
    ) -> Poll<io::Result<()>> {
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

fn unlike(what: &'static str) -> Unwritten {
    Unwritten::Body(format!("the body is {what}").into())
}

/// How long a body is: as it says itself, or as its head does.
pub fn length(headers: &HeaderMap, body: &impl Body) -> Option<u64> {
    let said = || headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    body.size_hint().exact().or_else(said)
}

/// Writes the headers that are wanted, a line each.
pub fn write_headers(text: &mut Vec<u8>, headers: &HeaderMap, mut wanted: impl FnMut(&HeaderName) -> bool) {
    for (name, value) in headers {
        if wanted(name) {
            write_line(text, name.as_str(), value.as_bytes());
        }
    }
}

/// Writes one header's line.
pub fn write_line(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    text.reserve(name.len() + value.len() + 4);
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

/// Says how long a body is, if that is to be said.
pub fn write_framing(text: &mut Vec<u8>, framing: Option<Framing>) {
    match framing {
        None | Some(Framing::UntilClose) => {}
        Some(Framing::Length(length)) => {
            write_line(text, "content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        Some(Framing::Chunked { .. }) => write_line(text, "transfer-encoding", b"chunked"),
    }
}
