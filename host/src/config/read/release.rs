//! What a promotion or a rollback asks for, as the API gets it.

use std::{collections::BTreeMap, time::Duration};

use super::bounded;
use crate::{
    config::{
        reader::{Section, Value},
        record::{Promote, RollBack},
    },
    table::record::{Canary, Guard, HeaderMatch, Move, Promotion, ReleaseAction, Rollback, UNVERSIONED},
    units::Span,
};

pub(in crate::config) fn promotion(section: Section<'_>) -> Promote {
    let version = section.get("version", version);
    let weights = section.get("weights", |value| Some(weights(&value.section()?)));
    if version.is_some() && weights.is_some() {
        section.refuse("write `version` or `weights`, not both");
    }
    let promote = Promote {
        promotion: Promotion {
            weights: weights.or_else(|| Some(BTreeMap::from([(version?, 1)]))),
            canary: section.get("canary", |value| unless_off(value, canary)),
            rollback: section.get("rollback", |value| unless_off(value, guard)),
            moving: section.get("move", moving).unwrap_or_default(),
        },
        why: section.get("why", Value::word),
        by: section.get("by", Value::word),
    };
    section.end();
    promote
}

pub(in crate::config) fn rollback(section: Section<'_>) -> RollBack {
    let rollback = RollBack {
        rollback: Rollback {
            to: section.get("to", |value| value.number(1..u64::MAX)),
            // What is gone back from is not wanted any more.
            moving: section.get("move", moving).unwrap_or(Move::Now),
            action: ReleaseAction::Rollback,
        },
        why: section.get("why", Value::word),
        by: section.get("by", Value::word),
    };
    section.end();
    rollback
}

/// `false` ends what there was.
fn unless_off<T>(value: &Value<'_>, read: impl FnOnce(Section<'_>) -> Option<T>) -> Option<Option<T>> {
    match (value.as_switch(), value.as_section()) {
        (Some(false), _) => Some(None),
        (_, Some(section)) => read(section).map(Some),
        _ => value.refuse("expected a table, or false to end it"),
    }
}

fn version(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    is_version(text, value).then(|| text.to_owned())
}

/// The service without a version is written as an empty text.
fn is_version(text: &str, value: &Value<'_>) -> bool {
    let valid = text == UNVERSIONED || crate::table::ServiceId::versioned("name", text).is_ok();
    if !valid {
        value
            .complain(format!("`{text}` is not a version: write up to 64 letters, digits, `-`, `_` and `.`"));
    }
    valid
}

fn weights(section: &Section<'_>) -> BTreeMap<String, u32> {
    let weight = |(version, value): (&str, Value<'_>)| {
        let weight = bounded(&value, 0..1_000_001);
        Some((version.to_owned(), weight.filter(|_| is_version(version, &value))?))
    };
    section.entries().filter_map(weight).collect()
}

fn canary(section: Section<'_>) -> Option<Canary> {
    const EXAMPLE: &str = "header = { name = \"beta\", value = \"1\" }";
    let to = section.need("version", "version = \"2\"", version);
    let header = section.need("header", EXAMPLE, |value| header(value.section()?));
    section.end();
    Some(Canary { version: to?, header: header? })
}

fn header(section: Section<'_>) -> Option<HeaderMatch> {
    let name = section.need("name", "name = \"beta\"", |value| {
        let name: http::HeaderName = value.parse()?;
        if name.as_str().len() > 64 { value.refuse("may have 64 characters") } else { Some(name.to_string()) }
    });
    let value = section.get("value", |value| {
        let text = value.text()?;
        let valid = text.len() <= 256 && http::HeaderValue::from_str(text).is_ok();
        if valid {
            Some(text.to_owned())
        } else {
            value.refuse("is no header's value of up to 256 characters")
        }
    });
    section.end();
    Some(HeaderMatch { name: name?, value })
}

fn guard(section: Section<'_>) -> Option<Guard> {
    let guard = Guard {
        within: Span(section.get("within", Value::span).unwrap_or(Duration::from_secs(600))),
        errors: section.get("errors", |value| bounded(value, 0..101)),
        latency: section.get("latency", |value| bounded(value, 0..100_001)),
        messages: section.get("messages", |value| value.number(1..1_000_000_001)).unwrap_or(50),
    };
    if guard.errors.is_none() && guard.latency.is_none() {
        section.refuse("write `errors = 5` (percentage points), `latency = 50` (percent) or both");
    }
    section.end();
    Some(guard)
}

/// `"drain"`, `"now"` or a duration.
fn moving(value: &Value<'_>) -> Option<Move> {
    match value.text()? {
        "drain" => Some(Move::Drain),
        "now" => Some(Move::Now),
        text => match text.parse() {
            Ok(Span(span)) if !span.is_zero() => Some(Move::Within(span)),
            _ => value.refuse(format!("`{text}` is not \"drain\", \"now\" or a duration such as \"30m\"")),
        },
    }
}
