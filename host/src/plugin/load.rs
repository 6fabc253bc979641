//! From a file's bytes and its settings to a generation that is ready to serve.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use wasmtime::component::{Component, Linker};

use super::{
    CallError, Generation, Kind, Settings,
    cache::Cache,
    capability::Capabilities,
    component::{Refusal, Shape, componentize},
    engine,
    etcd::{EtcdClient, EtcdSettings, InvalidEtcdSettings},
    guest::{Guest, Plugin},
    instance::Template,
    link,
    state::{StateError, StateOptions, StateStores},
    stats::{Families, Stats, Use},
    usage,
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
}

/// Loads builds. One for the process.
pub(super) struct Loader {
    engine: wasmtime::Engine,
    sync: Arc<Linker<Guest>>,
    waiting: Arc<Linker<Guest>>,
    cache: Cache,
    states: Arc<StateStores>,
    clusters: Arc<Clusters>,
    families: Families,
    runtime: Handle,
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
    pub(super) bytes: &'a [u8],
    pub(super) sha256: Arc<str>,
    pub(super) settings: Settings,
    pub(super) number: u64,
}

const DECISION_DEADLINE: Duration = Duration::from_millis(50);
const TABLE_DEADLINE: Duration = Duration::from_secs(5);

impl Loader {
    /// Background tasks of capabilities live on `runtime`.
    pub(super) fn new(data: &Path, registry: &prometheus::Registry, runtime: Handle) -> anyhow::Result<Self> {
        let engine = engine::new()?;
        let states = Arc::new(StateStores::new(data));
        let clusters = Arc::<Clusters>::default();
        let clients = Arc::clone(&clusters);
        let clients = move || {
            let clients = clients.lock();
            clients.iter().map(|(name, cluster)| (Arc::clone(name), Arc::clone(&cluster.client))).collect()
        };
        usage::register(registry, Arc::clone(&states), Box::new(clients))?;
        Ok(Self {
            sync: Arc::new(link::sync(&engine)?),
            waiting: Arc::new(link::waiting(&engine)?),
            cache: Cache::new(data, &engine),
            states,
            clusters,
            families: Families::new(registry)?,
            runtime,
            engine,
        })
    }

    /// Compiles or loads a build, checks what it is and asks for, and tries it out. Blocks, for
    /// seconds on large components.
    pub(super) async fn load(&self, build: Build<'_>) -> Result<Generation, LoadError> {
        let component = self.component(&build)?;
        let shape = Shape::of(&component)?;
        shape.check_grants(build.name, &build.settings)?;
        let generation = self.generation(build, component, shape)?;
        generation.canary().await?;
        Ok(generation)
    }

    fn component(&self, build: &Build<'_>) -> Result<Component, Refusal> {
        self.cache.load(&self.engine, &build.sha256, || componentize(build.bytes))
    }

    fn generation(
        &self,
        build: Build<'_>,
        component: Component,
        shape: Shape,
    ) -> Result<Generation, LoadError> {
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
            settings: build.settings,
            capabilities: Capabilities { state, etcd },
            use_of: Arc::clone(&use_of),
        };
        let linker = if shape.waits { &self.waiting } else { &self.sync };
        let template = Template { component, shape, linker: Arc::clone(linker), plugin: Arc::new(plugin) };
        let stats = Stats::new(&self.families, build.name, build.number, use_of);
        Ok(Generation::new(build.number, build.sha256, template, stats))
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

    /// Gives up what capabilities hold elsewhere, such as leases.
    pub(super) async fn drain(&self) {
        let clients: Vec<_> =
            self.clusters.lock().values().map(|cluster| Arc::clone(&cluster.client)).collect();
        for client in clients {
            client.drain().await;
        }
    }
}

/// The hash by which builds are told apart, in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> Arc<str> {
    use std::fmt::Write;
    let digest = Sha256::digest(bytes);
    let hex = digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    hex.into()
}
