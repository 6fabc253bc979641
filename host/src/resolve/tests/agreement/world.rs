//! The routers, the servers and the clients of a simulation, what happens to them, and what must hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::{
    super::super::{
        Asked, Cached, Health, OnError, Outcome, Query, Sources, Target, TraceLine, resolve, standing,
    },
    link::{Dice, Link, Weather},
};
use crate::table::{
    Adapter, Clock, Options, Server, Service, ServiceId, Table, TableError,
    adapter::{Assignment, Condition},
    assignments::Wait,
    testing::{TestTable, delete, put},
};

const UNIX: u64 = 1_700_000_000_000;
/// The `sticky.ttl` of the service.
const TTL: Duration = Duration::from_secs(40);
/// After so long in calm weather everything must be well: as long as a call that set out before takes at
/// most, and what a router then needs to notice.
const MOMENT: Duration = Duration::from_millis(6500);
/// For so long a router that missed the removal of most servers does not believe it.
const GRACE: Duration = Duration::from_secs(10);
const SERVERS: [&str; 5] = ["a", "b", "c", "d", "e"];
const CLIENTS: usize = 12;

struct Router {
    name: String,
    link: Arc<Link>,
    table: Arc<Table>,
    /// As its own checks see the servers.
    failing: Mutex<BTreeSet<&'static str>>,
}

/// What is expected of a client.
#[derive(Clone, Debug, Default)]
struct Expected {
    /// Where it went when all was well, at which step, and for how long the world stood still since then.
    settled: Option<(String, usize, Duration)>,
    pinned: Option<String>,
}

pub(super) struct World {
    far: Arc<TestTable>,
    dice: Dice,
    routers: Vec<Router>,
    clients: Vec<Expected>,
    there: BTreeSet<&'static str>,
    leaving: BTreeSet<&'static str>,
    failing: BTreeSet<&'static str>,
    /// At which step a server last was not there and well.
    disturbed: BTreeMap<&'static str, usize>,
    saved: Option<crate::table::testing::Saved>,
    /// Servers that went since all was well.
    gone: usize,
    at: usize,
    story: Vec<String>,
}

fn chat() -> ServiceId {
    "chat".parse().expect("a name")
}

fn client(number: usize) -> String {
    format!("client-{number}")
}

impl World {
    pub(super) async fn new(seed: u64) -> Self {
        let (far, dice) = (TestTable::new(), Dice::new(seed));
        far.waits.store(true, std::sync::atomic::Ordering::SeqCst);
        far.change(&[put("service", "chat", r#"{"sticky":{"ttl":"40s"}}"#)]);
        let mut world = Self {
            far,
            dice,
            routers: Vec::new(),
            clients: vec![Expected::default(); CLIENTS],
            there: BTreeSet::new(),
            leaving: BTreeSet::new(),
            failing: BTreeSet::new(),
            disturbed: BTreeMap::new(),
            saved: None,
            gone: 0,
            at: 0,
            story: Vec::new(),
        };
        for server in &SERVERS[..3] {
            world.comes(server);
        }
        for number in 0..2 + world.dice.below(4) {
            let router = world.start(format!("router-{number}")).await;
            world.routers.push(router);
        }
        world
    }

    async fn start(&self, name: String) -> Router {
        let link = Link::new(&self.far, self.dice.bits());
        let skew = self.dice.below(240_000);
        let options = Options {
            clock: Clock::tokio(UNIX - 120_000 + skew),
            jitter: crate::table::Jitter::seeded(self.dice.bits()),
            ..Options::new(name.clone(), "test")
        };
        let table = Table::start(Arc::clone(&link) as Arc<dyn Adapter>, options).await;
        Router { name, link, table, failing: Mutex::new(self.failing.clone()) }
    }

    /// What happened so far.
    pub(super) fn story(&self) -> String {
        self.story.join("\n")
    }

    fn tell(&mut self, what: String) {
        self.story.push(format!("{}: {what}", self.at));
    }

    /// Something happens, and clients send messages meanwhile.
    pub(super) async fn step(&mut self) {
        self.at += 1;
        for _ in 0..=self.dice.below(3) {
            self.happens().await;
            self.messages().await;
        }
    }

    async fn messages(&mut self) {
        let draw = |_| (self.dice.below(self.routers.len() as u64), self.dice.below(CLIENTS as u64));
        let pairs: Vec<_> = (0..self.dice.below(16)).map(draw).collect();
        let sent = pairs.iter().map(|(router, number)| {
            let router = &self.routers[*router as usize];
            self.message(router, *number as usize)
        });
        let served = join_all(sent).await;
        let told: Vec<_> = pairs
            .iter()
            .zip(served)
            .map(|((router, number), (server, _))| format!("{number}@{router}>{server}"))
            .collect();
        self.tell(told.join(" "));
        sleep(Duration::from_millis(self.dice.below(1500))).await;
    }

    async fn happens(&mut self) {
        let server = *self.dice.one(&SERVERS);
        let router = self.dice.below(self.routers.len() as u64) as usize;
        let number = self.dice.below(CLIENTS as u64) as usize;
        match self.dice.below(16) {
            0 | 1 if self.well().len() > 2 => self.goes(server),
            0..=3 => self.comes(server),
            4 if self.well().len() > 2 => self.leaves(server),
            5 if self.well().len() > 2 => self.fails(server),
            5 => self.recovers(),
            6 | 7 => self.weather(router, Weather::Cut),
            8 => self.weather(router, Weather::Slow),
            9 => self.weather(router, Weather::Lossy),
            10 => self.pin(router, number).await,
            11 => self.forget(router, number).await,
            12 => {
                self.tell("its history is lost".to_owned());
                self.far.compact();
            }
            13 => self.goes_back(),
            14 => self.restarts(router).await,
            _ => {
                let time = TTL.mul_f64(f64::from(u32::try_from(self.dice.below(5)).expect("small")) / 2.0);
                self.tell(format!("{time:?} pass"));
                sleep(time).await;
                for client in &mut self.clients {
                    let silent =
                        client.settled.take().map(|(server, at, silent)| (server, at, silent + time));
                    // The moments of a check count as well.
                    client.settled = silent.filter(|(.., silent)| *silent < TTL * 3 / 4);
                }
            }
        }
    }

    /// Servers that are there and get new clients.
    fn well(&self) -> Vec<&'static str> {
        let well =
            |server: &&&'static str| !self.leaving.contains(**server) && !self.failing.contains(**server);
        self.there.iter().filter(well).copied().collect()
    }

    fn comes(&mut self, server: &'static str) {
        self.tell(format!("{server} comes"));
        self.disturbed.insert(server, self.at);
        self.leaving.remove(server);
        self.there.insert(server);
        self.far.change(&[crate::table::testing::server("chat", server)]);
    }

    fn goes(&mut self, server: &'static str) {
        self.tell(format!("{server} goes"));
        self.disturbed.insert(server, self.at);
        self.leaving.remove(server);
        self.gone += usize::from(self.there.remove(server));
        self.far.change(&[delete("server", &format!("chat/{server}"))]);
    }

    fn leaves(&mut self, server: &'static str) {
        if !self.there.contains(server) {
            return;
        }
        let over = self.dice.below(2) == 0;
        self.tell(format!("{server} leaves, {}", if over { "at once" } else { "when its clients do" }));
        self.disturbed.insert(server, self.at);
        self.leaving.insert(server);
        let record = format!(
            r#"{{"uri":"http://{server}","draining":{{"stamp":{},"deadline":"1s","over":{over}}}}}"#,
            self.at
        );
        self.far.change(&[put("server", &format!("chat/{server}"), &record)]);
    }

    /// Its checks fail, which the routers see one after the other.
    fn fails(&mut self, server: &'static str) {
        self.tell(format!("{server} fails its checks"));
        self.disturbed.insert(server, self.at);
        self.failing.insert(server);
        let first = self.dice.one(&self.routers);
        first.failing.lock().insert(server);
    }

    fn recovers(&mut self) {
        let failing = std::mem::take(&mut self.failing);
        self.tell(format!("{failing:?} recover"));
        for server in failing {
            self.disturbed.insert(server, self.at);
        }
        self.dice.one(&self.routers).failing.lock().clear();
    }

    fn weather(&mut self, router: usize, weather: Weather) {
        self.tell(format!("{} is {weather:?}", self.routers[router].name));
        self.routers[router].link.becomes(weather);
    }

    async fn pin(&mut self, router: usize, number: usize) {
        let well = self.well();
        let server = *self.dice.one(&well);
        let assignments = self.routers[router].table.assignments();
        let pinned = assignments.pin(&chat(), &client(number), server).await;
        self.tell(format!("{number} is pinned to {server} at {router}: {}", pinned.is_ok()));
        self.clients[number] = Expected::default();
        self.clients[number].pinned = pinned.is_ok().then(|| server.to_owned());
    }

    async fn forget(&mut self, router: usize, number: usize) {
        let assignments = self.routers[router].table.assignments();
        let forgotten = assignments.forget(&chat(), &client(number)).await;
        self.tell(format!("{number} is forgotten at {router}: {}", forgotten.is_ok()));
        self.clients[number] = Expected::default();
    }

    /// The datastore is restored as it was before; what it said of servers since then is written again,
    /// as their connections would.
    fn goes_back(&mut self) {
        let now = self.far.save();
        let Some(saved) = self.saved.replace(now) else { return };
        self.tell("the table goes back".to_owned());
        self.far.restore(saved);
        self.gone = SERVERS.len();
        for server in SERVERS {
            let key = format!("chat/{server}");
            match (self.there.contains(server), self.far.has("server", &key)) {
                (true, _) => drop(self.far.change(&[crate::table::testing::server("chat", server)])),
                (false, true) => drop(self.far.change(&[delete("server", &key)])),
                (false, false) => {}
            }
            self.leaving.remove(server);
            self.disturbed.insert(server, self.at);
        }
        for (number, expected) in self.clients.iter_mut().enumerate() {
            let stored = self.far.assignment(&client(number), "chat");
            let pinned = stored.as_ref().filter(|stored| stored.expires.is_none());
            *expected = Expected { pinned: pinned.map(|stored| stored.server.clone()), settled: None };
        }
    }

    async fn restarts(&mut self, router: usize) {
        let name = self.routers[router].name.clone();
        self.tell(format!("{name} starts anew"));
        self.routers[router].table.stop().await;
        self.routers[router] = self.start(name).await;
    }

    /// All is well again; then the promises are looked at.
    pub(super) async fn check(&mut self) -> Result<(), String> {
        if self.dice.below(3) == 0 && !self.at.is_multiple_of(4) {
            return Ok(());
        }
        for router in &self.routers {
            router.link.becomes(Weather::Calm);
            router.failing.lock().clone_from(&self.failing);
        }
        sleep(MOMENT).await;
        if std::mem::take(&mut self.gone) > 2 {
            sleep(GRACE).await;
        }
        self.tell("all is well for a moment".to_owned());
        for number in 0..CLIENTS {
            self.check_client(number).await?;
        }
        Ok(())
    }

    async fn check_client(&mut self, number: usize) -> Result<(), String> {
        let first = self.dice.below(self.routers.len() as u64) as usize;
        let order = (0..self.routers.len()).map(|turn| &self.routers[(first + turn) % self.routers.len()]);
        let mut seen = Vec::new();
        for router in order {
            let (server, why) = self.message(router, number).await;
            seen.push((router.name.clone(), server, why));
        }
        let server = seen[0].1.clone();
        if seen.iter().any(|(_, other, _)| *other != server) {
            return Err(format!("routers send client {number} to different servers: {seen:#?}"));
        }
        let well = self.well();
        let expected = &self.clients[number];
        if let Some(pin) = expected.pinned.as_ref().filter(|pin| well.contains(&pin.as_str()))
            && *pin != server
        {
            return Err(format!("client {number} is pinned to {pin}, and goes to {server}: {seen:#?}"));
        }
        if let Some((before, since, _)) = &expected.settled
            && *before != server
            && expected.pinned.is_none()
            && self.disturbed.get(before.as_str()).is_none_or(|at| at <= since)
        {
            return Err(format!("client {number} moved from {before}, which stayed, to {server}: {seen:#?}"));
        }
        // A detour is no place to stay.
        let stored = self.far.assignment(&client(number), "chat").filter(|stored| stored.server == server);
        self.clients[number].settled = stored.map(|_| (server, self.at, Duration::ZERO));
        Ok(())
    }

    /// Where a router sends a message of a client, and why.
    async fn message(&self, router: &Router, number: usize) -> (String, Vec<TraceLine>) {
        let view = router.table.view();
        let Some(service) = view.service(&chat()) else { return ("no service".to_owned(), Vec::new()) };
        let client = client(number);
        let wait = router.table.assignments().wait();
        let mut sources = Message { router, service, client: &client, wait, dice: &self.dice };
        let query = Query { service, client: &client, now: router.table.time().now(), avoid: &[] };
        let mut trace = Vec::new();
        let outcome = resolve(query, &mut sources, &mut trace).await;
        let server = match outcome {
            Outcome::To(target @ Target::Listed(_), _) => standing::text(service, &target).to_owned(),
            other => format!("{other:?}"),
        };
        (server, trace)
    }
}

/// What a message asks of its router; as the proxy does it.
struct Message<'a> {
    router: &'a Router,
    service: &'a Service,
    client: &'a str,
    wait: Wait,
    dice: &'a Dice,
}

impl Sources for Message<'_> {
    fn cached(&mut self) -> Option<Cached> {
        let table = &self.router.table;
        let found = table.assignments().remembered(self.service, self.client, table.time().now())?;
        Some(Cached { server: found.server, pinned: found.pinned, due: found.due })
    }

    fn prolong(&mut self) {
        let table = &self.router.table;
        table.assignments().prolong(self.service, self.client, table.time().now());
    }

    fn detour(&mut self) -> Option<u32> {
        None
    }

    fn remember_detour(&mut self, _: &str) {}

    fn text(&self, number: u32) -> Option<Arc<str>> {
        self.router.table.assignments().text(number)
    }

    async fn assigned(&mut self) -> Result<Option<Assignment>, TableError> {
        self.router.table.assignments().lookup(self.service, self.client, &self.wait).await
    }

    async fn claim(&mut self, server: &str, condition: Condition) -> Result<Option<Assignment>, TableError> {
        self.router.table.assignments().claim(self.service, self.client, server, condition, &self.wait).await
    }

    fn held(&mut self) -> Option<u32> {
        let table = &self.router.table;
        table.assignments().held(self.service, self.client, table.time().now())
    }

    fn hold(&mut self, server: &str, why: &TableError) {
        self.router.table.assignments().hold(self.service, self.client, server, why);
    }

    fn is_news(&self, assignment: &Assignment) -> bool {
        self.router.table.assignments().is_news(self.service, assignment)
    }

    fn health(&self, server: &Server) -> Health {
        match &server.record.draining {
            Some(draining) if draining.over => Health::Left,
            _ if self.router.failing.lock().contains(&*server.id) => Health::Unhealthy,
            Some(_) => Health::Draining,
            None if server.is_suspect() => Health::Suspect,
            None => Health::Healthy,
        }
    }

    async fn ask(&mut self) -> Asked {
        Asked::Pass
    }

    fn on_error(&self) -> OnError {
        OnError::Closed
    }

    fn random(&mut self) -> u64 {
        self.dice.bits()
    }
}
