//! Events of the plugins directory, as hints that it is worth looking.
//!
//! Without them (a file system that has none, too many watches, a directory that is not there
//! yet) changes are found by looking, a little later.

use std::{path::Path, sync::mpsc};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};

use super::reconcile::Wake;

/// The watch of one directory, taken up again when the directory comes back.
pub(super) struct Watch {
    wakes: mpsc::SyncSender<Wake>,
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    pub(super) fn new(directory: &Path, wakes: mpsc::SyncSender<Wake>) -> Self {
        let mut watch = Self { wakes, watcher: None };
        watch.ensure(directory);
        watch
    }

    /// Watches if nothing is watched and the directory is there.
    pub(super) fn ensure(&mut self, directory: &Path) {
        let there = directory.is_dir();
        if !there {
            self.watcher = None;
        } else if self.watcher.is_none() {
            let watcher = begin(directory, self.wakes.clone());
            let log = |error: &notify::Error| tracing::warn!(directory = %directory.display(), %error, "no events from the plugins directory; looking every few seconds");
            self.watcher = watcher.inspect_err(log).ok();
        }
    }
}

fn begin(directory: &Path, wakes: mpsc::SyncSender<Wake>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files makes events too; only what may have changed them is a hint.
        let hint = match event {
            Ok(event) => match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
                kind => !kind.is_access(),
            },
            Err(_) => true,
        };
        if hint {
            let _ = wakes.try_send(Wake::Look);
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
