//! `/v1/routers`: who shares the table.

use axum::{Json, extract::State as Shared};
use serde::Serialize;

use super::{State, guard::Caller, problem::Problem, shown::must_be_read};
use crate::table::View;

/// A running router.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownRouter {
    id: String,
    /// Where its API is reached.
    uri: String,
    /// Differs with every start of the process.
    incarnation: String,
    /// Of the router that is asked: what it cannot read in the table, at most 100 of these. What it knew
    /// before under such a key goes on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<Unreadable>,
    /// The id that it came with, which another router has that runs: it was started from a copy of its data directory,
    /// or with the same `[router] id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead_of: Option<String>,
}

/// Something in the routing table that this router cannot read.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Unreadable {
    /// `service`, `server`, `release`, `router`; or `stray`: it lies where records are kept and is none.
    kind: String,
    /// Where it is: a record's key; of what is none the datastore's own.
    key: String,
    /// Why, in words.
    reason: String,
}

/// So many of them are shown.
const UNREADABLE: usize = 100;

/// Every router that shares the table.
#[utoipa::path(
    get, path = "/v1/routers", tag = "routers", operation_id = "list_routers",
    responses(
        (status = 200, description = "Every router", body = Vec<ShownRouter>),
        (status = 503, description = "The routing table was not read yet", body = Problem),
    ),
)]
pub(super) async fn routers(
    Shared(state): Shared<State>,
    caller: Caller,
) -> Result<Json<Vec<ShownRouter>>, Problem> {
    caller.must_inspect()?;
    let view = state.table.view();
    must_be_read(&view)?;
    let (own, _) = state.table.router();
    let routers = view.routers().iter().map(|(id, router)| ShownRouter {
        id: id.to_string(),
        uri: router.uri.clone(),
        incarnation: router.incarnation.clone(),
        unreadable: if **id == *own { unreadable(&view) } else { Vec::new() },
        instead_of: router.instead_of.clone(),
    });
    Ok(Json(routers.collect()))
}

fn unreadable(view: &View) -> Vec<Unreadable> {
    let shown = view.problems().values().take(UNREADABLE).map(|problem| Unreadable {
        kind: problem.kind.clone(),
        key: problem.key.clone(),
        reason: problem.reason.clone(),
    });
    shown.collect()
}
