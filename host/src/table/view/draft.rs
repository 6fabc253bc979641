//! A view in the making: copies of a service are made only where something in it changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    InvalidEntry, Origin, Overlay, RouterRecord, Server, ServerRecord, Service, ServiceId, ServiceRecord,
    View,
    entry::{Key, read, stray},
    named,
};
use crate::table::{
    Numbers,
    adapter::{Change, Revision, STRAY},
    catalog::Catalog,
    hash,
    horizon::Horizon,
    record::ServiceSpec,
    time,
};

/// Problems that are known, at most, for what is no entry to be counted among them.
const STRAYS: usize = 256;

/// Collects changes to a view.
pub(crate) struct Draft<'a> {
    view: View,
    numbers: &'a Numbers,
    /// What the table said before of the services that change.
    touched: BTreeMap<ServiceId, Option<Arc<Service>>>,
    /// Whose release changes.
    released: BTreeSet<Arc<str>>,
    /// Whether a router came, went or started anew.
    routers: bool,
    /// What others are told of these changed, at a revision that is not known yet.
    untimed: BTreeSet<ServiceId>,
}

/// What says at which revision the changes before it happened: an entry of this kind with the number as its key, which
/// adapters return among changes.
pub(crate) const REVISION: &str = "revision";

/// So many services that are gone keep the revision at which they went.
const GONE: usize = 10_000;

impl<'a> Draft<'a> {
    /// Begins with what a view holds.
    pub(crate) fn new(view: &View, numbers: &'a Numbers) -> Self {
        let view = view.clone();
        Self {
            view,
            numbers,
            touched: BTreeMap::new(),
            released: BTreeSet::new(),
            routers: false,
            untimed: BTreeSet::new(),
        }
    }

    /// Makes a change.
    pub(crate) fn change(&mut self, change: &Change) {
        if let Some(revision) = revision(change) {
            return self.time(revision);
        }
        match &change.value {
            Some(value) => self.put(&change.kind, &change.key, value),
            None => self.delete(&change.kind, &change.key),
        }
    }

    /// The table begins here: of what was before nothing is known.
    pub(crate) fn begin(&mut self, revision: Revision) {
        self.untimed.clear();
        (self.view.told, self.view.horizon) = (Catalog::default(), Horizon::at(revision));
    }

    /// The table is at this revision, and what led to it was not seen.
    pub(crate) fn jump(&mut self, revision: Revision) {
        self.view.horizon.jump(revision);
    }

    /// The table went back to this revision, or is another.
    pub(crate) fn back(&mut self, revision: Revision) {
        self.view.told = Catalog::default();
        self.view.horizon.back(revision);
    }

    /// What changed so far changed at this revision.
    fn time(&mut self, revision: Revision) {
        for id in std::mem::take(&mut self.untimed) {
            self.view.told.insert(id, revision);
        }
    }

    /// What others are told of a service changes, and so may what its name means.
    fn tells(&mut self, id: &ServiceId) {
        if id.version().is_some() {
            self.untimed.extend(id.name().parse().ok());
        }
        self.untimed.insert(id.clone());
    }

    /// Sets an entry. One that cannot be read changes nothing but the view's problems.
    pub(crate) fn put(&mut self, kind: &str, key: &str, value: &str) {
        if let Some(now) = time::read(kind, key, value) {
            self.view.time = Some(now);
            return;
        }
        let outcome = match Key::parse(kind, key) {
            None if kind == STRAY && self.takes_stray(key) => Err(stray(key, value)),
            None => return,
            Some(parsed) => parsed.and_then(|parsed| self.put_parsed(parsed, kind, key, value)),
        };
        let problem = format!("{kind} {key}");
        match outcome {
            Ok(()) => self.solved(&problem),
            Err(error) => drop(Arc::make_mut(&mut self.view.problems).insert(problem, error)),
        }
    }

    /// What is not of the table is bounded here, as nothing else bounds it.
    fn takes_stray(&self, key: &str) -> bool {
        let problems = &self.view.problems;
        problems.len() < STRAYS || problems.contains_key(&format!("{STRAY} {key}"))
    }

    fn put_parsed(
        &mut self,
        parsed: Key<'_>,
        kind: &str,
        key: &str,
        value: &str,
    ) -> Result<(), InvalidEntry> {
        match parsed {
            Key::Service(id) => self.put_service(&id, read(kind, key, value)?),
            Key::Server(id, server) => self.put_server(&id, server, read(kind, key, value)?),
            Key::Release(name) => {
                let record = read(kind, key, value)?;
                Arc::make_mut(&mut self.view.releases).insert(name.into(), record);
                self.released.insert(name.into());
                self.untimed.extend(name.parse().ok());
            }
            Key::Router(id) => self.put_router(id, read(kind, key, value)?),
            Key::Removed => {
                let held = read(kind, key, value)?;
                Arc::make_mut(&mut self.view.removed).insert(key.to_owned(), held);
            }
        }
        Ok(())
    }

    fn solved(&mut self, problem: &str) {
        if self.view.problems.contains_key(problem) {
            Arc::make_mut(&mut self.view.problems).remove(problem);
        }
    }

    fn put_router(&mut self, id: &str, record: RouterRecord) {
        let known = self.view.routers.get(id);
        self.routers |= known.is_none_or(|known| known.incarnation != record.incarnation);
        Arc::make_mut(&mut self.view.routers).insert(id.into(), record);
    }

    fn put_service(&mut self, id: &ServiceId, record: ServiceRecord) {
        let known = self.view.stored.get(id);
        if known.is_some_and(|known| known.declared && known.record == record) {
            return;
        }
        self.tells(id);
        let service = self.service(id);
        service.record = record;
        service.declared = true;
    }

    fn put_server(&mut self, id: &ServiceId, server: &str, record: ServerRecord) {
        let known = self.view.stored.get(id).and_then(|service| service.server(server));
        if known.is_some_and(|known| !known.held && known.record == record) {
            return;
        }
        if known.is_none_or(|known| !is_told_as(&known.record, &record)) {
            self.tells(id);
        }
        let server = new_server(server, record, self.numbers);
        let service = self.service(id);
        match service.place_of(&server.id) {
            Ok(place) => service.servers[place] = server,
            Err(place) => service.servers.insert(place, server),
        }
    }

    /// Removes an entry, there or not.
    pub(crate) fn delete(&mut self, kind: &str, key: &str) {
        if time::is(kind, key) {
            self.view.time = None;
        }
        self.solved(&format!("{kind} {key}"));
        match Key::parse(kind, key) {
            Some(Ok(Key::Service(id))) => self.delete_service(&id),
            Some(Ok(Key::Server(id, server))) => self.delete_server(&id, server),
            Some(Ok(Key::Release(name))) => {
                Arc::make_mut(&mut self.view.releases).remove(name);
                self.released.insert(name.into());
                self.untimed.extend(name.parse().ok());
            }
            Some(Ok(Key::Router(id))) => {
                self.routers |= Arc::make_mut(&mut self.view.routers).remove(id).is_some();
            }
            Some(Ok(Key::Removed)) => drop(Arc::make_mut(&mut self.view.removed).remove(key)),
            Some(Err(_)) | None => {}
        }
    }

    fn delete_service(&mut self, id: &ServiceId) {
        if self.view.stored.get(id).is_some_and(|service| service.declared) {
            self.tells(id);
            let service = self.service(id);
            service.record = ServiceRecord::default();
            service.declared = false;
        }
    }

    fn delete_server(&mut self, id: &ServiceId, server: &str) {
        let place = self.view.stored.get(id).and_then(|service| service.place_of(server).ok());
        if let Some(place) = place {
            self.tells(id);
            self.service(id).servers.remove(place);
        }
    }

    /// Marks a server as gone in a mass loss that is not believed yet.
    pub(crate) fn hold(&mut self, id: &ServiceId, server: &str) {
        let place = self.view.stored.get(id).and_then(|service| service.place_of(server).ok());
        if let Some(place) = place {
            Arc::make_mut(&mut self.service(id).servers[place]).held = true;
        }
    }

    /// Says of every server that may be concerned whether its router is gone.
    fn find_orphans(&mut self) {
        let ids: Vec<ServiceId> = match self.routers {
            true => self.view.stored.keys().cloned().collect(),
            false => self.touched.keys().cloned().collect(),
        };
        for id in ids {
            let routers = &self.view.routers;
            let changed = |server: &Server| {
                let lease = server.record.lease.as_ref();
                lease.is_some_and(|lease| lease.is_orphaned(routers)) != server.orphaned
            };
            let servers = self.view.stored.get(&id).map_or(&[][..], |service| &service.servers);
            let servers = servers.iter().enumerate().filter(|(_, server)| changed(server));
            let places: Vec<usize> = servers.map(|(place, _)| place).collect();
            for place in places {
                let server = Arc::make_mut(&mut self.service(&id).servers[place]);
                server.orphaned = !server.orphaned;
            }
        }
    }

    /// The service to change, the draft's own copy.
    fn service(&mut self, id: &ServiceId) -> &mut Service {
        if !self.touched.contains_key(id) {
            let before = self.view.stored.get(id).cloned();
            if before.is_none() {
                let new = new_service(id, ServiceRecord::default(), Origin::Table, self.numbers);
                self.view.stored.insert(id.clone(), Arc::new(new));
            }
            self.touched.insert(id.clone(), before);
        }
        Arc::make_mut(self.view.stored.get_mut(id).expect("what was touched was made"))
    }

    /// The view, under the services of the configuration.
    pub(crate) fn finish(mut self, revision: Revision, overlay: &Overlay) -> View {
        self.time(revision);
        self.view.horizon.advance(revision);
        self.find_orphans();
        self.settle();
        self.forget_gone();
        let mut names: BTreeSet<Arc<str>> = std::mem::take(&mut self.released);
        for id in self.concerned(overlay) {
            names.insert(id.name().into());
            self.overlay(&id, overlay);
        }
        for name in names {
            let record = self.view.releases.get(&name);
            match named::meaning(&name, &self.view.services, record, self.numbers) {
                Some(meaning) => drop(self.view.names.insert(name, meaning)),
                None => drop(self.view.names.remove(&name)),
            }
        }
        View { revision, ..self.view }
    }

    /// What was touched is indexed, or gone.
    fn settle(&mut self) {
        for (id, before) in &self.touched {
            let service = self.view.stored.get_mut(id).expect("what was touched was made");
            let kept = service.declared || !service.servers.is_empty();
            if kept {
                Arc::make_mut(service).index();
            }
            let now = kept.then(|| Arc::clone(service));
            if !kept {
                self.view.stored.remove(id);
            }
            let counts = &mut self.view.counts;
            counts.stored = counts.stored + servers(now.as_ref()) - servers(before.as_ref());
            counts.suspects = counts.suspects + suspects(now.as_ref()) - suspects(before.as_ref());
        }
    }

    /// Of services that are gone for long enough nothing is said any more: as if they had changed just now.
    fn forget_gone(&mut self) {
        let View { told, stored, names, .. } = &mut self.view;
        if told.len() > 2 * stored.len() + GONE {
            let there = |id: &ServiceId| stored.get(id).is_some() || names.get(&id.name().into()).is_some();
            let gone: Vec<ServiceId> = told.keys().filter(|id| !there(id)).cloned().collect();
            for id in &gone {
                told.remove(id);
            }
        }
    }

    /// The services that may not be as they were: all of the configuration if that is another.
    fn concerned(&mut self, overlay: &Overlay) -> BTreeSet<ServiceId> {
        let mut concerned: BTreeSet<ServiceId> = self.touched.keys().cloned().collect();
        if *self.view.overlay != *overlay {
            concerned.extend(self.view.overlay.keys().chain(overlay.keys()).cloned());
            self.view.overlay = Arc::new(overlay.clone());
        }
        concerned
    }

    /// Of the configuration, else of the table, else not there.
    fn overlay(&mut self, id: &ServiceId, overlay: &Overlay) {
        let services = &mut self.view.services;
        let now = match overlay.get(id) {
            Some(spec) => Some(overlaid(services.get(id), id, spec, self.numbers)),
            None => self.view.stored.get(id).cloned(),
        };
        let count = servers(now.as_ref());
        let before = match now {
            Some(now) => services.insert(id.clone(), now),
            None => services.remove(id),
        };
        self.view.counts.servers = self.view.counts.servers + count - servers(before.as_ref());
    }
}

/// The revision that a change is about, if it says one.
pub(crate) fn revision(change: &Change) -> Option<Revision> {
    if change.kind == REVISION { change.key.parse().ok() } else { None }
}

/// Whether services that need it are told the same of both.
fn is_told_as(one: &ServerRecord, other: &ServerRecord) -> bool {
    let told = |record: &ServerRecord| (record.weight, record.draining.is_some());
    told(one) == told(other)
        && (&one.uri, &one.metadata, &one.load_balancer)
            == (&other.uri, &other.metadata, &other.load_balancer)
}

fn servers(service: Option<&Arc<Service>>) -> usize {
    service.map_or(0, |service| service.servers.len())
}

fn suspects(service: Option<&Arc<Service>>) -> usize {
    let suspects =
        |service: &Arc<Service>| service.servers.iter().filter(|server| server.is_suspect()).count();
    service.map_or(0, suspects)
}

/// A service of the configuration; the one before it if nothing changed.
fn overlaid(
    before: Option<&Arc<Service>>,
    id: &ServiceId,
    spec: &ServiceSpec,
    numbers: &Numbers,
) -> Arc<Service> {
    let mut service = new_service(id, spec.record.clone(), Origin::Configuration, numbers);
    service.declared = true;
    service.servers =
        spec.servers.iter().map(|spec| new_server(&spec.id, spec.record.clone(), numbers)).collect();
    service.servers.sort_by(|one, two| one.id.cmp(&two.id));
    if let Some(before) = before.filter(|before| before.origin == Origin::Configuration) {
        for server in &mut service.servers {
            if let Some(same) = before.server(&server.id).filter(|same| *same == server) {
                *server = Arc::clone(same);
            }
        }
    }
    service.index();
    match before.filter(|before| ***before == service) {
        Some(before) => Arc::clone(before),
        None => Arc::new(service),
    }
}

pub(super) fn new_service(
    id: &ServiceId,
    record: ServiceRecord,
    origin: Origin,
    numbers: &Numbers,
) -> Service {
    let number = numbers.of(id.as_str());
    Service {
        id: id.clone(),
        number,
        record,
        servers: Vec::new(),
        origin,
        declared: false,
        places: Vec::new(),
    }
}

fn new_server(id: &str, record: ServerRecord, numbers: &Numbers) -> Arc<Server> {
    Arc::new(Server {
        id: id.into(),
        number: numbers.of(id),
        hash: hash::stable(id),
        record,
        held: false,
        orphaned: false,
    })
}

impl Service {
    fn index(&mut self) {
        let places = self.servers.iter().zip(0_u32..).map(|(server, place)| (server.number, place));
        self.places = places.collect();
        self.places.sort_unstable();
    }
}
