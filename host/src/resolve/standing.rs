//! Step 2: whether a client's assignment holds.

use std::sync::Arc;

use super::{Cached, Health, Query, Sources, Target, claim, is_sticky};
use crate::table::{
    TableError,
    adapter::{Assignment, Condition},
    record::ServerUri,
    view::Service,
};

/// What is known of a client's assignment.
pub(super) enum Standing {
    /// It is followed.
    Holds(Target),
    /// There is none.
    Absent,
    /// It no longer holds and may be replaced while it has this stamp.
    Void { stamp: u64, server: String, why: &'static str },
    /// It stays, and this message goes elsewhere; if it lasts, those that follow do so too.
    Detour { server: Arc<str>, why: &'static str, lasts: bool },
    /// The table could not be asked, and there the client went before.
    Held(Target, TableError),
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
            Self::Detour { server, why, .. } => format!("detour: to {server}, {why}"),
            Self::Held(target, error) => {
                format!("not known: {error}; held here to {}", text(service, target))
            }
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
    if let Some(known) = sources.cached()
        && let Some(standing) = cached(query, sources, known)
    {
        // A detour is no use of it: a server that is not well for longer than `sticky.ttl` loses it.
        if known.due && matches!(standing, Standing::Holds(_)) {
            sources.prolong();
        }
        return standing;
    }
    match sources.assigned().await {
        Ok(Some(assignment)) => match judge(query, sources, &assignment) {
            Standing::Void { stamp, server, why } => {
                let void = Standing::Void { stamp, server, why };
                propose(query, sources, Condition::Unchanged(stamp), void).await
            }
            standing => standing,
        },
        Ok(None) => propose(query, sources, Condition::Absent, Standing::Absent).await,
        Err(error) => unasked(query, sources, error),
    }
}

/// The table can be asked and says nothing that holds: where the client went before it could is
/// proposed to it, and followed is what another router stored first.
async fn propose<S: Sources>(
    query: Query<'_>,
    sources: &mut S,
    condition: Condition,
    otherwise: Standing,
) -> Standing {
    let Some((target, held)) = held(query, sources) else { return otherwise };
    let text = text(query.service, &target).to_owned();
    match claim(sources, &text, condition).await {
        Ok(Some(stored)) => judge(query, sources, &stored),
        Ok(None) => held,
        Err(error) => unasked(query, sources, error),
    }
}

/// The table cannot be asked: the client goes where it went before, if that still goes.
fn unasked<S: Sources>(query: Query<'_>, sources: &mut S, error: TableError) -> Standing {
    let Some((target, held)) = held(query, sources) else { return Standing::Unknown(error) };
    sources.hold(text(query.service, &target), &error);
    match held {
        Standing::Holds(target) => Standing::Held(target, error),
        detour => detour,
    }
}

/// Where the client went while the table could not be asked, unless that is gone, and whether it is
/// followed or there is a detour.
fn held<S: Sources>(query: Query<'_>, sources: &mut S) -> Option<(Target, Standing)> {
    let number = sources.held()?;
    let target = numbered(query.service, sources, number)?;
    let standing = follow(query, sources, target.clone(), false).ok()?;
    Some((target, standing))
}

/// What follows from a remembered assignment, unless it is void: then the table has the last word.
fn cached<S: Sources>(query: Query<'_>, sources: &S, known: Cached) -> Option<Standing> {
    match numbered(query.service, sources, known.server) {
        Some(target) => follow(query, sources, target, known.pinned).ok(),
        None if known.pinned => Some(detour(sources.text(known.server)?, GONE)),
        None => None,
    }
}

/// Whether a stored assignment holds.
pub(super) fn judge<S: Sources>(query: Query<'_>, sources: &S, assignment: &Assignment) -> Standing {
    let void = |why| Standing::Void { stamp: assignment.stamp, server: assignment.server.clone(), why };
    if assignment.expires.is_some_and(|expires| expires <= query.now) {
        return void("expired");
    }
    let pinned = assignment.expires.is_none();
    match target(query.service, &assignment.server) {
        Some(target) => follow(query, sources, target, pinned).unwrap_or_else(void),
        None if pinned => detour(assignment.server.as_str().into(), GONE),
        None if sources.is_news(assignment) => detour(assignment.server.as_str().into(), UNKNOWN),
        None => void(GONE),
    }
}

const GONE: &str = "which is gone";
const UNKNOWN: &str = "which this router does not know yet";

/// Whether an assignment to a server that is there is followed or stays; else why it is void.
fn follow<S: Sources>(
    query: Query<'_>,
    sources: &S,
    target: Target,
    pinned: bool,
) -> Result<Standing, &'static str> {
    let why = match health(query, sources, &target) {
        Health::Healthy | Health::Suspect | Health::Draining if !avoided(query, &target) => {
            return Ok(Standing::Holds(target));
        }
        Health::Healthy | Health::Suspect | Health::Draining => {
            let (server, why) = (text(query.service, &target).into(), "which was tried already");
            return Ok(Standing::Detour { server, why, lasts: false });
        }
        Health::Ejected => "which is ejected for a while",
        Health::Unhealthy => "which is unhealthy",
        Health::Left if pinned => "which has left",
        Health::Left => return Err("which has left"),
    };
    Ok(detour(text(query.service, &target).into(), why))
}

fn detour(server: Arc<str>, why: &'static str) -> Standing {
    Standing::Detour { server, why, lasts: true }
}

/// What the number of a server's id or URI means for a service.
pub(super) fn numbered<S: Sources>(service: &Service, sources: &S, number: u32) -> Option<Target> {
    match service.place(number) {
        Some(place) => Some(Target::Listed(place)),
        None => target(service, &sources.text(number)?),
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
        Target::Listed(place) => sources.health(&query.service.servers[*place]),
        // There is no list that has another.
        Target::Fixed | Target::Elsewhere(_) => Health::Healthy,
    }
}

pub(super) fn avoided(query: Query<'_>, target: &Target) -> bool {
    match target {
        Target::Listed(place) => query.avoid.contains(&query.service.servers[*place].number),
        Target::Fixed | Target::Elsewhere(_) => false,
    }
}
