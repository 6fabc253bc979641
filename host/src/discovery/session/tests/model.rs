//! Services that go from router to router, with the highest revision that they saw: each ends at the truth, and is told
//! nothing twice that did not change after it, wherever the router's history reaches. Seeded.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;
use crate::table::{horizon::Horizon, view::Draft};

const SERVICES: [&str; 4] = ["b", "c", "d", "e"];
const PORTS: std::ops::Range<u32> = 1..4;
const ROUTERS: usize = 3;
const CLIENTS: usize = 6;
const STEPS: usize = 400;

/// The table, and everything that happened to it.
struct Far {
    servers: BTreeSet<String>,
    revision: u64,
    log: Vec<(u64, Change)>,
    /// When what is told of a service changed.
    changed: BTreeMap<String, Vec<u64>>,
}

impl Far {
    /// A server comes or goes, or is written again with another lease, which is told to nobody.
    fn turns(&mut self, random: &mut StdRng) {
        self.revision += random.random_range(1..4);
        let service = *SERVICES.choose(random).unwrap();
        let key = format!("{service}/h:{}", random.random_range(PORTS));
        let there = self.servers.contains(&key);
        let again = there && random.random_bool(0.3);
        let lease = format!(r#","lease":{{"router":"r","incarnation":"i","connection":{}}}"#, self.revision);
        let value = format!(r#"{{"uri":"http://{}"{lease}}}"#, key.split_once('/').unwrap().1);
        let value = (!there || again).then_some(value);
        if !again {
            self.changed.entry(service.to_owned()).or_default().push(self.revision);
        }
        match there && !again {
            true => drop(self.servers.remove(&key)),
            false => drop(self.servers.insert(key.clone())),
        }
        let change = Change { kind: "server".into(), key, value, ephemeral: false };
        self.log.push((self.revision, change));
    }

    fn entries(&self) -> Vec<Entry> {
        let mut last = BTreeMap::new();
        for (_, change) in &self.log {
            last.insert(&change.key, change.value.clone());
        }
        let there = last.into_iter().filter_map(|(key, value)| Some((key.clone(), value?)));
        there.map(|(key, value)| Entry { kind: "server".into(), key, value }).collect()
    }

    fn changed_after(&self, service: &str, since: u64) -> bool {
        self.changed.get(service).is_some_and(|changed| changed.iter().any(|at| *at > since))
    }
}

/// A router: what it has read, and what its index has seen of that.
struct Near {
    numbers: Numbers,
    view: View,
    seen: View,
    index: Index,
}

impl Near {
    fn start(far: &Far) -> Self {
        let numbers = Numbers::default();
        let view = View::build(&far.entries(), far.revision, &Default::default(), &numbers);
        let index = Index::new(&view);
        index.settle();
        Self { numbers, seen: view.clone(), view, index }
    }

    /// Reads some of what is new, all at once.
    fn reads(&mut self, far: &Far, random: &mut StdRng) {
        let new: Vec<_> = far.log.iter().filter(|(at, _)| *at > self.view.revision).collect();
        let count = random.random_range(0..=new.len());
        let Some((revision, _)) = new[..count].last() else { return };
        let timed = |(at, change): &&(u64, Change)| {
            let at = Change { kind: "revision".into(), key: at.to_string(), value: None, ephemeral: false };
            [change.clone(), at]
        };
        let changes: Vec<Change> = new[..count].iter().flat_map(timed).collect();
        self.view = self.view.apply(&changes, *revision, &Default::default(), &self.numbers);
    }

    /// Reads everything, having missed what led to it.
    fn resyncs(&mut self, far: &Far) {
        let mut draft = Draft::new(&self.view, &self.numbers);
        self.view.difference(&far.entries()).iter().for_each(|change| draft.change(change));
        draft.jump(far.revision);
        self.view = draft.finish(far.revision, &Default::default());
    }

    fn looks(&mut self) {
        self.index.apply(&self.seen, &self.view);
        self.seen = self.view.clone();
    }

    fn restarts(&mut self, far: &Far) {
        let known = self.index.known();
        *self = Self::start(far);
        self.index.recall(known);
    }
}

/// A service, which knows only what it was told.
struct Client {
    router: usize,
    session: Session,
    since: Option<u64>,
    /// What it said that it had seen when it connected last, if the router knows what happened since.
    resumed: Option<u64>,
    known: BTreeMap<String, Option<String>>,
}

impl Client {
    fn connects(&mut self, routers: &[Near], random: &mut StdRng, scopes: &Value) {
        self.router = random.random_range(0..routers.len());
        self.session = Session::default();
        let horizon = self.router_of(routers).index.look([].iter()).horizon;
        self.resumed = self.since.filter(|since| reaches(&horizon, *since));
        let definition = json!({ "name": "a", "requires": scopes, "since": self.since });
        let said = frame::read(&definition.to_string(), [10, 0, 0, 9].into(), Limits { requirements: 8 });
        self.session.hear(said.unwrap(), 8).unwrap();
    }

    fn router_of<'a>(&self, routers: &'a [Near]) -> &'a Near {
        &routers[self.router]
    }

    /// Hears what there is to hear; perhaps its connection breaks in between. Returns how often it was told what it
    /// knew, and whether it is still connected.
    fn hears(&mut self, far: &Far, routers: &[Near], now: Moment, random: &mut StdRng) -> (usize, bool) {
        let looked = self.router_of(routers).index.look(self.session.needs());
        // The router may have lost what happened since, before it came to telling it.
        self.resumed = self.resumed.filter(|since| reaches(&looked.horizon, *since));
        let told = self.session.tell(&looked, now);
        let breaks = random.random_bool(0.2);
        let heard = if breaks { random.random_range(0..=told.len()) } else { told.len() };
        let mut repeats = 0;
        for text in &told[..heard] {
            let mut told: Value = serde_json::from_str(text).unwrap();
            let revision =
                told["payload"].as_object_mut().unwrap().remove("revision").unwrap().as_u64().unwrap();
            let name = told["payload"]["name"].as_str().unwrap().to_owned();
            let state = (told["type"] == "required-service").then(|| told["payload"].to_string());
            let before = self.known.insert(name.clone(), state.clone()).flatten();
            if before == state {
                repeats += 1;
                if let Some(since) = self.resumed {
                    assert!(far.changed_after(&name, since), "{name} did not change after {since}: {told}");
                }
            }
            self.since = Some(self.since.map_or(revision, |since| since.max(revision)));
        }
        (repeats, !breaks)
    }
}

/// Whether a router knows what happened since, or will.
fn reaches(horizon: &Horizon, since: u64) -> bool {
    since > horizon.latest || horizon.covers(since)
}

/// Returns how often somebody resumed where the history reached, and how often somebody was told what it knew.
fn run(seed: u64) -> (usize, usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut far = Far { servers: BTreeSet::new(), revision: 100, log: Vec::new(), changed: BTreeMap::new() };
    let mut routers: Vec<Near> = (0..ROUTERS).map(|_| Near::start(&far)).collect();
    let scopes = json!(["b", { "name": "c", "servers": "all" }, "d", { "name": "e", "servers": "all" }]);
    let mut moment = Moment { now: Instant::now(), confirmed: Some(0) };
    let new = || Client {
        router: 0,
        session: Session::default(),
        since: None,
        resumed: None,
        known: BTreeMap::new(),
    };
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| new()).collect();
    clients.iter_mut().for_each(|client| client.connects(&routers, &mut random, &scopes));
    let (mut resumed, mut repeats) = (0, 0);
    for _ in 0..STEPS {
        moment.now += Duration::from_millis(1);
        far.turns(&mut random);
        let at = random.random_range(0..ROUTERS);
        match random.random_range(0..40) {
            // Which ends its connections.
            0 => {
                routers[at].restarts(&far);
                for client in clients.iter_mut().filter(|client| client.router == at) {
                    client.connects(&routers, &mut random, &scopes);
                }
            }
            1 => routers[at].resyncs(&far),
            2..20 => routers[at].reads(&far, &mut random),
            _ => routers[at].looks(),
        }
        for client in &mut clients {
            let (again, stays) = client.hears(&far, &routers, moment, &mut random);
            repeats += again;
            if !stays {
                client.connects(&routers, &mut random, &scopes);
                resumed += usize::from(client.resumed.is_some());
            }
        }
    }
    for near in &mut routers {
        while near.view.revision < far.revision {
            near.reads(&far, &mut random);
        }
        near.looks();
    }
    for client in &mut clients {
        while !client.hears(&far, &routers, moment, &mut random).1 {
            client.connects(&routers, &mut random, &scopes);
        }
        is_true(&far, client);
    }
    (resumed, repeats)
}

/// What a service knows is what there is.
fn is_true(far: &Far, client: &Client) {
    for service in SERVICES {
        let there: Vec<&String> =
            far.servers.iter().filter(|key| key.starts_with(&format!("{service}/"))).collect();
        let known = client.known.get(service).cloned().flatten();
        let known: Option<Value> = known.map(|known| serde_json::from_str(&known).unwrap());
        match known {
            None => assert!(there.is_empty(), "{service} is there and {:?} is known", client.known),
            Some(known) => {
                let is = |server: &Value| format!("{service}/{}", server["id"].as_str().unwrap());
                assert!(there.contains(&&is(&known)), "{known} and {there:?}");
                if let Some(all) = known["servers"].as_array() {
                    assert_eq!(
                        all.iter().map(is).collect::<BTreeSet<_>>(),
                        there.into_iter().cloned().collect()
                    );
                }
            }
        }
    }
}

#[test]
fn whoever_resumes_ends_at_the_truth_and_is_told_nothing_twice() {
    let mut resumed = 0;
    for seed in 0..60 {
        resumed += run(seed).0;
    }
    assert!(resumed > 10_000, "{resumed} are too few to say anything");
}
