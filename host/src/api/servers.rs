//! `/v1/services/{service}/servers/{id}`: one server of a server list.

use std::{ops::RangeInclusive, time::Duration};

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
    services::{delete_server, put_server, write},
    shown::{ShownServer, Source, must_not_be_configured, no_service},
};
use crate::{
    auth::Action,
    config,
    table::{
        lease::{Lease, Renewed},
        record::{ServerRecord, ServerSpec},
    },
    units::Span,
};

/// How long a server may be kept without a heartbeat.
const TTL: RangeInclusive<Span> = Span(Duration::from_millis(100))..=Span(Duration::from_secs(86_400));

/// Adds a server to a service, or replaces it. A service that is not there yet is created. With a
/// `ttl` the server is removed unless a heartbeat comes in that time.
#[utoipa::path(
    put, path = "/v1/services/{service}/servers/{id}", tag = "services",
    params(("service", description = "`chat` or `chat@2`"), ("id", description = "Unique within the service")),
    request_body = ServerRecord,
    responses(
        (status = 200, description = "Replaced", body = ShownServer),
        (status = 201, description = "Added", body = ShownServer),
        (status = 409, description = "Defined by the configuration", body = Problem),
        (status = 422, description = "Every mistake, by field", body = Problem),
    ),
)]
pub(super) async fn put(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments((service, id)): Segments<(String, String)>,
    input::Json(json): input::Json,
) -> Result<Response, Problem> {
    let service = service_id(&service)?;
    caller.must(Action::Register, Some(service.as_str()))?;
    let (ttl, json) = ttl(json)?;
    let mut spec = spec(&id, json)?;
    let renewed = state.table.clock().now();
    spec.record.lease = ttl.map(|ttl| Lease::Ttl(Renewed { ttl, renewed }));
    must_not_be_configured(&state.table.view(), &service)?;
    let new = write(&state, |view| {
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
    let view = state.table.view();
    let checked = view.service(&service).is_some_and(|service| service.record.health.is_some());
    let server = view.service(&service).and_then(|service| service.server(&id));
    let server = server.ok_or_else(|| {
        Problem::new(Kind::Conflict, format!("server {id} was written, and removed again meanwhile"))
    })?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    let standing = state.routing.standing(&service, &id);
    Ok((status, Json(ShownServer::new(server, Source::Table, standing, checked))).into_response())
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
    post, path = "/v1/services/{service}/servers/{id}/heartbeat", tag = "discovery",
    params(("service", description = "`chat` or `chat@2`"), ("id", description = "Unique within the service")),
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
    let server = server.ok_or_else(|| {
        Problem::new(Kind::NotFound, format!("service {service} has no server {id}: register it"))
    })?;
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
    delete, path = "/v1/services/{service}/servers/{id}", tag = "services",
    params(("service", description = "`chat` or `chat@2`"), ("id", description = "Unique within the service")),
    responses((status = 204, description = "Removed"), (status = 404, body = Problem), (status = 409, body = Problem)),
)]
pub(super) async fn delete(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments((service, id)): Segments<(String, String)>,
) -> Result<StatusCode, Problem> {
    let service = service_id(&service)?;
    caller.must(Action::Register, Some(service.as_str()))?;
    must_not_be_configured(&state.table.view(), &service)?;
    write(&state, |view| {
        let stored = view.stored(&service).ok_or_else(|| no_service(view, &service))?;
        let server = stored.server(&id);
        server
            .ok_or_else(|| Problem::new(Kind::NotFound, format!("service {service} has no server {id}")))?;
        Ok(((), vec![delete_server(&service, &id)]))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
