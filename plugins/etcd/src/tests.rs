//! The adapter over an etcd written by hand: what `wit/routing-table.wit` promises.

use message_flow_sdk::{
    etcd::Comparison,
    routing_table::{Assignment, Change, Condition, Proposal, TableError},
    testing::Scene,
};

use crate::{Etcd, assignments, cluster::Cluster, entries, fake::Fake, keys::Keys};

fn keys() -> Keys {
    Keys::new("/mf").unwrap()
}

fn change(kind: &str, key: &str, value: Option<&str>) -> Change {
    Change { kind: kind.into(), key: key.into(), value: value.map(Into::into), ephemeral: false }
}

fn write(etcd: &Fake, changes: &[Change]) -> u64 {
    entries::write(etcd, &keys(), changes, None).unwrap()
}

fn snapshot(etcd: &Fake) -> (Vec<(String, String, String)>, u64) {
    let snapshot = entries::read(etcd, &keys()).unwrap();
    (
        snapshot.entries.into_iter().map(|entry| (entry.kind, entry.key, entry.value)).collect(),
        snapshot.revision,
    )
}

fn changes(etcd: &Fake, after: u64) -> (Vec<(String, String, Option<String>)>, u64) {
    let mut set = entries::changes(etcd, &keys(), after).unwrap();
    set.changes.retain(|change| change.kind != "revision");
    (set.changes.into_iter().map(|change| (change.kind, change.key, change.value)).collect(), set.revision)
}

fn proposal(server: &str, expires: Option<u64>) -> Proposal {
    let (client, service) = ("an/n".into(), "chat@2".into());
    Proposal { client, service, server: server.into(), expires, router: "r1".into() }
}

fn assign(etcd: &Fake, server: &str, condition: Condition) -> Option<Assignment> {
    assignments::assign(etcd, &keys(), &proposal(server, Some(100)), condition).unwrap()
}

fn kind<T>(answer: Result<T, TableError>) -> &'static str {
    match answer {
        Ok(_) => "done",
        Err(TableError::Unavailable(_)) => "unavailable",
        Err(TableError::Compacted) => "compacted",
        Err(TableError::Conflict(_)) => "conflict",
        Err(TableError::Invalid(_)) => "invalid",
        Err(_) => "another error",
    }
}

#[test]
fn a_snapshot_and_the_changes_after_it_are_everything() {
    let etcd = Fake::default();
    let first = write(&etcd, &[change("service", "chat@2", Some("{}")), change("odd", "x", Some("1"))]);
    let entries = vec![
        ("odd".to_owned(), "x".to_owned(), "1".to_owned()),
        ("service".to_owned(), "chat@2".to_owned(), "{}".to_owned()),
    ];
    assert_eq!(snapshot(&etcd), (entries, first));
    assert_eq!(etcd.dump()["/mf/services/chat@2"], "{}");

    let second =
        write(&etcd, &[change("service", "chat@2", None), change("server", "chat@2/a:1", Some("{}"))]);
    let expected = vec![
        ("server".to_owned(), "chat@2/a:1".to_owned(), Some("{}".to_owned())),
        ("service".to_owned(), "chat@2".to_owned(), None),
    ];
    assert_eq!(changes(&etcd, first), (expected, second));
    assert_eq!(changes(&etcd, second), (vec![], second));
}

#[test]
fn changes_say_at_which_revision_they_happened() {
    let etcd = Fake::default();
    let before = write(&etcd, &[]);
    let first = write(&etcd, &[change("service", "a", Some("{}")), change("service", "b", Some("{}"))]);
    let second = write(&etcd, &[change("service", "a", None)]);
    write(&etcd, &[change("service", "absent", None)]);
    let set = entries::changes(&etcd, &keys(), before).unwrap();
    let told = set.changes.iter().map(|change| (change.kind.as_str(), change.key.clone()));
    let at = |revision: u64| ("revision", revision.to_string());
    let of = |service: &str| ("service", service.to_owned());
    assert_eq!(told.collect::<Vec<_>>(), [of("a"), of("b"), at(first), of("a"), at(second)]);
}

#[test]
fn every_write_is_seen_by_those_who_follow() {
    let etcd = Fake::default();
    let before = write(&etcd, &[change("service", "a", Some("{}"))]);
    let revision = write(&etcd, &[change("service", "absent", None)]);
    assert_eq!(changes(&etcd, before), (vec![], revision));
}

#[test]
fn many_entries_are_read_at_one_revision() {
    let etcd = Fake::default();
    for number in 0..10 {
        let services: Vec<_> =
            (0..60).map(|n| change("service", &format!("s{number}-{n}"), Some("{}"))).collect();
        write(&etcd, &services);
    }
    let (entries, revision) = snapshot(&etcd);
    assert_eq!((entries.len(), revision), (600, etcd.revision()));
    assert!(etcd.gets.get() > 1);
}

/// Writes a service if nothing that is said of it changed since a revision.
fn expecting(etcd: &Fake, service: &str, revision: u64) -> Result<u64, TableError> {
    entries::write(etcd, &keys(), &[change("service", service, Some("{}"))], Some(revision))
}

#[test]
fn a_write_may_expect_that_what_it_names_is_unchanged() {
    let etcd = Fake::default();
    let revision = write(&etcd, &[change("service", "a", Some("{}")), change("service", "b", Some("{}"))]);
    assign(&etcd, "s1", Condition::Always);
    let written = expecting(&etcd, "c", revision).unwrap();
    write(&etcd, &[change("service", "a", Some("{}"))]);
    assign(&etcd, "s2", Condition::Always);
    match expecting(&etcd, "c", revision) {
        Err(TableError::Conflict(at)) => {
            assert_eq!(at, written, "when it was written, not what happened since")
        }
        other => panic!("{other:?}"),
    }
    let again = expecting(&etcd, "c", written).unwrap();
    let deleted = write(&etcd, &[change("service", "c", None)]);
    assert_eq!(kind(expecting(&etcd, "c", again)), "conflict", "a deletion is a change");
    etcd.edit("/mf/services/c", Some("{}"));
    assert_eq!(kind(expecting(&etcd, "c", deleted)), "conflict", "whoever made it");
    assert!(expecting(&etcd, "b", revision).is_ok(), "it never changed");
}

#[test]
fn deletions_leave_a_bounded_number_of_markers() {
    let etcd = Fake::default();
    for number in 0..400 {
        write(&etcd, &[change("service", &number.to_string(), None)]);
    }
    assert_eq!(etcd.dump().len(), 32);
}

#[test]
fn an_earlier_version_may_run_beside() {
    let etcd = Fake::default();
    let revision = write(&etcd, &[change("service", "a", Some("{}")), change("service", "b", Some("{}"))]);
    // It compares all entries, and writes one marker for all changes.
    let theirs = [Comparison::NoneModifiedAfter((keys().entries(), revision))];
    assert!(etcd.transact(&theirs, &[], &[]).unwrap().succeeded);
    write(&etcd, &[change("service", "a", None)]);
    assert!(!etcd.transact(&theirs, &[], &[]).unwrap().succeeded, "it sees our deletion");
    let deleted = etcd.revision();
    etcd.edit("/mf/services/b", None);
    etcd.edit("/mf/revision", Some("{}"));
    assert_eq!(kind(expecting(&etcd, "b", deleted)), "conflict", "and we see its own");
}

#[test]
fn of_two_changes_to_an_entry_the_last_holds() {
    let etcd = Fake::default();
    write(
        &etcd,
        &[change("service", "a", Some("1")), change("service", "b", None), change("service", "a", None)],
    );
    assert_eq!(snapshot(&etcd).0, []);
    let many: Vec<_> = (0..65).map(|n| change("service", &n.to_string(), None)).collect();
    assert_eq!(kind(entries::write(&etcd, &keys(), &many, None)), "invalid");
}

#[test]
fn what_is_ephemeral_is_leased() {
    let etcd = Fake::default();
    write(
        &etcd,
        &[
            Change { ephemeral: true, ..change("router", "r1", Some("{}")) },
            change("service", "a", Some("{}")),
        ],
    );
    assert_eq!(*etcd.leased.borrow(), ["/mf/routers/r1"]);
}

#[test]
fn who_assigns_first_wins() {
    let etcd = Fake::default();
    let first = assign(&etcd, "s1", Condition::Absent).unwrap();
    let second = assign(&etcd, "s2", Condition::Absent).unwrap();
    assert_eq!((first.server.as_str(), first.stamp), ("s1", second.stamp));
    assert_eq!(second.server, "s1");
    assert_eq!(
        etcd.dump()["/mf/assignments/an%2Fn/chat@2"],
        r#"{"server":"s1","expires":100,"router":"r1"}"#
    );

    let renewed = assign(&etcd, "s1", Condition::Unchanged(first.stamp)).unwrap();
    assert!(renewed.stamp > first.stamp);
    let stale = assign(&etcd, "s3", Condition::Unchanged(first.stamp)).unwrap();
    assert_eq!((stale.server.as_str(), stale.stamp), ("s1", renewed.stamp));
    etcd.edit("/mf/assignments/an%2Fn/chat@2", None);
    assert!(assign(&etcd, "s3", Condition::Unchanged(renewed.stamp)).is_none());
}

#[test]
fn pins_and_forgotten_assignments_are_told_to_all_routers() {
    let etcd = Fake::default();
    let start = write(&etcd, &[]);
    assign(&etcd, "s1", Condition::Absent);
    assert_eq!(changes(&etcd, start).0, [], "there are too many of these");
    assign(&etcd, "s2", Condition::Always);
    assignments::forget(&etcd, &keys(), "an/n", "chat@2").unwrap();
    let told = ("assignment".to_owned(), "an%2Fn/chat@2".to_owned(), None);
    assert_eq!(changes(&etcd, start), (vec![told.clone(), told], etcd.revision()));
    assert!(assignments::assigned(&etcd, &keys(), "an/n", "chat@2").unwrap().is_none());
}

#[test]
fn replaced_assignments_are_told_and_renewed_ones_are_not() {
    let etcd = Fake::default();
    let start = write(&etcd, &[]);
    let first = assign(&etcd, "s1", Condition::Absent).unwrap();
    let renewed = assign(&etcd, "s1", Condition::Unchanged(first.stamp)).unwrap();
    assert_eq!(changes(&etcd, start).0, [], "the same server");
    assign(&etcd, "s2", Condition::Unchanged(first.stamp)).unwrap();
    assert_eq!(changes(&etcd, start).0, [], "nothing was replaced");
    let replaced = assign(&etcd, "s2", Condition::Unchanged(renewed.stamp)).unwrap();
    let told = ("assignment".to_owned(), "an%2Fn/chat@2".to_owned(), None);
    assert_eq!(changes(&etcd, start), (vec![told.clone()], replaced.stamp), "in the same transaction");
    *etcd.before_transaction.borrow_mut() = Some(Box::new(|etcd| {
        etcd.edit("/mf/assignments/an%2Fn/chat@2", Some(r#"{"server":"s4","router":"r2"}"#))
    }));
    let outrun = assign(&etcd, "s3", Condition::Unchanged(replaced.stamp)).unwrap();
    assert_eq!((outrun.server.as_str(), changes(&etcd, start).0), ("s4", vec![told]));
}

#[test]
fn a_client_is_its_assignments_and_where_it_is() {
    let etcd = Fake::default();
    assign(&etcd, "s1", Condition::Absent);
    assignments::locate(&etcd, &keys(), "an/n", Some("r9".into())).unwrap();
    let client = assignments::client(&etcd, &keys(), "an/n").unwrap();
    let services: Vec<_> =
        client.assignments.iter().map(|(service, of)| (service.as_str(), of.server.as_str())).collect();
    assert_eq!((client.router.as_deref(), services), (Some("r9"), vec![("chat@2", "s1")]));
    assignments::locate(&etcd, &keys(), "an/n", None).unwrap();
    assert!(assignments::client(&etcd, &keys(), "an/n").unwrap().router.is_none());
    assert!(assignments::client(&etcd, &keys(), "an").unwrap().assignments.is_empty());
}

#[test]
fn a_sweep_removes_what_expired_and_nothing_else() {
    let etcd = Fake::default();
    for number in 0..150 {
        let expires = (number % 3 > 0).then_some(50 + number % 3);
        let proposal = Proposal { client: format!("c{number:03}"), ..proposal("s1", expires) };
        assignments::assign(&etcd, &keys(), &proposal, Condition::Absent).unwrap();
    }
    let mut scene = Scene::new();
    let mut sweep = |now, limit| scene.run(|| assignments::sweep(&etcd, &keys(), now, limit).unwrap());
    assert_eq!(sweep(51, 10), 0);
    assert_eq!(sweep(52, 10), 10);
    assert_eq!(sweep(52, 100), 40);
    *etcd.before_transaction.borrow_mut() = Some(Box::new(|etcd| {
        etcd.edit("/mf/assignments/c002/chat@2", Some(r#"{"server":"s","router":"r"}"#))
    }));
    assert_eq!(sweep(53, 100), 49, "one was renewed meanwhile");
    assert_eq!(etcd.dump().keys().filter(|key| key.contains("assignments")).count(), 51);
}

#[test]
fn what_is_no_text_hides_nothing_else() {
    let etcd = Fake::default();
    let first = write(&etcd, &[change("service", "a", Some("{}")), change("service", "c", Some("{}"))]);
    etcd.edit_bytes("/mf/services/b", Some(b"{\"registrar\":\"\xff\"}"));
    etcd.edit_bytes("/mf/notice", Some(b"\xff"));
    etcd.edit("/mf/services/d", Some("{}"));
    let said = |value: &str| serde_json::from_str::<serde_json::Value>(value).is_err();
    let (entries, revision) = snapshot(&etcd);
    let keys: Vec<_> = entries.iter().map(|(_, key, _)| key.as_str()).collect();
    assert_eq!(keys, ["a", "b", "c", "d"]);
    assert!(said(&entries[1].2), "{entries:?}");
    let (found, followed) = changes(&etcd, first);
    assert_eq!((found.len(), followed), (2, revision), "{found:?}");
    assert!(found[0].2.as_deref().is_some_and(said) && found[1].1 == "d", "{found:?}");
}

#[test]
fn what_is_no_entry_is_told_as_a_stray() {
    let etcd = Fake::default();
    let first = write(&etcd, &[change("service", "a", Some("{}"))]);
    etcd.edit("/mf/service/chat", Some("{}"));
    let (entries, _) = snapshot(&etcd);
    let kinds: Vec<_> = entries.iter().map(|(kind, key, _)| (kind.as_str(), key.as_str())).collect();
    assert_eq!(kinds, [("stray", "/mf/service/chat"), ("service", "a")]);
    etcd.edit("/mf/service/chat", None);
    let told: Vec<_> =
        changes(&etcd, first).0.into_iter().map(|change| (change.0, change.2.is_some())).collect();
    assert_eq!(told, [("stray".to_owned(), true), ("stray".to_owned(), false)]);
    (0..300).for_each(|n| etcd.edit(&format!("/mf/typo/{n}"), Some("x")));
    assert_eq!(snapshot(&etcd).0.len(), 257, "bounded, and the entry is there");
}

#[test]
fn errors_say_what_to_do() {
    let etcd = Fake::default();
    write(&etcd, &[change("service", "a", Some("{}"))]);
    write(&etcd, &[change("service", "b", Some("{}"))]);
    etcd.compact(2);
    assert_eq!(kind(entries::changes(&etcd, &keys(), 0)), "compacted");
    assert!(entries::changes(&etcd, &keys(), 1).is_ok());
    etcd.edit("/mf/assignments/an%2Fn/chat@2", Some("not JSON"));
    let broken = assignments::assigned(&etcd, &keys(), "an/n", "chat@2");
    assert!(
        matches!(&broken, Err(TableError::Invalid(why)) if why.contains("/mf/assignments/an%2Fn/chat@2"))
    );
    etcd.down.set(true);
    assert_eq!(kind(entries::read(&etcd, &keys())), "unavailable");
    assert!(etcd.next(&keys().watched(), 0, 0).is_err());
}

#[test]
fn configuration_is_checked_at_start() {
    assert_eq!(Scene::new().config("endpoints", "http://a:1").config("prefix", "/x").start::<Etcd>(), Ok(()));
    assert!(Scene::new().config("prefix", "/").start::<Etcd>().unwrap_err().contains("config.prefix"));
    assert!(
        Scene::new().config("endpoint", "http://a:1").start::<Etcd>().unwrap_err().contains("`endpoint`")
    );
}
