//! A view in the making: copies of a service are made only where something in it changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    InvalidEntry, Origin, Overlay, RouterRecord, Server, ServerRecord, Service, ServiceId, ServiceRecord,
    View,
    entry::{Key, read},
    named,
};
use crate::table::{
    Numbers,
    adapter::{Change, Revision},
    hash,
    record::ServiceSpec,
};

/// Collects changes to a view.
pub(crate) struct Draft<'a> {
    view: View,
    numbers: &'a Numbers,
    touched: BTreeSet<ServiceId>,
    /// Whether a router came, went or started anew.
    routers: bool,
}

impl<'a> Draft<'a> {
    /// Begins with what a view holds.
    pub(crate) fn new(view: &View, numbers: &'a Numbers) -> Self {
        Self { view: view.clone(), numbers, touched: BTreeSet::new(), routers: false }
    }

    /// Makes a change.
    pub(crate) fn change(&mut self, change: &Change) {
        match &change.value {
            Some(value) => self.put(&change.kind, &change.key, value),
            None => self.delete(&change.kind, &change.key),
        }
    }

    /// Sets an entry. One that cannot be read changes nothing but the view's problems.
    pub(crate) fn put(&mut self, kind: &str, key: &str, value: &str) {
        let outcome = match Key::parse(kind, key) {
            None => return,
            Some(parsed) => parsed.and_then(|parsed| self.put_parsed(parsed, kind, key, value)),
        };
        let problem = format!("{kind} {key}");
        match outcome {
            Ok(()) => drop(self.view.problems.remove(&problem)),
            Err(error) => drop(self.view.problems.insert(problem, error)),
        }
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
            Key::Release(name) => drop(self.view.releases.insert(name.into(), read(kind, key, value)?)),
            Key::Router(id) => self.put_router(id, read(kind, key, value)?),
        }
        Ok(())
    }

    fn put_router(&mut self, id: &str, record: RouterRecord) {
        let before = self.view.routers.insert(id.into(), record);
        let same = before.is_some_and(|before| before.incarnation == self.view.routers[id].incarnation);
        self.routers |= !same;
    }

    fn put_service(&mut self, id: &ServiceId, record: ServiceRecord) {
        let known = self.view.stored.get(id);
        if known.is_some_and(|known| known.declared && known.record == record) {
            return;
        }
        let service = self.service(id);
        service.record = record;
        service.declared = true;
    }

    fn put_server(&mut self, id: &ServiceId, server: &str, record: ServerRecord) {
        let known = self.view.stored.get(id).and_then(|service| service.server(server));
        if known.is_some_and(|known| !known.held && known.record == record) {
            return;
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
        self.view.problems.remove(&format!("{kind} {key}"));
        match Key::parse(kind, key) {
            Some(Ok(Key::Service(id))) => self.delete_service(&id),
            Some(Ok(Key::Server(id, server))) => self.delete_server(&id, server),
            Some(Ok(Key::Release(name))) => drop(self.view.releases.remove(name)),
            Some(Ok(Key::Router(id))) => self.routers |= self.view.routers.remove(id).is_some(),
            Some(Err(_)) | None => {}
        }
    }

    fn delete_service(&mut self, id: &ServiceId) {
        if self.view.stored.get(id).is_some_and(|service| service.declared) {
            let service = self.service(id);
            service.record = ServiceRecord::default();
            service.declared = false;
        }
    }

    fn delete_server(&mut self, id: &ServiceId, server: &str) {
        let place = self.view.stored.get(id).and_then(|service| service.place_of(server).ok());
        if let Some(place) = place {
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
            false => self.touched.iter().cloned().collect(),
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
        self.touched.insert(id.clone());
        let numbers = self.numbers;
        let new = || Arc::new(new_service(id, ServiceRecord::default(), Origin::Table, numbers));
        Arc::make_mut(self.view.stored.entry(id.clone()).or_insert_with(new))
    }

    /// The view, under the services of the configuration.
    pub(crate) fn finish(mut self, revision: Revision, overlay: &Overlay) -> View {
        self.find_orphans();
        for id in &self.touched {
            let service = self.view.stored.get_mut(id).expect("what was touched was made");
            if service.declared || !service.servers.is_empty() {
                Arc::make_mut(service).index();
            } else {
                self.view.stored.remove(id);
            }
        }
        let (view, configured) = (&self.view, &self.view.services);
        let overlaid = overlay
            .iter()
            .map(|(id, spec)| (id.clone(), overlaid(configured.get(id), id, spec, self.numbers)));
        let mut services: BTreeMap<_, _> = view.stored.clone();
        services.extend(overlaid);
        let names = named::compile(&services, &view.releases, self.numbers);
        View { revision, services, names, ..self.view }
    }
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
