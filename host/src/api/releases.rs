//! `/v1/services/{service}/releases`, `promote` and `rollback`: which versions are live, and since when.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::State as Shared,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    State,
    guard::Caller,
    input::{self, Segments, service_id},
    problem::{Kind, Problem},
    shown::no_service,
};
use crate::{
    auth::Action,
    config,
    config::record::{Promote, RollBack},
    release::{self, ChangeError, Changed},
    table::{
        View,
        record::{
            Canary, Guard, ReleaseAction, ReleaseChange, ReleaseNote, ReleaseRecord, ServiceId, UNVERSIONED,
        },
    },
    units::utc,
};

/// Which versions of a service are live, and how that came.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownRelease {
    name: String,
    /// Every version there is, live or not.
    versions: Vec<String>,
    /// Shares of the clients by version; null: nothing was promoted.
    weights: Option<BTreeMap<String, u32>>,
    /// Counts the changes; `If-Match` makes a change depend on it.
    number: u64,
    /// Messages that go to a version whatever is live.
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<Canary>,
    /// Clients that have an assignment at one of these stay there until it ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stay: Vec<String>,
    /// RFC 3339; then they are moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    stay_until: Option<String>,
    /// When a promotion is undone by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback: Option<Guard>,
    /// The latest first.
    history: Vec<ShownChange>,
}

/// A change of a release, and what was live from then on.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShownChange {
    number: u64,
    /// RFC 3339.
    at: String,
    /// Who did it.
    by: String,
    action: ReleaseAction,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    weights: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<Canary>,
}

impl From<&ReleaseChange> for ShownChange {
    fn from(change: &ReleaseChange) -> Self {
        let ReleaseChange { number, at, by, action, why, weights, canary, .. } = change.clone();
        Self { number, at: utc(at), by, action, why, weights, canary }
    }
}

impl ShownRelease {
    fn new(view: &View, name: &str, release: Option<&ReleaseRecord>) -> Self {
        let versions = release::versions(view, name).into_iter().filter(|version| *version != UNVERSIONED);
        let versions = versions.map(str::to_owned).collect();
        let weights = release.map(|release| release.weights.clone()).filter(|weights| !weights.is_empty());
        let release = release.cloned().unwrap_or_default();
        let history = release.history.iter().rev().map(ShownChange::from).collect();
        let ReleaseRecord { number, canary, stay, stay_until, rollback, .. } = release;
        let stay_until = stay_until.map(utc);
        Self { name: name.to_owned(), versions, weights, number, canary, stay, stay_until, rollback, history }
    }

    fn response(self) -> Response {
        let tag = HeaderValue::from_str(&format!("\"{}\"", self.number)).ok();
        let mut response = Json(self).into_response();
        response.headers_mut().extend(tag.map(|tag| (header::ETAG, tag)));
        response
    }
}

/// Which versions of a service are live and with what weights, and how that came.
#[utoipa::path(
    get, path = "/v1/services/{service}/releases", tag = "releases",
    params(("service", description = "The name, without a version")),
    responses((status = 200, body = ShownRelease), (status = 404, body = Problem)),
)]
pub(super) async fn show(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(service): Segments<String>,
) -> Result<Response, Problem> {
    let id = name(&service)?;
    caller.must(Action::Read, Some(id.name()))?;
    let view = state.table.view();
    let release = view.release(id.name());
    if release.is_none() && view.named(id.name()).is_none() {
        return Err(no_service(&view, &id));
    }
    Ok(ShownRelease::new(&view, id.name(), release).response())
}

/// What to make live.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "documents the body, which is read by hand for the sake of its errors")]
pub(super) struct Promotion {
    /// All clients go to this version; or write `weights`.
    version: Option<String>,
    /// Shares of the clients by version.
    weights: Option<BTreeMap<String, u32>>,
    /// Messages with a header go to a version that need not be live; `false` ends that, and so do new weights.
    canary: Option<Canary>,
    /// When the promotion is undone by itself; stays until it is `false`.
    rollback: Option<Guard>,
    /// `drain`: clients that have an assignment at a version stay until it ends; `now`: their next message
    /// goes by what is live; or a duration: they stay at most so long.
    r#move: Option<String>,
    /// For the history.
    why: Option<String>,
    /// For the history, besides the token's label.
    by: Option<String>,
}

/// Makes a version live, or several by weight, or a canary.
///
/// With `If-Match: "NUMBER"` only if the release has not changed since. Without it, only if nobody else changes
/// it while this is carried out.
#[utoipa::path(
    post, path = "/v1/services/{service}/promote", tag = "releases",
    params(("service", description = "The name, without a version")),
    request_body = Promotion,
    responses(
        (status = 200, body = ShownRelease), (status = 404, body = Problem),
        (status = 409, description = "Somebody else changed it", body = Problem),
        (status = 422, description = "Every mistake, by field", body = Problem),
    ),
)]
pub(super) async fn promote(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(service): Segments<String>,
    headers: HeaderMap,
    input::Json(json): input::Json,
) -> Result<Response, Problem> {
    let id = name(&service)?;
    caller.must(Action::Register, Some(id.name()))?;
    let Promote { promotion, why, by } = config::record::promote(&json).map_err(Problem::invalid)?;
    let note = note(&caller, by, why);
    let changed = release::change(&state.table, id.name(), expected(&headers)?, |release, versions| {
        let found = (release.number == 0).then(|| ReleaseRecord::found(versions, note.at));
        found.as_ref().unwrap_or(release).promote(versions, promotion.clone(), note.clone())
    });
    answer(&state, &id, changed.await).await
}

/// What to go back to.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "documents the body, which is read by hand for the sake of its errors")]
pub(super) struct Rollback {
    /// A number in the history; else what the latest change replaced.
    to: Option<u64>,
    /// As in a promotion; but `now` unless something else is written.
    r#move: Option<String>,
    /// For the history.
    why: Option<String>,
    /// For the history, besides the token's label.
    by: Option<String>,
}

/// Makes live again what was live before the latest change. The body may be left out.
#[utoipa::path(
    post, path = "/v1/services/{service}/rollback", tag = "releases",
    params(("service", description = "The name, without a version")),
    request_body = Rollback,
    responses(
        (status = 200, body = ShownRelease), (status = 404, body = Problem),
        (status = 409, description = "There is nothing to go back to, or somebody else changed it", body = Problem),
        (status = 422, description = "Every mistake, by field", body = Problem),
    ),
)]
pub(super) async fn rollback(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(service): Segments<String>,
    headers: HeaderMap,
    input::JsonOrNothing(json): input::JsonOrNothing,
) -> Result<Response, Problem> {
    let id = name(&service)?;
    caller.must(Action::Register, Some(id.name()))?;
    let RollBack { rollback, why, by } = config::record::roll_back(&json).map_err(Problem::invalid)?;
    let note = note(&caller, by, why);
    let changed = release::change(&state.table, id.name(), expected(&headers)?, |release, versions| {
        release.roll_back(versions, rollback.clone(), note.clone())
    });
    answer(&state, &id, changed.await).await
}

async fn answer(
    state: &State,
    id: &ServiceId,
    changed: Result<Changed, ChangeError>,
) -> Result<Response, Problem> {
    let Changed { release, revision } = match changed {
        Err(ChangeError::Unknown(_)) => return Err(no_service(&state.table.view(), id)),
        changed => changed?,
    };
    let latest = release.latest();
    tracing::info!(
        service = id.name(),
        number = release.number,
        by = latest.map(|change| change.by.as_str()),
        weights = ?release.weights,
        "release changed"
    );
    state.routing.follows(revision).await;
    Ok(ShownRelease::new(&state.table.view(), id.name(), Some(&release)).response())
}

fn name(text: &str) -> Result<ServiceId, Problem> {
    let id = service_id(text)?;
    match id.version() {
        None => Ok(id),
        Some(_) => Err(Problem::new(
            Kind::Malformed,
            format!("a release is of all versions: write {} in place of {id}", id.name()),
        )),
    }
}

fn note(caller: &Caller, by: Option<String>, why: Option<String>) -> ReleaseNote {
    let label = caller.label();
    let by = by.map_or_else(|| label.to_owned(), |by| format!("{by} ({label})"));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ReleaseNote { by, why, at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
}

/// The number of the release that a change depends on.
fn expected(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(written) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let number = written.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse().ok());
    let malformed = || Problem::new(Kind::Malformed, "If-Match: write the release's number, as in the ETag");
    number.ok_or_else(malformed).map(Some)
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        use crate::table::record::ReleaseRefused as Refused;
        let kind = match error {
            ChangeError::Table(error) => return error.into(),
            ChangeError::Unknown(_) => Kind::NotFound,
            ChangeError::Changed { .. } | ChangeError::Refused(Refused::NothingBefore(_)) => Kind::Conflict,
            ChangeError::Refused(_) => Kind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}
