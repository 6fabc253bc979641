//! What is counted about notifications.

use prometheus::{IntCounterVec, Opts, Registry};

/// Every metric of webhooks.
#[derive(Clone)]
pub struct Metrics {
    notifications: IntCounterVec,
}

/// What became of a notification for a target.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Delivered,
    /// Every attempt failed.
    Failed,
    /// The target's queue was full.
    Dropped,
    /// An attempt failed; there may be another.
    Retried,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let opts = Opts::new(
            "message_flow_notifications_total",
            "Notifications for webhooks, by target and what became of them; retried ones count once more in the end.",
        );
        let notifications = IntCounterVec::new(opts, &["webhook", "outcome"])?;
        registry.register(Box::new(notifications.clone()))?;
        Ok(Self { notifications })
    }

    pub(super) fn count(&self, target: &str, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Failed => "failed",
            Outcome::Dropped => "dropped",
            Outcome::Retried => "retried",
        };
        self.notifications.with_label_values(&[target, outcome]).inc();
    }
}
