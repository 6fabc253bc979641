//! A client's body on its way to its server: bounded, and moving the message's deadline.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{
    fields::Trailers,
    listener::{BoxError, Incoming, Phase, Watch},
    plugin::body::BodyStream,
};

/// A body that is passed on as it comes, with backpressure.
pub(super) struct Upload {
    pub(super) incoming: Incoming,
    /// How many more bytes may come.
    pub(super) allowed: u64,
    /// What may follow it.
    pub(super) trailers: Trailers,
    /// The message's deadline.
    pub(super) watch: Arc<Watch>,
    /// How long the server may then take to answer.
    pub(super) response_timeout: Duration,
    pub(super) pace: Pace,
}

/// How fast a body comes that says how long it is; others may be streams that have nothing to say.
#[derive(Default)]
pub(super) struct Pace {
    declared: bool,
    bytes: u64,
    /// Milliseconds in which the client was waited for, not the server.
    waited: u64,
    since: Option<u64>,
}

/// A client that has been waited for so long, in milliseconds, ...
const GRACE: u64 = 10_000;
/// ... has to send so many bytes a second, or it holds its server's connection for nothing.
const RATE: u64 = 256;

impl Pace {
    pub(super) fn of(body: &Incoming) -> Self {
        Self { declared: body.size_hint().exact().is_some(), ..Self::default() }
    }

    fn waits(&mut self, now: u64) {
        self.since.get_or_insert(now);
    }

    /// Takes note of so many bytes; whether they come too slowly.
    fn took(&mut self, bytes: usize, now: u64) -> bool {
        self.waited += self.since.take().map_or(0, |since| now.saturating_sub(since));
        self.bytes += bytes as u64;
        self.declared && self.waited > GRACE && self.bytes < self.waited / 1000 * RATE
    }
}

/// A body went on for longer than it may.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body is longer than allowed")]
pub(super) struct TooLong;

/// A body comes so slowly that it would hold its server's connection for nothing.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body comes too slowly")]
pub(super) struct TooSlow;

/// The body has been sent: from now on the server's answer is waited for.
fn ended(watch: &Watch, response_timeout: Duration) {
    if watch.phase() == Phase::RequestBody {
        watch.arm(Phase::ResponseHead, response_timeout);
    }
}

/// A body that filters have seen, and may have read to its end long before it is sent.
pub(super) struct Seen {
    pub(super) stream: BodyStream,
    pub(super) watch: Arc<Watch>,
    pub(super) response_timeout: Duration,
}

impl Body for Seen {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.stream).poll_frame(cx));
        if frame.is_none() || this.stream.is_end_stream() {
            ended(&this.watch, this.response_timeout);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
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
        let polled = Pin::new(&mut this.incoming).poll_frame(cx);
        if polled.is_pending() {
            this.pace.waits(this.watch.now());
        }
        let Some(frame) = ready!(polled) else {
            ended(&this.watch, this.response_timeout);
            return Poll::Ready(None);
        };
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            if this.pace.took(data.len(), this.watch.now()) && !this.incoming.is_end_stream() {
                return Poll::Ready(Some(Err(TooSlow.into())));
            }
            this.allowed = this.allowed.checked_sub(data.len() as u64).ok_or(TooLong)?;
            this.watch.touch();
        }
        if this.incoming.is_end_stream() {
            ended(&this.watch, this.response_timeout);
        }
        if frame.is_trailers() {
            let mut trailers = frame.into_trailers().unwrap_or_default();
            this.trailers.admit_request(&mut trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_for_the_client_counts() {
        let mut pace = Pace { declared: true, ..Pace::default() };
        let mut now = 0;
        let mut piece = |pace: &mut Pace, bytes, waits: bool, millis| {
            if waits {
                pace.waits(now);
            }
            now += millis;
            pace.took(bytes, now)
        };
        assert!(!piece(&mut pace, 1, true, 9_000), "within its grace");
        assert!(!piece(&mut pace, 1, false, 1_000_000), "the server takes its time");
        assert!(piece(&mut pace, 1, true, 2_000));
        let mut steady = Pace { declared: true, ..Pace::default() };
        assert!((0..100).all(|_| !piece(&mut steady, 300, true, 1_000)));
        let mut stream = Pace::default();
        assert!((0..100).all(|_| !piece(&mut stream, 1, true, 30_000)), "its length is not known");
    }
}
