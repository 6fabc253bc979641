//! What is counted about messages. Handles are resolved when a plan is compiled, so that counting a
//! message looks nothing up.

use std::sync::Arc;

use http::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::{report::Reports, stall::Outcome};
use crate::{
    listener::{Phase, Unserved},
    token::Doubt,
};

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Every metric of the proxy.
pub struct Metrics {
    messages: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGaugeVec,
    timeouts: IntCounterVec,
    unserved: IntCounterVec,
    tokens: IntCounterVec,
    /// What is said of messages that are refused.
    pub(super) reports: Reports,
    /// Messages sent to a second server.
    pub retries: IntCounter,
    /// Messages that would have been, had the budget allowed it.
    pub retries_denied: IntCounter,
    stalled: IntCounterVec,
    /// Tunnels open now.
    pub tunnels: IntGauge,
    /// Plans compiled.
    pub plans: IntCounter,
}

/// One service's handles.
#[derive(Clone)]
pub struct ServiceMetrics {
    by_class: [IntCounter; 5],
    duration: Histogram,
    in_flight: IntGauge,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let opts = |name: &str, help: &str| Opts::new(format!("message_flow_{name}"), help);
        let durations = HistogramOpts::new(
            "message_flow_request_duration_seconds",
            "From the head of a request to the end of its response, by service.",
        );
        let metrics = Self {
            messages: IntCounterVec::new(
                opts("requests_total", "Requests answered, by service and class of status."),
                &["service", "status"],
            )?,
            durations: HistogramVec::new(durations.buckets(BUCKETS.to_vec()), &["service"])?,
            in_flight: IntGaugeVec::new(
                opts("requests_in_flight", "Requests not yet answered to their end, by service."),
                &["service"],
            )?,
            timeouts: IntCounterVec::new(
                opts("timeouts_total", "What took too long, by phase of connection or message."),
                &["phase"],
            )?,
            unserved: IntCounterVec::new(
                opts(
                    "unserved_total",
                    "Connections and heads refused before there was a request, by reason.",
                ),
                &["reason"],
            )?,
            tokens: IntCounterVec::new(
                opts(
                    "tokens_total",
                    "Tokens of clients that were verified, each once for every worker, or why they were not.",
                ),
                &["outcome"],
            )?,
            reports: Reports::new(registry)?,
            retries: IntCounter::with_opts(opts("retries_total", "Requests sent to a second server."))?,
            retries_denied: IntCounter::with_opts(opts(
                "retries_denied_total",
                "Requests not sent to a second server because the budget for that was spent.",
            ))?,
            stalled: IntCounterVec::new(
                opts(
                    "stalled_total",
                    "Requests whose server did not begin to answer while another might, by what became of them.",
                ),
                &["outcome"],
            )?,
            tunnels: IntGauge::with_opts(opts("tunnels", "Upgraded connections open now."))?,
            plans: IntCounter::with_opts(opts("plans_total", "Routing plans compiled."))?,
        };
        registry.register(Box::new(metrics.messages.clone()))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.timeouts.clone()))?;
        registry.register(Box::new(metrics.unserved.clone()))?;
        registry.register(Box::new(metrics.tokens.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.stalled.clone()))?;
        registry.register(Box::new(metrics.retries_denied.clone()))?;
        registry.register(Box::new(metrics.tunnels.clone()))?;
        registry.register(Box::new(metrics.plans.clone()))?;
        for phase in Phase::ALL {
            metrics.timeouts.with_label_values(&[phase.name()]);
        }
        for outcome in Outcome::ALL {
            metrics.stalled.with_label_values(&[outcome.name()]);
        }
        for why in Unserved::ALL {
            metrics.unserved.with_label_values(&[why.name()]);
        }
        for outcome in Doubt::ALL.map(Doubt::name).into_iter().chain(["verified"]) {
            metrics.tokens.with_label_values(&[outcome]);
        }
        Ok(Arc::new(metrics))
    }

    /// The handles of a service; empty for messages whose service is not known.
    pub fn service(&self, service: &str) -> ServiceMetrics {
        ServiceMetrics {
            by_class: CLASSES.map(|class| self.messages.with_label_values(&[service, class])),
            duration: self.durations.with_label_values(&[service]),
            in_flight: self.in_flight.with_label_values(&[service]),
        }
    }

    /// What was seen of a service's messages: how many, how many with 5xx, and their seconds together.
    pub fn seen(&self, service: &str) -> (u64, u64, f64) {
        let handles = self.service(service);
        let errors = handles.by_class[4].get();
        (handles.duration.get_sample_count(), errors, handles.duration.get_sample_sum())
    }

    /// Forgets a service that is gone.
    pub fn forget(&self, service: &str) {
        for class in CLASSES {
            let _ = self.messages.remove_label_values(&[service, class]);
        }
        let _ = self.durations.remove_label_values(&[service]);
        let _ = self.in_flight.remove_label_values(&[service]);
    }

    /// A token was looked into.
    pub fn token(&self, outcome: Result<(), Doubt>) {
        let outcome = outcome.map_or_else(Doubt::name, |()| "verified");
        self.tokens.with_label_values(&[outcome]).inc();
    }

    /// A server did not begin to answer.
    pub(super) fn stalled(&self, outcome: Outcome) {
        self.stalled.with_label_values(&[outcome.name()]).inc();
    }

    /// A phase took too long.
    pub fn overdue(&self, phase: Phase) {
        self.timeouts.with_label_values(&[phase.name()]).inc();
    }

    /// A connection or a head was refused.
    pub fn unserved(&self, why: Unserved) {
        self.unserved.with_label_values(&[why.name()]).inc();
    }
}

impl ServiceMetrics {
    /// A message of this service begins.
    pub fn begin(&self) {
        self.in_flight.inc();
    }

    /// It has ended after so many seconds.
    pub fn end(&self, status: StatusCode, seconds: f64) {
        self.in_flight.dec();
        self.duration.observe(seconds);
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.by_class[class].inc();
    }
}
