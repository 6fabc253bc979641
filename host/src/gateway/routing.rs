//! What the API asks of the part that routes, answered by the proxy.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::timeout};

use crate::{
    api::{Routing, Standing},
    discovery::Traffic,
    proxy::Parts,
    release::guard::{Counts, Seen},
    resolve::{Explanation, Health, Question},
    table::{ServiceId, adapter::Revision, record::ServerUri},
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
    fn seen(&self, service: &ServiceId) -> Seen {
        let (messages, errors, seconds) = self.parts.metrics.seen(service.as_str());
        Seen { messages, errors, seconds }
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

    fn standing(&self, uri: &ServerUri) -> Standing {
        let endpoint = self.parts.endpoints.get(uri);
        Standing {
            fails_checks: endpoint.fails_checks(),
            ejected: endpoint.is_ejected(),
            in_flight: endpoint.in_flight(),
        }
    }

    fn health(&self, uri: &ServerUri) -> Health {
        let endpoint = self.parts.endpoints.get(uri);
        if endpoint.fails_checks() {
            Health::Unhealthy
        } else if endpoint.is_ejected() {
            Health::Suspect
        } else {
            Health::Healthy
        }
    }
}
