//! `/v1/services`: what services there are, and where their messages go.

use std::sync::Arc;

use axum::{extract::State as Shared, http::StatusCode, response::Response};

use super::{
    State,
    condition::{Condition, Tag},
    guard::Caller,
    input::{self, Segments, service_id},
    problem::{Kind, Problem},
    shown::{ShownService, must_be_read, must_not_be_configured, no_service},
    written::{Reading, ServicePath, Writing, WrittenService},
};
use crate::{
    auth::Action,
    config,
    table::{
        Revised, View, WRITE_AT_ONCE,
        adapter::Change,
        record::{ServerRecord, ServiceId, ServiceRecord, ServiceSpec},
        removal,
        view::Service,
    },
};

/// Every service that the caller may read.
#[utoipa::path(
    get, path = "/v1/services", tag = "services", operation_id = "list_services", params(Reading),
    responses(
        (status = 200, description = "Every service", body = Vec<ShownService>, headers(("ETag" = String))),
        (status = 304, description = "They are as `If-None-Match` says"),
        (status = 503, description = "The routing table was not read yet", body = Problem),
    ),
)]
pub(super) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
    condition: Condition,
) -> Result<Response, Problem> {
    caller.must(Action::Read, None)?;
    let view = state.table.view();
    must_be_read(&view)?;
    let readable = view.services().filter(|service| caller.may(Action::Read, Some(service.id.as_str())));
    let shown: Vec<ShownService> = readable.map(|service| state.show(service)).collect();
    condition.answer(&Tag::new(&shown, &()), &shown)
}

/// One service with its servers.
#[utoipa::path(
    get, path = "/v1/services/{service}", tag = "services", operation_id = "show_service",
    params(ServicePath, Reading),
    responses(
        (status = 200, description = "The service", body = ShownService, headers(("ETag" = String))),
        (status = 304, description = "It is as `If-None-Match` says"),
        (status = 404, description = "There is none", body = Problem),
    ),
)]
pub(super) async fn show(
    Shared(state): Shared<State>,
    caller: Caller,
    condition: Condition,
    Segments(service): Segments<String>,
) -> Result<Response, Problem> {
    let id = service_id(&service)?;
    caller.must(Action::Read, Some(id.as_str()))?;
    let view = state.table.view();
    let service = view.service(&id).ok_or_else(|| no_service(&view, &id))?;
    let shown = state.show(service);
    condition.answer(&Tag::new(&written(service), &shown), &shown)
}

/// Creates a service, or replaces all of it; its server list becomes the one given.
///
/// With `If-Match` only if it is still what the reader of that `ETag` was shown, whatever its servers' health is
/// meanwhile; with `If-None-Match: *` only if there is none yet.
///
/// A registrar or filter that is not loaded may come later; until then `warnings` of the answer
/// say so, and messages get 503.
#[utoipa::path(
    put, path = "/v1/services/{service}", tag = "services", operation_id = "put_service",
    params(ServicePath, Writing),
    request_body = WrittenService,
    responses(
        (status = 200, description = "Replaced", body = ShownService, headers(("ETag" = String))),
        (status = 201, description = "Created", body = ShownService, headers(("ETag" = String))),
        (status = 409, description = "Defined by the configuration", body = Problem),
        (status = 412, description = "It is not what the request expects", body = Problem),
        (status = 422, description = "Every mistake, by field", body = Problem),
    ),
)]
pub(super) async fn put(
    Shared(state): Shared<State>,
    caller: Caller,
    condition: Condition,
    Segments(service): Segments<String>,
    input::Json(json): input::Json,
) -> Result<Response, Problem> {
    let id = service_id(&service)?;
    caller.must(Action::Register, Some(id.as_str()))?;
    must_not_be_configured(&state.table.view(), &id)?;
    must_be_as_expected(&state, &state.table.view(), &id, &condition)?;
    let spec = config::record::service(&json).map_err(Problem::invalid)?;
    let own = spec.record.server.iter().chain(&spec.record.load_balancer);
    for uri in own.chain(spec.servers.iter().flat_map(|server| server.record.uris())) {
        caller.must_reach(id.as_str(), uri)?;
    }
    let revised = write(&state, |view| {
        must_be_as_expected(&state, view, &id, &condition)?;
        let (stored, mut changes) = (view.stored(&id), replacement(view, &id, &spec)?);
        if !condition.is_none() && !changes.is_empty() {
            depend_on(stored, &mut changes)?;
        }
        Ok((stored.is_none(), changes))
    })
    .await?;
    let now = state.table.view();
    let service = now.service(&id).cloned();
    // Somebody may have removed it again meanwhile.
    let service = service.or_else(|| state.table.as_written(&revised).service(&id).cloned());
    let service = &service.ok_or_else(|| gone(&id))?;
    let status = if revised.answer { StatusCode::CREATED } else { StatusCode::OK };
    let shown = state.show(service);
    Ok(Tag::new(&written(service), &shown).answer(status, &shown))
}

/// Removes a service and its server list.
#[utoipa::path(
    delete, path = "/v1/services/{service}", tag = "services", operation_id = "delete_service",
    params(ServicePath, Writing),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is none", body = Problem),
        (status = 409, description = "Defined by the configuration", body = Problem),
        (status = 412, description = "It is not what the request expects", body = Problem),
    ),
)]
pub(super) async fn delete(
    Shared(state): Shared<State>,
    caller: Caller,
    condition: Condition,
    Segments(service): Segments<String>,
) -> Result<StatusCode, Problem> {
    let id = service_id(&service)?;
    caller.must(Action::Register, Some(id.as_str()))?;
    must_not_be_configured(&state.table.view(), &id)?;
    write(&state, |view| {
        let stored = view.stored(&id).ok_or_else(|| no_service(view, &id))?;
        must_be_as_expected(&state, view, &id, &condition)?;
        let servers = stored.servers.iter().map(|server| delete_server(&id, &server.id));
        let record = stored.declared.then(|| change("service", id.as_str(), None));
        Ok(((), servers.chain(record).collect()))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What somebody wrote of a service, which a write replaces: not what keeps its servers, nor how they are.
fn written(service: &Service) -> impl serde::Serialize + use<> {
    let servers = service.servers.iter().map(|server| (server.id.to_string(), written_of(&server.record)));
    (service.record.clone(), servers.collect::<Vec<_>>())
}

/// What somebody wrote of a server.
pub(super) fn written_of(record: &ServerRecord) -> ServerRecord {
    ServerRecord { lease: None, draining: None, ..record.clone() }
}

/// Of what the table holds, as that is what is written.
fn must_be_as_expected(
    state: &State,
    view: &View,
    id: &ServiceId,
    condition: &Condition,
) -> Result<(), Problem> {
    if condition.is_none() {
        return Ok(());
    }
    let tag = view.stored(id).map(|stored| Tag::new(&written(stored), &state.show(stored)));
    condition.must_hold(tag.as_ref())
}

/// Writes what `plan` makes of the view, so that nothing that changed meanwhile is overwritten
/// unseen: then it is planned again. Returns when messages are routed by what was written.
pub(super) async fn write<T>(
    state: &State,
    plan: impl Fn(&View) -> Result<(T, Vec<Change>), Problem>,
) -> Result<Revised<T>, Problem> {
    let revise = state.table.revise(|view| {
        must_be_read(view)?;
        let (answer, changes) = plan(view)?;
        Ok::<_, Problem>((answer, removal::meant(view, changes)))
    });
    let revised = revise.await?;
    state.routing.follows(revised.revision).await;
    Ok(revised)
}

/// Names what a condition was held against and the write leaves as it is, by writing it as it is: so the
/// write holds only if that is still so. More than can be written at once cannot be depended on.
fn depend_on(service: Option<&Arc<Service>>, changes: &mut Vec<Change>) -> Result<(), Problem> {
    let Some(service) = service else { return Ok(()) };
    let mut all = changes.clone();
    let named = |kind: &str, key: &str| changes.iter().any(|change| change.kind == kind && change.key == key);
    if service.declared && !named("service", service.id.as_str()) {
        all.push(put_service(&service.id, &service.record)?);
    }
    for server in &service.servers {
        if !named("server", &format!("{}/{}", service.id, server.id)) {
            all.push(put_server(&service.id, &server.id, &server.record)?);
        }
    }
    if all.len() <= WRITE_AT_ONCE {
        *changes = all;
    }
    Ok(())
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
    Problem::new(Kind::Internal, format!("service {id} was written and is nowhere"))
}
