//! Uploads that are passed on as they come: how many of one peer may hold connections to a server.
//!
//! Such a connection is held for as long as the client likes to take. If one peer could hold all
//! of them, it could keep everybody else from the server without sending much.

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{BoxError, RequestBody};

/// Peers that are remembered although nothing of theirs is under way; more are forgotten.
const REMEMBERED: usize = 64;

/// The places of each peer at one server.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<IpAddr, Arc<Semaphore>>>);

impl Uploads {
    /// The places of a peer, `most` of them in all.
    pub(super) fn of(&self, peer: IpAddr, most: usize) -> Arc<Semaphore> {
        let mut peers = self.0.lock();
        if peers.len() >= REMEMBERED {
            peers.retain(|_, places| Arc::strong_count(places) > 1);
        }
        Arc::clone(peers.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(most))))
    }
}

/// A body that holds a place until it has ended.
pub(super) struct Placed {
    body: UnsyncBoxBody<Bytes, BoxError>,
    place: Option<OwnedSemaphorePermit>,
}

impl Placed {
    pub(super) fn body(body: UnsyncBoxBody<Bytes, BoxError>, place: OwnedSemaphorePermit) -> RequestBody {
        RequestBody::Stream(Self { body, place: Some(place) }.boxed_unsync())
    }
}

impl Body for Placed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || this.body.is_end_stream() {
            this.place = None;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_places_are_its_own() {
        let uploads = Uploads::default();
        let peer = |last: u8| IpAddr::from([192, 0, 2, last]);
        let held: Vec<_> = (0..2).map(|_| uploads.of(peer(1), 2).try_acquire_owned().unwrap()).collect();
        assert!(uploads.of(peer(1), 2).try_acquire_owned().is_err());
        for other in 2..=255 {
            assert!(uploads.of(peer(other), 2).try_acquire_owned().is_ok());
        }
        assert!(uploads.0.lock().len() <= REMEMBERED);
        assert!(uploads.of(peer(1), 2).try_acquire_owned().is_err(), "what is under way is not forgotten");
        drop(held);
        assert!(uploads.of(peer(1), 2).try_acquire_owned().is_ok());
    }
}
