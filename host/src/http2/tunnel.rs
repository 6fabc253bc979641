//! A stream that carries something else: bytes in either direction, each with an end of its own (RFC
//! 8441, section 5; RFC 9113, section 8.5).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::outgoing::{Unsent, poll_room};

/// Both directions of a stream. When it is dropped before its end the stream is reset.
pub(crate) struct StreamTunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// What was received and not read.
    read: Bytes,
    /// The other end sends no more.
    ended: bool,
    /// This end sends no more.
    shut: bool,
}

impl StreamTunnel {
    pub(crate) fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Self { send, receive, read: Bytes::new(), ended: false, shut: false }
    }
}

impl AsyncRead for StreamTunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read.is_empty() && !this.ended {
            match ready!(this.receive.poll_data(cx)) {
                Some(data) => this.read = data.map_err(io::Error::other)?,
                None => this.ended = true,
            }
        }
        let taken = this.read.len().min(buf.remaining());
        buf.put_slice(&this.read[..taken]);
        this.read.advance(taken);
        if taken > 0 {
            // Only fails for more than was received.
            let _ = this.receive.flow_control().release_capacity(taken);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamTunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(poll_room(&mut this.send, cx, buf.len())).map_err(broken)?;
        let piece = Bytes::copy_from_slice(&buf[..room]);
        this.send.send_data(piece, false).map_err(io::Error::other)?;
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection writes what it was given as soon as it can.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.shut, true) {
            self.send.send_data(Bytes::new(), true).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(unsent: Unsent) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, unsent)
}
