//! A body as it comes on a stream. What is read of it is given back to the windows at once, so that
//! these bound what is unread.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};

use crate::http1::BoxError;

/// A body of a stream.
pub(crate) struct Received {
    stream: RecvStream,
    /// What is still to come, if the head says so. That it is neither more nor less is held already.
    left: Option<u64>,
    /// Only trailers may follow.
    data_ended: bool,
    ended: bool,
}

impl Received {
    /// The one that comes after this head.
    pub(crate) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let ended = stream.is_end_stream();
        Self { stream, left, data_ended: ended, ended }
    }

    /// What it comes on.
    pub(crate) fn into_stream(self) -> RecvStream {
        self.stream
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let data = ready!(self.stream.poll_data(cx));
        if let Some(Ok(data)) = &data {
            // Only fails for more than was received.
            let _ = self.stream.flow_control().release_capacity(data.len());
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(data.len() as u64);
            }
        }
        Poll::Ready(data)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        while !this.data_ended {
            match ready!(this.poll_data(cx)) {
                // The end may come in a frame of its own.
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => this.data_ended = true,
            }
        }
        if this.ended {
            return Poll::Ready(None);
        }
        let trailers = ready!(this.stream.poll_trailers(cx));
        this.ended = true;
        let trailers = trailers.map(|trailers| trailers.map(Frame::trailers));
        Poll::Ready(trailers.map_err(BoxError::from).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}
