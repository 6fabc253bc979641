//! What is told, and when.

use serde_json::{Value, json};

use super::*;
use crate::{
    discovery::{bell::Bell, definition::Limits, index::Index},
    table::{Numbers, View, adapter::Entry},
};

/// A view and an index that follows it.
struct World {
    numbers: Numbers,
    view: View,
    index: Index,
    session: Session,
}

impl World {
    fn new(servers: &[&str]) -> Self {
        let numbers = Numbers::default();
        let view = View::build(&entries(servers), 100, &Default::default(), &numbers);
        let index = Index::new(&view);
        Self { numbers, view, index, session: Session::default() }
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
        let told = self.session.tell(&looked);
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
    // What was only assumed to be known is told as soon as it changes.
    world.turns(&["b/h:1", "b/h:5", "d/h:4"]);
    assert_eq!(world.hears().len(), 1);
    // Of a revision of another table everything is told; what is not there may still come.
    let told = resume(&mut world, 7);
    assert!(told.len() == 3 && told[1] == "-c", "{told:?}");
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
    assert_eq!(resume(&mut world, since - 1), ["+c h:5", "-d", "+e h:6", "-gone"]);
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
