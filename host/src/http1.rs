//! HTTP/1.1 as bytes, by the rules of RFC 9112, for both sides of this router: the heads of requests
//! and of responses are parsed, bodies are taken out of a stream of bytes, and messages are written.
//!
//! Where libraries are lenient this is not: every line ends with CRLF, every chunk begins with a size,
//! and what two programs could understand in two ways is refused, with the reason, because that is how
//! messages are smuggled (section 11.2). This module
//! reads and writes whatever does that, knows no deadlines or pools, and nobody else's types;
//! [`crate::listener`] and [`crate::upstream`] have them.

pub mod decode;
pub mod outbox;
pub mod request;
pub mod response;

mod chunk;
mod lines;
mod scan;
mod target;

use std::{
    io,
    ops::RangeInclusive,
    pin::pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a read is given room for, at least and at most.
const READ: RangeInclusive<usize> = (8 << 10)..=(64 << 10);

/// Bytes that are no HTTP/1.1, or that can be understood in two ways: what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Why a body or a connection broke off.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a message was not written to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unwritten {
    /// The socket.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// The body that was to be written.
    #[error("the body failed")]
    Body(#[source] BoxError),
}

/// Reads what there is behind what was read already, with room for what is `wanted`, within bounds.
/// Ready with 0 once the other end has closed.
pub(crate) fn poll_fill<S: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    socket: &mut S,
    read: &mut BytesMut,
    wanted: usize,
) -> Poll<io::Result<usize>> {
    let room = read.capacity() - read.len();
    if room < READ.start() / 4 {
        read.reserve(wanted.clamp(*READ.start(), *READ.end()));
    }
    pin!(socket.read_buf(read)).poll(cx)
}
