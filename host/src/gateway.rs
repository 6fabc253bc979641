//! The composition root: builds every part from a configuration, connects them, and takes them
//! down again in order. The only module that knows all others.

pub mod check;
mod data;
mod descriptors;
mod mapping;
pub mod repair;
mod routing;
mod scratch;
pub mod takeover;
mod tokens;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    sync::{Mutex, Semaphore, mpsc, watch},
    task::JoinSet,
};

use crate::{
    api,
    condition::Conditions,
    config::{Config, Overrides, reload},
    discovery::{self, Discovery},
    drain::{self, Drained, Trigger},
    files::Hold,
    listener::ListenerOptions,
    own::Own,
    plugin::{self, Plugins, table::TablePlugin},
    proxy::{self, Planner, Proxy},
    release,
    supervise::Supervisor,
    table::{Clock, Table, View, adapter::Revision},
    telemetry, upstream, webhook,
};

use data::Data;
use routing::Router;
use takeover::{Back, Door, Handed, Inheritance, Remains, Successor};
use tokens::Tokens;

pub use scratch::Scratch;

/// Where the configuration came from, to follow it.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// None: there is no file, and nothing to follow.
    pub file: Option<PathBuf>,
    /// What the command line says.
    pub overrides: Overrides,
}

/// A gateway that runs.
pub struct Gateway {
    supervisor: Supervisor,
    config: watch::Receiver<Arc<Config>>,
    reload: mpsc::Sender<()>,
    proxy: Proxy,
    api: SocketAddr,
    table: Arc<Table>,
    discovery: Arc<Discovery>,
    plugins: Arc<Plugins>,
    leave: Trigger,
    drain: Trigger,
    tasks: JoinSet<()>,
    data: Arc<Data>,
    api_listener: Arc<api::Listener>,
    /// None: this process cannot be replaced while it runs.
    door: Option<Door>,
}

impl Gateway {
    /// Builds and starts everything, on the current runtime. When this returns, plugins are loaded,
    /// the table was read (or given up on for now), and both listeners accept.
    pub async fn start(config: Config, source: Source) -> anyhow::Result<Self> {
        Self::succeed(config, source, None).await
    }

    /// As [`Self::start`], with what a process before this one handed over.
    pub async fn succeed(
        config: Config,
        source: Source,
        inherited: Option<Inheritance>,
    ) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (sockets, api_socket, lock) = match inherited {
            Some(Inheritance { proxy, api, lock }) => (proxy, Some(api), Some(lock)),
            None => (Vec::new(), None, None),
        };
        let data = Arc::new(Data::open(&config.data.dir, lock)?);
        let listener = proxy::listener_options(&config.proxy);
        let shares = descriptors::divide(&config, listener.worker_count());
        let api_listener = api::Listener::bind(&config.api, shares.api, api_socket).await?;
        let api_address = api_listener.address()?;
        let registry = telemetry::registry();
        make_plugins_directory(&config.plugins.dir);
        let supervisor = supervisor(&registry)?;
        let plugins = start_plugins(&config, Some(data.hold.clone()), &registry, &supervisor).await?;
        if let Some(damage) = plugins.damaged_state(&config.table.adapter) {
            bail!("the routing table cannot be read: {damage}");
        }
        plugins.prepare_scripts();
        let router = config.router.id.clone().map_or_else(|| data.router_id(), Ok)?;
        let options = mapping::table_options(&config, (&router, &data), api_address, &supervisor);
        let adapter = TablePlugin::new(Arc::clone(&plugins), &config.table.adapter);
        let table = Table::start(Arc::new(adapter), options).await;
        table.stats().register(&registry)?;
        let router = table.claim().await.map_err(anyhow::Error::msg)?.to_string();
        let options = mapping::discovery_options(&config.discovery);
        let options = discovery::Options { connections: shares.services, ..options };
        let metrics = discovery::Metrics::new(&registry)?;
        let memory = mapping::discovery_memory(&config);
        let discovery = Discovery::start(Arc::clone(&table), options, metrics, Some(memory));
        let own = Own(api_address);
        let routing =
            Routing::new(&config, (router.clone(), own), &registry, &table, (&plugins, &discovery))?;
        plugins.used_by(mapping::uses(&config, &routing.parts.plan));
        let webhooks = webhook::Metrics::new(&registry)?;
        let reloads = reload::Metrics::new(&registry)?;
        let listener = ListenerOptions { max_connections: shares.clients, ..listener };
        let directory = config.data.dir.clone();
        let proxy = Proxy::start(listener, sockets, routing.parts.clone())?;
        plugins.at_home(Own(proxy.address()));
        let (drain, holder) = drain::drain();
        let (leave, leaving) = drain::drain();
        let (reload, config) = follow(config, source, (reloads, supervisor.clone()));
        let routes = Arc::new(Router::new(routing.parts.clone(), routing.compiled.subscribe()));
        discovery.follow_drains(Arc::clone(&routes) as Arc<dyn discovery::Traffic>);
        discovery.follow_checks(routing.parts.endpoints.failing());
        let state = api::State {
            config: config.clone(),
            table: Arc::clone(&table),
            discovery: Arc::clone(&discovery),
            plugins: Arc::clone(&plugins),
            routing: Arc::clone(&routes) as _,
            registry,
            drain: holder,
            leaving,
            watchers: Arc::new(Semaphore::new(config.borrow().api.limits.watchers)),
        };
        let sources = webhook::Sources {
            config: config.clone(),
            table: Arc::clone(&table),
            plugins: Arc::clone(&plugins),
            router,
            clock: Clock::System,
        };
        let api_listener = Arc::new(api_listener);
        let api = (Arc::clone(&api_listener), state);
        let tasks = Tasks { api, routing, routes, webhooks: (sources, webhooks) };
        let mut tasks = tasks.spawn(&supervisor);
        tasks.spawn({
            let (data, plugins, table) = (Arc::clone(&data), Arc::clone(&plugins), Arc::clone(&table));
            let watch = move || Arc::clone(&data).watch(Arc::clone(&plugins), Arc::clone(&table));
            supervisor.clone().keep("data", watch)
        });
        let door = Door::open(&directory);
        if let Err(error) = &door {
            tracing::warn!(%error, "no other process can take the place of this one while it runs");
        }
        Ok(Self {
            supervisor,
            config,
            reload,
            proxy,
            api: api_address,
            table,
            discovery,
            plugins,
            leave,
            drain,
            tasks,
            data,
            api_listener,
            door: door.ok(),
        })
    }

    /// Where the proxy listens.
    pub fn proxy_address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Where the API listens.
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// The lines that say where it listens.
    pub fn listeners(&self) -> [String; 2] {
        let config = self.config.borrow();
        let scheme = |tls: bool| if tls { "https" } else { "http" };
        [
            format!("proxy listening on {}://{}", scheme(config.proxy.tls.is_some()), self.proxy.address()),
            format!("api listening on {}://{}", scheme(config.api.tls.is_some()), self.api),
        ]
    }

    /// Looks at the configuration file now, as SIGHUP asks.
    pub fn reload_handle(&self) -> mpsc::Sender<()> {
        self.reload.clone()
    }

    /// Stops accepting, finishes what runs, and takes everything down; what still runs at the
    /// deadline `[proxy.timeouts] drain` is cut off.
    pub async fn drain(mut self) {
        let grace = self.config.borrow().proxy.timeouts.drain;
        self.door = None;
        self.supervisor.stopping();
        tracing::info!(connections = self.proxy.open_connections(), ?grace, "draining");
        self.leave.start();
        self.proxy.drain(grace).await;
        let control =
            Control { drain: self.drain, tasks: self.tasks, discovery: self.discovery, table: self.table };
        control.stop(&self.plugins).await;
        tracing::info!("drained");
    }

    /// The next process that asks for the place of this one.
    pub async fn successor(&self) -> Successor {
        match &self.door {
            Some(door) => door.successor().await,
            None => std::future::pending().await,
        }
    }

    fn inheritance(&self) -> std::io::Result<Inheritance> {
        let (proxy, api, lock) = (self.proxy.sockets()?, self.api_listener.socket()?, self.data.hold.lock()?);
        Ok(Inheritance { proxy, api, lock })
    }

    /// Hands over to another process; see [`takeover`]. Messages are accepted and served until it serves
    /// itself, and those that run then are finished as in a drain.
    pub async fn hand_over(self, successor: Successor) -> Handed {
        let given = match self.inheritance() {
            Ok(inheritance) => successor.give(inheritance).await,
            Err(error) => Err(error),
        };
        let (successor, inheritance) = match given {
            Ok(given) => given,
            Err(error) => {
                tracing::warn!(%error, "another process asked to take over, and nothing was handed over");
                return Handed::Not(Box::new(self));
            }
        };
        tracing::info!("handing over to another process");
        let config = Config::clone(&self.config.borrow());
        self.supervisor.stopping();
        self.leave.start();
        let Self { proxy, plugins, drain, tasks, discovery, table, data, .. } = self;
        Control { drain, tasks, discovery, table }.stop(&plugins).await;
        let states = Arc::clone(&plugins);
        let _ = tokio::task::spawn_blocking(move || states.hand_state_over()).await;
        let waited = successor.wait().await;
        let remains = Remains { proxy, grace: config.proxy.timeouts.drain, _plugins: plugins };
        match waited {
            Ok(()) => {
                drop(inheritance);
                data.hold.let_go();
                tracing::info!("another process has taken over");
                remains.drain().await;
                Handed::Over
            }
            Err(error) => {
                tracing::error!(%error, "the process that was to take over does not serve; going on with a new start");
                Handed::Back(Box::new(Back { inheritance, config, remains }))
            }
        }
    }
}

/// Everything but the way of messages.
struct Control {
    drain: Trigger,
    tasks: JoinSet<()>,
    discovery: Arc<Discovery>,
    table: Arc<Table>,
}

impl Control {
    async fn stop(mut self, plugins: &Plugins) {
        if let Drained::Late(streams) = self.drain.finish(Duration::from_secs(2)).await {
            tracing::info!(streams, "cut off what still ran on the API");
        }
        self.tasks.shutdown().await;
        self.discovery.stop().await;
        self.table.stop().await;
        let _ = tokio::time::timeout(Duration::from_secs(2), plugins.drain()).await;
    }
}

fn supervisor(registry: &prometheus::Registry) -> prometheus::Result<Supervisor> {
    let conditions = Conditions::default();
    conditions.register(registry)?;
    let supervisor = Supervisor::new(conditions);
    supervisor.register(registry)?;
    Ok(supervisor)
}

/// What runs besides the proxy, for as long as the gateway.
struct Tasks {
    api: (Arc<api::Listener>, api::State),
    routing: Routing,
    routes: Arc<Router>,
    webhooks: (webhook::Sources, webhook::Metrics),
}

impl Tasks {
    fn spawn(self, supervisor: &Supervisor) -> JoinSet<()> {
        let Self { api, routing, routes, webhooks } = self;
        let (config, table) = (api.1.config.clone(), Arc::clone(&api.1.table));
        let routing = Arc::new(Mutex::new(routing));
        let mut tasks = JoinSet::new();
        let (listener, state) = api;
        let serve = move || api::serve(Arc::clone(&listener), state.clone());
        tasks.spawn(supervisor.clone().keep("api", serve));
        let follow = move || {
            let (routing, config) = (Arc::clone(&routing), config.clone());
            async move { routing.lock().await.follow(config).await }
        };
        tasks.spawn(supervisor.clone().keep("routing", follow));
        let guard = move || {
            let routes = Arc::clone(&routes) as Arc<dyn release::guard::Counts>;
            release::guard::watch(Arc::clone(&table), routes, Clock::System)
        };
        tasks.spawn(supervisor.clone().keep("release-guard", guard));
        let (sources, metrics) = webhooks;
        let tell = move || webhook::follow(sources.clone(), metrics.clone());
        tasks.spawn(supervisor.clone().keep("webhooks", tell));
        tasks
    }
}

/// So that a file can be dropped there. Without it the gateway runs all the same.
fn make_plugins_directory(directory: &Path) {
    if directory.is_dir() {
        return;
    }
    let shown = directory.display();
    match std::fs::create_dir_all(directory) {
        Ok(()) => tracing::info!(directory = %shown, "plugins directory made"),
        Err(error) => tracing::warn!(directory = %shown, %error, "plugins directory not made"),
    }
}

/// Loading plugins blocks, so it is done beside the runtime.
async fn start_plugins(
    config: &Config,
    hold: Option<Hold>,
    registry: &prometheus::Registry,
    supervisor: &Supervisor,
) -> anyhow::Result<Arc<Plugins>> {
    let options = plugin::Options {
        directory: config.plugins.dir.clone(),
        data: config.data.dir.clone(),
        hold,
        interval: config.plugins.interval,
        settings: mapping::plugin_settings(config),
        runtime: tokio::runtime::Handle::current(),
        tasks: supervisor.clone(),
    };
    let registry = registry.clone();
    let started = tokio::task::spawn_blocking(move || Plugins::start(options, &registry)).await?;
    Ok(Arc::new(started.context("the plugin host does not start")?))
}

fn follow(
    config: Config,
    source: Source,
    told: (reload::Metrics, Supervisor),
) -> (mpsc::Sender<()>, watch::Receiver<Arc<Config>>) {
    let (nudge, nudges) = mpsc::channel(1);
    let config = Arc::new(config);
    match source.file {
        Some(file) => (nudge, reload::follow((file, source.overrides), config, nudges, told)),
        None => (nudge, watch::channel(config).1),
    }
}

/// What the plan is compiled from and what messages are routed with.
struct Routing {
    parts: proxy::Parts,
    planner: Planner,
    /// The revision of the view in the plan.
    compiled: watch::Sender<Revision>,
    router: String,
    tokens: Tokens,
    table: Arc<Table>,
    plugins: Arc<Plugins>,
    discovery: Arc<Discovery>,
}

impl Routing {
    fn new(
        config: &Config,
        (router, own): (String, Own),
        registry: &prometheus::Registry,
        table: &Arc<Table>,
        (plugins, discovery): (&Arc<Plugins>, &Arc<Discovery>),
    ) -> anyhow::Result<Self> {
        let upstream_options =
            upstream::UpstreamOptions { own: Some(own), ..proxy::upstream_options(&config.proxy) };
        let endpoints = upstream::Endpoints::new(upstream_options, upstream::Metrics::new(registry)?);
        let metrics = proxy::Metrics::new(registry)?;
        let checks = (tokio::runtime::Handle::current(), table.tasks().clone());
        let compiler = proxy::Compiler::new(Arc::clone(&endpoints), Arc::clone(&metrics), checks);
        let settings = proxy::Settings::new(&config.proxy, &config.routes, &router);
        let planner = Planner::new(compiler, Arc::new(settings));
        let plan = Arc::clone(planner.current());
        let assignments = Arc::clone(table.assignments());
        let tasks = table.tasks().clone();
        let parts = proxy::Parts { plan, assignments, endpoints, metrics, tasks };
        let routing = Self {
            parts,
            planner,
            compiled: watch::Sender::new(0),
            router,
            tokens: Tokens::new(config.proxy.token.clone()).context("proxy.token")?,
            table: Arc::clone(table),
            plugins: Arc::clone(plugins),
            discovery: Arc::clone(discovery),
        };
        routing.table.assignments().limit(mapping::new_clients(config));
        routing.compile(routing.settings(config));
        Ok(routing)
    }

    fn settings(&self, config: &Config) -> Arc<proxy::Settings> {
        let settings = proxy::Settings::new(&config.proxy, &config.routes, &self.router);
        Arc::new(settings.with_tokens(self.tokens.current()).with_pass(self.plugins.pass()))
    }

    fn compile(&self, settings: Arc<proxy::Settings>) {
        let view = self.table.view();
        self.planner.set(settings, Arc::clone(&view), &self.plugins.current());
        self.compiled.send_replace(view.revision);
    }

    /// Compiles a new plan whenever something changes that it is made of.
    async fn follow(&mut self, mut config: watch::Receiver<Arc<Config>>) {
        let (mut views, mut plugins) = (self.table.subscribe(), self.plugins.subscribe());
        let mut revisions = self.table.revisions();
        let mut running = Arc::clone(&config.borrow_and_update());
        let mut settings = self.settings(&running);
        loop {
            self.compile(Arc::clone(&settings));
            tokio::select! {
                changed = next_view(&self.compiled, &mut views, &mut revisions) => if changed.is_err() { return },
                changed = plugins.changed() => if changed.is_err() { return },
                () = self.tokens.changed() => settings = self.settings(&running),
                Ok(()) = config.changed() => {
                    let new = Arc::clone(&config.borrow_and_update());
                    self.reconfigure(&running, &new);
                    self.tokens.reconfigure(new.proxy.token.as_ref()).await;
                    running = new;
                    settings = self.settings(&running);
                }
            }
        }
    }

    fn reconfigure(&self, running: &Config, new: &Config) {
        let settings = mapping::plugin_settings(new);
        if settings != mapping::plugin_settings(running) {
            self.plugins.configure(settings);
        }
        self.discovery.configure(mapping::discovery_options(&new.discovery));
        self.table.assignments().limit(mapping::new_clients(new));
        if new.services != running.services {
            self.table.set_overlay(new.services.clone());
        }
    }
}

/// Waits for a view that says something new. At revisions at which it does not there is nothing to
/// compile.
async fn next_view(
    compiled: &watch::Sender<Revision>,
    views: &mut watch::Receiver<Arc<View>>,
    revisions: &mut watch::Receiver<Revision>,
) -> Result<(), watch::error::RecvError> {
    loop {
        tokio::select! {
            biased;
            changed = views.changed() => return changed,
            changed = revisions.changed() => changed?,
        }
        let revision = *revisions.borrow_and_update();
        if !views.has_changed()? {
            compiled.send_replace(revision);
        }
    }
}
