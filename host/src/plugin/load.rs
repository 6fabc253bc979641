//! From a file's bytes and its settings to a generation that is ready to serve.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use wasmtime::component::{Component, Linker};

use crate::{durable, files::Hold};

use super::{
    CallError, Generation, Kind, Settings,
    aside::Aside,
    bounds,
    cache::{self, Cache, Held, Source},
    capability::Capabilities,
    component::{Refusal, Shape, componentize},
    direct,
    directory::{Content, Format},
    engine,
    etcd::{EtcdClient, EtcdSettings, InvalidEtcdSettings},
    guest::{Guest, Plugin},
    instance::{Code, Instance, Template},
    link,
    reconcile::Wake,
    script::{Script, engine::ScriptEngine},
    state::{StateError, StateOptions, StateStores},
    stats::{Families, Stats, Use},
    ticker::Ticker,
    trail::{Key, Mark},
    trial::Trial,
    usage,
    wasi::preview1::Adapter,
};

/// Why a build is not published.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("grant `etcd`: config.{0}")]
    Etcd(#[from] InvalidEtcdSettings),
    #[error(transparent)]
    Canary(#[from] CallError),
    #[error("there is no thread to try it out on: {0}")]
    Thread(#[from] std::io::Error),
}

/// Loads builds. One for the process.
pub(super) struct Loader {
    engine: wasmtime::Engine,
    ticker: Arc<Ticker>,
    /// Of the marks of plugins, and their pass.
    pub(super) key: Key,
    sync: Arc<Linker<Guest>>,
    waiting: Arc<Linker<Guest>>,
    direct: direct::Host,
    cache: Arc<Cache>,
    pub(super) states: Arc<StateStores>,
    clusters: Arc<Clusters>,
    families: Families,
    aside: Arc<Aside>,
    runtime: Handle,
    script_engine: Arc<ScriptEngine>,
    /// Tells whoever decides about builds that one of them needs a look.
    pub(super) nudge: Option<mpsc::SyncSender<Wake>>,
}

type Clusters = Mutex<HashMap<Arc<str>, Cluster>>;

/// The way of one plugin to its etcd cluster; it outlives the plugin's builds.
struct Cluster {
    settings: EtcdSettings,
    deadline: Duration,
    client: Arc<EtcdClient>,
}

/// A build to load.
pub(super) struct Build<'a> {
    pub(super) name: &'a Arc<str>,
    pub(super) content: &'a Content,
    pub(super) settings: Settings,
    pub(super) number: u64,
}

/// What came of a file's bytes.
struct Loaded {
    code: Code,
    shape: Shape,
    held: Held,
}

const DECISION_DEADLINE: Duration = Duration::from_millis(50);
const TABLE_DEADLINE: Duration = Duration::from_secs(5);

impl Loader {
    /// Background tasks of capabilities live on `runtime`.
    pub(super) fn new(
        data: &Path,
        hold: Option<Hold>,
        registry: &prometheus::Registry,
        runtime: Handle,
    ) -> anyhow::Result<Self> {
        let (engine, ticker) = engine::new()?;
        let states = Arc::new(StateStores::new(data, hold));
        let clusters = Arc::<Clusters>::default();
        let clients = Arc::clone(&clusters);
        let clients = move || {
            let clients = clients.lock();
            clients.iter().map(|(name, cluster)| (Arc::clone(name), Arc::clone(&cluster.client))).collect()
        };
        usage::register(registry, Arc::clone(&states), Box::new(clients))?;
        let cache = Arc::new(Cache::new(data, &engine, cache::Metrics::new(registry)?));
        Ok(Self {
            sync: Arc::new(link::sync(&engine)?),
            waiting: Arc::new(link::waiting(&engine)?),
            direct: link::direct(&engine)?,
            script_engine: Arc::new(ScriptEngine::new(engine.clone(), Arc::clone(&cache))),
            cache,
            states,
            clusters,
            families: Families::new(registry)?,
            aside: Arc::default(),
            runtime,
            nudge: None,
            engine,
            ticker,
            key: Key::random(),
        })
    }

    /// Compiles or loads a build, checks what it is and asks for, and tries it out. Blocks, for
    /// seconds on large components.
    pub(super) async fn load(&self, build: Build<'_>) -> Result<Generation, LoadError> {
        let loaded = self.code(build.name, build.content, &build.settings)?;
        loaded.shape.check_grants(build.name, &build.settings)?;
        let (number, sha256) = (build.number, Arc::clone(&build.content.sha256));
        let is_script = build.content.format == Format::Script;
        let (mut template, use_of) = self.template(&build, loaded)?;
        let first = if is_script { self.read_script(&mut template).await? } else { None };
        let stats = Stats::new(&self.families, build.name, number, use_of);
        let generation = Generation::new(number, sha256, template, stats, Arc::clone(&self.aside));
        generation.canary(first).await?;
        Ok(generation)
    }

    /// What a build is and asks for, and how large its machine code is.
    pub(super) fn shape(&self, name: &str, content: &Content) -> Result<(Shape, usize), Refusal> {
        let Loaded { code, shape, .. } = self.code(name, content, &Settings::default())?;
        Ok((shape, code.size()))
    }

    /// Begins to try out a build, loaded under a name of its own.
    pub(super) async fn load_next(
        &self,
        plugin: &Arc<str>,
        build: Build<'_>,
        canary: u8,
    ) -> Result<Trial, LoadError> {
        let content = build.content.clone();
        let next = self.load(build).await?;
        Ok(Trial::begin(plugin, next, content, canary, &self.families)?)
    }

    /// Everything that is in use was loaded: of the rest that is kept compiled, the oldest may go.
    pub(super) fn prune_compiled(&self) {
        self.cache.prune();
    }

    /// Has the plugin of this name begin with nothing in its state.
    pub(super) fn forget_state(&self, name: &str) {
        self.states.forget(name);
    }

    fn code(&self, name: &str, content: &Content, settings: &Settings) -> Result<Loaded, Refusal> {
        let adapter = Adapter::of(settings);
        if content.format == Format::Wasm
            && let Some(shape) = self.direct.shape(&content.bytes)
        {
            let checked = || componentize(&content.bytes, adapter).map(|_| content.bytes.as_ref().into());
            let source = Source { plugin: name, key: &content.sha256 };
            let (module, held) = self.cache.load(&self.engine, source, checked)?;
            let linked = self.direct.linker.instantiate_pre(&module);
            let build = linked.map_err(|error| Refusal::NotCompiled(format!("{error:#}")))?;
            return Ok(Loaded { code: Code::Direct(build), shape, held });
        }
        let (component, held) = self.component(name, content, adapter)?;
        let mut shape = shape_of(&component, content.format)?;
        shape.configure(settings);
        let linker = if shape.waits { &self.waiting } else { &self.sync };
        Ok(Loaded { code: Code::Component(component, Arc::clone(linker)), shape, held })
    }

    fn component(
        &self,
        name: &str,
        content: &Content,
        adapter: Adapter,
    ) -> Result<(Component, Held), Refusal> {
        let key = format!("{}{}", content.sha256, adapter.mark());
        match content.format {
            Format::Wasm => {
                let source = Source { plugin: name, key: &key };
                self.cache.load(&self.engine, source, || componentize(&content.bytes, adapter))
            }
            Format::Script => self.script_engine.component(),
        }
    }

    /// Has the engine of scripts compiled before the first of them comes.
    pub(super) fn prepare_scripts(&self) -> std::io::Result<()> {
        self.script_engine.prepare()
    }

    /// Has a script say what it is, and puts it on the lane where it belongs. Its first instance, if
    /// that is where this one is.
    async fn read_script(&self, template: &mut Template) -> Result<Option<Instance>, CallError> {
        let first = template.read_script().await?;
        if !template.shape.waits {
            return Ok(Some(first));
        }
        if let Code::Component(_, linker) = &mut template.code {
            *linker = Arc::clone(&self.waiting);
        }
        Ok(None)
    }

    fn template(&self, build: &Build<'_>, loaded: Loaded) -> Result<(Template, Arc<Use>), LoadError> {
        let Loaded { code, shape, held } = loaded;
        let options =
            StateOptions { limit: build.settings.state_limit, durable: build.settings.durable_state };
        let state = self.states.open(build.name, options)?;
        let is_table = shape.kinds.contains(&Kind::RoutingTable);
        let default = if is_table { TABLE_DEADLINE } else { DECISION_DEADLINE };
        let deadline = build.settings.deadline.unwrap_or(default);
        let etcd = match shape.imports_etcd() {
            true => Some(self.cluster(build.name, &build.settings, deadline)?),
            false => None,
        };
        let use_of = Arc::new(Use::default());
        let plugin = Plugin {
            name: Arc::clone(build.name),
            deadline,
            passed: bounds::passed(&build.settings, is_table),
            settings: build.settings.clone(),
            capabilities: Capabilities { state, etcd },
            language: shape.language,
            script: script_of(build)?,
            ticker: Arc::clone(&self.ticker),
            mark: Mark::new(&self.key, build.name),
            use_of: Arc::clone(&use_of),
            nudge: self.nudge.clone(),
        };
        Ok((Template { code, shape, plugin: Arc::new(plugin), _held: held }, use_of))
    }

    fn cluster(
        &self,
        name: &Arc<str>,
        settings: &Settings,
        deadline: Duration,
    ) -> Result<Arc<EtcdClient>, InvalidEtcdSettings> {
        let settings = EtcdSettings::new(|key| settings.config.get(key).map(String::as_str))?;
        let mut clusters = self.clusters.lock();
        if let Some(cluster) =
            clusters.get(name).filter(|known| known.settings == settings && known.deadline == deadline)
        {
            return Ok(Arc::clone(&cluster.client));
        }
        let client = Arc::new(EtcdClient::new(settings.clone(), deadline, self.runtime.clone()));
        clusters.insert(Arc::clone(name), Cluster { settings, deadline, client: Arc::clone(&client) });
        Ok(client)
    }

    /// Lets go of the files of durable state.
    pub(super) fn hand_state_over(&self) {
        self.states.hand_over();
    }

    /// Gives up what capabilities hold elsewhere, such as leases.
    pub(super) async fn drain(&self) {
        let clients: Vec<_> =
            self.clusters.lock().values().map(|cluster| Arc::clone(&cluster.client)).collect();
        for client in clients {
            client.drain().await;
        }
    }
}

fn shape_of(component: &Component, format: Format) -> Result<Shape, Refusal> {
    match format {
        Format::Wasm => Shape::of(component),
        Format::Script => Shape::of_script(component),
    }
}

fn script_of(build: &Build<'_>) -> Result<Option<Script>, Refusal> {
    if build.content.format != Format::Script {
        return Ok(None);
    }
    let text = str::from_utf8(&build.content.bytes);
    let text = text.map_err(|error| Refusal::NotText(error.valid_up_to()))?.into();
    Ok(Some(Script { file: format!("{}{}", build.name, Format::Script.extension()).into(), text }))
}

/// The hash by which builds are told apart, in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> Arc<str> {
    durable::sha256(bytes).into()
}
