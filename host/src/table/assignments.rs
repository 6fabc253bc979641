//! Who goes where: the bounded local cache of assignments over the adapter's.
//!
//! The table has the truth; the cache saves asking for it. What the cache says is right until it
//! expires, unless an assignment is pinned, forgotten or given another server: of these every router
//! is told by the table's changes. What was decided while the table could not be asked is held apart:
//! it is never followed before the table was asked, and then it is what is proposed to it.

mod cache;
mod held;
mod intake;
mod kept;
mod outage;
mod renewal;
mod shard;
mod wait;

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::{
    Adapter, Numbers, ServiceId, Stats, TableError, TableTime,
    adapter::{Assignment, Condition, Proposal},
    clock::millis,
    record::Sticky,
    stats::shown,
    view::Service,
};
use crate::pace::Pace;
use cache::{Cache, Entry, Found, NEVER};
use intake::Intake;
use outage::Outage;

pub use intake::NewClients;
pub use kept::Kept;
pub(super) use renewal::{Renewal, renew};
pub use wait::Wait;

/// For so many milliseconds a registrar's choice for a detour is remembered.
const DETOUR: u64 = 60_000;
/// Of the assignments that may be remembered, one in so many detours may be besides.
const DETOURS: usize = 8;
/// A renewal that did not come about is tried again after so many milliseconds.
const RENEW_AGAIN: u64 = 5000;
/// An assignment that another router wrote less than so many milliseconds ago is news: this router's
/// view may not hold its server yet.
const NEWS: u64 = 1000;
/// Renewals that may wait; more are put off.
const RENEWALS: usize = 1024;

/// An assignment as a router remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The number of its server's id or URI.
    pub server: u32,
    /// It does not expire.
    pub pinned: bool,
    /// If it is followed now, it should be [prolonged](Assignments::prolong).
    pub due: bool,
}

/// The assignments of clients to servers, as far as this router remembers them, and the way to
/// those in the table.
pub struct Assignments {
    cache: Cache,
    /// Where a registrar sent clients whose servers are not well.
    detours: Cache,
    /// Where clients went while the table could not be asked.
    held: Cache,
    adapter: Arc<dyn Adapter>,
    numbers: Arc<Numbers>,
    stats: Arc<Stats>,
    outage: Outage,
    intake: Intake,
    renewals: mpsc::Sender<Renewal>,
    router: String,
    /// By which assignments expire.
    time: Arc<TableTime>,
    /// From here on is counted what concerns this router alone.
    began: Instant,
    wait: Duration,
    unread: Pace,
}

impl Assignments {
    /// With the renewals that are due; [`renew`] carries them out.
    pub(super) fn new(
        adapter: Arc<dyn Adapter>,
        numbers: Arc<Numbers>,
        stats: Arc<Stats>,
        options: &super::Options,
    ) -> (Arc<Self>, mpsc::Receiver<Renewal>) {
        let (renewals, due) = mpsc::channel(RENEWALS);
        let time = Arc::new(TableTime::new(options.clock.now()));
        let cache = |limit| Cache::new(limit, time.now());
        let assignments = Self {
            cache: cache(options.assignments),
            detours: cache(options.assignments / DETOURS),
            held: cache(options.assignments),
            adapter,
            numbers,
            stats,
            outage: Outage::default(),
            intake: Intake::default(),
            renewals,
            router: options.router.clone(),
            time,
            began: Instant::now(),
            wait: options.wait,
            unread: Pace::default(),
        };
        (Arc::new(assignments), due)
    }

    /// So many new clients are remembered from now on.
    pub fn limit(&self, limits: NewClients) {
        self.intake.limit(limits);
    }

    /// By which assignments expire.
    pub fn time(&self) -> &Arc<TableTime> {
        &self.time
    }

    /// For how long one message may wait for the table from now on.
    pub fn wait(&self) -> Wait {
        Wait::new(self.wait)
    }

    /// Whether a client that has no assignment may get one: fails when too many from this address,
    /// or in all, did in this second.
    pub fn admit(&self, peer: IpAddr) -> Result<(), TableError> {
        if self.intake.admit(peer, self.local()) {
            return Ok(());
        }
        self.stats.assignments_unremembered.inc();
        Err(TableError::Refused("more new clients in this second than are remembered".to_owned()))
    }

    /// The number of the server that this router remembers for a client; none if it remembers
    /// nothing or it has expired by `now` (of the table's time). Neither waits nor allocates, but
    /// for setting off a renewal in the background when one is due.
    pub fn cached(&self, service: &Service, client: &str, now: u64) -> Option<u32> {
        let remembered = self.remembered(service, client, now)?;
        if remembered.due {
            self.prolong(service, client, now);
        }
        Some(remembered.server)
    }

    /// As [`Self::cached`], for one who may not follow it: then it is not prolonged.
    pub fn remembered(&self, service: &Service, client: &str, now: u64) -> Option<Remembered> {
        let again = RENEW_AGAIN.min(millis(ttl(service)) / 8);
        let Found { server, pinned, due, .. } = self.cache.get(service.number, client, now, again)?;
        self.stats.assignment_hits.inc();
        Some(Remembered { server, pinned, due })
    }

    /// As [`Self::remembered`], for one who only wants to know: nothing changes.
    pub fn peek(&self, service: &Service, client: &str, now: u64) -> Option<Remembered> {
        let Found { server, pinned, due, .. } = self.cache.peek(service.number, client, now)?;
        Some(Remembered { server, pinned, due })
    }

    /// Sets off the renewal in the background of what was [remembered](Self::remembered) as due.
    pub fn prolong(&self, service: &Service, client: &str, now: u64) {
        if let Some(found) = self.cache.peek(service.number, client, now) {
            self.set_off(service, client, found);
        }
    }

    /// The number of the server to which a client's detour leads, if this router remembers it.
    pub fn detour(&self, service: &Service, client: &str, now: u64) -> Option<u32> {
        self.detours.peek(service.number, client, now).map(|found| found.server)
    }

    /// Remembers for a moment, here only, to which server a client's detour leads.
    pub fn remember_detour(&self, service: &Service, client: &str, server: &str) {
        let expires = self.time.now() + DETOUR;
        let entry = Entry { server: self.numbers.of(server), expires, renew: NEVER, stamp: 0 };
        self.detours.put(service.number, client, entry, None);
    }

    /// The text of a server's number: its id or URI.
    pub fn text(&self, number: u32) -> Option<Arc<str>> {
        self.numbers.text(number)
    }

    /// The assignment in the table, expired or not; remembers it if it is not.
    pub async fn lookup(
        &self,
        service: &Service,
        client: &str,
        wait: &Wait,
    ) -> Result<Option<Assignment>, TableError> {
        let epoch = self.cache.epoch(service.number, client);
        let found = self.look(service, client, wait).await?;
        if let Some(assignment) = &found {
            self.remember(service.number, ttl(service), client, assignment, epoch);
        }
        Ok(found)
    }

    /// As [`Self::lookup`], for one who only wants to know: nothing is remembered.
    pub async fn look(
        &self,
        service: &Service,
        client: &str,
        wait: &Wait,
    ) -> Result<Option<Assignment>, TableError> {
        self.stats.assignment_lookups.inc();
        self.ask(wait.bound(self.adapter.assigned(client.to_owned(), service.id.to_string()))).await
    }

    /// Whether another router wrote an assignment so lately that it may know servers which this router
    /// does not know yet.
    pub fn is_news(&self, service: &Service, assignment: &Assignment) -> bool {
        let written = assignment.expires.map(|expires| expires.saturating_sub(lifetime(ttl(service))));
        assignment.router != self.router
            && written.is_some_and(|written| written.abs_diff(self.time.now()) < NEWS)
    }

    /// Stores an assignment for the service's `sticky.ttl`, and half of it more, if the condition
    /// holds. Returns, and remembers, what is stored afterwards.
    pub async fn claim(
        &self,
        service: &Service,
        client: &str,
        server: &str,
        condition: Condition,
        wait: &Wait,
    ) -> Result<Option<Assignment>, TableError> {
        self.stats.assignment_claims.inc();
        let epoch = self.cache.epoch(service.number, client);
        let expires = Some(self.time.now() + lifetime(ttl(service)));
        let proposal = self.proposal(&service.id, client, server, expires);
        let stored = self.store(proposal, condition, wait).await?;
        if let Some(assignment) = &stored {
            if assignment.server != server {
                self.stats.assignment_claims_lost.inc();
            }
            self.remember(service.number, ttl(service), client, assignment, epoch);
        }
        Ok(stored)
    }

    /// Stores a proposal. One that failed may have been stored all the same, or something else before
    /// it: so what is there is read before anything else is believed, and proposed to once more.
    async fn store(
        &self,
        proposal: Proposal,
        condition: Condition,
        wait: &Wait,
    ) -> Result<Option<Assignment>, TableError> {
        let stored = self.ask(wait.bound(self.adapter.assign(proposal.clone(), condition))).await;
        if !matches!(
            stored,
            Err(TableError::Unavailable(_) | TableError::Unknown(_) | TableError::Adapter(_))
        ) {
            return stored;
        }
        let read = self.adapter.assigned(proposal.client.clone(), proposal.service.clone());
        let found = self.ask(wait.bound(read)).await?;
        match (&found, condition) {
            (None, Condition::Absent) => {}
            (Some(found), Condition::Unchanged(stamp)) if found.stamp == stamp => {}
            _ => return Ok(found),
        }
        self.ask(wait.bound(self.adapter.assign(proposal, condition))).await
    }

    /// Stores an assignment without expiry in place of whatever is there.
    pub async fn pin(
        &self,
        service: &ServiceId,
        client: &str,
        server: &str,
    ) -> Result<Assignment, TableError> {
        let number = self.numbers.of(service.as_str());
        let proposal = self.proposal(service, client, server, None);
        let stored = self.ask(self.adapter.assign(proposal, Condition::Always)).await;
        self.drop_remembered(number, client);
        let lost = || TableError::Invalid(format!("the pin of {client} was not stored"));
        stored?.ok_or_else(lost)
    }

    /// Removes an assignment, there or not.
    pub async fn forget(&self, service: &ServiceId, client: &str) -> Result<(), TableError> {
        let number = self.numbers.of(service.as_str());
        let forgotten = self.ask(self.adapter.forget(client.to_owned(), service.to_string())).await;
        self.drop_remembered(number, client);
        forgotten
    }

    fn drop_remembered(&self, service: u32, client: &str) {
        for cache in [&self.cache, &self.detours, &self.held] {
            cache.remove(service, client);
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops what is remembered under the key of a change: `CLIENT/SERVICE`, the client
    /// percent-encoded.
    pub(super) fn changed(&self, key: &str) {
        let Some((client, service)) = key.rsplit_once('/') else { return };
        if let Some(number) = self.numbers.get(service) {
            self.drop_remembered(number, &percent_decoded(client));
        }
    }

    /// The table's time may be far from what was thought.
    pub(super) fn time_set(&self) {
        for cache in [&self.cache, &self.detours, &self.held] {
            cache.set_time(self.time.now());
        }
    }

    /// Drops everything that the table said: changes may have been missed.
    pub(super) fn clear(&self) {
        self.cache.clear();
        self.detours.clear();
    }

    /// Drops what has expired, a part at a time so that no message waits long.
    pub(super) async fn expire(&self) {
        for cache in [&self.cache, &self.detours, &self.held] {
            for part in 0..cache.parts() {
                cache.expire(part, self.time.now());
                tokio::task::yield_now().await;
            }
        }
        self.count();
        self.stats.assignment_bytes.set(shown(self.cache.bytes() + self.held.bytes()));
    }

    /// Calls with the number of each service and server that is remembered.
    pub(super) fn each_number(&self, mut call: impl FnMut(u32)) {
        for cache in [&self.cache, &self.detours, &self.held] {
            cache.each(|service, server| [service, server].into_iter().for_each(&mut call));
        }
    }

    async fn ask<T>(&self, answer: impl Future<Output = Result<T, TableError>>) -> Result<T, TableError> {
        self.outage.admit(self.local())?;
        let answer = answer.await;
        self.outage.note(&answer, self.local());
        if let Err(error) = &answer {
            self.stats.table_errors.inc();
            self.complain(error);
        }
        answer
    }

    /// Milliseconds that this router runs.
    fn local(&self) -> u64 {
        millis(self.began.elapsed())
    }

    /// An assignment that cannot be read is nobody's outage, but somebody's to repair.
    fn complain(&self, error: &TableError) {
        let unread = matches!(error, TableError::Invalid(_));
        if let Some(unsaid) = unread.then(|| self.unread.turn()).flatten() {
            tracing::warn!(unsaid, "assignment not read: {error}; forget it over the API");
        }
    }

    fn proposal(&self, service: &ServiceId, client: &str, server: &str, expires: Option<u64>) -> Proposal {
        Proposal {
            client: client.to_owned(),
            service: service.to_string(),
            server: server.to_owned(),
            expires,
            router: self.router.clone(),
        }
    }

    fn remember(&self, service: u32, ttl: Duration, client: &str, assignment: &Assignment, epoch: u32) {
        let expires = assignment.expires.unwrap_or(NEVER);
        if expires <= self.time.now() {
            return;
        }
        // From then on what is left is less than the time to live that its use is promised.
        let renew = assignment.expires.map_or(NEVER, |expires| expires.saturating_sub(millis(ttl)));
        let server = self.numbers.of(&assignment.server);
        let entry = Entry { server, expires, renew, stamp: assignment.stamp };
        self.put(service, client, entry, Some(epoch));
        self.let_go(service, client);
    }

    fn put(&self, service: u32, client: &str, entry: Entry, epoch: Option<u32>) {
        let stored = self.cache.put(service, client, entry, epoch);
        self.stats.assignment_evictions.inc_by(stored.evicted);
        self.count();
    }

    fn count(&self) {
        self.stats.assignments.set(shown(self.len()));
        self.stats.assignments_held.set(shown(self.held.len()));
    }

    fn set_off(&self, service: &Service, client: &str, found: Found) {
        let renewal = Renewal {
            service: service.id.clone(),
            number: service.number,
            ttl: ttl(service),
            client: client.to_owned(),
            found,
        };
        if self.renewals.try_send(renewal).is_err() {
            self.stats.assignment_renewals_failed.inc();
        }
    }
}

/// For so many milliseconds an assignment is stored: it lasts for a time to live after its last use,
/// and use renews it twice in that time at the most.
fn lifetime(ttl: Duration) -> u64 {
    millis(ttl) / 2 * 3
}

fn ttl(service: &Service) -> Duration {
    match service.record.sticky {
        Sticky::For(ttl) => ttl,
        Sticky::Off => Duration::ZERO,
    }
}

/// A client id as it stands in the key of a change.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high * 16 + low);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
