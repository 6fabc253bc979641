//! One question to one server, asked for every service that wants to know the answer.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use super::Verdict;
use crate::{
    supervise::Supervisor,
    table::record::{HealthCheck, ServerUri},
    upstream::Endpoint,
};

/// The same question is not asked more often than this, whatever intervals are wanted.
pub(super) const REST: Duration = Duration::from_secs(1);
/// Of an interval, what chance adds at most, so that checks that began together drift apart.
const JITTER: f64 = 0.1;

/// Asks a server for a path, or only connects without one, within a time.
pub(super) type Ask =
    dyn Fn(Arc<Endpoint>, Option<Arc<str>>, Duration) -> BoxFuture<'static, Outcome> + Send + Sync;

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Well,
    Unwell,
    /// The server was not asked: this router lacked something of its own.
    Unknown,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Well => "success",
            Self::Unwell => "failure",
            Self::Unknown => "skipped",
        }
    }
}

type Question = (ServerUri, Option<Arc<str>>);

/// Every probe that somebody wants.
pub(super) struct Prober {
    probes: Mutex<HashMap<Question, Arc<Probe>>>,
    runtime: Handle,
    tasks: Supervisor,
    ask: Arc<Ask>,
    outcomes: IntCounterVec,
}

impl Prober {
    pub(super) fn new(
        (runtime, tasks): (Handle, Supervisor),
        ask: Arc<Ask>,
        outcomes: IntCounterVec,
    ) -> Arc<Self> {
        Arc::new(Self { probes: Mutex::default(), runtime, tasks, ask, outcomes })
    }

    /// Asks for this verdict from now on.
    pub(super) fn join(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        verdict: &Arc<Verdict>,
        health: &HealthCheck,
    ) -> Arc<Probe> {
        let path: Option<Arc<str>> = health.path.as_deref().map(Into::into);
        let mut probes = self.probes.lock();
        let probe = probes.entry((endpoint.uri.clone(), path.clone())).or_insert_with(|| {
            let (wants, changed) = (Mutex::default(), Notify::new());
            let probe = Arc::new(Probe { endpoint: Arc::clone(endpoint), path, wants, changed });
            self.runtime.spawn(keep(Arc::clone(&probe), self.tasks.clone(), Arc::downgrade(self)));
            probe
        });
        let first = interval(health).mul_f64(rand::random_range(0.0..JITTER));
        let (verdict, health) = (Arc::clone(verdict), health.clone());
        let want = Want { verdict, health, due: Instant::now() + first, asked: false };
        probe.wants.lock().push(want);
        probe.changed.notify_one();
        Arc::clone(probe)
    }

    /// Ends a probe that nobody wants; false if somebody came meanwhile.
    fn forget(&self, probe: &Probe) -> bool {
        let mut probes = self.probes.lock();
        let unwanted = probe.wants.lock().is_empty();
        if unwanted {
            probes.remove(&(probe.endpoint.uri.clone(), probe.path.clone()));
        }
        unwanted
    }
}

/// One question to one server; a task of its own asks it for as long as anybody wants to know.
pub(super) struct Probe {
    endpoint: Arc<Endpoint>,
    path: Option<Arc<str>>,
    wants: Mutex<Vec<Want>>,
    changed: Notify,
}

/// A verdict that is to be told.
struct Want {
    verdict: Arc<Verdict>,
    health: HealthCheck,
    due: Instant,
    /// The server is being asked for it.
    asked: bool,
}

impl Probe {
    /// The same question is wanted in other intervals, or is judged in another way.
    pub(super) fn retune(&self, verdict: &Arc<Verdict>, health: &HealthCheck) {
        for want in self.wants.lock().iter_mut().filter(|want| Arc::ptr_eq(&want.verdict, verdict)) {
            want.due = want.due.min(Instant::now() + interval(health));
            want.health = health.clone();
        }
        self.changed.notify_one();
    }

    /// Nothing more is told to this verdict once this returns.
    pub(super) fn leave(&self, verdict: &Arc<Verdict>) {
        self.wants.lock().retain(|want| !Arc::ptr_eq(&want.verdict, verdict));
        self.changed.notify_one();
    }

    /// When somebody is to be told next.
    fn due(&self) -> Option<Instant> {
        self.wants.lock().iter().filter(|want| !want.asked).map(|want| want.due).min()
    }

    /// Whoever was being told is told another time.
    fn begin_anew(&self) {
        self.wants.lock().iter_mut().for_each(|want| want.asked = false);
    }

    fn is_wanted(&self) -> bool {
        !self.wants.lock().is_empty()
    }

    /// Those to be told now or soon, with how long each waits for an answer; the longest last.
    fn ask_for(&self, now: Instant) -> Vec<(Duration, Arc<Verdict>)> {
        let mut asked = Vec::new();
        for want in self.wants.lock().iter_mut().filter(|want| !want.asked) {
            // One answer serves all whose times are close.
            if want.due <= now + interval(&want.health) / 4 {
                want.asked = true;
                asked.push((want.health.timeout.0, Arc::clone(&want.verdict)));
            }
        }
        asked.sort_by_key(|(limit, _)| *limit);
        asked
    }

    fn tell(&self, verdict: &Arc<Verdict>, outcome: Outcome, began: Instant) {
        let mut wants = self.wants.lock();
        let Some(want) = wants.iter_mut().find(|want| Arc::ptr_eq(&want.verdict, verdict)) else { return };
        want.asked = false;
        want.due = began + interval(&want.health).mul_f64(1.0 + rand::random_range(0.0..JITTER));
        match outcome {
            Outcome::Well => verdict.add(true, &want.health),
            Outcome::Unwell => verdict.add(false, &want.health),
            Outcome::Unknown => {}
        }
        // It is due again, maybe before the answer comes that others wait for.
        self.changed.notify_one();
    }
}

fn interval(health: &HealthCheck) -> Duration {
    health.interval.0.max(REST)
}

#[derive(Clone)]
struct Asking {
    ask: Arc<Ask>,
    outcomes: IntCounterVec,
}

/// Runs a probe until nobody wants it, again if it should panic.
async fn keep(probe: Arc<Probe>, tasks: Supervisor, prober: Weak<Prober>) {
    let Some(asking) =
        prober.upgrade().map(|it| Asking { ask: it.ask.clone(), outcomes: it.outcomes.clone() })
    else {
        return;
    };
    let run = || {
        probe.begin_anew();
        run(Arc::clone(&probe), asking.clone(), Weak::clone(&prober))
    };
    tasks.finish("health-check", run).await;
}

/// Asks until nobody wants to know. An answer that is slow to come holds up nobody who would not
/// have waited for it, so several may be awaited at once.
async fn run(probe: Arc<Probe>, asking: Asking, prober: Weak<Prober>) {
    let mut rested = Instant::now();
    let mut awaited = FuturesUnordered::new();
    loop {
        let due = probe.due();
        let wake = due.map_or_else(|| Instant::now() + Duration::from_secs(3600), |due| due.max(rested));
        tokio::select! {
            Some(()) = awaited.next() => continue,
            () = probe.changed.notified() => {}
            () = sleep_until(wake) => if due.is_some() {
                let now = Instant::now();
                rested = now + REST;
                awaited.push(asking.once(&probe, probe.ask_for(now), now));
                continue;
            }
        }
        if !probe.is_wanted() {
            // Whoever comes back within this time finds that the server has just been asked.
            sleep_until(rested).await;
            let Some(prober) = prober.upgrade() else { return };
            if prober.forget(&probe) {
                return;
            }
        }
    }
}

impl Asking {
    /// Asks once, and tells each who waits: the answer, or that it did not come in time.
    async fn once(&self, probe: &Probe, asked: Vec<(Duration, Arc<Verdict>)>, began: Instant) {
        let Some(longest) = asked.last().map(|(limit, _)| *limit) else { return };
        let mut answer = (self.ask)(Arc::clone(&probe.endpoint), probe.path.clone(), longest);
        let mut outcome = None;
        for (limit, verdict) in asked {
            if outcome.is_none() {
                outcome = timeout_at(began + limit, &mut answer).await.ok();
            }
            let told = outcome.unwrap_or(Outcome::Unwell);
            self.outcomes.with_label_values(&[told.name()]).inc();
            probe.tell(&verdict, told, began);
        }
    }
}
