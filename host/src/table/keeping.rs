//! What is remembered of assignments on disk, so that clients stay where they are when a router starts while the table
//! is away: beside the view, loaded only with it.
//!
//! Pins come first, then what was used last, up to a bound in entries and in bytes. It is written in the background,
//! when it changed, the more rarely the longer it is; and at the end.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Assignments, assignments::Kept, saved::Saved, shared::Shared};
use crate::{
    durable::whole::{self, Unreadable},
    files,
};

const FILE: &str = "assignments.json";
/// At most so many are kept.
const ENTRIES: usize = 200_000;
/// Of at most so many bytes of text together.
const BYTES: usize = 32 << 20;
/// From one look to the next.
const EVERY: Duration = Duration::from_secs(1);
/// So many bytes are written in a second at the most, on average.
const RATE: u64 = 4 << 20;

#[derive(Serialize, Deserialize)]
struct Document {
    adapter: String,
    assignments: Vec<Row>,
}

/// Client, service, server, stamp, expiry, and whether it is held.
#[derive(Serialize, Deserialize)]
struct Row(String, String, String, u64, Option<u64>, bool);

/// Where assignments are kept, and which of their changes was written there last.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    path: PathBuf,
    adapter: String,
    written: Option<u64>,
}

impl Keeping {
    pub(super) fn new(saved: &Saved) -> Self {
        Self { path: saved.dir.join(FILE), adapter: saved.adapter.clone(), written: None }
    }

    /// Remembers what was kept; returns how many they were.
    pub(super) fn put_back(&self, assignments: &Assignments) -> usize {
        let document: Document = match whole::load_or_set_aside(&self.path) {
            Ok(document) => document,
            Err(error @ Unreadable::Io { .. }) => {
                tracing::warn!(%error, "clients whose assignments were kept may move");
                return 0;
            }
            Err(Unreadable::Absent(_) | Unreadable::Damaged { .. }) => return 0,
        };
        if document.adapter != self.adapter {
            return 0;
        }
        let kept = document.assignments.len();
        for Row(client, service, server, stamp, expires, held) in document.assignments {
            assignments.put_back(&Kept { client, service, server, stamp, expires, held });
        }
        kept
    }

    /// Writes what is remembered now, if it changed; returns how many bytes. Blocks.
    fn save(&mut self, assignments: &Assignments) -> io::Result<u64> {
        // Before they are copied: what changes meanwhile is written the next time.
        let changes = assignments.changes();
        if self.written == Some(changes) {
            return Ok(0);
        }
        let kept = chosen(assignments, ENTRIES, BYTES);
        let row = |kept: Kept| {
            let Kept { client, service, server, stamp, expires, held } = kept;
            Row(client, service, server, stamp, expires, held)
        };
        let document =
            Document { adapter: self.adapter.clone(), assignments: kept.into_iter().map(row).collect() };
        files::make_directory(self.path.parent().unwrap_or(Path::new(".")))?;
        whole::save(&self.path, &document)?;
        self.written = Some(changes);
        Ok(fs::metadata(&self.path)?.len())
    }
}

/// Keeps what is remembered on disk, until dropped.
pub(super) async fn follow(mut keeping: Keeping, shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let (again, bytes) = save(keeping, &shared).await;
        keeping = again;
        tokio::time::sleep(Duration::from_millis(bytes * 1000 / RATE)).await;
    }
}

/// Writes what is remembered, away from the async threads; returns how many bytes.
pub(super) async fn save(keeping: Keeping, shared: &Shared) -> (Keeping, u64) {
    let (assignments, mut writing) = (Arc::clone(&shared.assignments), keeping.clone());
    let saved = tokio::task::spawn_blocking(move || {
        let saved = writing.save(&assignments);
        (writing, saved)
    });
    match saved.await {
        Ok((keeping, Ok(bytes))) => (keeping, bytes),
        Ok((keeping, Err(error))) => {
            shared.stats.view_saves_failed.inc();
            let path = keeping.path.display();
            tracing::warn!(%path, %error, "cannot keep the assignments; check the data directory");
            // Not again at once.
            (keeping, 10 * RATE)
        }
        Err(_) => (keeping, RATE),
    }
}

/// Pins, then what was decided here alone, then what was used last, in that order.
fn chosen(assignments: &Assignments, entries: usize, bytes: usize) -> Vec<Kept> {
    let rank = |kept: &Kept| match (kept.expires, kept.held) {
        (None, false) => (0, 0),
        (_, true) => (1, 0),
        (Some(expires), false) => (2, u64::MAX - expires),
    };
    let mut kept = Vec::new();
    for part in 0..assignments.parts() {
        kept.append(&mut assignments.part(part));
        if kept.len() > 2 * entries {
            kept.select_nth_unstable_by_key(entries, rank);
            kept.truncate(entries);
        }
    }
    // By their names too, so that the same is written the same way.
    kept.sort_by(|one, other| {
        let order = rank(one).cmp(&rank(other));
        order.then_with(|| one.client.cmp(&other.client)).then_with(|| one.service.cmp(&other.service))
    });
    kept.truncate(entries);
    let mut text = 0;
    let fitting = kept.iter().take_while(|kept| {
        text += kept.client.len() + kept.service.len() + kept.server.len();
        text <= bytes
    });
    let count = fitting.count();
    kept.truncate(count);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Table, testing};

    fn kept(client: &str, expires: Option<u64>, held: bool) -> Kept {
        let (client, server) = (client.to_owned(), "a".to_owned());
        Kept { client, service: "chat".to_owned(), server, stamp: 7, expires, held }
    }

    fn clients(kept: &[Kept]) -> Vec<&str> {
        kept.iter().map(|kept| &*kept.client).collect()
    }

    #[tokio::test]
    async fn pins_are_kept_first_then_what_was_used_last() {
        let dir = tempfile::tempdir().unwrap();
        let options = crate::table::Options::new("here", "memory");
        let table = Table::start(testing::TestTable::new(), options.clone()).await;
        let far = table.time().now() + 1_000_000;
        let assignments = table.assignments();
        for (client, expires, held) in [
            ("early", Some(far), false),
            ("pin", None, false),
            ("late", Some(far + 5000), false),
            ("alone", None, true),
        ] {
            assignments.put_back(&kept(client, expires, held));
        }
        assert_eq!(clients(&chosen(assignments, 9, 9999)), ["pin", "alone", "late", "early"]);
        assert_eq!(clients(&chosen(assignments, 3, 9999)), ["pin", "alone", "late"]);
        assert_eq!(clients(&chosen(assignments, 9, 20)), ["pin", "alone"]);

        let saved = Saved { dir: dir.path().to_owned(), adapter: "etcd".to_owned() };
        let mut keeping = Keeping::new(&saved);
        keeping.save(assignments).unwrap();
        assert_eq!(keeping.save(assignments).unwrap(), 0, "nothing changed");
        assignments.put_back(&kept("pin", None, false));
        assert!(keeping.save(assignments).unwrap() > 0);

        let fresh = Table::start(testing::TestTable::new(), options).await;
        assert_eq!(Keeping::new(&saved).put_back(fresh.assignments()), 4);
        assert_eq!(clients(&chosen(fresh.assignments(), 9, 9999)), ["pin", "alone", "late", "early"]);
        let other = Saved { adapter: "memory".to_owned(), ..saved };
        assert_eq!(Keeping::new(&other).put_back(fresh.assignments()), 0, "of another adapter");
    }
}
