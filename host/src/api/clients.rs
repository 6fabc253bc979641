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
    shown::no_service,
};
use crate::{
    auth::Action,
    table::{adapter::Assignment, record::ServerUri, view::Service},
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
}

/// The remembered server of a client for a service.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownAssignment {
    /// A server's id, or a URI that a registrar gave.
    server: String,
    /// RFC 3339; null: pinned.
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
    get, path = "/v1/clients/{id}", tag = "clients",
    params(("id", description = "The client id")),
    responses((status = 200, body = ShownClient)),
)]
pub(super) async fn show(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(client): Segments<String>,
) -> Result<Json<ShownClient>, Problem> {
    caller.must(Action::Read, None)?;
    let found = state.table.client(&client).await?;
    let now = now();
    let holds = |(service, assignment): &(String, Assignment)| {
        assignment.expires.is_none_or(|expires| expires > now) && caller.may(Action::Read, Some(service))
    };
    let held: Vec<_> = found.assignments.into_iter().filter(holds).collect();
    // Where nobody says that the client is connected, the last to have decided for it knows best.
    let newest = held.iter().max_by_key(|(_, assignment)| assignment.stamp);
    let router = found.router.or_else(|| newest.map(|(_, assignment)| assignment.router.clone()));
    let assignments = held.into_iter();
    let assignments = assignments.map(|(service, assignment)| (service, assignment.into())).collect();
    Ok(Json(ShownClient { client, router, assignments }))
}

/// Which server to pin a client to.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "documents the body, which is read by hand for the sake of its errors")]
pub(super) struct Pin {
    /// The id of one of the service's servers, or its URI; or another URI.
    server: String,
}

/// Pins a client to a server of a service: all of its messages go there until it is forgotten.
#[utoipa::path(
    put, path = "/v1/clients/{id}/assignments/{service}", tag = "clients",
    params(("id", description = "The client id"), ("service", description = "`chat` or `chat@2`")),
    request_body = Pin,
    responses(
        (status = 200, body = ShownAssignment), (status = 404, body = Problem), (status = 422, body = Problem),
    ),
)]
pub(super) async fn pin(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments((client, service)): Segments<(String, String)>,
    input::Json(json): input::Json,
) -> Result<Json<ShownAssignment>, Problem> {
    let id = service_id(&service)?;
    caller.must(Action::Register, Some(id.as_str()))?;
    let view = state.table.view();
    let service = view.service(&id).ok_or_else(|| no_service(&view, &id))?;
    let server = wanted(&json, service)?;
    let assignment = state.table.assignments().pin(&id, &client, &server).await?;
    Ok(Json(assignment.into()))
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
    delete, path = "/v1/clients/{id}/assignments/{service}", tag = "clients",
    params(("id", description = "The client id"), ("service", description = "`chat` or `chat@2`")),
    responses((status = 204, description = "Forgotten, or was not there")),
)]
pub(super) async fn forget(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments((client, service)): Segments<(String, String)>,
) -> Result<StatusCode, Problem> {
    let id = service_id(&service)?;
    caller.must(Action::Register, Some(id.as_str()))?;
    state.table.assignments().forget(&id, &client).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
