//! Renewing assignments that are in use, in the background: no message waits for it.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex, mpsc};

use super::{Assignments, Found, lifetime};
use crate::table::{ServiceId, adapter::Condition};

/// At most so many renewals are under way at once.
const AT_ONCE: usize = 16;

/// An assignment to be renewed.
pub(in crate::table) struct Renewal {
    pub(super) service: ServiceId,
    pub(super) number: u32,
    pub(super) ttl: Duration,
    pub(super) client: String,
    pub(super) found: Found,
}

/// Renews what is due until the sender is gone.
pub(in crate::table) async fn renew(assignments: Arc<Assignments>, due: Arc<Mutex<mpsc::Receiver<Renewal>>>) {
    let mut due = due.lock().await;
    let one = |renewal| assignments.renew(renewal);
    stream::poll_fn(|cx| due.poll_recv(cx)).for_each_concurrent(AT_ONCE, one).await;
}

impl Assignments {
    async fn renew(&self, renewal: Renewal) {
        let Renewal { service, number, ttl, client, found } = renewal;
        let Some(server) = self.numbers.text(found.server) else { return };
        let expires = Some(self.time.now() + lifetime(ttl));
        let proposal = self.proposal(&service, &client, &server, expires);
        let epoch = self.cache.epoch(number, &client);
        let condition = Condition::Unchanged(found.stamp);
        match self.ask(self.adapter.assign(proposal, condition)).await {
            Ok(Some(stored)) => {
                self.stats.assignment_renewals.inc();
                self.remember(number, ttl, &client, &stored, epoch);
            }
            Ok(None) => self.cache.remove(number, &client),
            Err(error) => {
                self.stats.assignment_renewals_failed.inc();
                self.put_held(number, ttl, &client, found.server);
                tracing::debug!(%service, %error, "assignment not renewed");
            }
        }
    }
}
