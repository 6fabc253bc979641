//! The plugins that a message passes on its way to its server and back.

use std::sync::Arc;

use futures_util::FutureExt;
use http::{Response, StatusCode, request::Parts};
use http_body_util::BodyExt;

use super::{gather, plan::Plugin, reply::Reply, respond::Refusal, sources};
use crate::{
    listener::{Connection, Phase, Watch},
    plugin::{
        Body, CallError, Cause, Generation, OnError, Verdict, body,
        body::coding::Unreadable,
        message::{self, Place},
    },
    upstream::RequestBody,
};

/// What filters see of a message besides its head.
pub(super) struct Passing<'a> {
    pub(super) known: &'a sources::Known<'a>,
    pub(super) connection: &'a Connection,
    /// The id of the chosen server.
    pub(super) server: Arc<str>,
}

/// What they see and change of the request's head.
pub(super) struct Head<'a> {
    pub(super) parts: &'a mut Parts,
    /// Of its target, so many bytes are not shown.
    pub(super) cut: &'a mut usize,
}

impl Head<'_> {
    fn show(&mut self, passing: &Passing<'_>) -> message::Message {
        let mut message = sources::message(self.parts, *self.cut, passing.known, Some(passing.connection));
        message.server = Some(passing.server.clone());
        message
    }

    fn take_back(&mut self, message: message::Message) {
        *self.cut = sources::give_back(self.parts, message);
    }
}

/// As [`requests`], if that needs no waiting; else none, and nobody was shown anything. Not part of
/// the future of a message.
pub(super) fn requests_at_once(
    passing: &Passing<'_>,
    head: &mut Head<'_>,
    body: &mut RequestBody,
) -> Option<Result<(), Refusal>> {
    let waits = |plugin: &Plugin| plugin.generation.as_ref().is_some_and(|generation| generation.may_wait());
    match passing.known.plan.request_filters.iter().any(waits) {
        true => None,
        false => show_requests(passing, head, body, Place::WorkerAtOnce).now_or_never(),
    }
}

/// Shows a request to every request filter in turn.
pub(super) async fn requests(
    passing: &Passing<'_>,
    head: &mut Head<'_>,
    body: &mut RequestBody,
) -> Result<(), Refusal> {
    show_requests(passing, head, body, Place::Worker).await
}

async fn show_requests(
    passing: &Passing<'_>,
    head: &mut Head<'_>,
    body: &mut RequestBody,
    place: Place,
) -> Result<(), Refusal> {
    let mut message = head.show(passing);
    message.place = place;
    let mut outcome = Ok(());
    for plugin in &passing.known.plan.request_filters {
        outcome = request(plugin, &mut message, body).await;
        if outcome.is_err() {
            break;
        }
    }
    head.take_back(message);
    outcome
}

async fn request(
    plugin: &Plugin,
    message: &mut message::Message,
    body: &mut RequestBody,
) -> Result<(), Refusal> {
    let generation = loaded(plugin)?;
    if generation.led_to(&message.headers) {
        return Err(Refusal::PluginLoop(plugin.name.to_string()));
    }
    if generation.reads_body() {
        message.body = Some(Body::of_request(std::mem::take(body).boxed_unsync(), &message.headers));
    }
    let verdict = generation.on_request(message).await;
    let unread = message.unread().map(unread);
    let broken = message.body.as_ref().and_then(Body::broken).cloned();
    let left = if verdict.is_ok() { message.take_body() } else { message.take_body_unchanged() };
    if let Some(left) = left {
        *body = RequestBody::Stream(left);
    }
    match (verdict, unread) {
        (Ok(Verdict::Respond(rejection)), _) => Err(Refusal::Rejected(rejection.status, rejection.reason)),
        // The client's fault, and neither the plugin's nor anything that it may make light of.
        (_, Some(refusal)) if generation.on_error() == OnError::Closed => Err(refusal),
        (Ok(Verdict::Forward), _) | (Err(_), Some(_)) => Ok(()),
        (Err(CallError { cause: Cause::Sender, .. }), None) => Err(broken_body(broken)),
        (Err(error), None) => failed(generation, error),
    }
}

/// What a client gets whose body a filter asked for and could not read.
fn unread(why: &Unreadable) -> Refusal {
    match why {
        Unreadable::Unknown(_) => Refusal::Unacceptable(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the request's content-encoding cannot be decoded",
        ),
        _ => Refusal::Unacceptable(
            StatusCode::BAD_REQUEST,
            "the request's body is not what its content-encoding says",
        ),
    }
}

/// Shows a response to every response filter, in the reverse order.
pub(super) async fn responses(
    passing: &Passing<'_>,
    head: &mut Head<'_>,
    response: Response<Reply>,
    watch: &Arc<Watch>,
) -> Result<Response<Reply>, Refusal> {
    let mut message = head.show(passing);
    let (mut parts, mut body) = response.into_parts();
    let headers = std::mem::take(&mut parts.headers);
    message.response = Some(Box::new(message::ResponseHead { status: parts.status, headers }));
    for plugin in &passing.known.plan.response_filters {
        let generation = loaded(plugin)?;
        if generation.led_to(&message.headers) {
            return Err(Refusal::PluginLoop(plugin.name.to_string()));
        }
        if let (true, Some(head)) = (generation.reads_body(), &message.response) {
            let watch = Arc::clone(watch);
            let touched = body.map_frame(move |frame| {
                watch.touch();
                frame
            });
            message.body = Some(Body::of_response(touched.boxed_unsync(), head));
            body = Reply::own(bytes::Bytes::new());
        }
        let shown = generation.on_response(&mut message).await;
        let left = if shown.is_ok() { message.take_body() } else { message.take_body_unchanged() };
        if let Some(left) = left {
            body = Reply::filtered(left);
        }
        match shown {
            Ok(()) => {}
            Err(CallError { cause: Cause::Sender, .. }) => return Err(broken_response()),
            Err(error) => failed(generation, error)?,
        }
    }
    if let Some(head) = message.response.take() {
        (parts.status, parts.headers) = (head.status, head.headers);
    }
    Ok(Response::from_parts(parts, body))
}

/// A filter had to do without the whole of a request's body: what its client is told.
fn broken_body(broken: Option<body::Broken>) -> Refusal {
    match broken {
        Some(body::Broken(error)) => gather::broken(&*error),
        None => Refusal::Overdue(Phase::RequestBody),
    }
}

fn broken_response() -> Refusal {
    Refusal::Unacceptable(
        StatusCode::BAD_GATEWAY,
        "the server's response broke off, or stood still for too long",
    )
}

fn loaded(plugin: &Plugin) -> Result<&Arc<Generation>, Refusal> {
    plugin.generation.as_ref().ok_or_else(|| Refusal::PluginMissing(plugin.name.to_string()))
}

fn failed(generation: &Generation, error: CallError) -> Result<(), Refusal> {
    match generation.on_error() {
        OnError::Open => {
            tracing::debug!(plugin = generation.name(), %error, "filter passed over");
            Ok(())
        }
        OnError::Closed => Err(Refusal::PluginFailed(generation.name().to_owned(), error.to_string().into())),
    }
}
