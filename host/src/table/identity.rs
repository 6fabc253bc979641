//! Under which id this router is in the table, and what it may do about a record that is there under it already. Two
//! processes that use one id would take each other's connections for lost, so the record is written only against
//! itself, and whoever finds the id taken by another that lives goes by another. Pure.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::record::RouterRecord;

/// A record that is still there after so long is kept there by somebody: the lease of one that died has ended by then.
pub(super) const PATIENCE: Duration = Duration::from_secs(12);

/// Where the id comes from, and so what to do if another router has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// From this file, in which another is kept then.
    File(PathBuf),
    /// The configuration says so: then this router does not start.
    #[default]
    Configuration,
}

/// Under which id this router is in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The id.
    pub id: Arc<str>,
    /// The id that it came with, if that was taken.
    pub instead_of: Option<Arc<str>>,
    /// What is known of it.
    pub claim: Claim,
}

/// Whether an id is this router's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The table has not said so yet.
    Open,
    /// It is.
    Held,
    /// It is another's, of which this says something.
    Refused(String),
}

/// What to do about the record that is there under this router's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is this router's own, or none, or of a process that is no more: write it, or leave it if it says the same.
    Write,
    /// Whoever wrote it may be no more.
    Wait,
    /// Somebody else has this id.
    Taken,
}

/// What is known of a record that may be another's.
pub(super) struct Found<'a> {
    pub(super) there: Option<&'a RouterRecord>,
    /// For how long that very record has been looked at.
    pub(super) seen_for: Duration,
    /// This router has had the id, so that whoever wrote the record came later.
    pub(super) held: bool,
    /// No other process can use this table.
    pub(super) alone: bool,
}

/// What to do about a record, for a router that would write `own`.
pub(super) fn next(own: &RouterRecord, found: &Found<'_>) -> Next {
    let Some(there) = found.there else { return Next::Write };
    let same_directory = own.directory.is_some() && own.directory == there.directory;
    if there.incarnation == own.incarnation || same_directory || found.alone {
        return Next::Write;
    }
    if found.held || found.seen_for >= PATIENCE { Next::Taken } else { Next::Wait }
}

/// What to say of a clash, if the table shows one: to the one that goes by another id, and to the one whose id it was.
pub(super) fn clash<'a, K: std::borrow::Borrow<str> + 'a>(
    identity: &Identity,
    routers: impl Iterator<Item = (K, &'a RouterRecord)>,
) -> Option<String> {
    let mut routers = routers;
    routers.find_map(|(id, router)| {
        let (id, uri) = (id.borrow(), &router.uri);
        if identity.instead_of.as_deref() == Some(id) {
            return Some(format!(
                "this router's id `{id}` is in use by the router at {uri}, so this one goes by `{}`; \
                 give each router a data directory of its own, not a copy of another's",
                identity.id
            ));
        }
        let ours = id != &*identity.id && router.instead_of.as_deref() == Some(&*identity.id);
        ours.then(|| {
            format!(
                "the router at {uri} was started with the id `{}` of this one, and goes by `{id}`; \
                 give each router a data directory of its own, not a copy of another's",
                identity.id
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(incarnation: &str, directory: Option<&str>) -> RouterRecord {
        let directory = directory.map(str::to_owned);
        RouterRecord { incarnation: incarnation.to_owned(), directory, ..RouterRecord::default() }
    }

    #[test]
    fn a_record_is_written_only_where_nobody_else_can_have_it() {
        let own = record("two", Some("boot/8/77"));
        let check = |there: Option<RouterRecord>, seconds, held, alone, expect| {
            let seen_for = Duration::from_secs(seconds);
            let found = Found { there: there.as_ref(), seen_for, held, alone };
            assert_eq!(next(&own, &found), expect, "{there:?}, {seconds} s, held: {held}, alone: {alone}");
        };
        check(None, 0, false, false, Next::Write);
        check(Some(record("two", None)), 0, true, false, Next::Write);
        // From before a crash, on this machine: it is known at once to be no more.
        check(Some(record("one", Some("boot/8/77"))), 0, false, false, Next::Write);
        // On another machine, or of another directory: after the rest of its lease.
        for there in [record("one", Some("boot/8/78")), record("one", None)] {
            check(Some(there.clone()), 0, false, false, Next::Wait);
            check(Some(there.clone()), 11, false, false, Next::Wait);
            check(Some(there.clone()), 12, false, false, Next::Taken);
            check(Some(there.clone()), 0, true, false, Next::Taken);
            check(Some(there), 0, false, true, Next::Write);
        }
        // Two that cannot say where they run are not of one directory.
        let nowhere = record("three", None);
        let there = record("one", None);
        let found = Found { there: Some(&there), seen_for: Duration::ZERO, held: false, alone: false };
        assert_eq!(next(&nowhere, &found), Next::Wait);
    }

    #[test]
    fn both_say_so() {
        let there = RouterRecord { uri: "http://a".into(), ..record("one", None) };
        let moved =
            RouterRecord { uri: "http://b".into(), instead_of: Some("r".into()), ..record("two", None) };
        let routers = [("r", &there), ("s", &moved)];
        let identity = |id: &str, instead_of: Option<&str>| Identity {
            id: id.into(),
            instead_of: instead_of.map(Into::into),
            claim: Claim::Held,
        };
        let said =
            |identity: &Identity, routers: &[(&str, &RouterRecord)]| clash(identity, routers.iter().copied());
        assert!(
            said(&identity("r", None), &routers).unwrap().contains("http://b was started with the id `r`")
        );
        assert!(said(&identity("s", Some("r")), &routers).unwrap().contains("goes by `s`"));
        assert_eq!(said(&identity("s", Some("r")), &routers[1..]), None, "the other is gone");
        assert_eq!(said(&identity("q", None), &routers), None);
    }
}
