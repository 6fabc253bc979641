//! What there is of a service, as services that need it are told. Pure.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use serde::Serialize;

use super::Failing;
use crate::table::{
    Named, Server, Service, ServiceId, View,
    adapter::Revision,
    hash,
    record::{ServerRecord, ServerUri},
    view::Origin,
};

/// The servers of a service that can be told; none of them: it is not there.
#[derive(Clone, Debug, Default)]
pub(super) struct Offer {
    /// When what is told of it changed last; 0: before all that is known.
    pub(super) changed: Revision,
    /// In the order of their ids.
    pub(super) servers: Vec<Announced>,
    /// Differs when what is told differs.
    pub(super) print: u64,
    /// What is told of it depends, or depended, on more than the table: on this router's configuration or
    /// its checks. So a revision does not say what somebody knows of it.
    pub(super) local: bool,
    /// It was there at the end of the run before and was not seen in this one.
    pub(super) awaited: bool,
}

/// A server as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// Unique within the offer.
    pub(super) id: Arc<str>,
    /// A JSON object without its last brace.
    pub(super) json: Box<str>,
    /// It may be gone; not told.
    pub(super) suspect: bool,
    hash: u64,
    weight: u32,
}

/// In the order in which the keys are written.
#[derive(Serialize)]
struct Told<'a> {
    name: &'a str,
    port: u16,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    uri: &'a ServerUri,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
}

impl Offer {
    /// What the view has of a requirement, but for servers that fail their active checks.
    pub(super) fn of(view: &View, failing: &Failing, required: &ServiceId) -> Self {
        let (mut servers, mut local) = (Vec::new(), false);
        for service in meant(view, required).into_iter().filter_map(|id| view.service(id)) {
            announce(service, failing, &mut servers);
            local |= service.origin == Origin::Configuration || is_checked(service);
        }
        let mut print = DefaultHasher::new();
        servers.iter().for_each(|server: &Announced| (&server.id, &server.json).hash(&mut print));
        let changed = view.changed_at(required).unwrap_or_default();
        Self { changed, servers, print: print.finish(), local, awaited: false }
    }

    /// The print of what is told; none: it is not there.
    pub(super) fn told(&self) -> Option<u64> {
        (!self.servers.is_empty()).then_some(self.print)
    }

    /// Whether both tell the same.
    pub(super) fn tells_as(&self, other: &Self) -> bool {
        self.print == other.print && self.servers.len() == other.servers.len()
    }

    /// Whether it holds exactly this server.
    pub(super) fn has(&self, server: &Announced) -> bool {
        self.servers.iter().any(|known| known.id == server.id && known.json == server.json)
    }

    /// The server for one who needs one: the one that it has, else one by weight, always the same
    /// for the same asker and servers.
    pub(super) fn choose(&self, asker: u64, has: Option<&str>) -> Option<&Announced> {
        let kept = has.and_then(|id| self.servers.iter().find(|server| *server.id == *id));
        let among = |suspect: bool| {
            let servers = self.servers.iter().filter(move |server| server.suspect == suspect);
            hash::rendezvous(asker, servers.map(|server| (server, server.hash, server.weight)))
        };
        kept.or_else(|| among(false)).or_else(|| among(true)).or_else(|| self.servers.first())
    }
}

/// The services whose servers count.
fn meant<'a>(view: &'a View, required: &'a ServiceId) -> Vec<&'a ServiceId> {
    if required.version().is_some() {
        return vec![required];
    }
    match view.named(required.name()) {
        None => Vec::new(),
        Some(Named::One(id)) => vec![id],
        Some(Named::Released(release)) => release.shares.iter().map(|share| &share.id).collect(),
        // Nothing is live, so nothing is better than anything else that is there.
        Some(Named::Unreleased(ids)) => ids.iter().collect(),
    }
}

/// Whether active checks say how its servers are.
fn is_checked(service: &Service) -> bool {
    service.record.health.is_some() || service.servers.iter().any(|server| server.record.check.is_some())
}

fn announce(service: &Service, failing: &Failing, servers: &mut Vec<Announced>) {
    let failing = failing.get(&service.id);
    let fails = |server: &str| failing.is_some_and(|failing| failing.contains(server));
    if let Some(uri) = &service.record.server {
        if fails(uri.as_str()) {
            return;
        }
        let record = ServerRecord::new(uri.clone());
        servers.push(announced(service, &uri.host_port(), &record, uri, false));
        return;
    }
    let there = service.servers.iter().filter(|server| server.record.draining.is_none());
    let there = there.filter(|server| !fails(&server.id));
    let there: Vec<&Arc<Server>> = there.collect();
    if let Some(balancer) = service.record.load_balancer.as_ref().filter(|_| !there.is_empty()) {
        let record = ServerRecord::new(balancer.clone());
        let suspect = there.iter().all(|server| server.is_suspect());
        servers.push(announced(service, &balancer.host_port(), &record, balancer, suspect));
        return;
    }
    for server in there {
        let shown = server.record.load_balancer.as_ref().unwrap_or(&server.record.uri);
        servers.push(announced(service, &server.id, &server.record, shown, server.is_suspect()));
    }
}

fn announced(
    service: &Service,
    id: &str,
    record: &ServerRecord,
    uri: &ServerUri,
    suspect: bool,
) -> Announced {
    let host_port = uri.host_port();
    let (host, port) = host_port.rsplit_once(':').unwrap_or((&host_port, "80"));
    let told = Told {
        name: service.id.name(),
        port: port.parse().unwrap_or(80),
        host: host.trim_start_matches('[').trim_end_matches(']'),
        version: service.id.version(),
        uri,
        id,
        weight: (record.weight != 1).then_some(record.weight),
        metadata: &record.metadata,
    };
    let mut json = serde_json::to_string(&told).expect("texts and numbers only");
    json.pop();
    Announced { id: id.into(), json: json.into(), suspect, hash: hash::stable(id), weight: record.weight }
}
