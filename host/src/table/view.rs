//! What a router knows of the routing table: an immutable snapshot with its revision.
//!
//! Routing reads it without a lock and without asking anybody. A new view shares with the one
//! before it every service and server that did not change, so that whoever compiles something
//! from a service can tell by the pointer whether to do it again.

mod draft;
mod entry;
mod named;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Numbers,
    adapter::{Change, Entry, Revision},
    record::{
        Lease, ReleaseRecord, RouterRecord, ServerRecord, ServerUri, ServiceId, ServiceRecord, ServiceSpec,
    },
};

pub(crate) use draft::Draft;
pub use entry::InvalidEntry;
pub use named::{Choice, Named, Release, Share};

/// The services of the configuration; each hides what the table says of the same service.
pub type Overlay = BTreeMap<ServiceId, ServiceSpec>;

/// An immutable snapshot of the routing table, under the services of the configuration.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Of the table; a change of the configuration makes another view of the same revision.
    pub revision: Revision,
    /// As routing sees them.
    services: BTreeMap<ServiceId, Arc<Service>>,
    /// As the table holds them, hidden ones included.
    stored: BTreeMap<ServiceId, Arc<Service>>,
    names: HashMap<Arc<str>, Named>,
    releases: BTreeMap<Arc<str>, ReleaseRecord>,
    routers: BTreeMap<Arc<str>, RouterRecord>,
    problems: BTreeMap<String, InvalidEntry>,
}

/// Who says what a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The routing table; the API may change it.
    Table,
    /// The configuration.
    Configuration,
}

/// A service with its server list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it is called.
    pub id: ServiceId,
    /// Stands for `id` in the assignment cache.
    pub number: u32,
    /// All defaults if the table holds servers for it and no record.
    pub record: ServiceRecord,
    /// In the order of their ids.
    pub servers: Vec<Arc<Server>>,
    /// Who says so.
    pub origin: Origin,
    /// Whether there is a record, not only servers.
    pub declared: bool,
    /// Server numbers with their places in `servers`, in the order of the numbers.
    places: Vec<(u32, u32)>,
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Unique within its service.
    pub id: Arc<str>,
    /// Stands for `id` in the assignment cache; servers of other services with the same id have
    /// the same.
    pub number: u32,
    /// The [`stable`](super::hash::stable) hash of `id`.
    pub hash: u64,
    /// URI, weight and metadata.
    pub record: ServerRecord,
    /// It went in a mass loss that is not believed yet.
    pub held: bool,
    /// Its lease is a connection to a router that is gone.
    pub orphaned: bool,
}

impl View {
    /// The view of a table that holds exactly these entries.
    pub fn build(entries: &[Entry], revision: Revision, overlay: &Overlay, numbers: &Numbers) -> Self {
        let mut draft = Draft::new(&Self::default(), numbers);
        entries.iter().for_each(|entry| draft.put(&entry.kind, &entry.key, &entry.value));
        draft.finish(revision, overlay)
    }

    /// The view after these changes.
    pub fn apply(
        &self,
        changes: &[Change],
        revision: Revision,
        overlay: &Overlay,
        numbers: &Numbers,
    ) -> Self {
        let mut draft = Draft::new(self, numbers);
        changes.iter().for_each(|change| draft.change(change));
        draft.finish(revision, overlay)
    }

    /// The changes that lead from this view to these entries.
    pub fn difference(&self, entries: &[Entry]) -> Vec<Change> {
        entry::difference(self, entries)
    }

    /// A service by its exact id: `chat@2` or an unversioned `chat`.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id)
    }

    /// What the table holds of a service, even if the configuration hides it.
    pub fn stored(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.stored.get(id)
    }

    /// What the table holds of every service.
    pub fn stored_services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.stored.values()
    }

    /// Every service in the order of their ids.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// What an unversioned name means.
    pub fn named(&self, name: &str) -> Option<&Named> {
        self.names.get(name)
    }

    /// Every name of a service with what it means, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = (&Arc<str>, &Named)> {
        self.names.iter()
    }

    /// The service for a message to `id` of a client of which nothing is remembered: itself if it
    /// has a version, else the one of which this client is a share.
    pub fn choose(&self, id: &ServiceId, client: &str) -> Option<&Arc<Service>> {
        match (id.version(), self.named(id.name())) {
            (None, Some(named)) => named.choose(client).and_then(|id| self.service(id)),
            _ => self.service(id),
        }
    }

    /// The live versions of a service's name, as promoted.
    pub fn release(&self, name: &str) -> Option<&ReleaseRecord> {
        self.releases.get(name)
    }

    /// Every release by name.
    pub fn releases(&self) -> &BTreeMap<Arc<str>, ReleaseRecord> {
        &self.releases
    }

    /// Every router by id.
    pub fn routers(&self) -> &BTreeMap<Arc<str>, RouterRecord> {
        &self.routers
    }

    /// What the table holds and this version cannot read, by `KIND KEY`. What was known before
    /// under such a key goes on.
    pub fn problems(&self) -> &BTreeMap<String, InvalidEntry> {
        &self.problems
    }

    /// What the table holds, without routers: what a later start may begin from.
    pub fn entries(&self) -> Vec<Entry> {
        entry::entries(self)
    }
}

impl Server {
    /// Whether it may be gone: still served, not preferred.
    pub fn is_suspect(&self) -> bool {
        self.held || self.orphaned || self.record.lease.as_ref().is_some_and(Lease::has_ended)
    }
}

impl Service {
    /// A server by its id.
    pub fn server(&self, id: &str) -> Option<&Arc<Server>> {
        self.place_of(id).ok().map(|place| &self.servers[place])
    }

    /// Where in `servers` the one with this number is.
    pub fn place(&self, number: u32) -> Option<usize> {
        let found = self.places.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.places[found].1 as usize)
    }

    /// The server with exactly this URI.
    pub fn server_at(&self, uri: &ServerUri) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.record.uri == *uri)
    }

    /// As the configuration and the API write it.
    pub fn spec(&self) -> ServiceSpec {
        let server = |server: &Arc<Server>| super::record::ServerSpec {
            id: server.id.to_string(),
            record: server.record.clone(),
        };
        ServiceSpec { record: self.record.clone(), servers: self.servers.iter().map(server).collect() }
    }

    fn place_of(&self, id: &str) -> Result<usize, usize> {
        self.servers.binary_search_by(|server| (*server.id).cmp(id))
    }
}
