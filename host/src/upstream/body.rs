//! What requests to servers carry, and what their responses do.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::{BoxError, http1::Http1Body, http2::Http2Body};

/// Told how a client's body gets on.
pub trait Observer: Send + Sync {
    /// Some of it went on.
    fn passed(&self, bytes: usize);
    /// All of it did.
    fn ended(&self);
}

/// A client's body, passed on as it comes, with backpressure.
pub struct ClientBody {
    /// What comes.
    pub incoming: Incoming,
    /// How many more bytes may come.
    pub allowed: u64,
    /// Who wants to know.
    pub observer: Arc<dyn Observer>,
}

/// A body went on for longer than it may.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body is longer than allowed")]
pub struct BodyTooLong;

impl ClientBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(frame) = ready!(Pin::new(&mut self.incoming).poll_frame(cx)) else {
            self.observer.ended();
            return Poll::Ready(None);
        };
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            let bytes = data.len();
            self.allowed = self.allowed.checked_sub(bytes as u64).ok_or(BodyTooLong)?;
            self.observer.passed(bytes);
        }
        if self.incoming.is_end_stream() {
            self.observer.ended();
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

/// The body of a request: the client's own unless a filter changed it.
#[derive(Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// As it comes from the client.
    Client(Box<ClientBody>),
    /// As a filter left it.
    Filtered(UnsyncBoxBody<Bytes, BoxError>),
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
            Self::Client(body) => body.poll_frame(cx),
            Self::Filtered(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.incoming.is_end_stream(),
            Self::Filtered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.incoming.size_hint(),
            Self::Filtered(body) => body.size_hint(),
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
