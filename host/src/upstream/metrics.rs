//! What is counted about servers.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::dial::DialError;
use crate::pace::Pace;

/// Handles, resolved once.
#[derive(Clone)]
pub struct Metrics {
    /// Open connections to servers.
    pub connections: IntGauge,
    /// Connections opened.
    pub opened: IntCounter,
    /// Connections that could not be opened.
    pub failed: IntCounter,
    /// Connections that could not be opened for want of something of this router's own.
    pub local: IntCounter,
    said: Arc<Pace>,
    /// Messages sent on a connection that was already open.
    pub reused: IntCounter,
    /// Messages that found every connection busy and the queue full or too slow.
    pub busy: IntCounter,
    /// Servers ejected.
    pub ejections: IntCounter,
    /// Active checks, by what came of them.
    pub checks: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let connections = IntGauge::new("message_flow_upstream_connections", "Open connections to servers.")?;
        registry.register(Box::new(connections.clone()))?;
        let checks = Opts::new("message_flow_upstream_checks_total", "Active health checks, by outcome.");
        let checks = IntCounterVec::new(checks, &["outcome"])?;
        registry.register(Box::new(checks.clone()))?;
        Ok(Self {
            connections,
            opened: counter("message_flow_upstream_connects_total", "Connections to servers opened.")?,
            failed: counter(
                "message_flow_upstream_connect_failures_total",
                "Connections to servers that could not be opened.",
            )?,
            local: counter(
                "message_flow_upstream_local_failures_total",
                "Connections to servers that this router lacked the means to open, such as file descriptors.",
            )?,
            said: Arc::default(),
            reused: counter(
                "message_flow_upstream_reuses_total",
                "Messages sent on a connection that was already open.",
            )?,
            busy: counter(
                "message_flow_upstream_busy_total",
                "Messages that found every connection to their server busy for too long.",
            )?,
            ejections: counter(
                "message_flow_upstream_ejections_total",
                "Servers ejected after failures in a row.",
            )?,
            checks,
        })
    }

    /// A connection was not opened for want of something of this router's own: counted, and said in
    /// the log once a second at most.
    pub(super) fn lacking(&self, what: &DialError) {
        self.local.inc();
        if let Some(unsaid) = self.said.turn() {
            let cause = std::error::Error::source(what).map(ToString::to_string);
            tracing::warn!(error = %what, cause, unsaid, "messages are answered with 503");
        }
    }
}
