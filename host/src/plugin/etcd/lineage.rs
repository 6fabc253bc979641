//! Whether the history that etcd answers from is the one that it answered from before. A cluster that
//! was restored from a snapshot, or took the place of another at the same address, counts its revisions
//! anew: what is remembered by revision means something else there, and a watch would wait for changes
//! that happened already, or for a future that never comes.

use etcd_client::ResponseHeader;

use super::{Event, Revision};

/// What tells one history from another, as a linearizable answer says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lineage {
    cluster: u64,
    /// Of Raft: it never goes back in a cluster, and begins anew with a restored one.
    term: u64,
}

impl Lineage {
    pub(super) fn of(header: Option<&ResponseHeader>) -> Self {
        header.map_or(Self { cluster: 0, term: 0 }, |header| Self {
            cluster: header.cluster_id(),
            term: header.raft_term(),
        })
    }

    /// Whether this may be said later in the same history.
    pub(super) fn continues(&self, before: &Self) -> bool {
        self.cluster == before.cluster && self.term >= before.term
    }
}

/// The last event of a watch: it must be found again where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Landmark {
    pub(super) key: String,
    pub(super) revision: Revision,
    /// The key was deleted then.
    pub(super) deleted: bool,
}

impl Landmark {
    /// None: it cannot be looked for, as its key is not text.
    pub(super) fn of(event: &Event) -> Option<Self> {
        let key = Some(&event.key).filter(|key| !key.contains(char::REPLACEMENT_CHARACTER))?;
        Some(Self { key: key.clone(), revision: event.revision, deleted: event.value.is_none() })
    }

    /// Whether what was found under its key, at its revision, is what was there.
    pub(super) fn is_there(&self, modified: Option<Revision>) -> bool {
        modified == (!self.deleted).then_some(self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_has_one_cluster_and_terms_that_grow() {
        let before = Lineage { cluster: 1, term: 5 };
        for (cluster, term, same) in [(1, 5, true), (1, 6, true), (1, 2, false), (2, 5, false), (2, 9, false)]
        {
            assert_eq!(Lineage { cluster, term }.continues(&before), same, "{cluster} {term}");
        }
    }

    #[test]
    fn an_event_is_found_where_it_was() {
        let event = |value: Option<&str>| Event {
            key: "/a".into(),
            value: value.map(Into::into),
            revision: 7,
            version: 1,
        };
        let (put, deleted) = (Landmark::of(&event(Some("x"))).unwrap(), Landmark::of(&event(None)).unwrap());
        assert!(put.is_there(Some(7)) && !put.is_there(Some(6)) && !put.is_there(None));
        assert!(deleted.is_there(None) && !deleted.is_there(Some(6)));
        assert_eq!(Landmark::of(&Event { key: "\u{fffd}".into(), ..event(None) }), None);
    }
}
