//! Keeps etcd's history short. etcd keeps every value that a key ever had until somebody says that it
//! may go, and a table whose assignments are renewed all day would fill it. So each router that follows
//! the table compacts now and then, to where the history is older than the time that is to be kept and
//! no watch of this router needs it. That several routers do is harmless: who is second has nothing to do.
//!
//! How old a revision is, is known by having asked for the latest one then.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{EtcdError, Revision, convert, link::Link, watch::Watches};
use crate::units::Span;

/// So often within the time that is kept it is looked what may go.
const LOOKS: u32 = 4;
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(300);

/// The task that compacts; ends when dropped.
pub(super) struct Compacting(Option<AbortHandle>);

impl Compacting {
    /// Begins, unless the settings say that it is off.
    pub(super) fn start(link: &Arc<Link>, watches: &Arc<Watches>) -> Self {
        let Some(keep) = link.keeps() else { return Self(None) };
        let compact = compact(Arc::clone(link), Arc::downgrade(watches), keep);
        Self(Some(link.runtime().spawn(compact).abort_handle()))
    }
}

impl Drop for Compacting {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn compact(link: Arc<Link>, watches: Weak<Watches>, keep: Duration) {
    let mut history = History::default();
    let every = (keep / LOOKS).clamp(SHORTEST, LONGEST);
    loop {
        // Routers that started together should not all do this at once.
        sleep(every.mul_f64(rand::random_range(0.5..1.0))).await;
        let Some(needed) = watches.upgrade().map(|watches| watches.needed()) else { return };
        if let Ok(revision) = latest(&link).await {
            history.note(Instant::now(), revision);
        }
        let Some(revision) = history.before(Instant::now(), keep, needed) else { continue };
        match compact_to(&link, revision).await {
            Ok(()) => link.metrics().compacted.one(),
            Err(EtcdError::Compacted(_)) => {}
            Err(error @ EtcdError::Denied(_)) => {
                tracing::warn!(%error, keep = %Span(keep), "this router may not compact etcd's history: something else has to");
                return;
            }
            Err(error) => tracing::debug!(%error, revision, "etcd's history was not compacted"),
        }
    }
}

async fn latest(link: &Arc<Link>) -> Result<Revision, EtcdError> {
    let status = link.read(|client| async move { client.maintenance_client().status().await }).await?;
    Ok(status.header().map_or(0, |header| convert::unsigned(header.revision())))
}

async fn compact_to(link: &Arc<Link>, revision: Revision) -> Result<(), EtcdError> {
    let revision = convert::signed(revision)?;
    let call = link.read(move |client| async move { client.kv_client().compact(revision, None).await });
    call.await.map(drop)
}

/// When which revision was the latest.
#[derive(Default)]
struct History {
    noted: VecDeque<(Instant, Revision)>,
    compacted: Revision,
}

impl History {
    fn note(&mut self, now: Instant, revision: Revision) {
        // Of another cluster, or of one that was restored.
        if self.noted.back().is_some_and(|(_, last)| revision < *last) {
            *self = Self::default();
        }
        self.noted.push_back((now, revision));
    }

    /// To which revision to compact: the latest that is old enough and of which nothing is needed any
    /// more; none if that was done already.
    fn before(&mut self, now: Instant, keep: Duration, needed: Option<Revision>) -> Option<Revision> {
        while self.noted.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= keep) {
            self.noted.pop_front();
        }
        let (at, revision) = *self.noted.front()?;
        let revision = needed.map_or(revision, |needed| needed.min(revision));
        if now.duration_since(at) < keep || revision <= self.compacted {
            return None;
        }
        self.compacted = revision;
        Some(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_young_or_needed_stays() {
        let (begin, keep) = (Instant::now(), Duration::from_secs(60));
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut history = History::default();
        for (seconds, revision) in [(0, 10), (20, 20), (40, 30), (60, 40)] {
            history.note(at(seconds), revision);
        }
        assert_eq!(history.before(at(59), keep, None), None);
        assert_eq!(history.before(at(60), keep, Some(50)), Some(10));
        assert_eq!(history.before(at(61), keep, Some(50)), None, "done already");
        assert_eq!(history.before(at(105), keep, Some(25)), Some(25), "a watch is that far");
        assert_eq!(history.before(at(106), keep, Some(31)), Some(30));
        history.note(at(107), 5);
        assert_eq!(history.before(at(130), keep, None), None, "another history");
        assert_eq!(history.before(at(167), keep, None), Some(5));
    }
}
