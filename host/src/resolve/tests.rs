//! The rule, case by case, against a world written down by hand.

mod agreement;

use std::collections::HashMap;

use futures_util::FutureExt;

use super::*;
use crate::table::{Numbers, Overlay, View, adapter::Entry};

const NOW: u64 = 1_000_000;

/// Servers `a`, `b` and `c` of the service `chat`, and whatever the test says of them.
struct World {
    service: Arc<Service>,
    numbers: Numbers,
    cached: Option<&'static str>,
    pinned: bool,
    due: bool,
    /// What the registrar chose for the client's detour.
    detour: Option<&'static str>,
    /// Where the client went while the table could not be asked.
    held: Option<&'static str>,
    /// Whether another router wrote the assignment a moment ago.
    news: bool,
    stored: Result<Option<Assignment>, TableError>,
    /// What the table answers to a claim; none: it stores what is proposed.
    claimed: Option<Result<Option<Assignment>, TableError>>,
    health: HashMap<&'static str, Health>,
    asked: Asked,
    on_error: OnError,
    random: u64,
    /// Whether the next random number is another one.
    draws: bool,
    avoid: Vec<&'static str>,
    /// What was done, in order.
    done: Vec<String>,
}

/// The service, with what `record` says and servers of these weights.
fn world_of(record: &str, servers: &[(&str, u32)]) -> World {
    let numbers = Numbers::default();
    let entry = |kind: &str, key: &str, value: String| Entry { kind: kind.into(), key: key.into(), value };
    let mut entries = vec![entry("service", "chat", record.into())];
    entries.extend(servers.iter().map(|(id, weight)| {
        entry("server", &format!("chat/{id}"), format!(r#"{{"uri":"http://{id}:80","weight":{weight}}}"#))
    }));
    let view = View::build(&entries, 1, &Overlay::new(), &numbers);
    World {
        service: Arc::clone(view.services().next().unwrap()),
        numbers,
        cached: None,
        pinned: false,
        due: false,
        detour: None,
        held: None,
        news: false,
        stored: Ok(None),
        claimed: None,
        health: HashMap::new(),
        asked: Asked::Pass,
        on_error: OnError::Closed,
        random: 0,
        draws: false,
        avoid: Vec::new(),
        done: Vec::new(),
    }
}

fn world() -> World {
    world_of("{}", &[("a", 1), ("b", 1), ("c", 1)])
}

fn asking(asked: Asked) -> World {
    World { asked, ..world_of(r#"{"registrar":"geo"}"#, &[("a", 1), ("b", 1), ("c", 1)]) }
}

fn assigned(server: &str, expires: Option<u64>) -> Option<Assignment> {
    Some(Assignment { server: server.into(), expires, router: "other".into(), stamp: 7 })
}

fn away() -> TableError {
    TableError::Unavailable("gone fishing".into())
}

impl World {
    fn health(mut self, health: Health, servers: &[&'static str]) -> Self {
        self.health.extend(servers.iter().map(|server| (*server, health)));
        self
    }

    fn run(&mut self) -> (Outcome, Vec<TraceLine>) {
        let (service, mut trace) = (Arc::clone(&self.service), Vec::new());
        let avoid: Vec<_> = self.avoid.iter().map(|id| self.numbers.of(id)).collect();
        let query = Query { service: &service, client: "carol", now: NOW, avoid: &avoid };
        let outcome = resolve(query, self, &mut trace).now_or_never().expect("this world never waits");
        (outcome, trace)
    }

    fn outcome(&mut self) -> String {
        let service = Arc::clone(&self.service);
        match self.run().0 {
            Outcome::To(target, step) => format!("{} by {step:?}", standing::text(&service, &target)),
            Outcome::Rejected(Rejection { status, reason }) => format!("rejected {status}: {reason}"),
            Outcome::RegistrarFailed(why) => format!("failed: {why}"),
            Outcome::Nowhere(nowhere) => format!("nowhere: {nowhere}"),
        }
    }
}

impl Sources for World {
    fn cached(&mut self) -> Option<Cached> {
        let server = self.numbers.of(self.cached?);
        Some(Cached { server, pinned: self.pinned, due: self.due })
    }

    fn prolong(&mut self) {
        self.done.push("prolonged".into());
    }

    fn detour(&mut self) -> Option<u32> {
        self.detour.map(|server| self.numbers.of(server))
    }

    fn remember_detour(&mut self, server: &str) {
        self.done.push(format!("remembered {server}"));
    }

    fn text(&self, number: u32) -> Option<Arc<str>> {
        self.numbers.text(number)
    }

    async fn assigned(&mut self) -> Result<Option<Assignment>, TableError> {
        self.done.push("looked up".into());
        self.stored.clone()
    }

    async fn claim(&mut self, server: &str, condition: Condition) -> Result<Option<Assignment>, TableError> {
        self.done.push(format!("claimed {server} if {condition:?}"));
        self.claimed.clone().unwrap_or_else(|| Ok(assigned(server, Some(NOW + 1))))
    }

    fn held(&mut self) -> Option<u32> {
        self.held.map(|server| self.numbers.of(server))
    }

    fn hold(&mut self, server: &str, _: &TableError) {
        self.done.push(format!("held {server}"));
    }

    fn is_news(&self, _: &Assignment) -> bool {
        self.news
    }

    fn health(&self, server: &Server) -> Health {
        self.health.get(&*server.id).copied().unwrap_or(Health::Healthy)
    }

    async fn ask(&mut self) -> Asked {
        self.done.push("asked".into());
        self.asked.clone()
    }

    fn on_error(&self) -> OnError {
        self.on_error
    }

    fn random(&mut self) -> u64 {
        if self.draws {
            self.random = crate::table::hash::stable(&self.random.to_string());
        }
        self.random
    }
}

#[track_caller]
fn check(mut world: World, outcome: &str, done: &[&str]) {
    assert_eq!(
        (world.outcome().as_str(), world.done.as_slice()),
        (outcome, done.iter().map(|done| (*done).to_owned()).collect::<Vec<_>>().as_slice())
    );
}

#[test]
fn step_1_a_set_server_is_always_the_answer() {
    let mut world = world_of(r#"{"server":"http://fixed:1","registrar":"geo"}"#, &[("a", 1)]);
    world.cached = Some("a");
    check(world, "http://fixed:1 by Server", &[]);
}

#[test]
fn step_2_an_assignment_that_holds_is_followed() {
    use Health::{Draining, Left, Suspect};
    let cached = |server| World { cached: Some(server), ..world() };
    let stored = |server, expires| World { stored: Ok(assigned(server, expires)), ..world() };
    check(cached("b"), "b by Assignment", &[]);
    check(cached("b").health(Suspect, &["b"]), "b by Assignment", &[]);
    check(cached("b").health(Draining, &["b"]), "b by Assignment", &[]);
    check(World { due: true, ..cached("b") }, "b by Assignment", &["prolonged"]);
    check(stored("b", Some(NOW + 1)), "b by Assignment", &["looked up"]);
    check(stored("b", None), "b by Assignment", &["looked up"]);
    check(stored("b", None).health(Suspect, &["b"]), "b by Assignment", &["looked up"]);
    check(stored("http://elsewhere:1", None), "http://elsewhere:1 by Assignment", &["looked up"]);
    check(stored("http://b:80", None), "b by Assignment", &["looked up"]);
    check(cached("http://elsewhere:1"), "http://elsewhere:1 by Assignment", &[]);
    let replaced = &["looked up", "claimed c if Unchanged(7)"];
    check(stored("b", Some(NOW)), "c by List", replaced);
    check(stored("gone", Some(NOW + 1)), "c by List", replaced);
    check(stored("b", Some(NOW + 1)).health(Left, &["b"]), "c by List", replaced);
    let first = &["looked up", "claimed c if Absent"];
    check(cached("gone"), "c by List", first);
    check(cached("b").health(Left, &["b"]), "c by List", first);
}

#[test]
fn step_2_while_its_server_is_not_well_a_client_takes_a_detour() {
    use Health::{Ejected, Left, Unhealthy};
    let cached = |server| World { cached: Some(server), due: true, ..world() };
    let stored = |server, expires| World { stored: Ok(assigned(server, expires)), ..world() };
    let by = cached("b").health(Ejected, &["b"]).outcome();
    assert!(["a by List", "c by List"].contains(&by.as_str()), "{by}");
    for health in [Ejected, Unhealthy] {
        for random in [0, 1 << 62, u64::MAX] {
            // The same each time, at once, and nothing is written or prolonged.
            check(World { random, ..cached("b").health(health, &["b"]) }, &by, &[]);
            for expires in [Some(NOW + 1), None] {
                let stored = World { random, ..stored("b", expires).health(health, &["b"]) };
                check(stored, &by, &["looked up"]);
            }
        }
    }
    let other = if by.starts_with('a') { "c" } else { "a" };
    let taken = if other == "a" { "c" } else { "a" };
    check(cached("b").health(Unhealthy, &["b", taken]), &format!("{other} by List"), &[]);
    let nowhere = cached("b").health(Ejected, &["b"]).health(Unhealthy, &["a", "c"]).outcome();
    assert!(nowhere.contains("assignment: detour: to b, which is ejected for a while"), "{nowhere}");

    // A pin stays even when its server is gone.
    for world in
        [World { pinned: true, ..cached("gone") }, World { pinned: true, ..cached("b").health(Left, &["b"]) }]
    {
        let mut world = world;
        let outcome = world.outcome();
        assert!(outcome.ends_with("by List") && world.done.is_empty(), "{outcome}: {:?}", world.done);
    }
    for world in [stored("gone", None), stored("b", None).health(Left, &["b"])] {
        let mut world = world;
        let outcome = world.outcome();
        assert!(outcome.ends_with("by List") && world.done == ["looked up"], "{outcome}: {:?}", world.done);
    }
}

#[test]
fn step_3_a_registrar_is_asked_once_for_a_detour() {
    use Health::{Ejected, Unhealthy};
    let out = |detour| {
        let world = World { cached: Some("b"), detour, ..asking(Asked::Server("a".into())) };
        world.health(Ejected, &["b"])
    };
    check(out(None), "a by Registrar", &["asked", "remembered a"]);
    check(out(Some("c")), "c by Registrar", &[]);
    check(out(Some("b")), "a by Registrar", &["asked", "remembered a"]);
    check(out(Some("gone")), "a by Registrar", &["asked", "remembered a"]);
    check(out(Some("c")).health(Unhealthy, &["c"]), "a by Registrar", &["asked", "remembered a"]);
    check(World { avoid: vec!["c"], ..out(Some("c")) }, "a by Registrar", &["asked", "remembered a"]);
    // One message's own way round a server is not remembered.
    let tried =
        World { avoid: vec!["b"], cached: Some("b"), detour: Some("c"), ..asking(Asked::Server("a".into())) };
    check(tried, "a by Registrar", &["asked"]);
    // It knows better than this router's experience, but not than checks.
    let insists = World { cached: Some("b"), ..asking(Asked::Server("b".into())) };
    check(insists.health(Ejected, &["b"]), "b by Registrar", &["asked", "remembered b"]);
    let mut world = out(Some("c"));
    let told = world.run().1;
    assert_eq!(told[1].outcome, "detour: to b, which is ejected for a while");
    assert_eq!(told[2].outcome, "`geo` chose c for this detour before");
}

#[test]
fn step_3_a_registrars_answer_is_followed() {
    let server = |text: &str| asking(Asked::Server(text.into()));
    check(server("b"), "b by Registrar", &["looked up", "asked", "claimed b if Absent"]);
    check(server("http://b:80"), "b by Registrar", &["looked up", "asked", "claimed b if Absent"]);
    check(
        server("http://x:1/"),
        "http://x:1 by Registrar",
        &["looked up", "asked", "claimed http://x:1 if Absent"],
    );
    check(asking(Asked::Pass), "c by List", &["looked up", "asked", "claimed c if Absent"]);
    let reject = Rejection { status: StatusCode::FORBIDDEN, reason: "not you".into() };
    check(asking(Asked::Reject(reject)), "rejected 403 Forbidden: not you", &["looked up", "asked"]);
    check(World { cached: Some("a"), ..server("b") }, "a by Assignment", &[]);
}

#[test]
fn step_3_what_cannot_be_followed_is_the_operators_choice() {
    let server = |text: &str| asking(Asked::Server(text.into()));
    let unhealthy = || server("b").health(Health::Unhealthy, &["b"]);
    let trapped = || asking(Asked::Failed("registrar `geo` trapped".into()));
    let asked = &["looked up", "asked"];
    check(trapped(), "failed: registrar `geo` trapped", asked);
    check(
        server("nobody"),
        "failed: registrar `geo` answered `nobody`, which is neither the id of a server of this service nor an absolute http:// URI",
        asked,
    );
    check(unhealthy(), "failed: registrar `geo` answered `b`, which is unhealthy", asked);
    for world in [trapped(), server("nobody"), server(""), unhealthy()] {
        let open = World { on_error: OnError::Open, ..world };
        check(open, "c by List", &["looked up", "asked", "claimed c if Absent"]);
    }
}

#[test]
fn step_4_the_list_is_drawn_from_by_weight_and_health() {
    use Health::{Suspect, Unhealthy};
    let drawn = |health: &[(&'static str, Health)], weights: &[(&str, u32)]| {
        let health = health.iter().copied().collect();
        let mut world = World { health, draws: true, ..world_of(r#"{"sticky":false}"#, weights) };
        let chosen: Vec<_> = (0..4096).map(|_| world.outcome()).collect();
        ["a by List", "b by List", "c by List"].map(|of| chosen.iter().filter(|chosen| *chosen == of).count())
    };
    let all = [("a", 1), ("b", 1), ("c", 1)];
    let thirds = drawn(&[], &all);
    assert!(thirds.iter().all(|count| (1265..1465).contains(count)), "{thirds:?}");
    assert_eq!(drawn(&[("a", Unhealthy), ("b", Suspect)], &all), [0, 0, 4096]);
    assert_eq!(drawn(&[("a", Unhealthy), ("b", Suspect), ("c", Unhealthy)], &all), [0, 4096, 0]);
    assert_eq!(drawn(&[], &[("a", 0), ("b", 1), ("c", 0)]), [0, 4096, 0]);
    let weighted = drawn(&[], &[("a", 1), ("b", 0), ("c", 3)]);
    assert!((924..1124).contains(&weighted[0]) && weighted[1] == 0, "{weighted:?}");
}

/// A chi-square test of a thousandth; the hash is the same each time, so it fails always or never.
#[test]
fn step_4_new_clients_spread_uniformly_by_weight() {
    let numbers = Numbers::default();
    let entry = |kind: &str, key: &str, value: String| Entry { kind: kind.into(), key: key.into(), value };
    let servers = [("chat/a", 1), ("chat/b", 1), ("chat/c", 2), ("mail/a", 1), ("mail/b", 1), ("mail/c", 2)];
    let entries = servers
        .map(|(key, weight)| entry("server", key, format!(r#"{{"uri":"http://x:80","weight":{weight}}}"#)));
    let view = View::build(&entries, 1, &Overlay::new(), &numbers);
    let chosen = |service: &str, client: usize| {
        let service = view.service(&service.parse().unwrap()).unwrap();
        let client = format!("client-{client}");
        let query = Query { service, client: &client, now: NOW, avoid: &[] };
        pick::by_client(query, &world()).unwrap()
    };
    let check = |clients: &[usize], service: &str| {
        let mut counts = [0_u32; 3];
        clients.iter().for_each(|client| counts[chosen(service, *client)] += 1);
        let expected = [0.25, 0.25, 0.5].map(|share| share * clients.len() as f64);
        let square = |(count, expected): (u32, f64)| (f64::from(count) - expected).powi(2) / expected;
        let chi_square: f64 = counts.into_iter().zip(expected).map(square).sum();
        assert!(chi_square < 13.8, "{service}: {counts:?} of {}", clients.len());
    };
    let all: Vec<_> = (0..20_000).collect();
    check(&all, "chat");
    // The service is the salt: who shares a server of one does not share one of another.
    for place in 0..3 {
        let there: Vec<_> = all.iter().copied().filter(|client| chosen("chat", *client) == place).collect();
        check(&there, "mail");
    }
}

#[test]
fn step_5_says_what_each_step_had() {
    use Health::Unhealthy;
    let list = "service chat has no server for this message: no `server` is set; assignment: ";
    check(
        world_of("{}", &[]),
        &format!("nowhere: {list}none; registrar: none is set; server list: empty"),
        &["looked up"],
    );
    check(
        World { stored: Ok(assigned("a", None)), ..world_of("{}", &[("a", 1), ("b", 0)]) }
            .health(Unhealthy, &["a"]),
        &format!(
            "nowhere: {list}detour: to a, which is unhealthy; registrar: none is set; server list: none of 2 is available (1 unhealthy, 1 of weight 0, 0 tried already)"
        ),
        &["looked up"],
    );
    check(
        asking(Asked::Pass).health(Unhealthy, &["a", "b", "c"]),
        &format!(
            "nowhere: {list}none; registrar: `geo` passed; server list: none of 3 is available (3 unhealthy, 0 of weight 0, 0 tried already)"
        ),
        &["looked up", "asked"],
    );
}

#[test]
fn without_stickiness_nothing_is_looked_up_or_stored() {
    let off = || world_of(r#"{"sticky":false,"registrar":"geo"}"#, &[("a", 1), ("b", 1)]);
    check(World { cached: Some("a"), ..off() }, "b by List", &["asked"]);
    check(World { asked: Asked::Server("a".into()), ..off() }, "a by Registrar", &["asked"]);
}

#[test]
fn of_two_routers_that_decide_at_once_the_first_one_is_followed() {
    let first = |winner: Option<Assignment>| World { claimed: Some(Ok(winner)), ..world() };
    let claimed = &["looked up", "claimed c if Absent"];
    check(first(assigned("a", Some(NOW + 1))), "a by Assignment", claimed);
    check(first(assigned("c", Some(NOW + 1))), "c by List", claimed);
    check(first(assigned("unknown-here", Some(NOW + 1))), "c by List", claimed);
    check(first(assigned("a", None)).health(Health::Unhealthy, &["a"]), "c by List", claimed);
    let void = World { stored: Ok(assigned("gone", Some(NOW + 1))), ..first(None) };
    check(void, "c by List", &["looked up", "claimed c if Unchanged(7)", "claimed c if Absent"]);
}

#[test]
fn without_the_table_routers_agree_and_store_nothing() {
    let lost = |random| World { stored: Err(away()), random, ..world() };
    let chosen = lost(0).outcome();
    assert!(chosen.ends_with("by List"), "{chosen}");
    for random in [0, 1 << 62, u64::MAX] {
        let mut world = lost(random);
        assert_eq!(world.outcome(), chosen);
        assert_eq!(world.done, ["looked up".to_owned(), format!("held {}", &chosen[..1])]);
        let mut refused = World {
            stored: Ok(None),
            claimed: Some(Err(TableError::Refused("full".into()))),
            ..lost(random)
        };
        assert_eq!(refused.outcome(), chosen);
        assert_eq!(refused.done.last(), Some(&format!("held {}", &chosen[..1])));
    }
    check(World { cached: Some("b"), ..lost(0) }, "b by Assignment", &[]);
    let asked = World { stored: Err(away()), ..asking(Asked::Server("b".into())) };
    check(asked, "b by Registrar", &["looked up", "asked", "held b"]);
    let down = lost(0).health(Health::Unhealthy, &["a", "b", "c"]);
    check(
        down,
        "nowhere: service chat has no server for this message: no `server` is set; assignment: not known: routing table unavailable: gone fishing; registrar: none is set; server list: none of 3 is available (3 unhealthy, 0 of weight 0, 0 tried already)",
        &["looked up"],
    );
    let suspects = lost(0).health(Health::Suspect, &["a", "b"]);
    check(suspects, "c by List", &["looked up", "held c"]);
}

/// Its view may be behind: what another router has just stored is not replaced for that.
#[test]
fn a_server_that_another_router_knows_first_is_waited_for() {
    let stored = |server| World { stored: Ok(assigned(server, Some(NOW + 1))), news: true, ..world() };
    check(stored("new"), "c by List", &["looked up"]);
    check(stored("a"), "a by Assignment", &["looked up"]);
    check(stored("a").health(Health::Left, &["a"]), "c by List", &["looked up", "claimed c if Unchanged(7)"]);
    assert_eq!(stored("new").run().1[1].outcome, "detour: to new, which this router does not know yet");
}

#[test]
fn what_was_decided_without_the_table_is_kept_and_proposed_to_it() {
    use Health::{Left, Unhealthy};
    let lost = |held| World { stored: Err(away()), held: Some(held), ..world() };
    check(lost("a"), "a by Assignment", &["looked up", "held a"]);
    // It returns to its server when that is well again, and gives it up only when it is gone.
    check(lost("a").health(Unhealthy, &["a"]), "c by List", &["looked up", "held a"]);
    check(lost("gone"), "c by List", &["looked up", "held c"]);
    check(lost("a").health(Left, &["a"]), "c by List", &["looked up", "held c"]);

    let back = |stored| World { stored: Ok(stored), held: Some("a"), ..world() };
    check(back(None), "a by Assignment", &["looked up", "claimed a if Absent"]);
    check(back(assigned("b", Some(NOW + 1))), "b by Assignment", &["looked up"]);
    let void = back(assigned("gone", Some(NOW + 1)));
    check(void, "a by Assignment", &["looked up", "claimed a if Unchanged(7)"]);
    let first = World { claimed: Some(Ok(assigned("b", Some(NOW + 1)))), ..back(None) };
    check(first, "b by Assignment", &["looked up", "claimed a if Absent"]);
    let full = World { claimed: Some(Err(TableError::Refused("full".into()))), ..back(None) };
    check(full, "a by Assignment", &["looked up", "claimed a if Absent", "held a"]);
    let mut away = lost("a");
    let told = away.run().1;
    assert_eq!(told[1].outcome, "not known: routing table unavailable: gone fishing; held here to a");
}

#[test]
fn a_message_tried_in_vain_takes_a_detour_and_the_assignment_stays() {
    let tried = |avoid: &[&'static str]| World { cached: Some("b"), avoid: avoid.to_vec(), ..world() };
    let by = tried(&["b"]).outcome();
    let (one, other) = if by == "a by List" { ("a", "c") } else { ("c", "a") };
    check(tried(&["b"]), &format!("{one} by List"), &[]);
    check(tried(&["b", one]), &format!("{other} by List"), &[]);
    let all = "nowhere: service chat has no server for this message: no `server` is set; assignment: detour: to b, which was tried already; registrar: none is set; server list: none of 3 is available (0 unhealthy, 0 of weight 0, 3 tried already)";
    check(tried(&["a", "b", "c"]), all, &[]);
    let stored = World { cached: None, stored: Ok(assigned("b", None)), ..tried(&["b"]) };
    check(stored, &by, &["looked up"]);
    let registrar = World { avoid: vec!["b"], ..asking(Asked::Server("b".into())) };
    check(
        registrar,
        "failed: registrar `geo` answered `b`, which was tried already",
        &["looked up", "asked"],
    );
}

#[test]
fn the_trace_tells_the_story() {
    let line = |step, outcome: &str| TraceLine { step, outcome: outcome.into() };
    let mut world = World { stored: Ok(assigned("gone", Some(NOW + 1))), ..asking(Asked::Pass) };
    let told = [
        line(Step::Server, "not set"),
        line(Step::Assignment, "to gone, which is gone"),
        line(Step::Registrar, "`geo` passed"),
        line(Step::List, "chose c"),
    ];
    assert_eq!(world.run().1, told);
    let json = serde_json::to_string(&told[1]).unwrap();
    assert_eq!(json, r#"{"step":"assignment","outcome":"to gone, which is gone"}"#);
}
