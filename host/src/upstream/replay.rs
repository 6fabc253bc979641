//! The body of a request that can be sent again: what went out of it is remembered, up to a bound, until
//! the server has begun to answer. A server that refuses a stream has not looked at it, so what it got is
//! sent to another.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::{BoxError, RequestBody};

/// Bytes that are remembered of one body. They are shared with what goes out, and are mostly the whole
/// of a call; a longer upload cannot be repeated.
const MOST: usize = 64 << 10;

/// A body whose beginning is remembered.
pub(crate) struct Recorded {
    body: RequestBody,
    /// None once it is too much, or of no use any more.
    sent: Option<Vec<Bytes>>,
    length: usize,
}

impl Recorded {
    pub(crate) fn new(body: RequestBody) -> Self {
        Self { body, sent: Some(Vec::new()), length: 0 }
    }

    /// It will not be sent again.
    pub(crate) fn forget(&mut self) {
        self.sent = None;
    }

    /// The body as it was, if all of it is still there.
    pub(crate) fn rewind(self) -> Option<RequestBody> {
        let sent = self.sent?;
        if sent.is_empty() {
            return Some(self.body);
        }
        let again = Again { sent: sent.into(), length: self.length as u64, rest: self.body };
        Some(RequestBody::Stream(again.boxed_unsync()))
    }

    fn remember(&mut self, frame: &Frame<Bytes>) {
        match (frame.data_ref(), &mut self.sent) {
            (Some(data), Some(sent)) if self.length + data.len() <= MOST => {
                self.length += data.len();
                sent.push(data.clone());
            }
            // Trailers end it: they are not kept, and with them the body is over.
            _ => self.sent = None,
        }
    }
}

impl Body for Recorded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(frame)) = &frame {
            match frame {
                Ok(frame) if this.sent.is_some() => this.remember(frame),
                Ok(_) => {}
                Err(_) => this.sent = None,
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What was sent, and then the rest.
struct Again {
    sent: VecDeque<Bytes>,
    length: u64,
    rest: RequestBody,
}

impl Body for Again {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match this.sent.pop_front() {
            Some(data) => {
                this.length -= data.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            None => Pin::new(&mut this.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.sent.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.rest.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + self.length);
        }
        hint.set_lower(hint.lower() + self.length);
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn pieces(pieces: Vec<Result<Frame<Bytes>, BoxError>>) -> RequestBody {
        RequestBody::Stream(StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync())
    }

    fn piece(length: usize) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(Bytes::from(vec![b'x'; length])))
    }

    /// The length of what is sent again after so many frames went out.
    async fn again(body: RequestBody, frames: usize) -> Option<usize> {
        let mut recorded = Recorded::new(body);
        for _ in 0..frames {
            let _ = recorded.frame().await;
        }
        let rewound = recorded.rewind()?;
        Some(rewound.collect().await.ok()?.to_bytes().len())
    }

    #[tokio::test]
    async fn a_body_is_the_same_again() {
        for frames in 0..4 {
            assert_eq!(again(pieces(vec![piece(10), piece(20), piece(30)]), frames).await, Some(60));
        }
        assert_eq!(again(RequestBody::Empty, 1).await, Some(0));
    }

    #[tokio::test]
    async fn what_cannot_be_repeated_is_not() {
        assert_eq!(again(pieces(vec![piece(MOST), piece(1)]), 1).await, Some(MOST + 1));
        assert_eq!(again(pieces(vec![piece(MOST), piece(1)]), 2).await, None);
        assert_eq!(again(pieces(vec![piece(1), Err("broke".into())]), 2).await, None);
    }

    #[tokio::test]
    async fn it_knows_its_length() {
        let body = http_body_util::Full::new(Bytes::from(vec![0; 100])).map_err(|never| match never {});
        let mut recorded = Recorded::new(RequestBody::Stream(body.boxed_unsync()));
        let _ = recorded.frame().await;
        assert_eq!(recorded.rewind().unwrap().size_hint().exact(), Some(100));
    }
}
