//! The plugin host: WebAssembly components that decide about messages.
//!
//! Only this module names wasmtime. To its callers a plugin is a [`Generation`]: an immutable,
//! loaded build that can be asked for a decision about a [`Message`], and [`PluginSet`] is what is
//! loaded now. A message takes the set that is current when it begins and keeps it to its end.
//!
//! From file to decision: `directory` looks, `reconcile` decides what to load, `component`
//! makes a component of the bytes and checks what it asks for, `cache` compiles it or finds it
//! compiled (`script`, where it is one), `instance` and `pool` run it, `link` is what it can call.
//! A core module that asks for little is called without the component around it (`direct`). What a build takes
//! of the workers' time is measured (`meter`) and has a bound (`conduct`), beyond which it is called elsewhere
//! (`aside`).

mod aside;
mod bare;
pub mod body;
mod bounds;
mod builtin;
mod cache;
pub mod call;
pub mod candidates;
pub mod capability;
mod component;
mod conduct;
mod direct;
mod directory;
mod engine;
pub mod etcd;
pub mod generation;
mod guest;
mod instance;
mod link;
mod load;
pub mod message;
mod meter;
mod pool;
mod published;
mod reconcile;
mod script;
pub mod settings;
mod solo;
pub mod state;
mod stats;
pub mod table;
mod ticker;
mod trail;
mod trial;
mod turn;
mod types;
mod usage;
mod wasi;
mod watch;
pub mod wit;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, OnceLock, mpsc},
    time::Duration,
};

pub use body::Body;
pub use builtin::bytes as builtin;
pub use call::{CallError, Cause};
pub use capability::Grant;
pub use engine::MAX_MEMORY;
pub use generation::{Decision, EventVerdict, Generation, Kind, OnError, Rejection, Verdict};
pub use message::Message;
pub use published::{Confinement, NextStatus, PluginState, PluginStatus};
pub use reconcile::SwitchError;
pub use settings::{NextBuild, Settings};
pub use solo::{Inspection, Solo, SoloError};

use crate::own::Own;
use directory::passed_over::PassedOver;
use published::Published;
use reconcile::{Reconciler, Switch, Wake};
use watch::Watch;

/// Every plugin that is loaded now, by name; immutable.
#[derive(Default)]
pub struct PluginSet {
    /// The active generation of each.
    pub by_name: HashMap<Arc<str>, Arc<Generation>>,
}

/// Who uses a plugin as what, in words; none: nobody.
pub type Uses = Box<dyn Fn(&str, Kind) -> Option<String> + Send + Sync>;

/// Where plugins come from and what they may.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of dropped files; need not be there, and is then looked for.
    pub directory: PathBuf,
    /// Where compiled code and durable state are kept.
    pub data: PathBuf,
    /// Of that directory; none: nobody else comes near.
    pub hold: Option<crate::files::Hold>,
    /// How often the directory is looked at without a hint.
    pub interval: Duration,
    /// `[plugin.NAME]`, by name.
    pub settings: BTreeMap<String, Settings>,
    /// Where background tasks of capabilities live.
    pub runtime: tokio::runtime::Handle,
    /// Under which the directory is followed.
    pub tasks: crate::supervise::Supervisor,
}

/// The plugin host.
pub struct Plugins {
    published: Arc<Published>,
    wakes: mpsc::SyncSender<Wake>,
    loader: Arc<load::Loader>,
    uses: Arc<OnceLock<Uses>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Plugins {
    fn drop(&mut self) {
        let _ = self.wakes.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Plugins {
    /// Loads what is there and from then on follows the directory. Blocks until the first look is
    /// done: what is loaded then serves from the first message on.
    pub fn start(options: Options, registry: &prometheus::Registry) -> anyhow::Result<Self> {
        let published = Arc::new(Published::new());
        let (wakes, receiver) = mpsc::sync_channel(64);
        let watch = Watch::new(&options.directory, wakes.clone());
        let mut loader = load::Loader::new(&options.data, options.hold, registry, options.runtime)?;
        loader.nudge = Some(wakes.clone());
        let loader = Arc::new(loader);
        let uses = Arc::<OnceLock<Uses>>::default();
        let mut reconciler = Reconciler {
            loader: Arc::clone(&loader),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            directory: options.directory,
            data: options.data,
            interval: options.interval,
            settings: options.settings,
            published: Arc::clone(&published),
            known: BTreeMap::new(),
            files: directory::Files::new(),
            presence: reconcile::Presence::default(),
            uses: Arc::clone(&uses),
            watch,
            passed_over: PassedOver::default(),
            unknown: BTreeSet::new(),
            next_number: 1,
            switched: Vec::new(),
        };
        let (tasks, (ready, started)) = (options.tasks, mpsc::sync_channel(1));
        let thread = std::thread::Builder::new().name("plugins".into()).spawn(move || {
            reconciler.reconcile();
            let _ = ready.send(());
            tasks.keep_thread("plugins", || reconciler.run(&receiver));
        })?;
        started.recv()?;
        Ok(Self { published, wakes, loader, uses, thread: Some(thread) })
    }

    /// Says who uses plugins: from then on no build takes the place of one that its users need. Only
    /// the first of several counts.
    pub fn used_by(&self, uses: Uses) {
        let _ = self.uses.set(uses);
    }

    /// Has the engine of scripts compiled in the background, if it was not before, so that the first
    /// script takes effect as soon as any other.
    pub fn prepare_scripts(&self) {
        if let Err(error) = self.loader.prepare_scripts() {
            tracing::warn!(%error, "no thread to prepare the script engine; the first script waits for it");
        }
    }

    /// What requests of plugins show at the proxy of this router, and nowhere else.
    pub fn pass(&self) -> http::HeaderValue {
        self.loader.key.pass()
    }

    /// This is where that proxy listens.
    pub fn at_home(&self, proxy: Own) {
        self.loader.key.at_home(proxy);
    }

    /// What is loaded now.
    pub fn current(&self) -> Arc<PluginSet> {
        self.published.current()
    }

    /// What is wrong with what a plugin kept on disk, if that is why it was not loaded.
    pub fn damaged_state(&self, name: &str) -> Option<String> {
        self.loader.states.damaged(name)
    }

    /// Why durable states take no changes now, each with its plugin.
    pub fn state_failures(&self) -> Vec<(String, Arc<str>)> {
        self.loader.states.failures()
    }

    /// Changes whenever [`Self::current`] does.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Every build that serves, drains or was refused.
    pub fn status(&self) -> Vec<PluginStatus> {
        self.published.status()
    }

    /// Applies other settings: plugins whose settings changed become new generations.
    pub fn configure(&self, settings: BTreeMap<String, Settings>) {
        let _ = self.wakes.send(Wake::Configure(settings));
    }

    /// Gives up what capabilities hold elsewhere, such as leases: the last thing before the end.
    pub async fn drain(&self) {
        self.loader.drain().await;
    }

    /// Lets go of the files of durable state, for another process to open them: from then on plugins can
    /// read what is in them and change nothing. Blocks until what was changed is on disk.
    pub fn hand_state_over(&self) {
        self.loader.hand_state_over();
    }

    /// Has the next build of a plugin serve.
    pub async fn promote(&self, name: &str) -> Result<(), SwitchError> {
        self.switch(name, Switch::Promote).await
    }

    /// Ends the trial of a plugin's next build, or brings back what the last promotion replaced.
    pub async fn roll_back(&self, name: &str) -> Result<(), SwitchError> {
        self.switch(name, Switch::RollBack).await
    }

    async fn switch(&self, name: &str, switch: Switch) -> Result<(), SwitchError> {
        let (reply, switched) = tokio::sync::oneshot::channel();
        let wake = Wake::Switch(name.to_owned(), switch, reply);
        // Full only while the reconciler is busy with much else: nothing waits for it on a worker.
        self.wakes.try_send(wake).map_err(|_| SwitchError::Stopping)?;
        switched.await.unwrap_or(Err(SwitchError::Stopping))
    }

    /// Looks at the directory now.
    pub fn look(&self) {
        let _ = self.wakes.try_send(Wake::Look);
    }

    /// Brings gauges up to date, for a scrape.
    pub fn refresh_metrics(&self) {
        for generation in self.published.generations() {
            generation.stats.refresh();
        }
    }

    /// How many builds were refused, and how many rolled back, since the start.
    pub fn refusals_and_rollbacks(&self) -> (u64, u64) {
        self.published.refusals_and_rollbacks()
    }
}
