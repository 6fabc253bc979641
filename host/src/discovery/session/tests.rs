//! What is told, and when.

use serde_json::{Value, json};

use super::*;
use crate::{
    discovery::{bell::Bell, definition::Limits, index::Index},
    table::{
        Numbers, View,
        adapter::{Change, Entry},
    },
};

mod model;

/// A view and an index that follows it.
struct World {
    numbers: Numbers,
    view: View,
    index: Index,
    session: Session,
    moment: Moment,
}

impl World {
    fn new(servers: &[&str]) -> Self {
        let numbers = Numbers::default();
        let view = View::build(&entries(servers), 100, &Default::default(), &numbers);
        let index = Index::new(&view);
        let moment = Moment { now: Instant::now(), confirmed: Some(0) };
        Self { numbers, view, index, session: Session::default(), moment }
    }

    /// The table now holds exactly these servers, written `service/host:port`.
    fn turns(&mut self, servers: &[&str]) {
        let changes = self.view.difference(&entries(servers));
        let next = self.view.apply(&changes, self.view.revision + 1, &Default::default(), &self.numbers);
        self.index.apply(&self.view, &next);
        self.view = next;
    }

    fn says(&mut self, json: Value) -> Vec<Act> {
        let said = frame::read(&json.to_string(), "10.0.0.9".parse().unwrap(), Limits { requirements: 8 });
        let acts = self.session.hear(said.unwrap(), 8).unwrap();
        for act in &acts {
            if let Act::Need(service) = act {
                self.index.need(service.clone(), 1, &Arc::new(Bell::default()));
            }
        }
        acts
    }

    /// What is told now, as `+name host:port` and `-name`.
    fn hears(&mut self) -> Vec<String> {
        self.hears_json().iter().map(short).collect()
    }

    fn hears_json(&mut self) -> Vec<Value> {
        let looked = self.index.look(self.session.needs());
        let told = self.session.tell(&looked, self.moment);
        told.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }
}

fn short(told: &Value) -> String {
    let payload = &told["payload"];
    let name = payload["requirement"].as_str().or(payload["name"].as_str()).unwrap();
    match told["type"].as_str().unwrap() {
        "required-service" => format!("+{name} {}:{}", payload["host"].as_str().unwrap(), payload["port"]),
        "required-service-lost" => format!("-{name}"),
        other => other.to_owned(),
    }
}

fn entries(servers: &[&str]) -> Vec<Entry> {
    let entry = |text: &&str| {
        let (key, more) = text.split_once(' ').unwrap_or((text, ""));
        let at = key.split_once('/').unwrap().1;
        let value = format!(r#"{{"uri":"http://{at}"{more}}}"#);
        Entry { kind: "server".into(), key: key.into(), value }
    };
    servers.iter().map(entry).collect()
}

#[test]
fn what_is_there_is_told_at_once_and_what_comes_when_it_comes() {
    let mut world = World::new(&["b/h:1"]);
    world.says(json!({"name": "a", "port": 9, "requires": ["b", "c"]}));
    assert_eq!(world.hears(), ["+b h:1"]);
    assert_eq!(world.hears(), [""; 0]);
    world.turns(&["b/h:1", "c/h:2"]);
    assert_eq!(world.hears(), ["+c h:2"]);
    world.turns(&["c/h:2"]);
    world.turns(&["b/h:3", "c/h:2"]);
    assert_eq!(world.hears(), ["+b h:3"], "what was superseded before it was told is not told");
    world.turns(&[]);
    assert_eq!(world.hears(), ["-b", "-c"]);
}

#[test]
fn another_server_is_told_when_the_one_told_goes() {
    let mut world = World::new(&["b/h:1", "b/h:2"]);
    world.says(json!({"name": "a", "requires": ["b"]}));
    let first = world.hears().remove(0);
    world.turns(&["b/h:1", "b/h:2", "b/h:3"]);
    assert_eq!(world.hears(), [""; 0]);
    let other = if first == "+b h:1" { "b/h:2" } else { "b/h:1" };
    world.turns(&[other]);
    assert_eq!(world.hears(), [format!("+{}", other.replace('/', " "))]);
}

#[test]
fn a_server_that_may_be_gone_is_neither_lost_nor_news() {
    let mut world = World::new(&["b/h:1"]);
    world.says(json!({"name": "a", "requires": ["b"]}));
    world.hears();
    let ended = r#","lease":{"router":"r","incarnation":"i","connection":1,"ended":5}"#;
    world.turns(&[&format!("b/h:1 {ended}")]);
    assert!(world.view.service(&"b".parse().unwrap()).unwrap().servers[0].is_suspect());
    assert_eq!(world.hears(), [""; 0]);
    world.turns(&["b/h:1"]);
    assert_eq!(world.hears(), [""; 0]);
    world.turns(&[r#"b/h:1 ,"draining":{"stamp":1,"deadline":"1s"}"#]);
    assert_eq!(world.hears(), ["-b"], "who leaves is not to be talked to any more");
}

#[test]
fn versions_and_all_servers() {
    let mut world = World::new(&["b@1/h:1", "b@2/h:2"]);
    world.says(json!({"name": "a", "requires": ["b@2", {"name": "b", "servers": "all"}]}));
    let told = world.hears_json();
    assert_eq!(short(&told[0]), "+b@2 h:2");
    assert_eq!(told[0]["payload"]["version"], "2");
    assert_eq!(told[1]["payload"]["servers"].as_array().unwrap().len(), 2);
    world.turns(&["b@1/h:1"]);
    let told = world.hears_json();
    assert_eq!((short(&told[0]), short(&told[1])), ("-b@2".to_owned(), "+b h:1".to_owned()));
    assert_eq!(told[1]["payload"]["servers"].as_array().unwrap().len(), 1);
}

#[test]
fn balancers_are_told_in_place_of_servers() {
    let mut world = World::new(&[r#"b/h:1 ,"load_balancer":"http://lb:80""#]);
    world.says(json!({"name": "a", "requires": ["b"]}));
    assert_eq!(world.hears(), ["+b lb:80"]);
}

#[test]
fn one_who_resumes_is_told_what_it_missed_and_only_that() {
    let mut world = World::new(&["b/h:1", "c/h:2", "d/h:3"]);
    world.turns(&["b/h:1", "c/h:2"]);
    let since = world.view.revision;
    let resume = |world: &mut World, since: u64| {
        world.session = Session::default();
        world.says(json!({"name": "a", "requires": ["b", "c", "d", "e"], "since": since}));
        world.hears()
    };
    assert_eq!(resume(&mut world, since), [""; 0]);
    world.turns(&["b/h:1", "d/h:4"]);
    assert_eq!(resume(&mut world, since), ["-c", "+d h:4"]);
    assert_eq!(world.hears(), [""; 0]);
    // What was only assumed to be known is told as soon as it may not hold any more.
    world.turns(&["b/h:1", "b/h:5", "d/h:4"]);
    assert_eq!(world.hears(), [""; 0]);
    world.turns(&["b/h:5", "d/h:4"]);
    assert_eq!(world.hears(), ["+b h:5"]);
    // Of a revision of another table everything is told; what is not there may still come.
    let told = resume(&mut world, 7);
    assert!(told.len() == 3 && told.contains(&"-c".to_owned()), "{told:?}");
    world.index.settle();
    assert_eq!(world.hears(), ["-e"]);
}

#[test]
fn after_a_restart_only_what_differs_is_told() {
    let mut world = World::new(&["b/h:1", "c/h:2", "d/h:3", "gone/h:4"]);
    world.turns(&["b/h:1", "c/h:2", "d/h:3"]);
    let (since, known) = (world.view.revision, world.index.known());
    // While it was away one went, one moved, one came.
    world.turns(&["b/h:1", "c/h:5", "e/h:6"]);
    world.turns(&["b/h:1", "c/h:5", "e/h:6", "b@2/h:7"]);
    let unseen = since + 1;
    let entries = entries(&["b/h:1", "c/h:5", "e/h:6", "b@2/h:7"]);
    world.view = View::build(&entries, world.view.revision, &Default::default(), &world.numbers);
    world.index = Index::new(&world.view);
    world.index.recall(known);
    let resume = |world: &mut World, since: u64| {
        world.session = Session::default();
        world.says(json!({"name": "a", "requires": ["b", "c", "d", "e", "gone", "never"], "since": since}));
        world.hears()
    };
    assert_eq!(resume(&mut world, since), ["+c h:5", "+e h:6"]);
    assert_eq!(world.hears(), [""; 0], "what is not there yet may still come");
    world.index.settle();
    assert_eq!(world.hears(), ["-d"]);
    assert_eq!(resume(&mut world, since - 1), ["-gone", "+c h:5", "-d", "+e h:6"]);
    assert_eq!(resume(&mut world, unseen).len(), 6, "of that time nothing is known");
    let latest = world.view.revision;
    assert_eq!(resume(&mut world, latest), [""; 0]);
}

#[test]
fn only_the_last_of_several_says_that_all_was_told() {
    let mut world = World::new(&[]);
    world.says(json!({"name": "a", "requires": ["b", "c"], "since": 100}));
    world.hears();
    world.turns(&["b/h:1", "c/h:2"]);
    let told = world.hears_json();
    let revisions: Vec<_> = told.iter().map(|told| told["payload"]["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, [100, 101]);
}

/// The view goes on without the index having looked in between.
fn goes_on(world: &World, changes: &[Change], revision: u64) -> View {
    world.view.apply(changes, revision, &Default::default(), &world.numbers)
}

#[test]
fn each_says_how_much_was_told_with_it() {
    let mut world = World::new(&[]);
    world.turns(&["d/h:4"]);
    world.turns(&["d/h:4", "b/h:1"]);
    world.turns(&["d/h:4", "b/h:1", "c/h:2"]);
    let resume = |world: &mut World, since: Option<u64>| {
        world.session = Session::default();
        world.says(json!({"name": "a", "requires": ["b", "c", "d"], "since": since}));
        let told = world.hears_json();
        told.iter()
            .map(|told| (short(told), told["payload"]["revision"].as_u64().unwrap()))
            .collect::<Vec<_>>()
    };
    let told =
        |texts: &[(&str, u64)]| texts.iter().map(|(text, at)| (text.to_string(), *at)).collect::<Vec<_>>();
    let all = told(&[("+d h:4", 101), ("+b h:1", 102), ("+c h:2", 103)]);
    assert_eq!(resume(&mut world, None), all);
    // Whoever was cut off in between is told the rest.
    for (at, (_, since)) in all.iter().enumerate() {
        assert_eq!(resume(&mut world, Some(*since)), all[at + 1..]);
    }
}

#[test]
fn changes_that_are_taken_at_once_are_told_apart() {
    use crate::table::testing::{delete, put, server};
    let at = |revision: u64| Change { value: None, ..put("revision", &revision.to_string(), "") };
    let mut world = World::new(&["b/h:1", "d/h:4"]);
    let lease = r#"{"uri":"http://h:4","lease":{"router":"r","incarnation":"i","connection":1}}"#;
    // `b` comes again, `c` comes and goes, `d` is written anew by another connection.
    let next = goes_on(
        &world,
        &[
            [delete("server", "b/h:1"), at(110)],
            [server("c", "h:2"), at(120)],
            [server("b", "h:1"), at(130)],
            [delete("server", "c/h:2"), at(140)],
            [put("server", "d/h:4", lease), at(150)],
        ]
        .concat(),
        150,
    );
    world.index.apply(&world.view, &next);
    world.view = next;
    world.index.settle();
    let mut resume = |since: u64| {
        world.session = Session::default();
        world.says(json!({"name": "a", "requires": ["b", "c", "d"], "since": since}));
        world.hears()
    };
    // Another router, which saw each of these alone, has told what was there between them.
    assert_eq!(resume(100), ["+b h:1", "-c"]);
    assert_eq!(resume(129), ["+b h:1", "-c"]);
    assert_eq!(resume(130), ["-c"]);
    assert_eq!(resume(139), ["-c"]);
    assert_eq!(resume(140), [""; 0]);
}

#[test]
fn whoever_has_seen_more_is_told_the_rest_once_the_router_has_seen_it_too() {
    let mut world = World::new(&["b/h:1", "c/h:2"]);
    let resume = |world: &mut World, since: u64| {
        world.session = Session::default();
        world.says(json!({"name": "a", "requires": ["b", "c"], "since": since}));
        world.hears()
    };
    assert_eq!(resume(&mut world, 101), [""; 0], "its view may be behind that of another");
    assert!(world.session.looks_again().is_some());
    world.moment.now += AHEAD / 2;
    assert_eq!(world.hears(), [""; 0]);
    world.turns(&["b/h:1"]);
    world.turns(&["b/h:3"]);
    assert_eq!(world.hears(), ["+b h:3"], "what went by then was told by the other");
    assert_eq!(world.session.looks_again(), None);
    // Nor does what needs no catching up wait for it.
    resume(&mut world, 200);
    world.says(json!({"type": "require", "payload": {"requires": ["d"]}}));
    world.turns(&["b/h:3", "d/h:4"]);
    assert_eq!(world.hears(), ["+d h:4"]);
    // One that is ahead for too long has seen another table: 0 says that what it saw does not count.
    world.turns(&["b/h:3", "c/h:5"]);
    resume(&mut world, 200);
    world.moment.now += AHEAD;
    let told = world.hears_json();
    let told: Vec<_> = told.iter().map(|told| (short(told), told["payload"]["revision"].clone())).collect();
    assert_eq!(told, [("+b h:3".to_owned(), json!(0)), ("+c h:5".to_owned(), json!(104))]);
    // So is one when the table has said twice that nothing is newer.
    resume(&mut world, 200);
    world.moment.confirmed = Some(1);
    assert_eq!(world.hears(), [""; 0]);
    world.moment.confirmed = Some(2);
    assert_eq!(world.hears().len(), 2);
    // While the table is away a router knows less than the service does.
    world.moment.confirmed = None;
    assert_eq!(resume(&mut world, 200), [""; 0]);
    world.moment.now += 10 * AHEAD;
    assert_eq!(world.hears(), [""; 0]);
}

#[test]
fn a_table_that_went_back_is_told_anew() {
    let mut world = World::new(&["b/h:1"]);
    world.turns(&["b/h:2"]);
    world.turns(&["b/h:3"]);
    let entries = entries(&["b/h:1"]);
    let changes = world.view.difference(&entries);
    let mut draft = crate::table::view::Draft::new(&world.view, &world.numbers);
    changes.iter().for_each(|change| draft.change(change));
    draft.back(100);
    let back = draft.finish(100, &Default::default());
    world.index.apply(&world.view, &back);
    world.view = back;
    let mut resume = |since: u64| {
        world.session = Session::default();
        world.says(json!({"name": "a", "requires": ["b"], "since": since}));
        world.moment.now += AHEAD;
        world.hears();
        world.moment.now += AHEAD;
        world.hears();
        world.session.needs.iter().any(|need| matches!(need.told, Told::There { .. }))
    };
    assert!(resume(100) && resume(102), "that was what is no more");
    world.turns(&["b/h:1", "c/h:1"]);
    world.turns(&["b/h:1", "c/h:2"]);
    world.turns(&["b/h:1", "c/h:3"]);
    let mut resume = |since: u64| {
        world.session = Session::default();
        world.says(json!({"name": "a", "requires": ["b"], "since": since}));
        world.hears()
    };
    assert_eq!(resume(102), ["+b h:1"], "the table was there twice");
    assert_eq!(resume(103), [""; 0]);
}

#[test]
fn what_is_needed_anew_is_told_whatever_was_seen() {
    let mut world = World::new(&["b/h:1", "c/h:2"]);
    world.says(json!({"name": "a", "requires": ["b", "c"], "since": 100, "anew": ["c"]}));
    assert_eq!(world.hears(), ["+c h:2"]);
}

#[test]
fn what_was_told_elsewhere_and_still_holds_is_not_told_again() {
    let mut world = World::new(&["b/h:1"]);
    world.says(json!({"name": "a", "requires": ["b"], "since": 100}));
    assert_eq!(world.hears(), [""; 0]);
    world.turns(&["b/h:1", "b/h:2"]);
    assert_eq!(world.hears(), [""; 0], "the one that it was told is still there");
    world.turns(&["b/h:2"]);
    assert_eq!(world.hears(), ["+b h:2"]);
}

#[test]
fn a_changed_definition_changes_what_differs() {
    let mut world = World::new(&["b/h:1", "c/h:2"]);
    let register = |acts: &[Act]| acts.iter().filter(|act| matches!(act, Act::Register(..))).count();
    assert_eq!(register(&world.says(json!({"name": "a", "port": 1, "requires": ["b"]}))), 1);
    assert_eq!(world.hears(), ["+b h:1"]);
    let acts = world.says(json!({"name": "a", "port": 2, "requires": ["b", "c"]}));
    let old = Place { service: "a".parse().unwrap(), server: "10.0.0.9:1".into() };
    assert!(acts.contains(&Act::Remove(old)), "{acts:?}");
    assert_eq!(world.hears(), ["+c h:2"]);
    world.says(json!({"type": "drop", "payload": {"requires": ["c"]}}));
    world.says(json!({"type": "require", "payload": {"requires": ["c"]}}));
    assert_eq!(world.hears(), ["+c h:2"]);
    let acts = world.says(json!({"type": "deregister"}));
    assert!(matches!(acts.last(), Some(Act::Remove(place)) if &*place.server == "10.0.0.9:2"), "{acts:?}");
}

#[test]
fn nothing_goes_before_the_definition() {
    for said in [Said::Deregister, Said::Drain(None), Said::Drop(Vec::new()), Said::Require(Vec::new())] {
        assert_eq!(Session::default().hear(said, 8).unwrap_err().code, Code::Undefined);
    }
    let mut world = World::new(&[]);
    world.says(json!({"name": "a"}));
    assert_eq!(world.session.hear(Said::Drain(None), 8).unwrap_err().code, Code::Undefined);
    let many = (0..9).map(|at| Requirement { service: format!("s{at}").parse().unwrap(), scope: Scope::One });
    assert_eq!(world.session.hear(Said::Require(many.collect()), 8).unwrap_err().code, Code::Invalid);
}
