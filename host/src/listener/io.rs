//! The bytes of a connection that carries several messages at a time, seen on their way, so that a
//! client that is gone or does not read is told from one that is slow. What was read to find out the
//! protocol is read again.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Connection, linger, socket::Socket, watch::Watch};

/// What goes over a socket.
pub(super) struct Traffic {
    /// Its deadline is moved by whatever is read.
    pub(super) watch: Arc<Watch>,
    wrote: AtomicBool,
    /// Whose socket is to be closed with care.
    parting: Mutex<Option<Arc<Connection>>>,
}

impl Traffic {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        Self { watch, wrote: AtomicBool::new(false), parting: Mutex::default() }
    }

    /// Everything was said: once the socket is let go of it is closed so that the client gets it, and the
    /// connection counts as open until then.
    pub(super) fn part(&self, connection: Arc<Connection>) {
        *self.parting.lock() = Some(connection);
    }

    /// Whether the other end has taken anything since this was asked last.
    pub(super) fn wrote(&self) -> bool {
        self.wrote.swap(false, Relaxed)
    }
}

/// A socket whose [`Traffic`] is seen.
pub(super) struct Watched {
    /// None once dropped.
    socket: Option<Socket>,
    /// What was read already.
    prefix: BytesMut,
    traffic: Arc<Traffic>,
}

impl Watched {
    pub(super) fn new(socket: Socket, prefix: BytesMut, traffic: Arc<Traffic>) -> Self {
        Self { socket: Some(socket), prefix, traffic }
    }

    fn socket(&mut self) -> Pin<&mut Socket> {
        Pin::new(self.socket.as_mut().expect("held until dropped"))
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = written {
            self.traffic.wrote.store(true, Relaxed);
        }
        written
    }
}

/// HTTP/2's implementation does not give its socket back, so this is where it is had again.
impl Drop for Watched {
    fn drop(&mut self) {
        let parting = self.traffic.parting.lock().take();
        if let (Some(connection), Some(socket)) = (parting, self.socket.take()) {
            tokio::spawn(async move { linger::close(socket, &connection.stop).await });
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.has_remaining() {
            let taken = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix.split_to(taken));
        } else {
            ready!(this.socket().poll_read(cx, buf))?;
        }
        this.traffic.watch.touch();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.socket().poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.socket().poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.as_ref().is_some_and(Socket::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_shutdown(cx)
    }
}
