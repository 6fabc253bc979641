//! `/v1/services/{service}/releases`, `promote` and `rollback`: which versions are live, and since when.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{extract::State as Shared, http::StatusCode, response::Response};
use serde::Serialize;

use super::{
    State,
    condition::{Condition, Tag},
    guard::Caller,
    input::{self, Segments, service_id},
    problem::{Kind, Problem},
    shown::no_service,
    written::{NamePath, Promotion, Reading, Rollback, Writing},
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
    /// RFC 3339, in the table's own time; then they are moved.
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

    /// Its number, which says all unless there are versions that the history knows nothing of, or is missing
    /// some: they come and go without a change of the release.
    fn tag(&self) -> Tag {
        let known = self.history.iter().flat_map(|change| change.weights.keys());
        let known: BTreeSet<&String> = known.filter(|version| *version != UNVERSIONED).collect();
        let others = known != self.versions.iter().collect();
        Tag::numbered(self.number, others.then_some(&self.versions))
    }
}

/// Which versions of a service are live and with what weights, and how that came.
#[utoipa::path(
    get, path = "/v1/services/{service}/releases", tag = "releases", operation_id = "show_releases",
    params(NamePath, Reading),
    responses(
        (status = 200, description = "What is live, and how that came", body = ShownRelease, headers(("ETag" = String))),
        (status = 304, description = "It is as `If-None-Match` says"),
        (status = 404, description = "There is no such service", body = Problem),
    ),
)]
pub(super) async fn show(
    Shared(state): Shared<State>,
    caller: Caller,
    condition: Condition,
    Segments(service): Segments<String>,
) -> Result<Response, Problem> {
    let id = name(&service)?;
    caller.must(Action::Read, Some(id.name()))?;
    let view = state.table.view();
    let release = view.release(id.name());
    if release.is_none() && view.named(id.name()).is_none() {
        return Err(no_service(&view, &id));
    }
    let shown = ShownRelease::new(&view, id.name(), release);
    condition.answer(&shown.tag(), &shown)
}

/// Makes a version live, or several by weight, or a canary.
///
/// With `If-Match` and the `ETag` of the release, or its number, only if it has not changed since. Without it,
/// of two promotions at once the later one holds.
#[utoipa::path(
    post, path = "/v1/services/{service}/promote", tag = "releases", operation_id = "promote",
    params(NamePath, Writing),
    request_body = Promotion,
    responses(
        (status = 200, description = "What is live now", body = ShownRelease, headers(("ETag" = String))),
        (status = 404, description = "There is no such service", body = Problem),
        (status = 412, description = "It is not what the request expects", body = Problem),
        (status = 422, description = "Every mistake, by field", body = Problem),
    ),
)]
pub(super) async fn promote(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(service): Segments<String>,
    condition: Condition,
    input::Json(json): input::Json,
) -> Result<Response, Problem> {
    let id = name(&service)?;
    caller.must(Action::Register, Some(id.name()))?;
    let expected = expected(&state, &id, &condition)?;
    let Promote { promotion, why, by } = config::record::promote(&json).map_err(Problem::invalid)?;
    let note = note(&state, &caller, by, why);
    let changed = release::change(&state.table, id.name(), expected, |release, versions| {
        let found = (release.number == 0).then(|| ReleaseRecord::found(versions, note.at));
        found.as_ref().unwrap_or(release).promote(versions, promotion.clone(), note.clone())
    });
    answer(&state, &id, &condition, changed.await).await
}

/// Makes live again what was live before the latest change. The body may be left out.
#[utoipa::path(
    post, path = "/v1/services/{service}/rollback", tag = "releases", operation_id = "rollback",
    params(NamePath, Writing),
    request_body = Rollback,
    responses(
        (status = 200, description = "What is live now", body = ShownRelease, headers(("ETag" = String))),
        (status = 404, description = "There is no such service", body = Problem),
        (status = 409, description = "There is nothing to go back to, or somebody else changed it meanwhile", body = Problem),
        (status = 412, description = "It is not what the request expects", body = Problem),
        (status = 422, description = "Every mistake, by field", body = Problem),
    ),
)]
pub(super) async fn rollback(
    Shared(state): Shared<State>,
    caller: Caller,
    Segments(service): Segments<String>,
    condition: Condition,
    input::JsonOrNothing(json): input::JsonOrNothing,
) -> Result<Response, Problem> {
    let id = name(&service)?;
    caller.must(Action::Register, Some(id.name()))?;
    let expected = expected(&state, &id, &condition)?;
    let RollBack { rollback, why, by } = config::record::roll_back(&json).map_err(Problem::invalid)?;
    let note = note(&state, &caller, by, why);
    // What is to be undone is what is there now, not what somebody else makes of it meanwhile.
    let number = || state.table.view().release(id.name()).map_or(0, |release| release.number);
    let expected = Some(expected.unwrap_or_else(number));
    let changed = release::change(&state.table, id.name(), expected, |release, versions| {
        release.roll_back(versions, rollback.clone(), note.clone())
    });
    answer(&state, &id, &condition, changed.await).await
}

async fn answer(
    state: &State,
    id: &ServiceId,
    condition: &Condition,
    changed: Result<Changed, ChangeError>,
) -> Result<Response, Problem> {
    let Changed { release, revision } = match changed {
        Err(ChangeError::Unknown(_)) => return Err(no_service(&state.table.view(), id)),
        Err(error @ ChangeError::Changed { .. }) if !condition.is_none() => {
            return Err(Problem::new(Kind::ConditionFailed, error.to_string()));
        }
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
    let shown = ShownRelease::new(&state.table.view(), id.name(), Some(&release));
    Ok(shown.tag().answer(StatusCode::OK, &shown))
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

fn note(state: &State, caller: &Caller, by: Option<String>, why: Option<String>) -> ReleaseNote {
    let label = caller.label();
    let by = by.map_or_else(|| label.to_owned(), |by| format!("{by} ({label})"));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    ReleaseNote { by, why, at, now: state.table.time().now() }
}

/// The number of the release that a change depends on, if it depends on any: what it is now, as the condition
/// holds for that.
fn expected(state: &State, id: &ServiceId, condition: &Condition) -> Result<Option<u64>, Problem> {
    let view = state.table.view();
    let release = view.release(id.name());
    if condition.is_none() || (release.is_none() && view.named(id.name()).is_none()) {
        return Ok(None);
    }
    let shown = ShownRelease::new(&view, id.name(), release);
    let by = || release.and_then(ReleaseRecord::latest).map_or("nobody", |change| &change.by);
    condition.must_hold(Some(&shown.tag())).map_err(|problem| {
        problem.because(format!("the release of {} is at change {}, by {}", id.name(), shown.number, by()))
    })?;
    Ok(Some(shown.number))
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
