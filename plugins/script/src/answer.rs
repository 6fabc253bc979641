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
        has_only(object, &["server", "pass", "reject"])?;
        if let Some(server) = object.get::<_, Value<'_>>("server").ok().as_ref().and_then(text) {
            return Ok(Decision::Server(server));
        }
        if object.get("pass").unwrap_or(false) {
            return Ok(Decision::Pass);
        }
        if let Some(Rejection { status, reason }) = rejection(object, "reject")? {
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
    if let Some(object) = plain(answer) {
        has_only(object, &["respond"])?;
        if let Some(Rejection { status, reason }) = rejection(object, "respond")? {
            return Ok(Verdict::respond(status, reason));
        }
    }
    wrong(answer, "nothing to forward, or { respond: { status: 429, reason: \"…\" } }")
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
        has_only(object, &["drop", "redirect", "reject"])?;
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

fn rejection(object: &Object<'_>, key: &str) -> Read<Option<Rejection>> {
    let Ok(inner) = object.get::<_, Object<'_>>(key) else { return Ok(None) };
    has_only(&inner, &["status", "reason"])?;
    let Ok(status) = inner.get("status") else { return Ok(None) };
    let reason = inner.get::<_, Value<'_>>("reason").map_err(|error| error.to_string())?;
    let nothing = reason.is_undefined() || reason.is_null();
    let reason = if nothing { Some(String::new()) } else { text(&reason) };
    Ok(reason.map(|reason| Rejection { status, reason }))
}

/// Refuses what nobody would look at.
fn has_only(object: &Object<'_>, known: &[&str]) -> Read<()> {
    let properties = object.props::<String, Value<'_>>().filter_map(Result::ok);
    let mut unknown =
        properties.filter(|(key, value)| !value.is_undefined() && !known.contains(&key.as_str()));
    let Some((key, _)) = unknown.next() else { return Ok(()) };
    let instead = match key.as_str() {
        "headers" | "header" => {
            "; headers can be set of messages that go on: with request.setHeader(…) in onRequest, and with \
             response.setHeader(…) in onResponse"
        }
        "body" | "text" | "message" | "detail" => "; what the client is to read is the `reason`",
        _ => "",
    };
    let key: String = key.chars().take(64).collect();
    Err(format!(
        "returned an object with `{key}`, which nobody looks at: it may have {}{instead}",
        listed(known)
    ))
}

fn listed(known: &[&str]) -> String {
    known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

fn wrong<T>(answer: &Value<'_>, instead: &str) -> Read<T> {
    Err(format!("returned {}: return {instead}", shown(answer)))
}
