//! `/metrics`: everything that is counted, in the format of Prometheus. What others count in
//! their own way is turned into metrics when it is asked for.

use axum::{
    extract::State as Shared,
    http::header,
    response::{IntoResponse, Response},
};
use prometheus::{Encoder, IntCounter, TextEncoder, core::Collector, proto::MetricFamily};

use super::{
    State,
    guard::Caller,
    problem::{Kind, Problem},
};

/// Everything that is counted, in the format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "health", operation_id = "metrics",
    responses((status = 200, description = "Everything that is counted", content_type = "text/plain", body = String)),
)]
pub(super) async fn metrics(Shared(state): Shared<State>, caller: Caller) -> Result<Response, Problem> {
    caller.must_inspect()?;
    state.plugins.refresh_metrics();
    let mut families = state.registry.gather();
    families.extend(of_plugins(&state));
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    let encoded = encoder.encode(&families, &mut text);
    encoded.map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response())
}

fn of_plugins(state: &State) -> Vec<MetricFamily> {
    let (refusals, rollbacks) = state.plugins.refusals_and_rollbacks();
    let refused = counter("message_flow_plugin_refusals_total", "Builds that were refused.", refusals);
    let undone = counter("message_flow_plugin_rollbacks_total", "Builds that were rolled back.", rollbacks);
    refused.into_iter().chain(undone).collect()
}

fn counter(name: &str, help: &str, value: u64) -> Vec<MetricFamily> {
    let counter = IntCounter::new(name, help).map(|counter| {
        counter.inc_by(value);
        counter.collect()
    });
    counter.unwrap_or_default()
}
