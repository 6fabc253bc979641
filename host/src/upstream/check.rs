//! Active checks: asks servers now and then whether they are well.
//!
//! A [`Verdict`] belongs to one service and one of its servers: what another service makes of the
//! same server neither causes nor ends it, and a changed interval carries it over. What is asked is
//! shared: one `probe` for one URI and one question, however many services want to know. [`Checks`]
//! holds both, and is told of each service what is to be checked.

mod ask;
mod probe;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};

use super::{Endpoint, Endpoints};
use crate::{
    supervise::Supervisor,
    table::record::{HealthCheck, ServiceId},
};
use probe::{Probe, Prober};

pub use verdict::Verdict;

/// The servers that fail their active checks, by service: ids of the server list, and the URI of a
/// `server`.
pub type Failing = HashMap<ServiceId, BTreeSet<Arc<str>>>;

/// The latest [`Failing`], and a notice of each change of it.
type Board = watch::Sender<Arc<Failing>>;

/// Every active check of this router.
pub struct Checks {
    board: Board,
    prober: Arc<Prober>,
    services: Mutex<HashMap<ServiceId, BTreeMap<Arc<str>, Kept>>>,
}

/// A server that a service has checked.
pub struct Wanted<'a> {
    /// Its id in the server list; the URI of a `server`, which no id is.
    pub server: Arc<str>,
    /// Where it is.
    pub endpoint: &'a Arc<Endpoint>,
    /// How it is checked.
    pub health: &'a HealthCheck,
}

struct Kept {
    endpoint: Arc<Endpoint>,
    health: HealthCheck,
    verdict: Arc<Verdict>,
    probe: Arc<Probe>,
}

impl Checks {
    /// None yet; they will run on this runtime, under this supervision.
    pub fn new(endpoints: &Endpoints, runtime: Handle, tasks: Supervisor) -> Self {
        let outcomes = endpoints.metrics().checks.clone();
        let prober = Prober::new((runtime, tasks), ask::over_the_network(), outcomes);
        Self::asking(endpoints.board().clone(), prober)
    }

    fn asking(board: Board, prober: Arc<Prober>) -> Self {
        Self { board, prober, services: Mutex::default() }
    }

    /// Checks these servers of a service from now on, and no others of it. Returns their verdicts in
    /// the same order; one whose server is still at the same URI is what it was.
    pub fn set(&self, service: &ServiceId, wanted: &[Wanted<'_>]) -> Vec<Arc<Verdict>> {
        let mut services = self.services.lock();
        let mut before = services.remove(service).unwrap_or_default();
        let stays = |kept: &Kept, wanted: &Wanted<'_>| Arc::ptr_eq(&kept.endpoint, wanted.endpoint);
        before.retain(|server, kept| {
            let stays = wanted.iter().any(|wanted| wanted.server == *server && stays(kept, wanted));
            if !stays {
                kept.end();
            }
            stays
        });
        let mut verdicts = Vec::with_capacity(wanted.len());
        let mut now = BTreeMap::new();
        for wanted in wanted {
            let kept = self.kept(service, before.remove(&wanted.server), wanted);
            verdicts.push(Arc::clone(&kept.verdict));
            now.insert(Arc::clone(&wanted.server), kept);
        }
        if !now.is_empty() {
            services.insert(service.clone(), now);
        }
        verdicts
    }

    /// Checks nothing of this service any more.
    pub fn remove(&self, service: &ServiceId) {
        self.services.lock().remove(service).into_iter().flatten().for_each(|(_, kept)| kept.end());
    }

    fn kept(&self, service: &ServiceId, before: Option<Kept>, wanted: &Wanted<'_>) -> Kept {
        let (endpoint, health) = (Arc::clone(wanted.endpoint), wanted.health.clone());
        let verdict = match before {
            Some(kept) if kept.health == health => return kept,
            Some(kept) if kept.health.path == health.path => {
                kept.probe.retune(&kept.verdict, &health);
                return Kept { health, ..kept };
            }
            Some(kept) => {
                kept.probe.leave(&kept.verdict);
                kept.verdict
            }
            None => {
                let server = Arc::clone(&wanted.server);
                Arc::new(Verdict::new(service.clone(), server, &endpoint, self.board.clone()))
            }
        };
        let probe = self.prober.join(&endpoint, &verdict, &health);
        Kept { endpoint, health, verdict, probe }
    }
}

impl Kept {
    fn end(&self) {
        self.probe.leave(&self.verdict);
        self.verdict.withdraw();
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        let services = std::mem::take(&mut *self.services.lock());
        services.into_values().flatten().for_each(|(_, kept)| kept.end());
    }
}

#[cfg(test)]
mod tests;
