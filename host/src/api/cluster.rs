//! `/v1/routers` and `/v1/services/{service}/releases`: who shares the table, and which versions
//! are live.

use std::collections::BTreeMap;

use axum::{Json, extract::State as Shared};
use serde::Serialize;

use super::{
    State,
    guard::Caller,
    input::{Segments, service_id},
    problem::Problem,
    shown::no_service,
};
use crate::auth::Action;

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
#[utoipa::path(get, path = "/v1/routers", tag = "routers", responses((status = 200, body = Vec<ShownRouter>)))]
pub(super) async fn routers(
    Shared(state): Shared<State>,
    caller: Caller,
) -> Result<Json<Vec<ShownRouter>>, Problem> {
    caller.must(Action::Read, None)?;
    let view = state.table.view();
    let routers = view.routers().iter().map(|(id, router)| ShownRouter {
        id: id.to_string(),
        uri: router.uri.clone(),
        incarnation: router.incarnation.clone(),
    });
    Ok(Json(routers.collect()))
}

/// Which versions of a service are live.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownRelease {
    name: String,
    /// Every version there is, live or not.
    versions: Vec<String>,
    /// Shares of the clients by version; null: nothing was promoted.
    weights: Option<BTreeMap<String, u32>>,
}

/// Which versions of a service are live, and with what weights.
#[utoipa::path(
    get, path = "/v1/services/{service}/releases", tag = "services",
    params(("service", description = "The name, without a version")),
    responses((status = 200, body = ShownRelease), (status = 404, body = Problem)),
)]
pub(super) async fn release(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(service): Segments<String>,
) -> Result<Json<ShownRelease>, Problem> {
    let id = service_id(&service)?;
    caller.must(Action::Read, Some(id.name()))?;
    let view = state.table.view();
    let weights = view.release(id.name()).map(|release| release.weights.clone());
    let versions = view.services().filter(|service| service.id.name() == id.name());
    let versions: Vec<String> =
        versions.filter_map(|service| service.id.version().map(str::to_owned)).collect();
    if weights.is_none() && view.named(id.name()).is_none() {
        return Err(no_service(&view, &id));
    }
    Ok(Json(ShownRelease { name: id.name().to_owned(), versions, weights }))
}
