//! A client's body on its way to its server: bounded, and moving the message's deadline.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::listener::{BoxError, Incoming, Phase, Watch};

/// A body that is passed on as it comes, with backpressure.
pub(super) struct Upload {
    pub(super) incoming: Incoming,
    /// How many more bytes may come.
    pub(super) allowed: u64,
    /// The message's deadline.
    pub(super) watch: Arc<Watch>,
    /// How long the server may then take to answer.
    pub(super) response_timeout: Duration,
}

/// A body went on for longer than it may.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body is longer than allowed")]
pub(super) struct TooLong;

impl Upload {
    fn ended(&self) {
        if self.watch.phase() == Phase::RequestBody {
            self.watch.arm(Phase::ResponseHead, self.response_timeout);
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(Pin::new(&mut this.incoming).poll_frame(cx)) else {
            this.ended();
            return Poll::Ready(None);
        };
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            this.allowed = this.allowed.checked_sub(data.len() as u64).ok_or(TooLong)?;
            this.watch.touch();
        }
        if this.incoming.is_end_stream() {
            this.ended();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
