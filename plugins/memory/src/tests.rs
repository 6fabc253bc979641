//! What the adapter promises, natively.

use std::collections::BTreeMap;

use message_flow_sdk::{random, routing_table::Entry, testing::Scene};

use super::*;

fn put(kind: &str, key: &str, value: &str) -> Change {
    Change { kind: kind.into(), key: key.into(), value: Some(value.into()), ephemeral: false }
}

fn delete(kind: &str, key: &str) -> Change {
    Change { kind: kind.into(), key: key.into(), value: None, ephemeral: false }
}

fn proposal(client: &str, server: &str, expires: Option<u64>) -> Proposal {
    Proposal {
        client: client.into(),
        service: "chat@2".into(),
        server: server.into(),
        expires,
        router: "here".into(),
    }
}

/// The assigned server of a client of `chat@2`.
fn server_of(client: &str) -> Option<String> {
    Memory::assigned(client.into(), "chat@2".into()).unwrap().map(|assignment| assignment.server)
}

fn changes(after: Revision) -> (Vec<(String, String, Option<String>)>, Revision) {
    let set = Memory::changes(after).unwrap();
    let change = |change: Change| (change.kind, change.key, change.value);
    (set.changes.into_iter().map(change).collect(), set.revision)
}

fn entries(snapshot: Snapshot) -> BTreeMap<(String, String), String> {
    snapshot.entries.into_iter().map(|Entry { kind, key, value }| ((kind, key), value)).collect()
}

#[test]
fn what_is_written_is_in_the_snapshot_and_in_the_changes() {
    Scene::new().run(|| {
        let start = Memory::read().unwrap().revision;
        let chat = vec![put("service", "chat@2", "{}"), put("server", "chat@2/a:1", "{\"uri\":1}")];
        let first = Memory::write(chat, None).unwrap();
        let second = Memory::write(vec![delete("service", "chat@2")], None).unwrap();
        assert_eq!(changes(start).1, second);
        assert_eq!(changes(first), (vec![("service".into(), "chat@2".into(), None)], second));
        assert_eq!(changes(second), (vec![], second));
        let snapshot = Memory::read().unwrap();
        assert_eq!(snapshot.revision, second);
        assert_eq!(
            entries(snapshot),
            [(("server".into(), "chat@2/a:1".into()), "{\"uri\":1}".into())].into()
        );
    });
}

#[test]
fn a_write_may_expect_that_what_it_names_is_unchanged() {
    Scene::new().run(|| {
        let first = Memory::write(vec![put("release", "chat", "1")], None).unwrap();
        Memory::forget("alice".into(), "chat@2".into()).unwrap();
        let second = Memory::write(vec![put("release", "chat", "2")], Some(first)).unwrap();
        let outrun = Memory::write(vec![put("release", "chat", "3")], Some(first));
        assert!(matches!(outrun, Err(TableError::Conflict(revision)) if revision == second), "{outrun:?}");
        assert_eq!(entries(Memory::read().unwrap())[&("release".into(), "chat".into())], "2");
        assert!(Memory::write(vec![put("release", "other", "1")], Some(first)).is_ok(), "another entry");
        assert!(Memory::write(vec![put("release", "new", "1")], Some(u64::MAX)).is_err(), "no such revision");
        let at = Memory::write((0..64).map(|n| put("server", &n.to_string(), "1")).collect(), None).unwrap();
        let fill = || Memory::write((0..64).map(|n| put("service", &n.to_string(), "1")).collect(), None);
        (0..200).for_each(|_| assert!(fill().is_ok()));
        assert!(Memory::write(vec![put("server", "1", "2")], Some(at)).is_ok(), "over pages of the log");
        (0..1000).for_each(|_| assert!(fill().is_ok()));
        let late = Memory::write(vec![put("server", "2", "2")], Some(at));
        assert!(matches!(late, Err(TableError::Conflict(_))), "the log does not reach back: {late:?}");
    });
}

#[test]
fn what_cannot_be_stored_is_refused_as_a_whole() {
    Scene::new().run(|| {
        let long = "x".repeat(64 * 1024 + 1);
        for wrong in [
            put("assignment", "alice/chat", "{}"),
            put("", "chat", "{}"),
            put("service", "", "{}"),
            put("service", "a\nb", "{}"),
            put("service", &"k".repeat(1025), "{}"),
            put("service", "chat", &long),
        ] {
            let written = Memory::write(vec![put("service", "good", "{}"), wrong], None);
            assert!(matches!(written, Err(TableError::Invalid(_))), "{written:?}");
        }
        let many = (0..65).map(|number| put("service", &number.to_string(), "{}")).collect();
        assert!(matches!(Memory::write(many, None), Err(TableError::Invalid(_))));
        assert!(Memory::read().unwrap().entries.is_empty());
    });
    let mut full = Scene::new();
    full.state_limit = 300;
    full.run(|| {
        let written =
            Memory::write(vec![put("service", "a", "{}"), put("service", "b", &"x".repeat(300))], None);
        assert!(matches!(written, Err(TableError::Refused(reason)) if reason.contains("state_limit")));
        assert!(Memory::read().unwrap().entries.is_empty());
    });
}

#[test]
fn the_log_is_bounded_and_says_so() {
    Scene::new().run(|| {
        let start = Memory::read().unwrap().revision;
        let write =
            |number: u64| Memory::write(vec![put("service", "chat", &number.to_string())], None).unwrap();
        let last = (0..1500).fold(0, |_, number| write(number));
        assert!(matches!(Memory::changes(start), Err(TableError::Compacted)));
        assert!(matches!(Memory::changes(last + 1), Err(TableError::Compacted)));
        assert!(matches!(Memory::changes(0), Err(TableError::Compacted)));
        let mut after = last - 1024;
        while after < last {
            let (found, revision) = changes(after);
            assert_eq!(found.len() as u64, revision - after);
            after = revision;
        }
        assert_eq!(message_flow_sdk::state::scan("l/", None, 9999).len(), 1024);
        let big = "x".repeat(60_000);
        for _ in 0..40 {
            Memory::write(vec![put("service", "big", &big)], None).unwrap();
        }
        let kept = message_flow_sdk::state::scan("l/", None, 9999);
        let bytes: usize = kept.iter().map(|(_, record)| record.len()).sum();
        assert!((900_000..=1 << 20).contains(&bytes), "{bytes}");
        assert_eq!(head::Head::read().unwrap().bytes as usize, bytes);
    });
}

#[test]
fn an_assignment_depends_on_what_is_there() {
    Scene::new().run(|| {
        let assign =
            |server, condition| Memory::assign(proposal("alice", server, Some(100)), condition).unwrap();
        assert_eq!(assign("x", Condition::Unchanged(7)).map(|stored| stored.server), None);
        let first = assign("a", Condition::Absent).unwrap();
        assert_eq!((first.server.as_str(), first.expires, first.router.as_str()), ("a", Some(100), "here"));
        assert_eq!(assign("b", Condition::Absent).unwrap().stamp, first.stamp);
        assert_eq!(assign("b", Condition::Unchanged(first.stamp ^ 1)).unwrap().server, "a");
        let second = assign("b", Condition::Unchanged(first.stamp)).unwrap();
        assert_eq!((second.server.as_str(), server_of("alice").as_deref()), ("b", Some("b")));
        assert_ne!(second.stamp, first.stamp);
        assert_eq!(server_of("bob"), None);
    });
}

#[test]
fn pins_and_forgotten_assignments_are_told_and_others_are_not() {
    Scene::new().run(|| {
        let start = Memory::read().unwrap().revision;
        Memory::assign(proposal("a/ö %", "a", Some(1)), Condition::Absent).unwrap();
        assert_eq!(changes(start), (vec![], start));
        Memory::assign(proposal("a/ö %", "b", None), Condition::Always).unwrap();
        let told = ("assignment".to_owned(), "a%2F%C3%B6%20%25/chat@2".to_owned(), None);
        assert_eq!(changes(start), (vec![told.clone()], start + 1));
        assert_eq!(Memory::sweep(u64::MAX, 9).unwrap(), 0);
        Memory::forget("a/ö %".into(), "chat@2".into()).unwrap();
        assert_eq!(changes(start + 1), (vec![told], start + 2));
        assert_eq!(server_of("a/ö %"), None);
    });
}

#[test]
fn a_client_is_known_with_all_its_assignments() {
    Scene::new().run(|| {
        Memory::assign(proposal("alice", "a", Some(1)), Condition::Absent).unwrap();
        Memory::assign(
            Proposal { service: "mail".into(), ..proposal("alice", "m", None) },
            Condition::Always,
        )
        .unwrap();
        Memory::assign(proposal("alice2", "x", None), Condition::Always).unwrap();
        Memory::locate("alice".into(), Some("there".into())).unwrap();
        let record = Memory::client("alice".into()).unwrap();
        let assignments =
            record.assignments.into_iter().map(|(service, it)| (service, it.server, it.expires));
        let expected = [("chat@2".to_owned(), "a".to_owned(), Some(1)), ("mail".into(), "m".into(), None)];
        assert_eq!((record.router, assignments.collect::<Vec<_>>()), (Some("there".into()), expected.into()));
        Memory::locate("alice".into(), None).unwrap();
        assert_eq!(Memory::client("alice".into()).unwrap().router, None);
    });
}

#[test]
fn sweeping_removes_what_expired_in_bounded_steps() {
    let mut scene = Scene::new();
    scene.run(|| {
        for client in 0..200_u64 {
            Memory::assign(proposal(&client.to_string(), "a", Some(client)), Condition::Absent).unwrap();
        }
        let renewed = Memory::assigned("5".into(), "chat@2".into()).unwrap().unwrap();
        Memory::assign(proposal("5", "a", Some(500)), Condition::Unchanged(renewed.stamp)).unwrap();
        assert_eq!(
            [(150, 100), (150, 100), (150, 100)].map(|(now, limit)| Memory::sweep(now, limit).unwrap()),
            [100, 49, 0]
        );
        assert_eq!(
            (server_of("149"), server_of("5").as_deref(), server_of("150").as_deref()),
            (None, Some("a"), Some("a"))
        );
        assert_eq!(Memory::sweep(1000, 1000).unwrap(), 51);
    });
    let left: Vec<_> = scene.state.keys().collect();
    assert!(left.iter().all(|key| !key.starts_with("a/") && !key.starts_with("x/")), "{left:?}");
}

/// Whatever clients invent, operators and services find room; pins and entries stay.
#[test]
fn invented_clients_stop_nobody_else() {
    let mut scene = Scene::new();
    scene.state_limit = 20_000;
    scene.run(|| {
        Memory::write(vec![put("service", "chat@2", "{}")], None).unwrap();
        Memory::assign(proposal("pinned", "a", None), Condition::Always).unwrap();
        for number in 0..10_000_u64 {
            let client = format!("invented-{number}");
            let stored = Memory::assign(proposal(&client, "a", Some(1000 + number)), Condition::Absent);
            assert_eq!(stored.unwrap().unwrap().server, "a");
        }
        assert_eq!(server_of("invented-0"), None);
        assert_eq!(server_of("invented-9999").as_deref(), Some("a"));
        assert_eq!(server_of("pinned").as_deref(), Some("a"));
        // Registrations, heartbeats, a release, a deletion: the log alone would fill the state.
        for round in 0..500 {
            let stamp = format!("{{\"uri\":\"http://127.0.0.1:1\",\"stamp\":{round}}}");
            Memory::write(vec![put("server", "chat@2/a", &stamp)], None).unwrap();
        }
        Memory::write(vec![put("release", "chat", &"x".repeat(8000))], None).unwrap();
        Memory::write(vec![delete("server", "chat@2/a")], None).unwrap();
        assert_eq!(server_of("pinned").as_deref(), Some("a"));
        let kinds: Vec<_> = entries(Memory::read().unwrap()).into_keys().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["release", "service"]);
        let at = Memory::read().unwrap().revision;
        assert_eq!(changes(at), (vec![], at));
        // What operators write is bounded too, and says so.
        let written = Memory::write(vec![put("release", "big", &"x".repeat(15_000))], None);
        assert!(matches!(written, Err(TableError::Refused(reason)) if reason.contains("state_limit")));
        Memory::write(vec![delete("release", "chat")], None).unwrap();
    });
}

/// A table that is full of services and servers refuses more of them, and nothing else.
#[test]
fn what_keeps_a_full_table_going_finds_room() {
    let mut scene = Scene::new();
    scene.state_limit = 40_000;
    scene.run(|| {
        for number in 0..200 {
            Memory::locate(format!("client-{number}"), Some("here".into())).unwrap();
        }
        let register = |number: usize, size: usize| {
            Memory::write(vec![put("server", &format!("chat@2/{number:03}"), &"x".repeat(size))], None)
        };
        let mut count = 0;
        for size in [2000, 300, 20] {
            while register(count, size).is_ok() {
                count += 1;
            }
        }
        assert!(count > 20, "{count}");
        for round in 0..200 {
            let beat = format!("{round:02000}");
            Memory::write(vec![put("server", "chat@2/000", &beat)], None).unwrap();
        }
        Memory::write(vec![put("release", "chat", &"x".repeat(400))], None).unwrap();
        Memory::write(vec![put("router", "here", &"x".repeat(200))], None).unwrap();
        Memory::forget("nobody".into(), "chat@2".into()).unwrap();
        assert!(matches!(register(count, 20), Err(TableError::Refused(_))), "nothing new meanwhile");
        let pin = Memory::assign(proposal("pinned", "a", None), Condition::Always);
        assert!(matches!(pin, Err(TableError::Refused(_))), "{pin:?}");
        for number in 0..4 {
            Memory::write(vec![delete("server", &format!("chat@2/{number:03}"))], None).unwrap();
        }
        register(count, 20).unwrap();
        Memory::assign(proposal("pinned", "a", None), Condition::Always).unwrap();
    });
}

/// Random writes: the changes, replayed, always lead to the snapshot; so does a snapshot after
/// the log was left behind.
#[test]
fn the_changes_lead_to_the_snapshot() {
    Scene::new().run(|| {
        let mut replica = BTreeMap::new();
        let mut at = Memory::read().unwrap().revision;
        for round in 0..2000_u32 {
            let bits = random::next().wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let change = |place: u64| {
                let key = ((bits >> (8 * place)) % 13).to_string();
                let deletes = (bits >> (8 * place + 5)) & 3 == 0;
                if deletes {
                    delete("server", &key)
                } else {
                    put("server", &key, &format!("{round}-{place}"))
                }
            };
            Memory::write((0..bits % 4).map(change).collect(), None).unwrap();
            if bits.is_multiple_of(7) {
                at = follow(&mut replica, at);
                let snapshot = Memory::read().unwrap();
                assert_eq!(at, snapshot.revision);
                assert_eq!(replica, entries(snapshot));
            }
        }
    });
}

fn follow(replica: &mut BTreeMap<(String, String), String>, mut at: Revision) -> Revision {
    loop {
        let (changes, revision) = changes(at);
        if revision == at {
            return at;
        }
        at = revision;
        for (kind, key, value) in changes {
            match value {
                Some(value) => drop(replica.insert((kind, key), value)),
                None => drop(replica.remove(&(kind, key))),
            }
        }
    }
}
