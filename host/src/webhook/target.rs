//! One target: a queue, and the task that sends what is in it, in order.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc},
    time::sleep,
};

use super::{
    Notification,
    metrics::{Metrics, Outcome},
    send::{self, Posted, SendError},
};
use crate::{config::WebhookConfig, supervise::Supervisor, table::Clock};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Where notifications for a target are put.
pub(super) struct Target {
    config: Arc<WebhookConfig>,
    queue: mpsc::Sender<Arc<Notification>>,
    metrics: Metrics,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Target {
    pub(super) fn start(
        config: WebhookConfig,
        metrics: Metrics,
        clock: Clock,
        supervisor: &Supervisor,
    ) -> Self {
        let config = Arc::new(config);
        let (queue, waiting) = mpsc::channel(config.queue);
        let waiting = Arc::new(Mutex::new(waiting));
        let (to, counted) = (Arc::clone(&config), metrics.clone());
        let start = move || deliver(Arc::clone(&to), Arc::clone(&waiting), counted.clone(), clock);
        let task = tokio::spawn(supervisor.clone().keep("webhook-delivery", start));
        Self { config, queue, metrics, task }
    }

    /// Never waits: what does not fit is lost, and counted.
    pub(super) fn tell(&self, notification: &Arc<Notification>) {
        if !self.config.events.is_empty() && !self.config.events.contains(&notification.event) {
            return;
        }
        if self.queue.try_send(Arc::clone(notification)).is_err() {
            let name = &*self.config.name;
            self.metrics.count(name, Outcome::Dropped);
            tracing::debug!(webhook = name, event = notification.event.name(), "the queue is full");
        }
    }
}

async fn deliver(
    config: Arc<WebhookConfig>,
    waiting: Arc<Mutex<mpsc::Receiver<Arc<Notification>>>>,
    metrics: Metrics,
    clock: Clock,
) {
    let mut waiting = waiting.lock().await;
    let tls = send::tls(&config.ca);
    while let Some(notification) = waiting.recv().await {
        let (name, event) = (&*config.name, notification.event.name());
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=config.attempts {
            let error = match post(&config, &tls, &notification, clock).await {
                Ok(()) => {
                    metrics.count(name, Outcome::Delivered);
                    break;
                }
                Err(error) => error,
            };
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            if attempt == config.attempts {
                metrics.count(name, Outcome::Failed);
                tracing::warn!(webhook = name, event, %error, cause, attempt, "a notification was not delivered");
                break;
            }
            metrics.count(name, Outcome::Retried);
            tracing::debug!(webhook = name, event, %error, cause, attempt, "a notification is sent again");
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The time is that of the attempt, so that a target may refuse what is old (and was replayed).
async fn post(
    config: &WebhookConfig,
    tls: &Arc<rustls::ClientConfig>,
    notification: &Notification,
    clock: Clock,
) -> Result<(), SendError> {
    let (body, seconds) = (notification.body(), clock.now() / 1000);
    let mut headers =
        vec![("webhook-id", notification.id.clone()), ("webhook-timestamp", seconds.to_string())];
    if let Some(secret) = &config.secret {
        headers.push(("webhook-signature", secret.sign(&notification.id, seconds, &body)));
    }
    let posted = Posted { url: &config.url, headers: &headers, body };
    send::post(posted, tls, config.timeout).await
}
