//! `/v1/services`: what services there are, and where their messages go.

use std::time::Duration;

use axum::{
    Json,
    extract::State as Shared,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{
    State,
    guard::Caller,
    input::{self, Segments, service_id},
    problem::{Kind, Problem},
    shown::{ShownService, must_not_be_configured, no_service},
};
use crate::{
    auth::Action,
    config,
    table::{
        TableError, View,
        adapter::{Change, Revision},
        record::{ServerRecord, ServiceId, ServiceRecord, ServiceSpec},
    },
};

/// How often a write is tried again when something else changed the table meanwhile.
const ATTEMPTS: usize = 8;

/// How long the view may take to follow the table before a write is tried on it regardless.
const CATCH_UP: Duration = Duration::from_secs(1);

/// More changes than this cannot be made all or none.
const ATOMIC: usize = 64;

/// Every service that the caller may read.
#[utoipa::path(get, path = "/v1/services", tag = "services", responses((status = 200, body = Vec<ShownService>)))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
) -> Result<Json<Vec<ShownService>>, Problem> {
    caller.must(Action::Read, None)?;
    let view = state.table.view();
    let readable = view.services().filter(|service| caller.may(Action::Read, Some(service.id.as_str())));
    Ok(Json(readable.map(|service| state.show(service)).collect()))
}

/// One service with its servers.
#[utoipa::path(
    get, path = "/v1/services/{service}", tag = "services",
    params(("service", description = "`chat` or `chat@2`")),
    responses((status = 200, body = ShownService), (status = 404, body = Problem)),
)]
pub(super) async fn show(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(service): Segments<String>,
) -> Result<Json<ShownService>, Problem> {
    let id = service_id(&service)?;
    caller.must(Action::Read, Some(id.as_str()))?;
    let view = state.table.view();
    let service = view.service(&id).ok_or_else(|| no_service(&view, &id))?;
    Ok(Json(state.show(service)))
}

/// Creates a service, or replaces all of it; its server list becomes the one given.
///
/// A registrar or filter that is not loaded may come later; until then `warnings` of the answer
/// say so, and messages get 503.
#[utoipa::path(
    put, path = "/v1/services/{service}", tag = "services",
    params(("service", description = "`chat` or `chat@2`")),
    request_body = ServiceSpec,
    responses(
        (status = 200, description = "Replaced", body = ShownService),
        (status = 201, description = "Created", body = ShownService),
        (status = 409, description = "Defined by the configuration", body = Problem),
        (status = 422, description = "Every mistake, by field", body = Problem),
    ),
)]
pub(super) async fn put(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(service): Segments<String>,
    input::Json(json): input::Json,
) -> Result<Response, Problem> {
    let id = service_id(&service)?;
    caller.must(Action::Register, Some(id.as_str()))?;
    let spec = config::record::service(&json).map_err(Problem::invalid)?;
    must_not_be_configured(&state.table.view(), &id)?;
    let new = write(&state, |view| Ok((view.stored(&id).is_none(), replacement(view, &id, &spec)?))).await?;
    let view = state.table.view();
    let service = view.service(&id).ok_or_else(|| gone(&id))?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(state.show(service))).into_response())
}

/// Removes a service and its server list.
#[utoipa::path(
    delete, path = "/v1/services/{service}", tag = "services",
    params(("service", description = "`chat` or `chat@2`")),
    responses((status = 204, description = "Removed"), (status = 404, body = Problem), (status = 409, body = Problem)),
)]
pub(super) async fn delete(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(service): Segments<String>,
) -> Result<StatusCode, Problem> {
    let id = service_id(&service)?;
    caller.must(Action::Register, Some(id.as_str()))?;
    must_not_be_configured(&state.table.view(), &id)?;
    write(&state, |view| {
        let stored = view.stored(&id).ok_or_else(|| no_service(view, &id))?;
        let servers = stored.servers.iter().map(|server| delete_server(&id, &server.id));
        let record = stored.declared.then(|| change("service", id.as_str(), None));
        Ok(((), servers.chain(record).collect()))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Writes what `plan` makes of the view, so that nothing that changed meanwhile is overwritten
/// unseen: then it is planned again. Returns when messages are routed by what was written.
pub(super) async fn write<T>(
    state: &State,
    plan: impl Fn(&View) -> Result<(T, Vec<Change>), Problem>,
) -> Result<T, Problem> {
    for _ in 0..ATTEMPTS {
        let view = state.table.view();
        let (answer, changes) = plan(&view)?;
        if changes.is_empty() {
            state.routing.follows(view.revision).await;
            return Ok(answer);
        }
        let expect = (changes.len() <= ATOMIC).then_some(view.revision);
        match state.table.write(changes, expect).await {
            Ok(revision) => {
                state.routing.follows(revision).await;
                return Ok(answer);
            }
            Err(TableError::Conflict(there)) => catch_up(state, there).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::new(Kind::Conflict, format!("the table changed {ATTEMPTS} times meanwhile; try again")))
}

/// Waits until the view is where the table is.
async fn catch_up(state: &State, there: Revision) {
    let mut views = state.table.subscribe();
    let there = views.wait_for(|view| view.revision >= there);
    let _ = tokio::time::timeout(CATCH_UP, there).await;
}

/// What makes the table say this of a service.
fn replacement(view: &View, id: &ServiceId, spec: &ServiceSpec) -> Result<Vec<Change>, Problem> {
    let stored = view.stored(id);
    let mut changes = Vec::new();
    if stored.is_none_or(|stored| !stored.declared || stored.record != spec.record) {
        changes.push(put_service(id, &spec.record)?);
    }
    for server in &spec.servers {
        let same = stored.and_then(|stored| stored.server(&server.id));
        // What keeps a server, and whether it is leaving, is not for a list to say.
        let kept = same.map(|same| (same.record.lease.clone(), same.record.draining.clone()));
        let (lease, draining) = kept.unwrap_or_default();
        let record = ServerRecord { lease, draining, ..server.record.clone() };
        if same.is_none_or(|same| same.record != record || same.held) {
            changes.push(put_server(id, &server.id, &record)?);
        }
    }
    for server in stored.into_iter().flat_map(|stored| &stored.servers) {
        if !spec.servers.iter().any(|kept| *kept.id == *server.id) {
            changes.push(delete_server(id, &server.id));
        }
    }
    Ok(changes)
}

fn put_service(id: &ServiceId, record: &ServiceRecord) -> Result<Change, Problem> {
    Ok(change("service", id.as_str(), Some(json(record)?)))
}

pub(super) fn put_server(service: &ServiceId, id: &str, record: &ServerRecord) -> Result<Change, Problem> {
    Ok(change("server", &format!("{service}/{id}"), Some(json(record)?)))
}

pub(super) fn delete_server(service: &ServiceId, id: &str) -> Change {
    change("server", &format!("{service}/{id}"), None)
}

fn json(record: &impl serde::Serialize) -> Result<String, Problem> {
    serde_json::to_string(record).map_err(|error| Problem::new(Kind::Internal, error.to_string()))
}

fn change(kind: &str, key: &str, value: Option<String>) -> Change {
    Change { kind: kind.to_owned(), key: key.to_owned(), value, ephemeral: false }
}

fn gone(id: &ServiceId) -> Problem {
    Problem::new(Kind::Conflict, format!("service {id} was written, and removed again meanwhile"))
}
