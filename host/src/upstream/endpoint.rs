//! One server URI and what all workers know of it.
//!
//! Health here is this router's own experience: failures in a row eject a server for a while that
//! doubles each time. What active checks say is a service's own, see [`super::check`].

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::{
    Metrics, UpstreamOptions,
    check::Failing,
    name::{LOOKUPS, Name},
};
use crate::table::record::ServerUri;

/// A server, by its URI.
pub struct Endpoint {
    /// Unique among the endpoints of the process, for pools to find theirs.
    pub number: u64,
    /// As registered.
    pub uri: ServerUri,
    /// Without the brackets of an IPv6 address.
    pub host: Box<str>,
    /// 80 where none is written.
    pub port: u16,
    /// What the host was resolved to; none: it is an address.
    pub(super) name: Option<Arc<Name>>,
    /// As written, with or without a port.
    pub authority: Box<str>,
    /// What goes before every path; empty or starting with `/`.
    pub base: Box<str>,
    in_flight: AtomicU32,
    failures: AtomicU32,
    ejections: AtomicU32,
    /// Milliseconds since `epoch`.
    ejected_until: AtomicU64,
    epoch: Instant,
    options: Arc<UpstreamOptions>,
    metrics: Metrics,
}

impl Endpoint {
    /// Whether failures in a row have ejected it, and the time for that has not passed.
    pub fn is_ejected(&self) -> bool {
        let until = self.ejected_until.load(Relaxed);
        until != 0 && until > self.millis(Instant::now())
    }

    /// Messages sent to it by this router and not yet answered.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Whether this address is the router's own API, to which no message goes.
    pub(super) fn is_own(&self, address: SocketAddr) -> bool {
        self.options.own.is_some_and(|own| own.is_at(address))
    }

    /// Counts a message as in flight for as long as the guard is held.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }

    /// It answered.
    pub fn succeeded(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
        }
    }

    /// It could not be reached, broke off, did not answer in time or said that it cannot serve.
    /// `may_eject` says whether the service of the message can do without it.
    pub fn failed(&self, may_eject: impl FnOnce() -> bool) {
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        let limit = self.options.eject_after;
        if limit == 0 || failures < limit || self.is_ejected() {
            return;
        }
        // One more failure after the time has passed ejects it again at once.
        self.failures.store(limit - 1, Relaxed);
        if !may_eject() {
            return;
        }
        let before = self.ejections.fetch_add(1, Relaxed);
        let span = ejection(&self.options, before);
        self.ejected_until.store(self.millis(Instant::now() + span).max(1), Relaxed);
        self.metrics.ejections.inc();
        tracing::warn!(server = %self.uri, seconds = span.as_secs_f32(), "server ejected after {limit} failures in a row");
    }

    /// Active checks of a service found that it is well again, which ends an ejection.
    pub fn recovered(&self) {
        self.succeeded();
        self.ejected_until.store(0, Relaxed);
    }

    /// Finds out anew where its name leads, in the background, if it has one and it is time to.
    pub(super) fn refresh_name(&self) {
        if let Some(name) = &self.name {
            name.refresh();
        }
    }

    /// How many addresses its name has, as far as is known; 1 without a name.
    pub(super) fn addresses(&self) -> usize {
        self.name.as_ref().map_or(1, |name| name.len().max(1))
    }

    /// Whether an address of its name has no connection at all.
    pub(super) fn lacks_connection(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.lacks())
    }

    /// Whether its name still leads to this address; see [`Name::leads_to`].
    pub(super) fn leads_to(&self, address: IpAddr, generation: &mut u64) -> bool {
        self.name.as_ref().is_none_or(|name| name.leads_to(address, generation))
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

fn ejection(options: &UpstreamOptions, before: u32) -> Duration {
    let doubled = options.eject_for.saturating_mul(1 << before.min(16));
    doubled.min(options.eject_max)
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Endpoint").field(&self.uri).finish()
    }
}

/// A message on its way to a server and back.
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// Where it was sent.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Every endpoint that anything refers to; the same URI is the same endpoint.
pub struct Endpoints {
    by_uri: Mutex<Known>,
    board: watch::Sender<Arc<Failing>>,
    /// Names that may be looked up at once.
    lookups: Arc<Semaphore>,
    options: Arc<UpstreamOptions>,
    metrics: Metrics,
    epoch: Instant,
}

#[derive(Default)]
struct Known {
    endpoints: HashMap<ServerUri, Weak<Endpoint>>,
    next: u64,
    /// Forget the dead at this size.
    sweep_at: usize,
}

impl Endpoints {
    /// None yet.
    pub fn new(options: UpstreamOptions, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            by_uri: Mutex::default(),
            board: watch::Sender::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            options: Arc::new(options),
            metrics,
            epoch: Instant::now(),
        })
    }

    /// What all of them share.
    pub fn options(&self) -> &Arc<UpstreamOptions> {
        &self.options
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The servers that fail their active checks, and a notice of each change of that.
    pub fn failing(&self) -> watch::Receiver<Arc<Failing>> {
        self.board.subscribe()
    }

    /// Where active checks tell of servers that fail.
    pub(super) fn board(&self) -> &watch::Sender<Arc<Failing>> {
        &self.board
    }

    /// The endpoint of a URI.
    pub fn get(&self, uri: &ServerUri) -> Arc<Endpoint> {
        let mut known = self.by_uri.lock();
        if let Some(endpoint) = known.endpoints.get(uri).and_then(Weak::upgrade) {
            return endpoint;
        }
        known.next += 1;
        let endpoint = Arc::new(self.make(known.next, uri));
        known.endpoints.insert(uri.clone(), Arc::downgrade(&endpoint));
        if known.endpoints.len() > known.sweep_at {
            known.endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
            known.sweep_at = (known.endpoints.len() * 2).max(64);
        }
        endpoint
    }

    fn make(&self, number: u64, uri: &ServerUri) -> Endpoint {
        let host_port = uri.host_port();
        let (host, port) = host_port.rsplit_once(':').unwrap_or((&host_port, "80"));
        let (host, port) = (host.trim_start_matches('[').trim_end_matches(']'), port.parse().unwrap_or(80));
        let is_address = host.parse::<IpAddr>().is_ok();
        Endpoint {
            number,
            uri: uri.clone(),
            host: host.into(),
            port,
            name: (!is_address).then(|| Name::new(host, port, &self.lookups)),
            authority: uri.authority().into(),
            base: uri.base().into(),
            in_flight: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            epoch: self.epoch,
            options: self.options.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(options: UpstreamOptions) -> Arc<Endpoints> {
        Endpoints::new(options, Metrics::new(&prometheus::Registry::new()).unwrap())
    }

    fn uri(text: &str) -> ServerUri {
        text.parse().unwrap()
    }

    #[test]
    fn one_endpoint_for_one_uri() {
        let endpoints = endpoints(UpstreamOptions::default());
        let first = endpoints.get(&uri("http://a:1"));
        assert!(Arc::ptr_eq(&first, &endpoints.get(&uri("http://a:1"))));
        assert_ne!(first.number, endpoints.get(&uri("http://a:2")).number);
        let number = first.number;
        drop(first);
        assert_ne!(endpoints.get(&uri("http://a:1")).number, number, "a pool cannot take it for the old one");
    }

    #[test]
    fn hosts_and_ports() {
        let endpoints = endpoints(UpstreamOptions::default());
        for (text, host, port) in [
            ("http://a", "a", 80),
            ("http://a:81/base", "a", 81),
            ("http://[::1]:82", "::1", 82),
            ("h2c://[::1]", "::1", 80),
        ] {
            let endpoint = endpoints.get(&uri(text));
            assert_eq!((&*endpoint.host, endpoint.port), (host, port), "{text}");
        }
    }

    #[test]
    fn failures_in_a_row_eject() {
        let endpoints = endpoints(UpstreamOptions { eject_after: 3, ..UpstreamOptions::default() });
        let endpoint = endpoints.get(&uri("http://a:1"));
        let fail = |may_eject: bool| endpoint.failed(|| may_eject);
        fail(true);
        fail(true);
        endpoint.succeeded();
        fail(true);
        fail(true);
        assert!(!endpoint.is_ejected());
        for _ in 0..10 {
            fail(false);
            assert!(!endpoint.is_ejected(), "its service cannot do without it");
        }
        fail(true);
        assert!(endpoint.is_ejected());
        endpoint.recovered();
        assert!(!endpoint.is_ejected(), "an active check that succeeds ends it");
    }

    #[test]
    fn ejections_double_to_a_limit() {
        let options = UpstreamOptions::default();
        let seconds = [0, 1, 2, 3, 4, 5, 30].map(|before| ejection(&options, before).as_secs());
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
    }
}
