//! `/live` and `/ready`.

use axum::{Json, extract::State as Shared};
use serde::Serialize;

use super::{
    State,
    problem::{Kind, Problem},
};
use crate::{condition::Name, table::Status, telemetry, units::utc};

/// The process runs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Live {
    status: &'static str,
}

/// Whether the process runs.
#[utoipa::path(
    get, path = "/live", tag = "health", operation_id = "live", security(()),
    responses((status = 200, description = "It runs", body = Live)),
)]
pub(super) async fn live() -> Json<Live> {
    Json(Live { status: "live" })
}

/// The router takes messages.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Ready {
    status: &'static str,
    table: TableHealth,
    /// What an operator should know of although messages are served; mostly empty.
    conditions: Vec<ShownCondition>,
}

/// Something that is wrong while messages are served.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownCondition {
    /// `configuration`, `table-stale`, `table-records`, `table-full`, `data`, `router-id`, `tasks` or `log`; more may come.
    name: &'static str,
    /// Since when, RFC 3339; of `log` the latest time.
    since: String,
    /// In words.
    detail: String,
}

/// How well the router's view agrees with the routing table.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TableHealth {
    /// `current`; or `stale`: the table cannot be reached, the last known view routes on and
    /// nothing can be written.
    state: &'static str,
    /// Grows with every change.
    revision: u64,
    /// Since when it is stale, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Why it is stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Whether the router takes messages. It does on the last known view, too, when the routing table
/// cannot be reached.
#[utoipa::path(
    get, path = "/ready", tag = "health", operation_id = "ready", security(()),
    responses(
        (status = 200, description = "It takes messages", body = Ready),
        (status = 503, description = "It starts, or stops", body = Problem),
    ),
)]
pub(super) async fn ready(Shared(state): Shared<State>) -> Result<Json<Ready>, Problem> {
    if state.leaving.is_requested() {
        return Err(Problem::new(Kind::NotReady, "the router is stopping"));
    }
    let revision = state.table.view().revision;
    let status = state.table.status().borrow().clone();
    let conditions = conditions(&state);
    let table = match status {
        Status::Starting(error) => return Err(starting(error)),
        Status::Current => TableHealth { state: "current", revision, since: None, error: None },
        Status::Stale { since, error } => {
            TableHealth { state: "stale", revision, since: Some(utc(since)), error: Some(error) }
        }
    };
    Ok(Json(Ready { status: "ready", table, conditions }))
}

/// Those that were raised, and those that are found by asking.
fn conditions(state: &State) -> Vec<ShownCondition> {
    let show = |name: Name, since, detail| ShownCondition { name: name.word(), since: utc(since), detail };
    let raised = state.table.tasks().conditions().raised();
    let mut shown: Vec<_> = raised.into_iter().map(|it| show(it.name, it.since, it.detail)).collect();
    let recently = state.table.clock().now().saturating_sub(LOST_RECENTLY);
    if let Some((lines, last)) = telemetry::lines_dropped().filter(|(_, last)| *last >= recently) {
        let detail = format!("{lines} lines of the log were lost since the start, the last of them then");
        shown.push(show(Name::Log, last, detail));
    }
    shown
}

/// Lines of the log that were lost are shown for so many milliseconds.
const LOST_RECENTLY: u64 = 10 * 60 * 1000;

fn starting(error: Option<String>) -> Problem {
    let detail = error.map(|error| format!("the routing table was never read: {error}"));
    Problem::new(Kind::NotReady, detail.unwrap_or_else(|| "the routing table is being read".to_owned()))
}
