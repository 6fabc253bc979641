//! `/v1/watch`: the changes of the routing table as they happen, as server-sent events.
//!
//! The `id` of an event is the table's revision; where several changes belong to one, all but the
//! last have that of the one before, so that a reader who reconnects misses nothing. Readers follow the
//! table's bounded history: one that falls too far behind gets everything anew, and holds up
//! nobody. A reload that changes what a reader's token allows ends its stream: it comes back with the last `id`, and
//! is told then what it may be told.

use std::{collections::VecDeque, convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use axum::{
    extract::State as Shared,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event as Sent, KeepAlive, Sse},
    },
};
use futures_util::{FutureExt, Stream, stream};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch as channel};

use super::{
    State,
    guard::Caller,
    input::Asked,
    problem::{Kind, Problem},
};
use crate::{
    auth::{Action, Identity},
    drain::Drain,
    table::{
        View,
        adapter::Revision,
        history::{Event, Op, Update, Watch},
    },
};

/// Silence after which a comment is sent, so that both ends see a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Where to go on.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct From {
    /// A revision that was seen; the `Last-Event-ID` header goes before it.
    #[param(value_type = Option<u64>)]
    after: Option<Revision>,
}

/// Follows the table. Without `after` or `Last-Event-ID` it begins with the next change. If what
/// came after is no longer known, an event `resync` says so, and everything there is follows.
#[utoipa::path(
    get, path = "/v1/watch", tag = "watch", operation_id = "watch",
    params(From, ("Last-Event-ID" = Option<u64>, Header, description = "A revision that was seen")),
    responses(
        (status = 200, description = "Events, for as long as the connection lasts", content_type = "text/event-stream", body = Event),
        (status = 429, description = "As many watch as may; see `Retry-After`", body = Problem),
    ),
)]
pub(super) async fn watch(
    Shared(state): Shared<State>,
    caller: Caller,
    Asked(from): Asked<From>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.must(Action::Read, None)?;
    let after = last_event_id(&headers)?.or(from.after);
    let permit = Arc::clone(&state.watchers).try_acquire_owned();
    let permit = permit
        .map_err(|_| Problem::new(Kind::TooMany, "as many watch already as `api.limits.watchers` allows"))?;
    let watch = state.table.watch(after);
    let (identity, following) = caller.follow(state.config.clone());
    let reader = Reader {
        seen: watch.revision(),
        watch,
        drain: state.drain.clone(),
        caller,
        identity,
        following: Box::pin(following),
        ready: VecDeque::from([Sent::default().comment("watching")]),
        _permit: permit,
    };
    Ok(Sse::new(reader.stream()).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let revision = id.to_str().ok().and_then(|id| id.trim().parse().ok());
    revision
        .map(Some)
        .ok_or_else(|| Problem::new(Kind::Malformed, "`Last-Event-ID` is not a revision: a number"))
}

struct Reader {
    watch: Watch,
    /// All of it, and of those before, was sent.
    seen: Revision,
    drain: Drain,
    caller: Caller,
    /// Who the caller is by the rules of now, as long as `following` is polled.
    identity: channel::Receiver<Option<Identity>>,
    following: Pin<Box<dyn Future<Output = Infallible> + Send>>,
    ready: VecDeque<Sent>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    fn stream(self) -> impl Stream<Item = Result<Sent, Infallible>> {
        stream::unfold(self, |mut reader| async move {
            let event = reader.next().await?;
            Some((Ok(event), reader))
        })
    }

    async fn next(&mut self) -> Option<Sent> {
        loop {
            // What waited for a slow reader is not sent under rules that no longer hold, either.
            let _ = (&mut self.following).now_or_never();
            if self.identity.has_changed().unwrap_or(true) {
                return None;
            }
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let update = tokio::select! {
                update = self.watch.next() => update?,
                _ = self.identity.changed() => return None,
                never = &mut self.following => match never {},
                () = self.drain.requested() => return None,
            };
            match update {
                Update::Changes(group) => self.take(&group.events, group.revision),
                Update::Resync(view) => self.resync(&view),
            }
        }
    }

    fn resync(&mut self, view: &View) {
        // Until all of it was sent, none of it counts.
        self.seen = 0;
        let notice = serde_json::json!({ "revision": view.revision }).to_string();
        self.ready.push_back(Sent::default().event("resync").data(notice));
        self.take(&everything(view), view.revision);
    }

    /// The revision goes with the last event; alone if the caller may read none of them.
    fn take(&mut self, events: &[Event], revision: Revision) {
        let readable = events.iter().filter(|event| match service(event) {
            Some(service) => self.caller.may(Action::Read, Some(service)),
            None => self.caller.may_inspect(),
        });
        let readable: Vec<&Event> = readable.collect();
        let before = std::mem::replace(&mut self.seen, revision);
        let last = readable.len().saturating_sub(1);
        for (place, event) in readable.iter().enumerate() {
            let id = if place == last { revision } else { before };
            let data = serde_json::to_string(event).unwrap_or_default();
            self.ready.push_back(Sent::default().data(data).id(id.to_string()));
        }
        if readable.is_empty() {
            self.ready.push_back(Sent::default().id(revision.to_string()));
        }
    }
}

/// The name that access rules are about; none for routers.
fn service(event: &Event) -> Option<&str> {
    match event.kind.as_str() {
        "service" | "release" => Some(&event.key),
        "server" => event.key.split('/').next(),
        _ => None,
    }
}

fn everything(view: &View) -> Vec<Event> {
    let routers = view.routers().iter().map(|(id, router)| Event {
        op: Op::Put,
        kind: "router".to_owned(),
        key: id.to_string(),
        value: serde_json::to_value(router).ok(),
    });
    let entries = view.entries().into_iter().map(|entry| Event {
        op: Op::Put,
        kind: entry.kind,
        key: entry.key,
        value: serde_json::from_str(&entry.value).ok(),
    });
    entries.chain(routers).collect()
}
