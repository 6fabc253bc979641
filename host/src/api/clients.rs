//! `/v1/clients`: where a client's messages go, and who says so.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Json, extract::State as Shared, http::StatusCode};
use serde::Serialize;

use super::{
    State,
    guard::Caller,
    input::{self, Segments, service_id},
    problem::Problem,
    shown::{must_be_read, no_service},
    written::{AssignmentPath, ClientPath, Pin},
};
use crate::{
    auth::Action,
    release,
    table::{
        adapter::Assignment,
        record::{ReleaseRecord, ReleaseRefused, ServerUri, ServiceId},
        view::{Choice, Service},
    },
    units::utc,
};

/// What is known of a client.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownClient {
    client: String,
    /// The router that it is connected to, else the one that decided for it last.
    router: Option<String>,
    /// By service.
    assignments: BTreeMap<String, ShownAssignment>,
    /// Which version it was given, by the name of the service; only where that has to be remembered.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    versions: BTreeMap<String, ShownVersion>,
}

/// The remembered version of a client.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownVersion {
    version: String,
    /// RFC 3339; null: pinned.
    expires: Option<String>,
    /// Whether it stays until it is forgotten.
    pinned: bool,
}

impl ShownVersion {
    fn new(assignment: &Assignment) -> Option<Self> {
        let choice: Choice = assignment.server.parse().ok()?;
        let expires = assignment.expires.map(utc);
        Some(Self { version: choice.version, pinned: expires.is_none(), expires })
    }
}

/// The remembered server of a client for a service.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownAssignment {
    /// A server's id, or a URI that a registrar gave.
    server: String,
    /// RFC 3339, by the clock of the router that is asked; null: pinned.
    expires: Option<String>,
    /// Whether it stays until it is forgotten.
    pinned: bool,
    /// The router that wrote it.
    router: String,
}

impl From<Assignment> for ShownAssignment {
    fn from(assignment: Assignment) -> Self {
        Self {
            server: assignment.server,
            expires: assignment.expires.map(utc),
            pinned: assignment.expires.is_none(),
            router: assignment.router,
        }
    }
}

/// What is known of a client. A client that nothing is known of has no assignments.
#[utoipa::path(
    get, path = "/v1/clients/{id}", tag = "clients", operation_id = "show_client",
    params(ClientPath),
    responses((status = 200, description = "What is known of it", body = ShownClient)),
)]
pub(super) async fn show(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(client): Segments<String>,
) -> Result<Json<ShownClient>, Problem> {
    let client = input::client_id(client)?;
    caller.must(Action::Read, None)?;
    let found = state.table.client(&client).await?;
    let (now, of_day) = (state.table.time().now(), now());
    let holds = |(service, assignment): &(String, Assignment)| {
        assignment.expires.is_none_or(|expires| expires > now) && caller.may(Action::Read, Some(service))
    };
    // The table's own time is nobody's: it is shown by this router's time of day.
    let shown = |(service, assignment): (String, Assignment)| {
        let expires = assignment.expires.map(|expires| of_day.saturating_add(expires - now));
        (service, Assignment { expires, ..assignment })
    };
    let held: Vec<_> = found.assignments.into_iter().filter(holds).map(shown).collect();
    // Where nobody says that the client is connected, the last to have decided for it knows best.
    let newest = held.iter().max_by_key(|(_, assignment)| assignment.stamp);
    let router = found.router.or_else(|| newest.map(|(_, assignment)| assignment.router.clone()));
    let (mut assignments, mut versions) = (BTreeMap::new(), BTreeMap::new());
    for (service, assignment) in held {
        match ServiceId::is_choices(&service) {
            Some(name) => {
                versions.extend(ShownVersion::new(&assignment).map(|shown| (name.to_owned(), shown)))
            }
            None => drop(assignments.insert(service, assignment.into())),
        }
    }
    Ok(Json(ShownClient { client, router, assignments, versions }))
}

/// Pins a client to a server of a service, or to a version of it: all of its messages go there until it is
/// forgotten.
#[utoipa::path(
    put, path = "/v1/clients/{id}/assignments/{service}", tag = "clients", operation_id = "pin_client",
    params(AssignmentPath),
    request_body = Pin,
    responses(
        (status = 200, description = "Pinned", body = ShownAssignment),
        (status = 404, description = "There is no such service", body = Problem),
        (status = 422, description = "There is no such server or version", body = Problem),
    ),
)]
pub(super) async fn pin(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments((client, service)): Segments<(String, String)>,
    input::Json(json): input::Json,
) -> Result<Json<ShownAssignment>, Problem> {
    let (client, id) = (input::client_id(client)?, service_id(&service)?);
    caller.must(Action::Register, Some(id.as_str()))?;
    if json.get("version").is_some() {
        return pin_version(&state, &client, &id, &json).await.map(Json);
    }
    let view = state.table.view();
    let service = view.service(&id).ok_or_else(|| no_service(&view, &id))?;
    let server = wanted(&json, service)?;
    if service.server(&server).is_none()
        && let Ok(uri) = server.parse()
    {
        caller.must_reach(id.as_str(), &uri)?;
    }
    let assignment = state.table.assignments().pin(&id, &client, &server).await?;
    Ok(Json(assignment.into()))
}

/// The release is told first, so that routers look for pins before there is one.
async fn pin_version(
    state: &State,
    client: &str,
    id: &ServiceId,
    json: &serde_json::Value,
) -> Result<ShownAssignment, Problem> {
    let known = json.as_object().is_some_and(|object| object.len() == 1) && id.version().is_none();
    let version = json.get("version").and_then(|version| version.as_str()).filter(|_| known);
    let version = version.ok_or_else(|| {
        Problem::field("version", "write {\"version\": \"2\"} alone, for a service without a version")
    })?;
    let view = state.table.view();
    must_be_read(&view)?;
    let there = release::versions(&view, id.name());
    if !there.contains(&version) {
        let detail = format!("{} has no version `{version}`; there is {}", id.name(), there.join(", "));
        return Err(Problem::field("version", detail));
    }
    if view.release(id.name()).is_none_or(|release| !release.pins) {
        let changed = release::change(&state.table, id.name(), None, |release, versions| {
            let found = (release.number == 0).then(|| ReleaseRecord::found(versions, now()));
            let release = found.as_ref().unwrap_or(release).clone();
            match release.weights.is_empty() {
                true => Err(ReleaseRefused::NothingLive(id.name().to_owned())),
                false => Ok(ReleaseRecord { pins: true, ..release }),
            }
        });
        let revision = changed.await?.revision;
        state.routing.follows(revision).await;
    }
    let choice = Choice { version: version.to_owned(), number: None };
    let choices = ServiceId::choices(id.name());
    let pinned = state.table.assignments().pin(&choices, client, &choice.to_string()).await?;
    Ok(pinned.into())
}

/// The server's id if it is listed, else its URI.
fn wanted(json: &serde_json::Value, service: &Service) -> Result<String, Problem> {
    let known = json.as_object().is_some_and(|object| object.keys().all(|key| key == "server"));
    let server = json.get("server").and_then(|server| server.as_str()).filter(|_| known);
    let server = server.ok_or_else(|| Problem::field("server", "write {\"server\": \"ID or URI\"}"))?;
    if service.server(server).is_some() {
        return Ok(server.to_owned());
    }
    match server.parse::<ServerUri>() {
        Ok(uri) => {
            Ok(service.server_at(&uri).map_or_else(|| uri.to_string(), |listed| listed.id.to_string()))
        }
        Err(_) => {
            let ids: Vec<&str> = service.servers.iter().map(|server| &*server.id).take(20).collect();
            let known = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
            let detail = format!("service {} has no server `{server}`; its servers: {known}", service.id);
            Err(Problem::field("server", detail))
        }
    }
}

/// Forgets where a client's messages to a service go; the next one is routed anew.
#[utoipa::path(
    delete, path = "/v1/clients/{id}/assignments/{service}", tag = "clients", operation_id = "forget_client",
    params(AssignmentPath),
    responses((status = 204, description = "Forgotten, or was not there")),
)]
pub(super) async fn forget(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments((client, service)): Segments<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (client, id) = (input::client_id(client)?, service_id(&service)?);
    caller.must(Action::Register, Some(id.as_str()))?;
    state.table.assignments().forget(&id, &client).await?;
    if id.version().is_none() {
        state.table.assignments().forget(&ServiceId::choices(id.name()), &client).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
