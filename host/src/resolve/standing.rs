//! Step 2: whether a client's assignment holds.

use super::{Health, Query, Sources, Target, is_sticky};
use crate::table::{TableError, adapter::Assignment, record::ServerUri, view::Service};

/// What is known of a client's assignment.
pub(super) enum Standing {
    /// It is followed.
    Holds(Target),
    /// There is none.
    Absent,
    /// It no longer holds and may be replaced while it has this stamp.
    Void { stamp: u64, server: String, why: &'static str },
    /// It holds, but this message was already sent to its server in vain.
    Detour,
    /// The table could not be asked.
    Unknown(TableError),
    /// The service remembers nothing.
    Off,
}

impl Standing {
    /// In words, for the trace.
    pub(super) fn describe(&self, service: &Service) -> String {
        match self {
            Self::Holds(target) => format!("to {}", text(service, target)),
            Self::Absent => "none".to_owned(),
            Self::Void { server, why, .. } => format!("to {server}, {why}"),
            Self::Detour => "its server was tried already".to_owned(),
            Self::Unknown(error) => format!("not known: {error}"),
            Self::Off => "the service is not sticky".to_owned(),
        }
    }
}

/// Looks where the router remembers it, then in the table.
pub(super) async fn find<S: Sources>(query: Query<'_>, sources: &mut S) -> Standing {
    if !is_sticky(query.service) {
        return Standing::Off;
    }
    if let Some(target) = sources.cached().and_then(|number| cached(query, sources, number)) {
        return match avoided(query, &target) {
            true => Standing::Detour,
            false => Standing::Holds(target),
        };
    }
    match sources.assigned().await {
        Ok(Some(assignment)) => judge(query, sources, &assignment),
        Ok(None) => Standing::Absent,
        Err(error) => Standing::Unknown(error),
    }
}

/// The server with this number, if it is there and not unhealthy.
fn cached<S: Sources>(query: Query<'_>, sources: &S, number: u32) -> Option<Target> {
    let target = match query.service.place(number) {
        Some(place) => Target::Listed(place),
        None => target(query.service, &sources.text(number)?)?,
    };
    (health(query, sources, &target) != Health::Unhealthy).then_some(target)
}

/// Whether a stored assignment holds.
pub(super) fn judge<S: Sources>(query: Query<'_>, sources: &S, assignment: &Assignment) -> Standing {
    let void = |why| Standing::Void { stamp: assignment.stamp, server: assignment.server.clone(), why };
    if assignment.expires.is_some_and(|expires| expires <= query.now) {
        return void("expired");
    }
    match target(query.service, &assignment.server) {
        None => void("which is gone"),
        Some(target) if health(query, sources, &target) == Health::Unhealthy => void("which is unhealthy"),
        Some(target) if avoided(query, &target) => Standing::Detour,
        Some(target) => Standing::Holds(target),
    }
}

/// What a server's id or URI means for a service; none if it is no server of it and no URI.
pub(super) fn target(service: &Service, text: &str) -> Option<Target> {
    if let Some(server) = service.server(text) {
        return service.place(server.number).map(Target::Listed);
    }
    let uri = text.parse::<ServerUri>().ok()?;
    Some(match service.server_at(&uri).and_then(|server| service.place(server.number)) {
        Some(place) => Target::Listed(place),
        None => Target::Elsewhere(uri),
    })
}

/// As it is stored: the id of a listed server, or a URI.
pub(super) fn text<'a>(service: &'a Service, target: &'a Target) -> &'a str {
    match target {
        Target::Listed(place) => &service.servers[*place].id,
        Target::Elsewhere(uri) => uri.as_str(),
        Target::Fixed => service.record.server.as_ref().map_or("", ServerUri::as_str),
    }
}

pub(super) fn health<S: Sources>(query: Query<'_>, sources: &S, target: &Target) -> Health {
    match target {
        Target::Fixed => Health::Healthy,
        Target::Listed(place) => sources.health(&query.service.servers[*place]),
        Target::Elsewhere(uri) => sources.health_elsewhere(uri),
    }
}

pub(super) fn avoided(query: Query<'_>, target: &Target) -> bool {
    match target {
        Target::Listed(place) => query.avoid.contains(&query.service.servers[*place].number),
        Target::Fixed | Target::Elsewhere(_) => false,
    }
}
