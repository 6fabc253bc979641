//! What a watch received and nobody has taken for good yet: a window onto etcd's history, as plain
//! data. What is given out stays until the next call shows, by the revision that it asks from, that
//! it arrived; a guest that trapped meanwhile gets the same again.

use std::collections::VecDeque;

use super::{Batch, Event, Revision};

/// Beyond this the stream is not read on, and etcd waits.
const ROOM: usize = 16 << 20;
/// A batch ends with the first revision that brings it to this many bytes.
const BATCH: usize = 2 << 20;
/// What an event takes besides key and value.
const EVENT: usize = 96;

#[derive(Debug)]
pub(super) struct Backlog {
    events: VecDeque<Event>,
    bytes: usize,
    /// Nothing up to here is wanted any more.
    floor: Revision,
    /// Everything after the floor and up to here is in `events`.
    complete: Revision,
    /// The beginning of a revision whose end has not arrived.
    fragment: Vec<Event>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Batch(Batch),
    /// Nothing happened after that revision, up to this one.
    Nothing(Revision),
    /// What is asked for was already given up: the watch must start again.
    Gone,
}

impl Backlog {
    pub(super) fn after(revision: Revision) -> Self {
        Self { events: VecDeque::new(), bytes: 0, floor: revision, complete: revision, fragment: Vec::new() }
    }

    /// Adds what arrived. With `more_follows`, these are not yet all events of their revision.
    pub(super) fn push(&mut self, events: Vec<Event>, more_follows: bool) {
        self.bytes += events.iter().map(size).sum::<usize>();
        self.fragment.extend(events);
        if more_follows {
            return;
        }
        for event in std::mem::take(&mut self.fragment) {
            self.complete = self.complete.max(event.revision);
            if event.revision > self.floor {
                self.events.push_back(event);
            } else {
                self.bytes -= size(&event);
            }
        }
    }

    /// Says that nothing happened since the last event, up to a revision.
    pub(super) fn nothing_until(&mut self, revision: Revision) {
        if self.fragment.is_empty() {
            self.complete = self.complete.max(revision);
        }
    }

    /// Drops the half of a revision whose other half was lost with its stream; returns the revision
    /// after which to watch again.
    pub(super) fn resume(&mut self) -> Revision {
        self.bytes -= std::mem::take(&mut self.fragment).iter().map(size).sum::<usize>();
        self.resume_after()
    }

    /// The revision after which a watch would go on now.
    pub(super) fn resume_after(&self) -> Revision {
        self.complete.max(self.floor)
    }

    pub(super) fn take(&mut self, after: Revision) -> Taken {
        if after < self.floor {
            return Taken::Gone;
        }
        self.floor = after;
        self.complete = self.complete.max(after);
        while let Some(event) = self.events.front().filter(|event| event.revision <= after) {
            self.bytes -= size(event);
            self.events.pop_front();
        }
        let events = self.first_batch();
        match events.last() {
            None => Taken::Nothing(self.complete),
            Some(last) => {
                let all = events.len() == self.events.len();
                let revision = if all { self.complete } else { last.revision };
                Taken::Batch(Batch { events, revision })
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= ROOM
    }

    fn first_batch(&self) -> Vec<Event> {
        let mut bytes = 0;
        let mut last = 0;
        let fits = |event: &&Event| {
            let take = bytes < BATCH || event.revision == last;
            (bytes, last) = (bytes + size(event), event.revision);
            take
        };
        self.events.iter().take_while(fits).cloned().collect()
    }
}

fn size(event: &Event) -> usize {
    EVENT + event.key.len() + event.value.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: Revision) -> Event {
        Event { key: revision.to_string(), value: Some(Vec::new()), revision, version: 1 }
    }

    fn large(revision: Revision) -> Event {
        Event { value: Some(vec![0; BATCH / 2]), ..event(revision) }
    }

    fn revisions(taken: Taken) -> (Vec<Revision>, Revision) {
        match taken {
            Taken::Batch(batch) => {
                (batch.events.iter().map(|event| event.revision).collect(), batch.revision)
            }
            taken => panic!("{taken:?}"),
        }
    }

    #[test]
    fn gives_the_same_again_until_it_arrived() {
        let mut backlog = Backlog::after(10);
        assert_eq!(backlog.take(10), Taken::Nothing(10));
        backlog.push(vec![event(11), event(12)], false);
        assert_eq!(revisions(backlog.take(10)), (vec![11, 12], 12));
        assert_eq!(revisions(backlog.take(10)), (vec![11, 12], 12));
        assert_eq!(revisions(backlog.take(11)), (vec![12], 12));
        assert_eq!(backlog.take(10), Taken::Gone);
        backlog.nothing_until(20);
        assert_eq!(revisions(backlog.take(11)), (vec![12], 20));
        assert_eq!(backlog.take(20), Taken::Nothing(20));
        assert_eq!(backlog.bytes, 0);
    }

    #[test]
    fn skips_what_a_newer_snapshot_already_holds() {
        let mut backlog = Backlog::after(10);
        assert_eq!(backlog.take(15), Taken::Nothing(15));
        backlog.push(vec![event(12), event(15), event(16)], false);
        assert_eq!(revisions(backlog.take(15)), (vec![16], 16));
    }

    #[test]
    fn shows_no_half_of_a_revision() {
        let mut backlog = Backlog::after(10);
        backlog.push(vec![event(11)], true);
        backlog.nothing_until(11);
        assert_eq!(backlog.take(10), Taken::Nothing(10));
        assert_eq!(backlog.resume(), 10);
        backlog.push(vec![event(11)], true);
        backlog.push(vec![event(11)], false);
        assert_eq!(revisions(backlog.take(10)), (vec![11, 11], 11));
        assert_eq!(backlog.resume(), 11);
    }

    #[test]
    fn ends_a_batch_between_revisions() {
        let mut backlog = Backlog::after(10);
        backlog.push(vec![large(11), large(12), large(12), large(13)], false);
        assert_eq!(revisions(backlog.take(10)), (vec![11, 12, 12], 12));
        assert_eq!(revisions(backlog.take(12)), (vec![13], 13));
        assert!(!backlog.is_full());
        backlog.push((20..40).map(large).collect(), false);
        assert!(backlog.is_full());
    }
}
