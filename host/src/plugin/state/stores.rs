//! Every plugin's store, by the plugin's name, for as long as the process lives: a new build of a
//! plugin finds what the one before it left.

use std::{
    collections::HashMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use super::{
    StateError, StateStore,
    disk::{DiskError, Place},
};
use crate::files::{self, Hold};

/// How a plugin's state is to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateOptions {
    /// Bytes of keys and values: `state_limit`.
    pub limit: u64,
    /// On disk: `state = "durable"`.
    pub durable: bool,
}

/// The stores of a process.
#[derive(Debug)]
pub struct StateStores {
    data: PathBuf,
    hold: Option<Hold>,
    by_plugin: Mutex<HashMap<String, Arc<StateStore>>>,
    /// What was found wrong on disk, by plugin.
    damaged: Mutex<HashMap<String, String>>,
    /// The directory is another process's.
    closed: AtomicBool,
}

impl StateStores {
    /// Durable stores are kept in `{data}/state`, which is made when the first is opened.
    pub fn new(data: &Path, hold: Option<Hold>) -> Self {
        match files::sweep(&data.join("state")) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(directory = %data.display(), %error, "files that were being written are not removed");
            }
            _ => {}
        }
        let (by_plugin, damaged, closed) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Self { data: data.to_owned(), hold, by_plugin, damaged, closed }
    }

    /// The store of a plugin: the one there, with these options from now on, or a new one. Blocks on
    /// the disk when a store starts or ceases to be durable.
    pub fn open(&self, plugin: &str, options: StateOptions) -> Result<Arc<StateStore>, StateError> {
        let mut by_plugin = self.by_plugin.lock();
        if options.durable && self.closed.load(Relaxed) {
            return Err(handed_over());
        }
        let store = match by_plugin.get(plugin) {
            Some(store) => Arc::clone(store),
            None => Arc::new(StateStore::volatile(options.limit)),
        };
        store.set_limit(options.limit);
        match (store.is_durable(), options.durable) {
            (false, true) => self.persist(plugin, &store)?,
            (true, false) => store.stay_in_memory(),
            _ => {}
        }
        by_plugin.insert(plugin.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    /// Lets go of every file, for another process to open it: what is durable can be read from now on and
    /// not be changed. Blocks until what was changed is on disk.
    pub fn hand_over(&self) {
        let by_plugin = self.by_plugin.lock();
        self.closed.store(true, Relaxed);
        by_plugin.values().for_each(|store| store.hand_over());
    }

    /// Lets go of a plugin's store: the next build begins with nothing, or with what is on disk.
    pub fn forget(&self, plugin: &str) {
        self.by_plugin.lock().remove(plugin);
    }

    /// Every store there is, by plugin, for metrics.
    pub fn all(&self) -> Vec<(String, Arc<StateStore>)> {
        let by_plugin = self.by_plugin.lock();
        by_plugin.iter().map(|(plugin, store)| (plugin.clone(), Arc::clone(store))).collect()
    }

    /// What is wrong with the file of a plugin, if that is why its store was not opened.
    pub fn damaged(&self, plugin: &str) -> Option<String> {
        self.damaged.lock().get(plugin).cloned()
    }

    /// Why stores take no changes now, each with its plugin.
    pub fn failures(&self) -> Vec<(String, Arc<str>)> {
        let by_plugin = self.by_plugin.lock();
        by_plugin.iter().filter_map(|(plugin, store)| Some((plugin.clone(), store.failure()?))).collect()
    }

    fn persist(&self, plugin: &str, store: &StateStore) -> Result<(), StateError> {
        let place = Place::new(&self.data, plugin, self.hold.clone());
        let mut damaged = self.damaged.lock();
        damaged.remove(plugin);
        store.persist(place).map_err(|error| {
            if matches!(error, DiskError::Damaged { .. }) {
                damaged.insert(plugin.to_owned(), error.to_string());
            }
            StateError::Disk(format!("durable state of plugin `{plugin}` cannot be opened: {error}").into())
        })
    }
}

/// Why nothing that is durable changes any more.
pub(super) fn handed_over() -> StateError {
    StateError::Disk("another process of this gateway has taken over the data directory".into())
}
