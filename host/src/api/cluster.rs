//! `/v1/routers`: who shares the table.

use axum::{Json, extract::State as Shared};
use serde::Serialize;

use super::{State, guard::Caller, problem::Problem, shown::must_be_read};

/// A running router.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownRouter {
    id: String,
    /// Where its API is reached.
    uri: String,
    /// Differs with every start of the process.
    incarnation: String,
}

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
    let routers = view.routers().iter().map(|(id, router)| ShownRouter {
        id: id.to_string(),
        uri: router.uri.clone(),
        incarnation: router.incarnation.clone(),
    });
    Ok(Json(routers.collect()))
}
