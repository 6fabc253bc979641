//! What the API asks of the part that routes, answered by the proxy.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::timeout};

use crate::{
    api::{Routing, Standing},
    discovery::Traffic,
    proxy::{Parts, Seen},
    release::guard::{self, Counts},
    resolve::{Explanation, Question},
    table::{ServiceId, adapter::Revision},
};

/// The proxy, as the API sees it.
pub(super) struct Router {
    parts: Parts,
    /// The revision of the view by which messages are routed.
    compiled: watch::Receiver<Revision>,
}

/// A plan is compiled in microseconds to milliseconds; no answer waits for longer than this.
const COMPILING: Duration = Duration::from_secs(2);

impl Router {
    pub(super) fn new(parts: Parts, compiled: watch::Receiver<Revision>) -> Self {
        Self { parts, compiled }
    }
}

impl Counts for Router {
    fn seen(&self, service: &ServiceId) -> guard::Seen {
        let (messages, errors, seconds) = self.parts.metrics.seen(service.as_str());
        guard::Seen { messages, errors, seconds }
    }
}

impl Traffic for Router {
    fn routed(&self) -> watch::Receiver<Revision> {
        self.compiled.clone()
    }

    fn is_quiet(&self, service: &ServiceId, server: &str, stamp: u32) -> bool {
        let plan = self.parts.plan.load();
        plan.service(service).is_some_and(|service| service.is_quiet(server, stamp))
    }
}

impl Routing for Router {
    fn explain(&self, question: Question) -> BoxFuture<'_, Option<Explanation>> {
        Box::pin(async move { self.parts.explain(question).await.ok() })
    }

    fn follows(&self, revision: Revision) -> BoxFuture<'_, ()> {
        let mut compiled = self.compiled.clone();
        Box::pin(async move {
            let _ = timeout(COMPILING, compiled.wait_for(|compiled| *compiled >= revision)).await;
        })
    }

    fn standing(&self, service: &ServiceId, server: &str) -> Standing {
        let plan = self.parts.plan.load();
        let seen = plan.service(service).and_then(|service| service.seen(server)).unwrap_or_default();
        let Seen { fails_checks, ejected, in_flight } = seen;
        Standing { fails_checks, ejected, in_flight }
    }
}
