//! The HTTP API: the registry, clients, plugins, explanations, the watch, health and metrics.
//!
//! A request passes [`guard`] (whose host, whose token, how long), then one handler, which asks
//! the routing table, the plugins, discovery or [`Routing`] and answers with a JSON document. Every error is
//! a [`Problem`]; `problem` is the one place that says which cause gets which status. The OpenAPI
//! document is generated from the handlers. This module may not know `proxy`.

mod clients;
mod cluster;
mod condition;
mod connect;
mod denials;
mod explain;
mod guard;
mod health;
mod input;
mod leaving;
mod metrics;
mod plugins;
mod problem;
mod releases;
mod serve;
mod servers;
mod services;
mod shown;
mod token;
mod watch;
mod written;

use std::sync::Arc;

use axum::{Router, http::header, middleware, routing::get};
use futures_util::future::BoxFuture;
use prometheus::Registry;
use tokio::sync::{Semaphore, watch as channel};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{
    problem::Problem,
    serve::{BindError, Listener, serve},
};
use crate::{
    config::Config,
    discovery::Discovery,
    drain::Drain,
    plugin::Plugins,
    resolve::{Explanation, Question},
    table::{ServiceId, Table, adapter::Revision},
};

/// What the API asks of the part that routes messages.
pub trait Routing: Send + Sync {
    /// Which server a message would go to, and why, by the code that routes; changes nothing.
    /// None: there is no such service.
    fn explain(&self, question: Question) -> BoxFuture<'_, Option<Explanation>>;

    /// Waits until messages are routed by a view at least as new as this.
    fn follows(&self, revision: Revision) -> BoxFuture<'_, ()>;

    /// What is known of a server of a service besides its record.
    fn standing(&self, service: &ServiceId, server: &str) -> Standing;
}

/// What a router has seen of a server itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Active checks of the service say that it is not well.
    pub fails_checks: bool,
    /// Failures of messages in a row keep it from getting any of the service for a while.
    pub ejected: bool,
    /// Messages on their way, of any service.
    pub in_flight: u32,
}

/// What the handlers work with; cheap to clone.
#[derive(Clone)]
pub struct State {
    /// The running configuration.
    pub config: channel::Receiver<Arc<Config>>,
    /// The routing table.
    pub table: Arc<Table>,
    /// The connections of services.
    pub discovery: Arc<Discovery>,
    /// What is loaded.
    pub plugins: Arc<Plugins>,
    /// The part that routes.
    pub routing: Arc<dyn Routing>,
    /// What is counted.
    pub registry: Registry,
    /// Ends streams and connections.
    pub drain: Drain,
    /// Requested as soon as the process stops taking messages; the API lasts longer.
    pub leaving: Drain,
    /// One permit for each stream of `/v1/watch`.
    pub watchers: Arc<Semaphore>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Message Flow",
        description = "The registry of services, where clients go, which plugins run. \
                       Errors are RFC 9457 problem documents (`application/problem+json`)."
    ),
    components(schemas(Problem)),
    security(("token" = [])),
    modifiers(&Bearer),
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// Every path, with what guards them.
pub fn router(state: State) -> Router {
    let (router, document) = documented().split_for_parts();
    let document = bytes::Bytes::from(problem::typed(&document).to_string());
    let json = [(header::CONTENT_TYPE, "application/json")];
    router
        .route("/v1/openapi.json", get(move || std::future::ready((json, document.clone()))))
        .route("/", get(connect::connect))
        .route(connect::PRIMUS[0], get(connect::connect))
        .route(connect::PRIMUS[1], get(connect::connect))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(middleware::from_fn_with_state((state.clone(), Arc::default()), guard::guard))
        .with_state(state)
}

fn documented() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(services::list))
        .routes(routes!(services::show, services::put, services::delete))
        .routes(routes!(servers::show, servers::put, servers::delete))
        .routes(routes!(servers::heartbeat))
        .routes(routes!(leaving::drain))
        .routes(routes!(connect::connect))
        .routes(routes!(clients::show))
        .routes(routes!(clients::pin, clients::forget))
        .routes(routes!(releases::show))
        .routes(routes!(releases::promote))
        .routes(routes!(releases::rollback))
        .routes(routes!(cluster::routers))
        .routes(routes!(plugins::list))
        .routes(routes!(plugins::promote))
        .routes(routes!(plugins::roll_back))
        .routes(routes!(explain::explain))
        .routes(routes!(watch::watch))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
}

/// The OpenAPI document, before its problems have their type.
#[cfg(test)]
fn document() -> utoipa::openapi::OpenApi {
    documented().split_for_parts().1
}

#[cfg(test)]
mod tests;
