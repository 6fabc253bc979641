//! A request's body that is there in full before it is sent.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// How much memory such bodies may take together.
#[derive(Clone, Debug)]
pub struct Room(Arc<AtomicU64>);

/// A part of it; given back when dropped.
#[derive(Debug)]
pub struct Part {
    room: Room,
    bytes: u64,
}

impl Room {
    /// For so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// Room for so many bytes, if there is.
    pub fn take(&self, bytes: u64) -> Option<Part> {
        let taken = self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes));
        taken.is_ok().then(|| Part { room: self.clone(), bytes })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes, Relaxed);
    }
}

/// The pieces as they came.
pub struct Whole {
    pieces: VecDeque<Frame<Bytes>>,
    /// Bytes of data in them.
    length: u64,
    _part: Part,
}

impl Whole {
    /// Nothing yet.
    pub fn new(part: Part) -> Self {
        Self { pieces: VecDeque::new(), length: 0, _part: part }
    }

    /// Adds what came next.
    pub fn push(&mut self, piece: Frame<Bytes>) {
        self.length += piece.data_ref().map_or(0, |data| data.len() as u64);
        self.pieces.push_back(piece);
    }

    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        let piece = self.pieces.pop_front()?;
        self.length -= piece.data_ref().map_or(0, |data| data.len() as u64);
        Some(piece)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back() {
        let room = Room::new(10);
        let whole = Whole::new(room.take(7).unwrap());
        assert!(room.take(4).is_none());
        assert!(room.take(3).is_some());
        drop(whole);
        assert!(room.take(10).is_some());
    }

    #[test]
    fn pieces_come_as_they_came() {
        let mut whole = Whole::new(Room::new(10).take(6).unwrap());
        whole.push(Frame::data(Bytes::from_static(b"abc")));
        whole.push(Frame::data(Bytes::from_static(b"def")));
        assert_eq!(whole.size_hint().exact(), Some(6));
        assert_eq!(whole.next().unwrap().into_data().unwrap(), "abc");
        assert_eq!((whole.size_hint().exact(), whole.is_empty()), (Some(3), false));
        whole.next();
        assert!(whole.is_empty() && whole.next().is_none());
    }
}
