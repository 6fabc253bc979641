//! What a router knows of changes, kept on disk: so that after its restart a service that comes back is
//! told what it missed, and not all that is there.
//!
//! What is told of a service is compared, by its content, with what was told at the end of the run before.
//! Between the two runs nothing was seen, so one whose latest revision is from then is told everything.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::Discovery;
use crate::{
    durable::whole,
    table::{ServiceId, adapter::Revision, hash, horizon::Horizon},
};

/// Changes within this time are written together.
const COALESCE: Duration = Duration::from_secs(1);
const FILE: &str = "told.json";

/// Where it is kept, and of which table it is.
#[derive(Clone, Debug)]
pub struct Memory {
    file: PathBuf,
    table: u64,
}

/// What is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) horizon: Horizon,
    pub(super) offers: BTreeMap<ServiceId, Seen>,
}

/// What there was of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// When what is told of it changed last.
    pub(super) changed: Revision,
    /// Differs when what is told differs; none: it was gone.
    pub(super) print: Option<u64>,
    /// It depended on more than the table.
    pub(super) local: bool,
}

#[derive(Serialize, Deserialize)]
struct Document<K> {
    table: u64,
    known: K,
}

impl Memory {
    /// In this directory; `table` differs when the table is another one.
    pub fn new(dir: &Path, table: &str) -> Self {
        Self { file: dir.join(FILE), table: hash::stable(table) }
    }

    /// What was known at the end of the run before, if that was with the same table.
    pub(super) fn load(&self) -> Option<Known> {
        // Without it, services that come back are told everything.
        let document: Document<Known> = whole::load_or_set_aside(&self.file).ok()?;
        (document.table == self.table).then_some(document.known)
    }

    /// Replaces what is kept.
    async fn save(&self, known: Known) {
        let (file, document) = (self.file.clone(), Document { table: self.table, known });
        let write = move || whole::save(&file, &document);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(file = %self.file.display(), %error, "cannot write; check the data directory");
        }
    }
}

/// Keeps what is known on disk, until dropped.
pub(super) async fn follow(discovery: Arc<Discovery>, memory: Memory) {
    let mut views = discovery.table.subscribe();
    while views.changed().await.is_ok() {
        tokio::time::sleep(COALESCE).await;
        views.mark_unchanged();
        save(&discovery, &memory).await;
    }
}

/// Writes down what is known now.
pub(super) async fn save(discovery: &Discovery, memory: &Memory) {
    memory.save(discovery.index.known()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_of_one_table() {
        let dir = tempfile::tempdir().unwrap();
        let (memory, other) = (Memory::new(dir.path(), "one"), Memory::new(dir.path(), "two"));
        let seen = Seen { changed: 7, print: Some(u64::MAX), local: true };
        let offers = BTreeMap::from([("chat@2".parse().unwrap(), seen)]);
        memory.save(Known { horizon: Horizon::at(7), offers: offers.clone() }).await;
        assert_eq!(memory.load().unwrap().offers, offers);
        assert!(other.load().is_none());
        std::fs::write(&memory.file, "{").unwrap();
        assert!(memory.load().is_none());
    }
}
