//! `/v1/plugins`: what is loaded, and what of it a service may name.

use axum::{Json, extract::State as Shared};

use super::{State, guard::Caller, problem::Problem};
use crate::{
    auth::Action,
    plugin::{Kind, PluginSet, PluginStatus},
    table::record::ServiceRecord,
};

/// Every build that serves, drains or was refused.
#[utoipa::path(get, path = "/v1/plugins", tag = "plugins", responses((status = 200, body = Vec<PluginStatus>)))]
pub(super) async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
) -> Result<Json<Vec<PluginStatus>>, Problem> {
    caller.must(Action::Read, None)?;
    Ok(Json(state.plugins.status()))
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
