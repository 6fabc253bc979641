//! What a script's functions return, as decisions and verdicts.

use message_flow_sdk::{Decision, EventVerdict, Rejection, Verdict};
use rquickjs::{Object, Value};

use crate::fault::shown;

type Read<T> = Result<T, String>;

/// `resolve`: a server's id or URI, nothing, `{ server }`, `{ pass: true }` or `{ reject: { status, reason } }`.
pub(crate) fn decision(answer: &Value<'_>) -> Read<Decision> {
    if answer.is_undefined() || answer.is_null() {
        return Ok(Decision::Pass);
    }
    if let Some(server) = text(answer) {
        return Ok(Decision::Server(server));
    }
    if let Some(object) = plain(answer) {
        if let Some(server) = object.get::<_, Value<'_>>("server").ok().as_ref().and_then(text) {
            return Ok(Decision::Server(server));
        }
        if object.get("pass").unwrap_or(false) {
            return Ok(Decision::Pass);
        }
        if let Some(Rejection { status, reason }) = rejection(object, "reject") {
            return Ok(Decision::reject(status, reason));
        }
    }
    wrong(answer, "a server's id or URI, nothing to pass, or { reject: { status: 403, reason: \"…\" } }")
}

/// `onRequest`: nothing, or `{ respond: { status, reason } }`.
pub(crate) fn verdict(answer: &Value<'_>) -> Read<Verdict> {
    if answer.is_undefined() || answer.is_null() {
        return Ok(Verdict::Forward);
    }
    match plain(answer).and_then(|object| rejection(object, "respond")) {
        Some(Rejection { status, reason }) => Ok(Verdict::respond(status, reason)),
        None => wrong(answer, "nothing to forward, or { respond: { status: 429, reason: \"…\" } }"),
    }
}

/// `onResponse`: nothing.
pub(crate) fn nothing(answer: &Value<'_>) -> Read<()> {
    if answer.is_undefined() || answer.is_null() { Ok(()) } else { wrong(answer, "nothing") }
}

/// `onEvent`: nothing, `{ drop: true }`, `{ redirect: topic }` or `{ reject: reason }`.
pub(crate) fn event_verdict(answer: &Value<'_>) -> Read<EventVerdict> {
    if answer.is_undefined() || answer.is_null() {
        return Ok(EventVerdict::Accept);
    }
    if let Some(object) = plain(answer) {
        let named = |key: &str| object.get::<_, Value<'_>>(key).ok().as_ref().and_then(text);
        if object.get("drop").unwrap_or(false) {
            return Ok(EventVerdict::Drop);
        }
        if let Some(topic) = named("redirect") {
            return Ok(EventVerdict::Redirect(topic));
        }
        if let Some(reason) = named("reject") {
            return Ok(EventVerdict::Reject(reason));
        }
    }
    wrong(answer, "nothing to accept, { drop: true }, { redirect: \"topic\" } or { reject: \"reason\" }")
}

fn text(value: &Value<'_>) -> Option<String> {
    value.as_string()?.to_string().ok()
}

fn plain<'a, 'js>(answer: &'a Value<'js>) -> Option<&'a Object<'js>> {
    answer.as_object().filter(|_| !answer.is_promise() && !answer.is_function())
}

fn rejection(object: &Object<'_>, key: &str) -> Option<Rejection> {
    let inner: Object<'_> = object.get(key).ok()?;
    let reason = inner.get::<_, Value<'_>>("reason").ok().as_ref().and_then(text);
    Some(Rejection { status: inner.get("status").ok()?, reason: reason.unwrap_or_default() })
}

fn wrong<T>(answer: &Value<'_>, instead: &str) -> Read<T> {
    Err(format!("returned {}: return {instead}", shown(answer)))
}
