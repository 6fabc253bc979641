//! What plugins do, counted: by plugin, generation and function.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use super::{CallError, call::Cause};

/// The metric families of all plugins.
#[derive(Clone)]
pub(super) struct Families {
    calls: IntCounterVec,
    failures: IntCounterVec,
    latency: HistogramVec,
    instances: IntGaugeVec,
    memory: IntGaugeVec,
    confined: IntGaugeVec,
    /// What becomes of next builds that are tried out.
    pub(super) next: IntCounterVec,
}

const LATENCY: [f64; 12] = [2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.25, 1.0];

impl Families {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let by_generation = ["plugin", "generation"];
        let families = Self {
            calls: IntCounterVec::new(
                Opts::new("message_flow_plugin_calls_total", "Calls of a plugin's functions."),
                &by_generation,
            )?,
            failures: IntCounterVec::new(
                Opts::new(
                    "message_flow_plugin_failures_total",
                    "Calls without an answer, by cause: error, trap, timeout, memory, instances, confined, \
                     host.",
                ),
                &["plugin", "generation", "cause"],
            )?,
            latency: HistogramVec::new(
                HistogramOpts::new(
                    "message_flow_plugin_call_seconds",
                    "How long calls took, instance checked out and back.",
                )
                .buckets(LATENCY.to_vec()),
                &by_generation,
            )?,
            instances: IntGaugeVec::new(
                Opts::new("message_flow_plugin_instances", "Instances that exist, busy or idle."),
                &by_generation,
            )?,
            memory: IntGaugeVec::new(
                Opts::new("message_flow_plugin_memory_bytes", "Linear memory of these instances."),
                &by_generation,
            )?,
            confined: IntGaugeVec::new(
                Opts::new(
                    "message_flow_plugin_confined",
                    "1 while a plugin is called on threads of its own, for what it took of the workers' time.",
                ),
                &by_generation,
            )?,
            next: IntCounterVec::new(
                Opts::new(
                    "message_flow_plugin_next_total",
                    "Messages of which a next build decided the same or different as a shadow, which it \
                     skipped, or which it decided as a canary.",
                ),
                &["plugin", "outcome"],
            )?,
        };
        registry.register(Box::new(families.calls.clone()))?;
        registry.register(Box::new(families.failures.clone()))?;
        registry.register(Box::new(families.latency.clone()))?;
        registry.register(Box::new(families.instances.clone()))?;
        registry.register(Box::new(families.memory.clone()))?;
        registry.register(Box::new(families.confined.clone()))?;
        registry.register(Box::new(families.next.clone()))?;
        Ok(families)
    }
}

/// The account of one generation.
pub(super) struct Stats {
    families: Families,
    labels: [String; 2],
    calls: IntCounter,
    latency: Histogram,
    /// Calls that trapped or exceeded a limit.
    crashes: AtomicU64,
    use_of: Arc<Use>,
}

/// What the instances of one generation use.
#[derive(Default)]
pub(super) struct Use {
    /// How many exist.
    pub(super) instances: AtomicI64,
    /// Their linear memory, in bytes.
    pub(super) memory: AtomicI64,
}

impl Stats {
    pub(super) fn new(families: &Families, plugin: &str, generation: u64, use_of: Arc<Use>) -> Self {
        let labels = [plugin.to_owned(), generation.to_string()];
        let calls = families.calls.with_label_values(&labels);
        let latency = families.latency.with_label_values(&labels);
        Self { families: families.clone(), labels, calls, latency, crashes: AtomicU64::new(0), use_of }
    }

    /// Counts a call.
    #[inline]
    pub(super) fn count<R>(&self, took: Duration, result: &Result<R, CallError>) {
        self.calls.inc();
        self.latency.observe(took.as_secs_f64());
        if let Err(error) = result {
            self.count_failure(&error.cause);
        }
    }

    /// Counts a call that gave no answer.
    #[cold]
    pub(super) fn count_failure(&self, cause: &Cause) {
        let label = match cause {
            Cause::Sender => return,
            Cause::Said(_) | Cause::Nonsense(_) | Cause::Fault(_) | Cause::Missing | Cause::Depth => "error",
            Cause::Trap(_) | Cause::Exit { .. } => "trap",
            Cause::Deadline(..) => "timeout",
            Cause::Memory(_) => "memory",
            Cause::Instances(_) | Cause::Pool => "instances",
            Cause::Confined => "confined",
            Cause::Host(_) => "host",
        };
        let [plugin, generation] = &self.labels;
        self.families.failures.with_label_values(&[plugin.as_str(), generation.as_str(), label]).inc();
        if cause.is_crash() {
            self.crashes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many calls there were, and how many of them trapped or exceeded a limit.
    pub(super) fn calls_and_crashes(&self) -> (u64, u64) {
        (self.calls.get(), self.crashes.load(Ordering::Relaxed))
    }

    /// How many instances exist, and their linear memory in bytes.
    pub(super) fn instances_and_memory(&self) -> (i64, i64) {
        (self.use_of.instances.load(Ordering::Relaxed), self.use_of.memory.load(Ordering::Relaxed))
    }

    /// Whether it is called on threads of its own.
    pub(super) fn set_confined(&self, confined: bool) {
        self.families.confined.with_label_values(&self.labels).set(confined.into());
    }

    /// Brings the gauges up to date, for a scrape.
    pub(super) fn refresh(&self) {
        let (instances, memory) = self.instances_and_memory();
        self.families.instances.with_label_values(&self.labels).set(instances);
        self.families.memory.with_label_values(&self.labels).set(memory);
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        let [plugin, generation] = &self.labels;
        for cause in ["error", "trap", "timeout", "memory", "instances", "confined", "host"] {
            let _ =
                self.families.failures.remove_label_values(&[plugin.as_str(), generation.as_str(), cause]);
        }
        let _ = self.families.calls.remove_label_values(&self.labels);
        let _ = self.families.latency.remove_label_values(&self.labels);
        let _ = self.families.instances.remove_label_values(&self.labels);
        let _ = self.families.confined.remove_label_values(&self.labels);
        let _ = self.families.memory.remove_label_values(&self.labels);
    }
}
