//! Every plugin's store, by the plugin's name, for as long as the process lives: a new build of a
//! plugin finds what the one before it left.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    StateError, StateStore,
    disk::{Disk, DiskError},
    journal::Open,
};

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
    directory: PathBuf,
    by_plugin: Mutex<HashMap<String, Arc<StateStore>>>,
}

impl StateStores {
    /// Durable stores are kept in `{data}/state`, which is made when the first is opened.
    pub fn new(data: &Path) -> Self {
        Self { directory: data.join("state"), by_plugin: Mutex::default() }
    }

    /// The store of a plugin: the one there, with these options from now on, or a new one. Blocks on
    /// the disk when a store starts or ceases to be durable.
    pub fn open(&self, plugin: &str, options: StateOptions) -> Result<Arc<StateStore>, StateError> {
        let mut by_plugin = self.by_plugin.lock();
        let store = match by_plugin.get(plugin) {
            Some(store) => Arc::clone(store),
            None => Arc::new(StateStore::volatile(options.limit)),
        };
        store.set_limit(options.limit);
        match (store.is_durable(), options.durable) {
            (false, true) => self.persist(plugin, &store).map_err(|error| refused(plugin, &error))?,
            (true, false) => store.stay_in_memory(),
            _ => {}
        }
        by_plugin.insert(plugin.to_owned(), Arc::clone(&store));
        Ok(store)
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

    fn persist(&self, plugin: &str, store: &StateStore) -> Result<(), DiskError> {
        let path = self.directory.join(format!("{plugin}.redb"));
        let open: Open = Box::new({
            let path = path.clone();
            move || Disk::open(&path)
        });
        store.persist(&path, open)
    }
}

fn refused(plugin: &str, error: &DiskError) -> StateError {
    StateError::Disk(format!("durable state of plugin `{plugin}` cannot be opened: {error}").into())
}
