//! What requests to servers carry, and what their responses do.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use super::{
    BoxError,
    http1::{self, Http1Body},
    http2::{self, Http2Body},
    whole::Whole,
};

/// The body of a request.
#[derive(Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// All of it is there.
    Whole(Whole),
    /// As it comes.
    Stream(UnsyncBoxBody<Bytes, BoxError>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(whole) => Poll::Ready(whole.next().map(Ok)),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(whole) => whole.is_empty(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(whole) => whole.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// The body of a server's response; holds its connection until it has ended.
pub enum ResponseBody {
    /// From a pooled connection.
    Http1(Http1Body),
    /// From one stream of a shared connection.
    Http2(Http2Body),
}

/// What is left of a connection or stream after it was upgraded.
pub enum ServerTunnel {
    /// A connection of its own.
    Http1(http1::Tunnel),
    /// A stream of a connection that carries others, too.
    Http2(http2::Tunnel),
}

impl ResponseBody {
    /// Takes the tunnel that comes in place of a body. None if there is none.
    pub(crate) fn tunnel(&mut self) -> Option<ServerTunnel> {
        match self {
            Self::Http1(body) => body.tunnel().map(ServerTunnel::Http1),
            Self::Http2(body) => body.tunnel().map(ServerTunnel::Http2),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
