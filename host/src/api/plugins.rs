//! `/v1/plugins`: what is loaded, and what of it a service may name.

use axum::{Json, extract::State as Shared};

use super::{
    State,
    guard::Caller,
    input::Segments,
    problem::{self, Problem},
    written::PluginPath,
};
use crate::{
    auth::Action,
    plugin::{Kind, PluginSet, PluginStatus, SwitchError},
    table::record::ServiceRecord,
};

/// Every build that serves, drains or was refused.
#[utoipa::path(
    get, path = "/v1/plugins", tag = "plugins", operation_id = "list_plugins",
    responses((status = 200, description = "Every build", body = Vec<PluginStatus>)),
)]
pub(super) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
) -> Result<Json<Vec<PluginStatus>>, Problem> {
    caller.must_inspect()?;
    Ok(Json(state.plugins.status()))
}

/// Has the next build of a plugin (`shadow`) serve; the one that it replaces is kept to go back to.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/promote", tag = "plugins", operation_id = "promote_plugin", params(PluginPath),
    responses(
        (status = 200, description = "Its builds", body = Vec<PluginStatus>),
        (status = 404, description = "There is no such plugin", body = Problem),
        (status = 409, description = "No next build is tried out", body = Problem),
    ),
)]
pub(super) async fn promote(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Json<Vec<PluginStatus>>, Problem> {
    caller.must(Action::Admin, Some(&name))?;
    state.plugins.promote(&name).await.map_err(problem)?;
    Ok(Json(builds(&state, &name)))
}

/// Ends the trial of a plugin's next build; if none is tried out, brings back what the last promotion
/// replaced.
#[utoipa::path(
    post, path = "/v1/plugins/{name}/rollback", tag = "plugins", operation_id = "roll_back_plugin", params(PluginPath),
    responses(
        (status = 200, description = "Its builds", body = Vec<PluginStatus>),
        (status = 404, description = "There is no such plugin", body = Problem),
        (status = 409, description = "There is nothing to go back to", body = Problem),
    ),
)]
pub(super) async fn roll_back(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Json<Vec<PluginStatus>>, Problem> {
    caller.must(Action::Admin, Some(&name))?;
    state.plugins.roll_back(&name).await.map_err(problem)?;
    Ok(Json(builds(&state, &name)))
}

/// The builds of one plugin, the next one included.
fn builds(state: &State, name: &str) -> Vec<PluginStatus> {
    let mut builds = state.plugins.status();
    builds.retain(|build| build.name == name || build.name.strip_suffix("@next") == Some(name));
    builds
}

fn problem(error: SwitchError) -> Problem {
    let kind = match error {
        SwitchError::Unknown(_) => problem::Kind::NotFound,
        SwitchError::NothingNext(_) | SwitchError::NothingBefore(_) => problem::Kind::Conflict,
        SwitchError::Files(..) => problem::Kind::Internal,
        SwitchError::Stopping => problem::Kind::NotReady,
    };
    Problem::new(kind, error.to_string())
}

/// Which of the plugins that a service names are not loaded, or are something else.
pub(super) fn warnings(plugins: &PluginSet, record: &ServiceRecord) -> Vec<String> {
    let registrar = record.registrar.iter().map(|name| ("registrar", name, &[Kind::Registrar][..]));
    let kinds = &[Kind::RequestFilter, Kind::ResponseFilter][..];
    let filters = record.filters.iter().map(|name| ("filter", name, kinds));
    registrar.chain(filters).filter_map(|(what, name, kinds)| warning(plugins, what, name, kinds)).collect()
}

fn warning(plugins: &PluginSet, what: &str, name: &str, kinds: &[Kind]) -> Option<String> {
    match plugins.by_name.get(name) {
        Some(build) if kinds.iter().any(|kind| build.is(*kind)) => None,
        Some(_) => Some(format!("plugin `{name}` is no {what}")),
        None => Some(format!("{what} `{name}` is not loaded: drop {name}.wasm into the plugins directory")),
    }
}
