//! `/v1/services/{service}/servers/{id}`: one server of a server list.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use axum::{extract::State as Shared, http::StatusCode, response::Response};

use super::{
    State,
    condition::{Condition, Tag},
    guard::Caller,
    input::{self, Segments, service_id},
    problem::{Kind, Problem},
    services::{delete_server, put_server, write, written_of},
    shown::{ShownServer, absent, must_not_be_configured, no_service},
    written::{Reading, ServerPath, Writing, WrittenServer},
};
use crate::{
    auth::Action,
    config,
    table::{
        View,
        lease::{Lease, Renewed},
        record::{ServerRecord, ServerSpec},
        view::{Server, Service},
    },
    units::Span,
};

/// How long a server may be kept without a heartbeat.
const TTL: RangeInclusive<Span> = Span(Duration::from_millis(100))..=Span(Duration::from_secs(86_400));

/// One server of a service.
#[utoipa::path(
    get, path = "/v1/services/{service}/servers/{id}", tag = "services", operation_id = "show_server",
    params(ServerPath, Reading),
    responses(
        (status = 200, description = "The server", body = ShownServer, headers(("ETag" = String))),
        (status = 304, description = "It is as `If-None-Match` says"),
        (status = 404, description = "There is none", body = Problem),
    ),
)]
pub(super) async fn show(
    Shared(state): Shared<State>,
    caller: Caller,
    condition: Condition,
    Segments((service, id)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let service = service_id(&service)?;
    caller.must(Action::Read, Some(service.as_str()))?;
    let view = state.table.view();
    let service = view.service(&service).ok_or_else(|| no_service(&view, &service))?;
    let server = service.server(&id).ok_or_else(|| no_server(service, &id))?;
    let shown = state.show_server(service, server);
    condition.answer(&Tag::new(&written_of(&server.record), &shown), &shown)
}

fn no_server(service: &Service, id: &str) -> Problem {
    Problem::new(Kind::NotFound, format!("service {} has no server {id}", service.id))
}

/// Of what the table holds, as that is what is written.
fn must_be_as_expected(
    state: &State,
    stored: Option<(&Service, &Server)>,
    condition: &Condition,
) -> Result<(), Problem> {
    if condition.is_none() {
        return Ok(());
    }
    let tag = stored
        .map(|(service, server)| Tag::new(&written_of(&server.record), &state.show_server(service, server)));
    condition.must_hold(tag.as_ref())
}

/// Adds a server to a service, or replaces it. A service that is not there yet is created. With a
/// `ttl` the server is removed unless a heartbeat comes in that time.
#[utoipa::path(
    put, path = "/v1/services/{service}/servers/{id}", tag = "services", operation_id = "put_server",
    params(ServerPath, Writing),
    request_body = WrittenServer,
    responses(
        (status = 200, description = "Replaced", body = ShownServer, headers(("ETag" = String))),
        (status = 201, description = "Added", body = ShownServer, headers(("ETag" = String))),
        (status = 409, description = "Defined by the configuration", body = Problem),
        (status = 412, description = "It is not what the request expects", body = Problem),
        (status = 422, description = "Every mistake, by field", body = Problem),
    ),
)]
pub(super) async fn put(
    Shared(state): Shared<State>,
    caller: Caller,
    condition: Condition,
    Segments((service, id)): Segments<(String, String)>,
    input::Json(json): input::Json,
) -> Result<Response, Problem> {
    let service = service_id(&service)?;
    caller.must(Action::Register, Some(service.as_str()))?;
    must_not_be_configured(&state.table.view(), &service)?;
    let expected = |view: &View| {
        let stored = view.stored(&service);
        let server = stored.and_then(|stored| Some((&**stored, &**stored.server(&id)?)));
        must_be_as_expected(&state, server, &condition)
    };
    expected(&state.table.view())?;
    let (ttl, json) = ttl(json)?;
    let mut spec = spec(&id, json)?;
    spec.record.uris().try_for_each(|uri| caller.must_reach(service.as_str(), uri))?;
    let renewed = state.table.clock().now();
    spec.record.lease = ttl.map(|ttl| Lease::Ttl(Renewed { ttl, renewed }));
    let revised = write(&state, |view| {
        expected(view)?;
        let stored = view.stored(&service).and_then(|stored| stored.server(&id));
        let mut record = spec.record.clone();
        if record.lease.is_none() {
            record.lease = stored.and_then(|stored| connection(&stored.record));
        }
        let same = stored.is_some_and(|stored| stored.record == record && !stored.held);
        let change = if same { None } else { Some(put_server(&service, &id, &record)?) };
        Ok((stored.is_none(), change.into_iter().collect()))
    })
    .await?;
    let find = |view: &View| {
        let service = Arc::clone(view.service(&service)?);
        let server = Arc::clone(service.server(&id)?);
        Some((service, server))
    };
    let found = find(&state.table.view());
    // Somebody may have removed it again meanwhile.
    let found = found.or_else(|| find(&state.table.as_written(&revised)));
    let (service, server) = found
        .ok_or_else(|| Problem::new(Kind::Internal, format!("server {id} was written and is nowhere")))?;
    let status = if revised.answer { StatusCode::CREATED } else { StatusCode::OK };
    let shown = state.show_server(&service, &server);
    Ok(Tag::new(&written_of(&server.record), &shown).answer(status, &shown))
}

/// The connection that keeps a server, and goes on to do so whatever else is written of it.
fn connection(record: &ServerRecord) -> Option<Lease> {
    record.lease.clone().filter(|lease| matches!(lease, Lease::Connection(_)))
}

/// Takes the `ttl` out of a document.
fn ttl(mut json: serde_json::Value) -> Result<(Option<Span>, serde_json::Value), Problem> {
    let written = json.as_object_mut().and_then(|object| object.remove("ttl")).filter(|ttl| !ttl.is_null());
    let Some(written) = written else { return Ok((None, json)) };
    let ttl = written.as_str().and_then(|text| text.parse::<Span>().ok());
    match ttl.filter(|ttl| TTL.contains(ttl)) {
        Some(ttl) => Ok((Some(ttl), json)),
        None => {
            Err(Problem::field("ttl", format!("{written} is not \"{}\" to \"{}\"", TTL.start(), TTL.end())))
        }
    }
}

/// Says that a server is well, which was registered with a `ttl`. Without it the server is removed
/// when that time has passed.
#[utoipa::path(
    post, path = "/v1/services/{service}/servers/{id}/heartbeat", tag = "discovery", operation_id = "heartbeat",
    params(ServerPath),
    responses(
        (status = 204, description = "Noted"),
        (status = 404, description = "It is gone: register it again", body = Problem),
        (status = 409, description = "It has no `ttl`", body = Problem),
    ),
)]
pub(super) async fn heartbeat(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments((service, id)): Segments<(String, String)>,
) -> Result<StatusCode, Problem> {
    let service = service_id(&service)?;
    caller.must(Action::Register, Some(service.as_str()))?;
    let view = state.table.view();
    let server = view.stored(&service).and_then(|stored| stored.server(&id));
    let server =
        server.ok_or_else(|| absent(&view, format!("service {service} has no server {id}: register it")))?;
    if !matches!(server.record.lease, Some(Lease::Ttl(_))) {
        return Err(Problem::new(
            Kind::Conflict,
            format!("server {id} of service {service} was not registered with a `ttl`"),
        ));
    }
    state.discovery.renew(&service, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The `id` of the path holds; one in the document must be the same.
fn spec(id: &str, mut json: serde_json::Value) -> Result<ServerSpec, Problem> {
    if let Some(uri) = json.as_str() {
        json = serde_json::json!({ "uri": uri });
    }
    if let Some(object) = json.as_object_mut() {
        match object.get("id").and_then(|written| written.as_str()) {
            Some(written) if written != id => {
                return Err(Problem::field("id", format!("`{written}` is not the id in the path, `{id}`")));
            }
            _ => object.insert("id".to_owned(), id.into()),
        };
    }
    config::record::server(&json).map_err(Problem::invalid)
}

/// Removes a server; its clients are routed anew.
#[utoipa::path(
    delete, path = "/v1/services/{service}/servers/{id}", tag = "services", operation_id = "delete_server",
    params(ServerPath, Writing),
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
    Segments((service, id)): Segments<(String, String)>,
) -> Result<StatusCode, Problem> {
    let service = service_id(&service)?;
    caller.must(Action::Register, Some(service.as_str()))?;
    must_not_be_configured(&state.table.view(), &service)?;
    write(&state, |view| {
        let stored = view.stored(&service).ok_or_else(|| no_service(view, &service))?;
        let server = stored.server(&id).ok_or_else(|| no_server(stored, &id))?;
        must_be_as_expected(&state, Some((stored, server)), &condition)?;
        Ok(((), vec![delete_server(&service, &id)]))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
