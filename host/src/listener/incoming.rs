//! The body of a request, of whatever version of HTTP, as the handler gets it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::{
    BoxError,
    http2::StreamBody,
    wire::{Upgraded, WireBody},
};

/// A request's body, read from its connection when it is polled.
pub enum Incoming {
    /// None.
    Empty,
    /// None, and the client would like to speak something else on the connection.
    Upgradable(OnUpgrade),
    /// Of HTTP/1.1.
    Http1(WireBody),
    /// Of HTTP/2.
    Http2(StreamBody),
}

/// A connection after it was upgraded, once a response with status 101 has been written.
pub struct OnUpgrade(pub(super) oneshot::Receiver<Upgraded>);

impl OnUpgrade {
    /// None if it was not upgraded after all.
    pub async fn connection(self) -> Option<Upgraded> {
        self.0.await.ok()
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Empty | Self::Upgradable(_) => Poll::Ready(None),
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Upgradable(_) => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Upgradable(_) => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
