//! What the reconciler shows to the rest of the process: the set that is loaded now, and the
//! state of every build for people.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    Generation, Kind, PluginSet,
    reconcile::{Known, Refused},
    trial::Trial,
};

/// One build of a plugin, as `GET /v1/plugins` shows it.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PluginStatus {
    /// The file's stem.
    pub name: String,
    /// What it is: `registrar`, `request-filter`, `response-filter`, `event-filter`, `routing-table`.
    #[schema(value_type = Vec<String>)]
    pub kinds: Vec<Kind>,
    /// Counts up with every build that is published; none for a build that never was.
    pub generation: Option<u64>,
    /// Of the file; none if it could not be read.
    pub sha256: Option<String>,
    /// Whether it serves.
    pub state: PluginState,
    /// Why it does not serve, or why a newer build does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How it is called: `direct`, as a core module; `sync`, as a component; `async`, as one that imports
    /// something that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<&'static str>,
    /// That it is called on threads of its own, if it is: its calls took more of the workers' time than their
    /// share. No more of them run at once than half of the processors allow, and the others wait for no longer
    /// than its deadline. It is called in place again once it has kept to its share for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confined: Option<Confinement>,
    /// Calls so far.
    pub calls: u64,
    /// Calls that trapped or exceeded a limit.
    pub crashes: u64,
    /// Instances that exist.
    pub instances: i64,
    /// Their linear memory, in bytes.
    pub memory: i64,
    /// Why the last call that gave no answer did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What became of the next build so far, if one is tried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<NextStatus>,
}

/// Why a build is called on threads of its own, as `GET /v1/plugins` shows it.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Confinement {
    /// Since then, in RFC 3339.
    pub since: String,
    /// What it took.
    pub reason: String,
}

/// What became of a next build, as `GET /v1/plugins` shows it.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct NextStatus {
    /// Percent of the clients for whom it decides.
    pub canary: u8,
    /// Decisions that were the same as those of the active build.
    pub same: u64,
    /// Decisions that were not.
    pub different: u64,
    /// Messages of which it got no copy, for their number or because it reads bodies.
    pub skipped: u64,
    /// Messages that it decided about.
    pub decided: u64,
    /// How it last differed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_difference: Option<String>,
}

impl NextStatus {
    fn of(trial: &Trial) -> Self {
        let counts = &trial.counts;
        Self {
            canary: trial.canary,
            same: counts.same.get(),
            different: counts.different.get(),
            skipped: counts.skipped.get(),
            decided: counts.decided.get(),
            last_difference: trial.differences.last(),
        }
    }
}

/// Whether a build serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// New messages get it.
    Active,
    /// Messages that began with it still have it.
    Draining,
    /// It was not published, because of what it is or asks for; what served before goes on.
    Refused,
    /// It is tried out beside the active one: as a shadow, or for some of the clients.
    Trial,
    /// It failed when it was tried out or in its first moments; what served before goes on.
    Failed,
}

/// Shared by the reconciler, who writes, and all others.
pub(super) struct Published {
    set: ArcSwap<PluginSet>,
    changed: watch::Sender<u64>,
    builds: ArcSwap<Vec<Shown>>,
    refusals: AtomicU64,
    rollbacks: AtomicU64,
}

/// One line of the list, before it is written out.
struct Shown {
    name: Arc<str>,
    build: Weak<Generation>,
    sha256: Option<Arc<str>>,
    state: PluginState,
    error: Option<Arc<str>>,
}

impl Published {
    pub(super) fn new() -> Self {
        Self {
            set: ArcSwap::default(),
            changed: watch::Sender::new(0),
            builds: ArcSwap::default(),
            refusals: AtomicU64::new(0),
            rollbacks: AtomicU64::new(0),
        }
    }

    pub(super) fn current(&self) -> Arc<PluginSet> {
        self.set.load_full()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn note_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_rollback(&self) {
        self.rollbacks.fetch_add(1, Ordering::Relaxed);
    }

    /// Refusals and rollbacks since the start.
    pub(super) fn refusals_and_rollbacks(&self) -> (u64, u64) {
        (self.refusals.load(Ordering::Relaxed), self.rollbacks.load(Ordering::Relaxed))
    }

    pub(super) fn show(&self, set: PluginSet, known: &BTreeMap<Arc<str>, Known>, changed: bool) {
        self.builds.store(Arc::new(known.iter().flat_map(|(name, known)| shown(name, known)).collect()));
        if changed {
            self.set.store(Arc::new(set));
            self.changed.send_modify(|count| *count += 1);
        }
    }

    pub(super) fn status(&self) -> Vec<PluginStatus> {
        self.builds.load().iter().filter_map(Shown::write).collect()
    }

    /// Every generation that is still alive.
    pub(super) fn generations(&self) -> Vec<Arc<Generation>> {
        self.builds.load().iter().filter_map(|shown| shown.build.upgrade()).collect()
    }
}

fn shown(name: &Arc<str>, known: &Known) -> Vec<Shown> {
    let refused_error = known.refused.as_ref().map(|refused| Arc::clone(&refused.reason));
    let active = known.active.as_ref().map(|active| Shown {
        name: Arc::clone(name),
        build: Arc::downgrade(active),
        sha256: Some(Arc::clone(&active.sha256)),
        state: PluginState::Active,
        error: match &refused_error {
            Some(reason) => Some(format!("a newer build is not served: {reason}").into()),
            None => known.unfit.clone(),
        },
    });
    let refused = known.refused.as_ref().map(|refused| shown_refused(name, refused));
    let next_name = || Arc::<str>::from(format!("{name}@next"));
    let next_refused = known.next_refused.as_ref().map(|refused| shown_refused(&next_name(), refused));
    let trial = known.active.as_ref().and_then(|active| active.trial.as_ref()).map(|trial| Shown {
        name: next_name(),
        build: Arc::downgrade(&trial.next),
        sha256: None,
        state: PluginState::Trial,
        error: None,
    });
    let draining = known.draining.iter().map(|build| Shown {
        name: Arc::clone(name),
        build: Weak::clone(build),
        sha256: None,
        state: PluginState::Draining,
        error: None,
    });
    active.into_iter().chain(refused).chain(trial).chain(next_refused).chain(draining).collect()
}

fn shown_refused(name: &Arc<str>, refused: &Refused) -> Shown {
    Shown {
        name: Arc::clone(name),
        build: Weak::new(),
        sha256: refused.sha256.clone(),
        state: if refused.failed { PluginState::Failed } else { PluginState::Refused },
        error: Some(Arc::clone(&refused.reason)),
    }
}

impl Shown {
    /// None for a draining build that is gone meanwhile.
    fn write(&self) -> Option<PluginStatus> {
        let build = self.build.upgrade();
        if build.is_none() && self.state == PluginState::Draining {
            return None;
        }
        let build = build.as_deref();
        let (calls, crashes) = build.map_or((0, 0), |build| build.stats.calls_and_crashes());
        let (instances, memory) = build.map_or((0, 0), |build| build.stats.instances_and_memory());
        Some(PluginStatus {
            name: self.name.to_string(),
            kinds: build.map(|build| build.kinds().to_vec()).unwrap_or_default(),
            generation: build.map(Generation::number),
            sha256: build.map(|build| &build.sha256).or(self.sha256.as_ref()).map(ToString::to_string),
            state: self.state,
            error: self.error.as_ref().map(ToString::to_string),
            lane: build.map(Generation::lane),
            confined: build.and_then(Generation::confined),
            calls,
            crashes,
            instances,
            memory,
            last_error: build.and_then(Generation::last_error),
            next: build.and_then(|build| build.trial.as_ref()).map(NextStatus::of),
        })
    }
}
