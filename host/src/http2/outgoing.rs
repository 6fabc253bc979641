//! A body on its way into a stream, handed over as the other end's windows allow: what waits for a
//! window waits here, where its deadline can end it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

use super::strip_forbidden;
use crate::http1::BoxError;

/// What is asked of the windows at once, so that one stream does not take what others could send.
const PIECE: usize = 64 << 10;

/// Why a body was not handed over to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsent {
    /// The body that was to be sent.
    #[error("the body failed")]
    Body(#[source] BoxError),
    /// The other end wants no more of it.
    #[error("the stream was reset: {0}")]
    Reset(Reason),
    /// The connection.
    #[error("the connection failed")]
    Connection(#[source] h2::Error),
    /// The other end took nothing for too long, which is for whoever polls to know.
    #[error("the other end did not take it in time")]
    Overdue,
}

/// A body that is being sent.
pub(crate) struct Outgoing<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// What was taken of the body and not handed over.
    data: Bytes,
    /// What is still to come, if the head says so.
    left: Option<u64>,
    /// Bytes handed over.
    sent: u64,
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Outgoing<B> {
    /// Of this length, if that was announced.
    pub(crate) fn new(body: B, stream: SendStream<Bytes>, length: Option<u64>) -> Self {
        Self { body, stream, data: Bytes::new(), left: length, sent: 0 }
    }

    /// Bytes handed over so far. It moves when the other end takes something.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// What the body is read from.
    pub(crate) fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }

    /// The same, when nothing more of it is to be sent.
    pub(crate) fn into_body(self) -> B {
        self.body
    }

    /// Ends the stream before its time.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Ready once everything was handed over, or nothing more will be.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        loop {
            if !self.data.is_empty() {
                if ready!(self.poll_data(cx))? {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if self.take(frame)? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Unsent::Body(error))),
                Poll::Ready(None) => return Poll::Ready(self.end()),
                Poll::Pending => return self.poll_reset(cx),
            }
        }
    }

    /// Takes a piece of the body; true once that was the last.
    fn take(&mut self, frame: Frame<Bytes>) -> Result<bool, Unsent> {
        match frame.into_data() {
            Ok(data) => {
                if let Some(left) = &mut self.left {
                    let rest = left.checked_sub(data.len() as u64);
                    *left = rest.ok_or_else(|| unlike("longer than its content-length"))?;
                }
                self.data = data;
                Ok(false)
            }
            Err(frame) => {
                let Ok(mut trailers) = frame.into_trailers() else { return Ok(false) };
                self.complete()?;
                strip_forbidden(&mut trailers);
                match trailers.is_empty() {
                    true => self.end()?,
                    false => self.stream.send_trailers(trailers).map_err(Unsent::Connection)?,
                }
                Ok(true)
            }
        }
    }

    fn end(&mut self) -> Result<(), Unsent> {
        self.complete()?;
        self.stream.send_data(Bytes::new(), true).map_err(Unsent::Connection)
    }

    /// A body that is shorter than announced must not look like a whole one.
    fn complete(&self) -> Result<(), Unsent> {
        match self.left {
            Some(1..) => Err(unlike("shorter than its content-length")),
            _ => Ok(()),
        }
    }

    /// Hands over what the windows allow; true once that was the last.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Unsent>> {
        while !self.data.is_empty() {
            let room = ready!(poll_room(&mut self.stream, cx, self.data.len()))?;
            let piece = self.data.split_to(room);
            let last = self.data.is_empty() && self.body.is_end_stream() && self.complete().is_ok();
            self.sent += room as u64;
            self.stream.send_data(piece, last).map_err(Unsent::Connection)?;
            if last {
                return Poll::Ready(Ok(true));
            }
        }
        Poll::Ready(Ok(false))
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        Poll::Ready(Err(match ready!(self.stream.poll_reset(cx)) {
            Ok(reason) => Unsent::Reset(reason),
            Err(error) => Unsent::Connection(error),
        }))
    }
}

fn unlike(what: &'static str) -> Unsent {
    Unsent::Body(format!("the body is {what}").into())
}

/// How much may be handed over now of what is `wanted`: at least one byte.
pub(crate) fn poll_room(
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    wanted: usize,
) -> Poll<Result<usize, Unsent>> {
    stream.reserve_capacity(wanted.min(PIECE));
    let room = match stream.capacity() {
        0 => match ready!(stream.poll_capacity(cx)) {
            Some(Ok(room)) => room,
            Some(Err(error)) => return Poll::Ready(Err(Unsent::Connection(error))),
            None => {
                return Poll::Ready(Err(match ready!(stream.poll_reset(cx)) {
                    Ok(reason) => Unsent::Reset(reason),
                    Err(error) => Unsent::Connection(error),
                }));
            }
        },
        room => room,
    };
    Poll::Ready(Ok(room.min(wanted)))
}
