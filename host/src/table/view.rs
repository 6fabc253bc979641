//! What a router knows of the routing table: an immutable snapshot with its revision.
//!
//! Routing reads it without a lock and without asking anybody. A new view shares with the one
//! before it every service and server that did not change, so that whoever compiles something
//! from a service can tell by the pointer whether to do it again.

mod draft;
mod entry;
mod named;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Numbers,
    adapter::{Change, Entry, Revision},
    catalog::Catalog,
    horizon::Horizon,
    lease::Held,
    record::{
        Lease, ReleaseRecord, RouterRecord, ServerRecord, ServerUri, ServiceId, ServiceRecord, ServiceSpec,
    },
    time,
};

pub(crate) use draft::{Draft, revision};
pub use entry::InvalidEntry;
pub use named::{Choice, Named, Release, Share};

/// The services of the configuration; each hides what the table says of the same service.
pub type Overlay = BTreeMap<ServiceId, ServiceSpec>;

/// An immutable snapshot of the routing table, under the services of the configuration.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Of the table; a change of the configuration makes another view of the same revision.
    pub revision: Revision,
    /// The table's own time when it was last written, in milliseconds since the Unix epoch.
    pub time: Option<u64>,
    /// Whether the table, or what was saved of it, was ever read.
    read: bool,
    /// As routing sees them.
    services: Catalog<ServiceId, Arc<Service>>,
    /// As the table holds them, hidden ones included.
    stored: Catalog<ServiceId, Arc<Service>>,
    names: Catalog<Arc<str>, Named>,
    releases: Arc<BTreeMap<Arc<str>, ReleaseRecord>>,
    routers: Arc<BTreeMap<Arc<str>, RouterRecord>>,
    /// Leases that somebody ended on purpose, by `SERVICE/SERVER`.
    removed: Arc<BTreeMap<String, Held>>,
    /// When what is told of a service, or of what a name means, changed last; missing: before all that is known.
    told: Catalog<ServiceId, Revision>,
    horizon: Horizon,
    problems: Arc<BTreeMap<String, InvalidEntry>>,
    overlay: Arc<Overlay>,
    counts: Counts,
}

/// How many servers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// As routing sees them.
    pub servers: usize,
    /// As the table holds them, hidden ones included.
    pub stored: usize,
    /// Of these, suspect.
    pub suspects: usize,
}

/// A service that differs between two views: what it was, and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    /// What it is called.
    pub id: &'a ServiceId,
    /// None: it came.
    pub before: Option<&'a Arc<Service>>,
    /// None: it went.
    pub now: Option<&'a Arc<Service>>,
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
        draft.begin(revision);
        draft.finish(revision, overlay).of_table()
    }

    /// What a router begins with that has not read the table: the services of the configuration, of
    /// which alone it can say that they are there.
    pub(super) fn unread(overlay: &Overlay, numbers: &Numbers) -> Self {
        Self::default().apply(&[], 0, overlay, numbers)
    }

    /// Says that this is what the table holds.
    pub(super) fn of_table(self) -> Self {
        Self { read: true, ..self }
    }

    /// Whether what is not in it is not there: false until the table, or what was saved of it, was
    /// read for the first time.
    pub fn is_read(&self) -> bool {
        self.read
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

    /// The services that are not what they were in an earlier view. Costs what changed, not what there is.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Changed<'a>> {
        changed(&before.services, &self.services)
    }

    /// The services of which the table says something else than in an earlier view.
    pub fn stored_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Changed<'a>> {
        changed(&before.stored, &self.stored)
    }

    /// The names that mean something else than in an earlier view, with what they mean now.
    pub fn renamed_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a Arc<str>, Option<&'a Named>)> {
        self.names.since(&before.names, Named::eq).map(|(name, _, now)| (name, now))
    }

    /// Whether the releases are those of an earlier view, so that none can differ.
    pub fn is_released_as(&self, before: &Self) -> bool {
        Arc::ptr_eq(&self.releases, &before.releases)
    }

    /// How many services there are, as routing sees them.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there is no service.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many servers there are.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What an unversioned name means.
    pub fn named(&self, name: &str) -> Option<&Named> {
        let found = self.names.after(|known| **known < *name).next();
        found.filter(|(known, _)| ***known == *name).map(|(_, named)| named)
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

    /// When what services are told of this one changed last, exactly, however many changes were taken at once; none:
    /// before this router followed the table.
    pub fn changed_at(&self, id: &ServiceId) -> Option<Revision> {
        self.told.get(id).copied()
    }

    /// The services of which others are told something else than in an earlier view, or were in between, and names that
    /// may mean something else.
    pub fn told_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a ServiceId> {
        self.told.since(&before.told, Revision::eq).map(|(id, _, _)| id)
    }

    /// After which revisions every change is known.
    pub fn horizon(&self) -> &Horizon {
        &self.horizon
    }

    /// The lease of a server that somebody removed on purpose, by `SERVICE/SERVER`; see
    /// [`removal`](super::removal).
    pub fn removed(&self) -> &BTreeMap<String, Held> {
        &self.removed
    }

    /// What the table holds and this version cannot read, by `KIND KEY`. What was known before
    /// under such a key goes on.
    pub fn problems(&self) -> &BTreeMap<String, InvalidEntry> {
        &self.problems
    }

    /// What the table holds, without routers: what a later start may begin from.
    pub fn entries(&self) -> Vec<Entry> {
        let time = self.time.map(|now| {
            let Change { kind, key, value, .. } = time::entry(now);
            Entry { kind, key, value: value.unwrap_or_default() }
        });
        entry::entries(self).into_iter().chain(time).collect()
    }

    /// The same at another revision and time: nothing else changed.
    pub(super) fn at(&self, revision: Revision, time: Option<u64>) -> Self {
        let mut view = Self { revision, time, ..self.clone() };
        view.horizon.advance(revision);
        view
    }
}

fn changed<'a>(
    before: &'a Catalog<ServiceId, Arc<Service>>,
    now: &'a Catalog<ServiceId, Arc<Service>>,
) -> impl Iterator<Item = Changed<'a>> {
    now.since(before, Arc::ptr_eq).map(|(id, before, now)| Changed { id, before, now })
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
