//! `/v1/services/{service}/servers/{id}/drain`: an operator lets a server leave.

use std::time::Duration;

use axum::{Json, extract::State as Shared, http::StatusCode, response::IntoResponse, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    State,
    guard::Caller,
    input::{Asked, Segments, service_id},
    problem::{Kind, Problem},
    shown::{must_not_be_configured, no_service},
    written::ServerPath,
};
use crate::{auth::Action, discovery::Progress, units::Span};

/// Nobody waits longer for a drain; it goes on all the same.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long to wait.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Waiting {
    /// How long to wait for the end, such as `30s`; without it the answer comes at once.
    #[param(value_type = Option<String>)]
    wait: Option<Span>,
    /// How long the server's clients may stay; else half of `wait`, at most `discovery.drain`.
    #[param(value_type = Option<String>)]
    deadline: Option<Span>,
}

/// How a drain stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownDrain {
    service: String,
    server: String,
    /// `drained`: it is safe to stop the server; or `draining`: messages may still go to it.
    state: &'static str,
}

/// Lets a server leave: it gets no new clients; those that it has stay until their assignment ends
/// or the deadline passes. Answers 200 when every router sends it nothing any more, 202 if that takes
/// longer than `wait`. Registering the server again cancels it.
#[utoipa::path(
    post, path = "/v1/services/{service}/servers/{id}/drain", tag = "discovery", operation_id = "drain_server",
    params(ServerPath, Waiting),
    responses(
        (status = 200, description = "Drained", body = ShownDrain),
        (status = 202, description = "Not yet", body = ShownDrain),
        (status = 404, description = "There is none", body = Problem),
        (status = 409, description = "Defined by the configuration, or registered anew meanwhile", body = Problem),
    ),
)]
pub(super) async fn drain(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments((service, id)): Segments<(String, String)>,
    Asked(waiting): Asked<Waiting>,
) -> Result<Response, Problem> {
    let service = service_id(&service)?;
    caller.must(Action::Register, Some(service.as_str()))?;
    let view = state.table.view();
    must_not_be_configured(&view, &service)?;
    let stored = view.stored(&service).ok_or_else(|| no_service(&view, &service))?;
    if stored.server(&id).is_none() {
        return Err(Problem::new(Kind::NotFound, format!("service {service} has no server {id}")));
    }
    let (deadline, wait) =
        (waiting.deadline.map(|Span(span)| span), waiting.wait.map(|Span(span)| span.min(LONGEST)));
    let (status, word) = match state.discovery.drain(&service, &id, deadline, wait).await? {
        Progress::Drained => (StatusCode::OK, "drained"),
        Progress::Draining => (StatusCode::ACCEPTED, "draining"),
        Progress::Cancelled => {
            let detail =
                format!("server {id} of service {service} was registered anew: it is not leaving any more");
            return Err(Problem::new(Kind::Conflict, detail));
        }
    };
    let shown = ShownDrain { service: service.to_string(), server: id, state: word };
    Ok((status, Json(shown)).into_response())
}
