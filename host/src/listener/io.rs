//! A connection's bytes, seen on their way: progress moves deadlines, heads are looked at, and what
//! was read to find out the protocol is read again.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    framing::{Framing, Scanner},
    refuse,
    watch::{Phase, Watch},
};

/// A socket, plain or with TLS, under a [`Watch`].
pub struct Watched<S> {
    socket: S,
    /// What was read already.
    prefix: Bytes,
    watch: Arc<Watch>,
    head_timeout: Duration,
    /// None where requests do not come as HTTP/1.1.
    heads: Option<(Scanner, Arc<Framing>)>,
}

impl<S> Watched<S> {
    pub(crate) fn new(socket: S, prefix: Bytes, watch: Arc<Watch>, head_timeout: Duration) -> Self {
        Self { socket, prefix, watch, head_timeout, heads: None }
    }

    /// Looks at the heads of requests, too.
    pub(crate) fn scan_heads(&mut self, framing: Arc<Framing>) {
        self.heads = Some((Scanner::default(), framing));
    }

    fn saw(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.watch.phase() {
            Phase::FirstByte | Phase::KeepAlive => self.watch.arm(Phase::RequestHead, self.head_timeout),
            Phase::RequestBody | Phase::Streams => self.watch.touch(),
            _ => {}
        }
        if let Some((scanner, framing)) = &mut self.heads {
            scanner.scan(framing, bytes);
        }
    }

    /// What to say in place of hyper's bare answer to a head that it cannot read: no request has been
    /// handed on, and it says so in these words.
    fn better_words(&self, bytes: &[u8]) -> Option<&'static [u8]> {
        if self.watch.phase() != Phase::RequestHead || self.heads.is_none() {
            return None;
        }
        refuse::better_words(bytes)
    }

    fn sent(&self) {
        if matches!(self.watch.phase(), Phase::ResponseBody | Phase::KeepAlive) {
            self.watch.touch();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.prefix.has_remaining() {
            let taken = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix.split_to(taken));
        } else {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        }
        this.saw(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

/// Up to so many bytes in several parts are copied together: one plain write costs the kernel less
/// than one of parts.
const SMALL: usize = 4 << 10;

fn joined(parts: &[IoSlice<'_>]) -> Option<Vec<u8>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    (length <= SMALL).then(|| {
        let mut joined = Vec::with_capacity(length);
        parts.iter().for_each(|part| joined.extend_from_slice(part));
        joined
    })
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(words) = self.better_words(buf) {
            // Fits into the socket's buffer; the connection is closed after it.
            ready!(Pin::new(&mut self.socket).poll_write(cx, words))?;
            return Poll::Ready(Ok(buf.len()));
        }
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, buf))?;
        self.sent();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs
            && let Some(words) = self.better_words(only)
        {
            ready!(Pin::new(&mut self.socket).poll_write(cx, words))?;
            return Poll::Ready(Ok(only.len()));
        }
        let written = match joined(bufs) {
            Some(joined) => ready!(Pin::new(&mut self.socket).poll_write(cx, &joined))?,
            None => ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, bufs))?,
        };
        self.sent();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
