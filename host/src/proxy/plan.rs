//! Everything that a message needs to know, compiled once and immutable.
//!
//! Whenever the configuration, the table's view or the loaded plugins change, one task compiles a
//! new plan and swaps it in. A message takes what it needs of the plan at its beginning and keeps
//! it to its end: its service, with the servers' endpoints and the plugin generations it will pass.
//! A service of which nothing has changed is shared with the plan before.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{
    Settings,
    metrics::{Metrics, ServiceMetrics},
    routes::Routes,
};
use crate::{
    plugin::{Generation, Kind, PluginSet},
    supervise::Supervisor,
    table::{Named, Release, Server, Service, ServiceId, View, record::Sticky, view::Changed},
    upstream::{
        Endpoint, Endpoints,
        check::{Checks, Verdict, Wanted},
    },
};

/// By then every message that began under an earlier plan has been sent, whatever plugins it asked.
const LINGER: Duration = Duration::from_secs(5);

/// What a plan is compiled from, besides what changes.
pub struct Compiler {
    endpoints: Arc<Endpoints>,
    metrics: Arc<Metrics>,
    checks: Checks,
}

/// What is routed by; see the module.
pub struct Plan {
    /// Of the configuration.
    pub settings: Arc<Settings>,
    /// Of the table.
    pub view: Arc<View>,
    pub(super) routes: Arc<Routes>,
    services: HashMap<ServiceId, Arc<ServicePlan>>,
    meanings: Meanings,
    /// What was loaded; the plan does not keep it.
    plugins: Weak<PluginSet>,
    pub(super) unknown: Arc<ServiceMetrics>,
}

/// By what a client writes: `chat` or `chat@2`.
type Meanings = HashMap<Arc<str>, Meaning, foldhash::fast::RandomState>;

/// What a service's name means.
#[derive(Clone)]
enum Meaning {
    One(Arc<ServicePlan>),
    Released(Arc<Release>),
    Unreleased,
}

/// What came of looking for a service.
pub(super) enum Found<'a> {
    Service(&'a Arc<ServicePlan>),
    /// Which version it is depends on the client and the message.
    Released(&'a Arc<Release>),
    Unreleased,
    Unknown,
}

/// One service, ready to be routed to.
pub struct ServicePlan {
    /// Of the view.
    pub service: Arc<Service>,
    /// Of its `server`, if it has one.
    pub fixed: Option<Arc<Endpoint>>,
    /// Of its server list, in the same order.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Asked for clients without an assignment.
    pub registrar: Option<Plugin>,
    /// In the order in which requests pass.
    pub request_filters: Vec<Plugin>,
    /// In the order in which responses pass.
    pub response_filters: Vec<Plugin>,
    /// Whether one of these may read the body.
    pub reads_responses: bool,
    /// Of the configuration, as of when something of this service changed last.
    pub settings: Arc<Settings>,
    pub(super) metrics: ServiceMetrics,
    /// What active checks say of each of the endpoints; empty: none of them is checked.
    pub(super) verdicts: Vec<Option<Arc<Verdict>>>,
    /// Those before it, by which messages may still be routed, with when that began to end.
    earlier: Vec<(Weak<ServicePlan>, Instant)>,
}

/// A plugin that is configured, and the build of it that is loaded, if any.
#[derive(Clone)]
pub struct Plugin {
    /// As configured.
    pub name: Arc<str>,
    /// None: it is not there, or is no plugin of the kind needed.
    pub generation: Option<Arc<Generation>>,
}

impl Plugin {
    /// Whether bodies are shown to it.
    pub(super) fn reads_body(&self) -> bool {
        self.generation.as_ref().is_some_and(|generation| generation.reads_body())
    }
}

impl Compiler {
    /// Compiles plans whose active checks run on this runtime, under this supervision.
    pub fn new(
        endpoints: Arc<Endpoints>,
        metrics: Arc<Metrics>,
        (runtime, tasks): (Handle, Supervisor),
    ) -> Self {
        let checks = Checks::new(&endpoints, runtime, tasks);
        Self { endpoints, metrics, checks }
    }

    /// What a proxy begins with: no service at all.
    pub fn empty(&self, settings: Arc<Settings>) -> Plan {
        self.compile(None, settings, Arc::new(View::default()), &Arc::default())
    }

    /// Compiles. Services of `before` of which nothing has changed are shared.
    pub fn compile(
        &self,
        before: Option<&Plan>,
        settings: Arc<Settings>,
        view: Arc<View>,
        plugins: &Arc<PluginSet>,
    ) -> Plan {
        self.metrics.plans.inc();
        if let Some(before) = before.filter(|before| before.is_made_of(&settings, plugins)) {
            return self.amend(before, view, plugins);
        }
        let mut services = HashMap::new();
        for service in view.services() {
            let made = self.service(service, &settings, plugins, before);
            services.insert(service.id.clone(), made);
        }
        if let Some(before) = before {
            let gone = before.services.keys().filter(|id| !services.contains_key(*id));
            gone.for_each(|id| self.forget(id));
        }
        let meanings = meanings(&services, &view);
        let routes = Arc::new(Routes::new(&settings.routes));
        let unknown = before.map_or_else(|| Arc::new(self.metrics.service("")), |plan| plan.unknown.clone());
        Plan { settings, view, routes, services, meanings, plugins: Arc::downgrade(plugins), unknown }
    }

    /// Only the view is another: what did not change in it is not looked at.
    fn amend(&self, before: &Plan, view: Arc<View>, plugins: &PluginSet) -> Plan {
        let (mut services, mut meanings) = (before.services.clone(), before.meanings.clone());
        let mut names: BTreeSet<&str> = view.renamed_since(&before.view).map(|(name, _)| &**name).collect();
        for Changed { id, now, .. } in view.changed_since(&before.view) {
            names.insert(id.name());
            let Some(service) = now else {
                services.remove(id);
                meanings.remove(id.as_str());
                self.forget(id);
                continue;
            };
            let made = self.service(service, &before.settings, plugins, Some(before));
            meanings.insert(id.as_str().into(), Meaning::One(made.clone()));
            services.insert(id.clone(), made);
        }
        for name in names {
            match view.named(name).map(|named| meaning(named, &services)) {
                Some(Some(meaning)) => drop(meanings.insert(name.into(), meaning)),
                Some(None) => {}
                None => drop(meanings.remove(name)),
            }
        }
        let (settings, routes) = (before.settings.clone(), before.routes.clone());
        let (plugins, unknown) = (before.plugins.clone(), before.unknown.clone());
        Plan { settings, view, routes, services, meanings, plugins, unknown }
    }

    fn service(
        &self,
        service: &Arc<Service>,
        settings: &Arc<Settings>,
        plugins: &PluginSet,
        before: Option<&Plan>,
    ) -> Arc<ServicePlan> {
        let old = before.and_then(|plan| plan.services.get(&service.id));
        let (request_filters, response_filters) = filters(service, settings, plugins);
        let registrar = service.record.registrar.as_deref();
        let registrar = registrar.map(|name| plugin(name, Kind::Registrar, plugins));
        if let Some(old) = old
            && Arc::ptr_eq(&old.service, service)
            && old.settings == *settings
            && same(&old.request_filters, &request_filters)
            && same(&old.response_filters, &response_filters)
            && same(old.registrar.as_slice(), registrar.as_slice())
        {
            return old.clone();
        }
        let fixed = service.record.server.as_ref().map(|uri| self.endpoints.get(uri));
        let endpoints: Vec<_> =
            service.servers.iter().map(|server| self.endpoints.get(&server.record.uri)).collect();
        let verdicts = self.verdicts(service, fixed.as_ref(), &endpoints);
        let reads = |filter: &Plugin| filter.generation.as_ref().is_some_and(|it| it.reads_responses());
        let reads_responses = response_filters.iter().any(reads);
        Arc::new(ServicePlan {
            service: service.clone(),
            fixed,
            endpoints,
            registrar,
            request_filters,
            response_filters,
            reads_responses,
            settings: settings.clone(),
            metrics: self.metrics.service(service.id.as_str()),
            verdicts,
            earlier: old.map(ServicePlan::superseded).unwrap_or_default(),
        })
    }

    /// Sees to it that the servers of a service are checked as it says, and no others of it.
    fn verdicts(
        &self,
        service: &Service,
        fixed: Option<&Arc<Endpoint>>,
        endpoints: &[Arc<Endpoint>],
    ) -> Vec<Option<Arc<Verdict>>> {
        let usual = service.record.health.as_ref();
        let mut wanted = Vec::new();
        for (server, endpoint) in service.servers.iter().zip(endpoints) {
            if let Some(health) = server.record.check.as_ref().or(usual) {
                wanted.push(Wanted { server: Arc::clone(&server.id), endpoint, health });
            }
        }
        let listed = wanted.len();
        // Messages go there whatever checks say; those who need the service are told.
        if let Some((endpoint, health)) = fixed.zip(usual) {
            wanted.push(Wanted { server: endpoint.uri.as_str().into(), endpoint, health });
        }
        let mut verdicts = self.checks.set(&service.id, &wanted).into_iter();
        if listed == 0 {
            return Vec::new();
        }
        let checked = |server: &Arc<Server>| server.record.check.is_some() || usual.is_some();
        let servers = service.servers.iter();
        servers.map(|server| if checked(server) { verdicts.next() } else { None }).collect()
    }

    /// A service is gone.
    fn forget(&self, id: &ServiceId) {
        self.metrics.forget(id.as_str());
        self.checks.remove(id);
    }
}

impl ServicePlan {
    /// Itself and those before it that are still in use.
    fn superseded(self: &Arc<Self>) -> Vec<(Weak<Self>, Instant)> {
        let used =
            |(plan, since): &(Weak<Self>, Instant)| plan.strong_count() > 0 && since.elapsed() < LINGER;
        let earlier = self.earlier.iter().filter(|earlier| used(earlier)).cloned();
        earlier.chain([(Arc::downgrade(self), Instant::now())]).collect()
    }

    /// Whether no message goes to a server any more, because of this drain.
    pub fn is_quiet(&self, server: &str, stamp: u32) -> bool {
        let earlier = self.earlier.iter().filter(|(_, since)| since.elapsed() < LINGER);
        let mut earlier = earlier.filter_map(|(plan, _)| plan.upgrade());
        let place = self.service.servers.iter().position(|known| *known.id == *server);
        self.avoids(server, stamp)
            && earlier.all(|plan| plan.avoids(server, stamp))
            && place.is_some_and(|place| self.endpoints[place].in_flight() == 0)
    }

    /// Whether messages that are routed by this plan never go to a server, because of this drain.
    fn avoids(&self, server: &str, stamp: u32) -> bool {
        let sticky = self.service.record.sticky != Sticky::Off;
        let draining = self.service.server(server).and_then(|server| server.record.draining.as_ref());
        draining.is_some_and(|draining| draining.stamp == stamp && (draining.over || !sticky))
    }
}

fn meanings(services: &HashMap<ServiceId, Arc<ServicePlan>>, view: &View) -> Meanings {
    let mut meanings = Meanings::default();
    for (id, plan) in services {
        meanings.insert(id.as_str().into(), Meaning::One(plan.clone()));
    }
    for (name, named) in view.names() {
        if let Some(meaning) = meaning(named, services) {
            meanings.insert(name.clone(), meaning);
        }
    }
    meanings
}

fn meaning(named: &Named, services: &HashMap<ServiceId, Arc<ServicePlan>>) -> Option<Meaning> {
    match named {
        Named::One(id) => services.get(id).cloned().map(Meaning::One),
        Named::Released(release) => Some(Meaning::Released(release.clone())),
        Named::Unreleased(_) => Some(Meaning::Unreleased),
    }
}

/// Request filters in order, response filters in reverse; one plugin may be both.
fn filters(service: &Service, settings: &Settings, plugins: &PluginSet) -> (Vec<Plugin>, Vec<Plugin>) {
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    for name in settings.filters.iter().chain(&service.record.filters) {
        let filter = plugin(name, Kind::RequestFilter, plugins);
        let response = plugin(name, Kind::ResponseFilter, plugins);
        let only_response = filter.generation.is_none() && response.generation.is_some();
        if !only_response {
            requests.push(filter);
        }
        if response.generation.is_some() {
            responses.push(response);
        }
    }
    responses.reverse();
    (requests, responses)
}

fn plugin(name: &str, kind: Kind, plugins: &PluginSet) -> Plugin {
    let generation = plugins.by_name.get(name).filter(|generation| generation.is(kind));
    Plugin { name: name.into(), generation: generation.cloned() }
}

fn same(old: &[Plugin], new: &[Plugin]) -> bool {
    let same = |old: &Option<Arc<Generation>>, new: &Option<Arc<Generation>>| match (old, new) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (old, new) => old.is_none() && new.is_none(),
    };
    old.len() == new.len()
        && old
            .iter()
            .zip(new)
            .all(|(old, new)| old.name == new.name && same(&old.generation, &new.generation))
}

impl Plan {
    /// Whether it was compiled from these, whatever the view.
    fn is_made_of(&self, settings: &Arc<Settings>, plugins: &Arc<PluginSet>) -> bool {
        self.settings == *settings && std::ptr::eq(self.plugins.as_ptr(), Arc::as_ptr(plugins))
    }

    /// The service that is meant by `chat` or `chat@2`.
    pub(super) fn find(&self, text: &str) -> Found<'_> {
        match self.meanings.get(text) {
            Some(Meaning::One(plan)) => Found::Service(plan),
            Some(Meaning::Released(release)) => Found::Released(release),
            Some(Meaning::Unreleased) => Found::Unreleased,
            None => Found::Unknown,
        }
    }

    /// Of a name none of whose versions is live, all of them.
    pub(super) fn versions(&self, name: &str) -> impl Iterator<Item = &Arc<ServicePlan>> {
        let ids = match self.view.named(name) {
            Some(Named::Unreleased(ids)) => ids.as_slice(),
            _ => &[],
        };
        ids.iter().filter_map(|id| self.services.get(id))
    }

    /// A service by its exact id.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<ServicePlan>> {
        self.services.get(id)
    }
}

/// Compiles and swaps plans one at a time; others may ask for it at any time.
pub struct Planner {
    compiler: Compiler,
    current: Arc<arc_swap::ArcSwap<Plan>>,
    compiling: Mutex<()>,
}

impl Planner {
    /// Begins with no service.
    pub fn new(compiler: Compiler, settings: Arc<Settings>) -> Self {
        let current = Arc::new(arc_swap::ArcSwap::from_pointee(compiler.empty(settings)));
        Self { compiler, current, compiling: Mutex::new(()) }
    }

    /// What messages take their plan from.
    pub fn current(&self) -> &Arc<arc_swap::ArcSwap<Plan>> {
        &self.current
    }

    /// Compiles a plan out of these and swaps it in: messages that begin from now on go by it.
    pub fn set(&self, settings: Arc<Settings>, view: Arc<View>, plugins: &Arc<PluginSet>) {
        let _one_at_a_time = self.compiling.lock();
        let before = self.current.load_full();
        self.current.store(Arc::new(self.compiler.compile(Some(&before), settings, view, plugins)));
    }
}
