//! Small bodies are read before their messages take a connection to a server: a client that sends
//! one byte now and then holds a few kilobytes of this router, and no connection that others need.

use std::{pin::Pin, task::Poll, time::Duration};

use http_body::Body;

use super::{
    exchange::Inbound,
    head,
    respond::Refusal,
    upload::{TooLong, TooSlow},
};
use crate::{
    listener::Phase,
    upstream::{RequestBody, whole::Whole},
};

/// What is small, in bytes: what the kernel would take of a body without anybody reading it. Larger
/// ones, and those whose length is not known before, are passed on as they come.
const SMALL: u64 = 64 << 10;
/// All small bodies of one worker that are not sent yet take no more than this, in bytes; one that
/// finds no room is passed on as it comes.
pub(super) const ROOM: u64 = 32 << 20;

/// The whole body, if it is small; waits no longer than `patience` from one piece to the next.
pub(super) async fn gather(
    inbound: &Inbound,
    body: RequestBody,
    patience: Duration,
) -> Result<RequestBody, Refusal> {
    let RequestBody::Stream(mut stream) = body else { return Ok(body) };
    let small = stream.size_hint().exact().filter(|length| *length <= SMALL);
    let room = small.and_then(|length| inbound.worker().room.take(length));
    // Who waits to be asked for the body is asked by its server.
    let Some(room) = room.filter(|_| !inbound.expects_continue) else {
        return Ok(RequestBody::Stream(stream));
    };
    let exchange = &inbound.exchange;
    exchange.watch.arm(Phase::RequestBody, patience);
    let mut whole = Whole::new(room);
    std::future::poll_fn(|cx| {
        loop {
            match Pin::new(&mut stream).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Ok(frame))) => whole.push(frame),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(&*error))),
                Poll::Pending if exchange.is_overdue(cx) => {
                    return Poll::Ready(Err(Refusal::Overdue(Phase::RequestBody)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await?;
    Ok(RequestBody::Whole(whole))
}

/// Why a client's body did not come.
pub(super) fn broken(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Refusal {
    if error.is::<TooLong>() {
        head::too_long()
    } else if error.is::<TooSlow>() {
        Refusal::Overdue(Phase::RequestBody)
    } else {
        Refusal::BrokenBody
    }
}
