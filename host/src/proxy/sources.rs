//! What the routing rule asks of the world, for a message that is really on its way.

use std::sync::Arc;

use http::request::Parts;

use super::{
    identify,
    plan::{Plugin, ServicePlan},
    respond::Refusal,
};
use crate::{
    listener::Connection,
    plugin::{
        self, Message,
        generation::Decision,
        message::{ClientId, Place},
    },
    resolve::{Asked, Cached, Health, OnError, Query, Rejection, Sources},
    table::{
        Assignments, Server, TableError,
        adapter::{Assignment, Condition},
        assignments::Wait,
    },
};

/// What is known of one message and its service.
pub(super) struct Known<'a> {
    pub(super) plan: &'a Arc<ServicePlan>,
    pub(super) client: &'a ClientId,
    pub(super) assignments: &'a Assignments,
    /// In the table's own time.
    pub(super) now: u64,
    /// How long it may wait for the table.
    pub(super) wait: &'a Wait,
}

impl Known<'_> {
    pub(super) fn query<'q>(&'q self, avoid: &'q [u32]) -> Query<'q> {
        Query { service: &self.plan.service, client: self.client.as_str(), now: self.now, avoid }
    }

    fn cached(&self) -> Option<Cached> {
        let found = self.assignments.remembered(&self.plan.service, self.client.as_str(), self.now)?;
        Some(Cached { server: found.server, pinned: found.pinned, due: found.due })
    }

    fn prolong(&self) {
        self.assignments.prolong(&self.plan.service, self.client.as_str(), self.now);
    }

    pub(super) fn held(&self) -> Option<u32> {
        self.assignments.held(&self.plan.service, self.client.as_str(), self.now)
    }

    pub(super) fn is_news(&self, assignment: &Assignment) -> bool {
        self.assignments.is_news(&self.plan.service, assignment)
    }

    pub(super) fn detour(&self) -> Option<u32> {
        self.assignments.detour(&self.plan.service, self.client.as_str(), self.now)
    }
}

/// Answers at once or never: for the common case of a client that is known, and of a service that
/// remembers nobody. Whatever would have to wait is left for [`Asking`], which begins anew.
pub(super) struct AtOnce<'a>(pub(super) &'a Known<'a>);

impl Sources for AtOnce<'_> {
    fn cached(&mut self) -> Option<Cached> {
        self.0.cached()
    }

    fn prolong(&mut self) {
        self.0.prolong();
    }

    fn detour(&mut self) -> Option<u32> {
        self.0.detour()
    }

    fn remember_detour(&mut self, _: &str) {}

    fn text(&self, number: u32) -> Option<Arc<str>> {
        self.0.assignments.text(number)
    }

    async fn assigned(&mut self) -> Result<Option<Assignment>, TableError> {
        std::future::pending().await
    }

    async fn claim(&mut self, _: &str, _: Condition) -> Result<Option<Assignment>, TableError> {
        std::future::pending().await
    }

    fn held(&mut self) -> Option<u32> {
        self.0.held()
    }

    fn hold(&mut self, _: &str, _: &TableError) {}

    fn is_news(&self, assignment: &Assignment) -> bool {
        self.0.is_news(assignment)
    }

    fn health(&self, server: &Server) -> Health {
        self.0.plan.health(server)
    }

    async fn ask(&mut self) -> Asked {
        std::future::pending().await
    }

    fn on_error(&self) -> OnError {
        OnError::Closed
    }

    fn random(&mut self) -> u64 {
        rand::random()
    }
}

/// Asks whoever has to be asked, and stores what was decided.
pub(super) struct Asking<'a> {
    pub(super) known: &'a Known<'a>,
    pub(super) connection: &'a Connection,
    pub(super) head: &'a mut Parts,
}

impl Sources for Asking<'_> {
    fn cached(&mut self) -> Option<Cached> {
        self.known.cached()
    }

    fn prolong(&mut self) {
        self.known.prolong();
    }

    fn detour(&mut self) -> Option<u32> {
        self.known.detour()
    }

    fn remember_detour(&mut self, server: &str) {
        let Known { plan, client, assignments, .. } = self.known;
        assignments.remember_detour(&plan.service, client.as_str(), server);
    }

    fn text(&self, number: u32) -> Option<Arc<str>> {
        self.known.assignments.text(number)
    }

    async fn assigned(&mut self) -> Result<Option<Assignment>, TableError> {
        let Known { plan, client, assignments, wait, .. } = self.known;
        assignments.lookup(&plan.service, client.as_str(), wait).await
    }

    async fn claim(&mut self, server: &str, condition: Condition) -> Result<Option<Assignment>, TableError> {
        let Known { plan, client, assignments, wait, .. } = self.known;
        if condition == Condition::Absent {
            assignments.admit(identify::origin(&plan.settings, &self.head.headers, self.connection))?;
        }
        assignments.claim(&plan.service, client.as_str(), server, condition, wait).await
    }

    fn held(&mut self) -> Option<u32> {
        self.known.held()
    }

    fn hold(&mut self, server: &str, why: &TableError) {
        let Known { plan, client, assignments, .. } = self.known;
        assignments.hold(&plan.service, client.as_str(), server, why);
    }

    fn is_news(&self, assignment: &Assignment) -> bool {
        self.known.is_news(assignment)
    }

    fn health(&self, server: &Server) -> Health {
        self.known.plan.health(server)
    }

    async fn ask(&mut self) -> Asked {
        ask(self.known, self.head, Some(self.connection)).await
    }

    fn misled(&mut self, why: &str) {
        let Known { plan, client, .. } = self.known;
        let registrar = plan.registrar.as_ref().and_then(|registrar| registrar.generation.as_ref());
        if let Some(registrar) = registrar {
            registrar.misled("resolve", why, &plan.service.id, client.as_str());
        }
    }

    fn on_error(&self) -> OnError {
        on_error(self.known.plan)
    }

    fn random(&mut self) -> u64 {
        rand::random()
    }
}

/// Asks the registrar about a message, whether it is on its way over a connection or only explained.
pub(super) async fn ask(known: &Known<'_>, head: &mut Parts, connection: Option<&Connection>) -> Asked {
    let Some(registrar) = &known.plan.registrar else { return Asked::Pass };
    let Some(generation) = &registrar.generation else { return missing(registrar) };
    if generation.led_to(&head.headers) {
        let circle = Refusal::PluginLoop(registrar.name.to_string());
        return Asked::Reject(Rejection { status: circle.status(), reason: circle.to_string() });
    }
    let mut message = message(head, 0, known, connection);
    message.candidates = Some(known.plan.clone());
    message.dry = connection.is_none();
    let answer = generation.resolve(&mut message).await;
    give_back(head, message);
    asked(answer)
}

/// A registrar that is configured and not there.
fn missing(registrar: &Plugin) -> Asked {
    let name = &registrar.name;
    Asked::Failed(format!("registrar `{name}` is not loaded, or plugin `{name}` is no registrar").into())
}

fn asked(answer: Result<Decision, plugin::CallError>) -> Asked {
    match answer {
        Ok(Decision::Server(server)) => Asked::Server(server),
        Ok(Decision::Pass) => Asked::Pass,
        Ok(Decision::Reject(plugin::Rejection { status, reason })) => {
            Asked::Reject(Rejection { status, reason })
        }
        Err(error) => Asked::Failed(error.to_string().into()),
    }
}

pub(super) fn on_error(plan: &ServicePlan) -> OnError {
    let generation = plan.registrar.as_ref().and_then(|registrar| registrar.generation.as_ref());
    match generation.map(|generation| generation.on_error()) {
        Some(plugin::OnError::Open) => OnError::Open,
        _ => OnError::Closed,
    }
}

/// A message as plugins see it, without so many bytes of its target; takes the head's parts until
/// [`give_back`].
pub(super) fn message(
    head: &mut Parts,
    cut: usize,
    known: &Known<'_>,
    connection: Option<&Connection>,
) -> Message {
    Message {
        method: head.method.clone(),
        uri: std::mem::take(&mut head.uri),
        cut,
        authority: None,
        headers: std::mem::take(&mut head.headers),
        client: known.client.clone(),
        peer: connection.map(|connection| connection.peer),
        service: Some(known.plan.service.id.clone()),
        server: None,
        candidates: None,
        response: None,
        event: None,
        body: None,
        place: if connection.is_some() { Place::Worker } else { Place::Elsewhere },
        ..Message::default()
    }
}

/// Puts a message's parts back into its head; what is to be cut off its target now.
pub(super) fn give_back(head: &mut Parts, message: Message) -> usize {
    head.uri = message.uri;
    head.headers = message.headers;
    message.cut
}

/// What the client asked for.
pub(super) fn authority(head: &Parts) -> &str {
    let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| head.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default()
}
