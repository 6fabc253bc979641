//! Follows what there is to tell of, and tells every target.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    Metrics, Notification,
    changes::{Builds, Views},
    target::Target,
};
use crate::{
    config::{Config, WebhookConfig},
    plugin::Plugins,
    supervise::Supervisor,
    table::{Clock, Table, View},
};

/// Refused builds make no other plugin current, so the list is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What is followed.
#[derive(Clone)]
pub struct Sources {
    /// Which targets there are.
    pub config: watch::Receiver<Arc<Config>>,
    /// Services, servers and releases.
    pub table: Arc<Table>,
    /// Plugins.
    pub plugins: Arc<Plugins>,
    /// The id of this router.
    pub router: String,
    /// The time of day.
    pub clock: Clock,
}

/// Follows until dropped.
pub async fn follow(sources: Sources, metrics: Metrics) {
    let Sources { mut config, table, plugins, router, clock } = sources;
    let start = |configured: &[WebhookConfig]| start(configured, &metrics, clock, table.tasks());
    let mut configured = config.borrow_and_update().webhooks.clone();
    let mut targets = start(&configured);
    let mut status = table.status();
    if status.wait_for(|status| status.is_ready()).await.is_err() {
        return;
    }
    let mut changed = table.subscribe();
    let mut views = Views::new(changed.borrow_and_update().clone());
    let mut builds = Builds::new(&router, &plugins.status());
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let happened = tokio::select! {
            changed = changed.changed() => match changed {
                Ok(()) => Vec::new(),
                Err(_) => return,
            },
            _ = looks.tick() => builds.next(&plugins.status(), clock.now()),
            Ok(()) = config.changed() => {
                let new = config.borrow_and_update().webhooks.clone();
                if new != configured {
                    targets = start(&new);
                    configured = new;
                }
                Vec::new()
            }
        };
        tell(&targets, happened);
        if !Arc::ptr_eq(&changed.borrow(), views.latest()) {
            let view = Arc::clone(&changed.borrow_and_update());
            let speaks = speaks(&view, &router);
            let happened = views.next(view, clock.now());
            if speaks {
                tell(&targets, happened);
            }
        }
    }
}

fn start(
    configured: &[WebhookConfig],
    metrics: &Metrics,
    clock: Clock,
    supervisor: &Supervisor,
) -> Vec<Target> {
    let start = |config: &WebhookConfig| Target::start(config.clone(), metrics.clone(), clock, supervisor);
    configured.iter().map(start).collect()
}

fn tell(targets: &[Target], happened: Vec<Notification>) {
    for notification in happened.into_iter().map(Arc::new) {
        tracing::debug!(event = notification.event.name(), text = %notification.text, "happened");
        targets.iter().for_each(|target| target.tell(&notification));
    }
}

/// Of all routers the one with the lowest id speaks of what all of them see.
fn speaks(view: &View, router: &str) -> bool {
    view.routers().keys().next().is_none_or(|first| &**first == router)
}
