//! The last known view on disk, so that a router can start while the table is away.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    Stats, View,
    adapter::{Entry, Revision},
};
use crate::{
    durable::whole::{self, Unreadable},
    files,
};

/// Changes within this time are saved together.
const COALESCE: Duration = Duration::from_secs(1);
const FILE: &str = "view.json";

/// Where views are saved, and for which adapter.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    pub(super) dir: PathBuf,
    pub(super) adapter: String,
}

#[derive(Serialize, Deserialize)]
struct Document {
    adapter: String,
    revision: Revision,
    entries: Vec<SavedEntry>,
}

#[derive(Serialize, Deserialize)]
struct SavedEntry {
    kind: String,
    key: String,
    value: String,
}

/// Why a saved view cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    File(#[from] Unreadable),
    #[error("{path} was saved with the adapter `{was}`, not `{is}`")]
    Foreign { path: PathBuf, was: String, is: String },
}

impl Saved {
    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// The entries of the last known view.
    pub(super) fn load(&self) -> Result<(Vec<Entry>, Revision), Unusable> {
        let path = self.path();
        let document: Document = whole::load_or_set_aside(&path)?;
        if document.adapter != self.adapter {
            return Err(Unusable::Foreign { path, was: document.adapter, is: self.adapter.clone() });
        }
        let entry = |SavedEntry { kind, key, value }| Entry { kind, key, value };
        Ok((document.entries.into_iter().map(entry).collect(), document.revision))
    }

    /// Replaces the saved view; a crash leaves the old one or the new one.
    pub(super) fn save(&self, view: &View) -> io::Result<()> {
        let entry = |Entry { kind, key, value }| SavedEntry { kind, key, value };
        let document = Document {
            adapter: self.adapter.clone(),
            revision: view.revision,
            entries: view.entries().into_iter().map(entry).collect(),
        };
        files::make_directory(&self.dir)?;
        whole::save(&self.path(), &document)
    }
}

/// Saves each view, at most one in a while, until the table stops.
pub(super) async fn follow(saved: Saved, mut views: watch::Receiver<Arc<View>>, stats: Arc<Stats>) {
    while views.changed().await.is_ok() {
        tokio::time::sleep(COALESCE).await;
        let view = Arc::clone(&views.borrow_and_update());
        save(&saved, view, &stats).await;
    }
}

/// Saves a view, away from the async threads.
pub(super) async fn save(saved: &Saved, view: Arc<View>, stats: &Stats) {
    let to = saved.clone();
    match tokio::task::spawn_blocking(move || to.save(&view)).await {
        Ok(Ok(())) => stats.view_saves.inc(),
        Ok(Err(error)) => {
            stats.view_saves_failed.inc();
            tracing::warn!(path = %saved.path().display(), %error, "cannot save the view; check the data directory");
        }
        Err(_) => stats.view_saves_failed.inc(),
    }
}
