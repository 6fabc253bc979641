//! Frames: what a service says and what it is told, as JSON. Pure.

use std::{net::IpAddr, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    definition::{Definition, Limits, requirements},
    fault::{Code, Fault},
    requirement::{Requirement, shown},
};
use crate::{table::adapter::Revision, units::Span};

/// What a service says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Who it is; replaces what it said before.
    Define(Box<Definition>),
    /// It needs these as well.
    Require(Vec<Requirement>),
    /// It needs these no longer.
    Drop(Vec<Requirement>),
    /// It is no longer served here.
    Deregister,
    /// It is about to leave; its clients may stay for this long, or as long as is configured.
    Drain(Option<Duration>),
}

/// Reads a frame that came from this address.
pub fn read(text: &str, peer: IpAddr, limits: Limits) -> Result<Said, Fault> {
    let json = crate::json::read(text.as_bytes()).map_err(|error| {
        Fault::new(Code::Malformed, format!("not JSON that can be read one way: {error}"))
    })?;
    let Value::Object(message) = json else {
        let what = shown(&json);
        return Err(Fault::new(Code::Malformed, format!("{what} is not a message: send a JSON object")));
    };
    let Some(kind) = message.get("type") else { return define(&message, peer, limits) };
    let payload = match message.get("payload") {
        Some(Value::Object(payload)) => payload,
        None | Some(Value::Null) => &message,
        Some(other) => {
            return Err(Fault::new(
                Code::Malformed,
                format!("`payload` is {}: send an object", shown(other)),
            ));
        }
    };
    match kind.as_str() {
        Some("identification") => define(payload, peer, limits),
        Some("require") => requirements(payload, limits).map(Said::Require),
        Some("drop") => requirements(payload, limits).map(Said::Drop),
        Some("deregister") => Ok(Said::Deregister),
        Some("drain") => drain(payload),
        _ => {
            let known = "identification, require, drop, deregister or drain";
            let kind = shown(kind);
            Err(Fault::new(Code::UnknownType, format!("{kind} is no type of message: send {known}")))
        }
    }
}

fn define(object: &Map<String, Value>, peer: IpAddr, limits: Limits) -> Result<Said, Fault> {
    Definition::read(object, peer, limits).map(|definition| Said::Define(Box::new(definition)))
}

fn drain(payload: &Map<String, Value>) -> Result<Said, Fault> {
    let Some(deadline) = payload.get("deadline").filter(|json| !json.is_null()) else {
        return Ok(Said::Drain(None));
    };
    let span = deadline.as_str().and_then(|text| text.parse::<Span>().ok());
    let span = span.ok_or_else(|| {
        Fault::new(
            Code::Invalid,
            format!("`deadline` is {}: write a duration such as \"30s\"", shown(deadline)),
        )
    });
    span.map(|Span(span)| Said::Drain(Some(span)))
}

/// One server of a requirement, or all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) requirement: &'a Requirement,
    /// JSON objects, the one chosen first, each without its last brace.
    pub(super) chosen: &'a str,
    /// None: only the one chosen is told.
    pub(super) all: Option<&'a [&'a str]>,
    pub(super) revision: Revision,
}

/// A requirement is there.
pub(super) fn required(found: &Found<'_>) -> String {
    let mut text = String::with_capacity(found.chosen.len() + 96);
    text.push_str(r#"{"type":"required-service","payload":"#);
    text.push_str(found.chosen);
    if let Some(all) = found.all {
        text.push_str(r#","servers":["#);
        for (place, server) in all.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            [comma, server, "}"].iter().for_each(|part| text.push_str(part));
        }
        text.push(']');
    }
    end(&mut text, found.requirement, found.revision);
    text
}

/// The last server of a requirement is gone.
pub(super) fn lost(requirement: &Requirement, revision: Revision) -> String {
    let mut text = format!(
        r#"{{"type":"required-service-lost","payload":{{"name":{}"#,
        Value::from(requirement.service.name())
    );
    if let Some(version) = requirement.service.version() {
        text.push_str(&format!(r#","version":{}"#, Value::from(version)));
    }
    end(&mut text, requirement, revision);
    text
}

/// What was required, where it is more than the name, and the revision up to which all was told.
fn end(text: &mut String, requirement: &Requirement, revision: Revision) {
    if requirement.service.version().is_some() {
        text.push_str(&format!(r#","requirement":{}"#, Value::from(requirement.service.as_str())));
    }
    text.push_str(&format!(r#","revision":{revision}}}}}"#));
}

/// Something that was said cannot be done.
pub(super) fn error(fault: &Fault) -> String {
    let (code, reason) = (fault.code.as_str(), cut_reason(&fault.reason));
    let mut payload = json!({"code": code, "reason": reason});
    if let Some(cause) = fault.code.cause() {
        payload["cause"] = cause.as_str().into();
    }
    json!({"type": "error", "payload": payload}).to_string()
}

fn cut_reason(reason: &str) -> String {
    match reason.len() {
        ..=2000 => reason.to_owned(),
        _ => format!("{}…", reason.chars().take(2000).collect::<String>()),
    }
}

/// How a loss begins.
pub(super) const LOST: &str = r#"{"type":"required-service-lost""#;

/// It is safe to leave.
pub(super) const DRAINED: &str = r#"{"type":"drained"}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::requirement::Scope;

    fn said(text: &str) -> Result<Said, Fault> {
        read(text, "127.0.0.1".parse().unwrap(), Limits { requirements: 10 })
    }

    #[test]
    fn a_definition_comes_plain_or_in_an_envelope() {
        let plain =
            said(r#"{"name":"carchase-service","requires":["explosion-service"],"port":9877}"#).unwrap();
        let envelope = said(
            r#"{"type":"identification","payload":{"name":"carchase-service","requires":["explosion-service"],"port":9877}}"#,
        );
        assert_eq!(Ok(&plain), envelope.as_ref());
        let Said::Define(definition) = plain else { panic!("{plain:?}") };
        assert_eq!(definition.service.as_str(), "carchase-service");
        assert_eq!(definition.server.unwrap().id, "127.0.0.1:9877");
    }

    #[test]
    fn whatever_else_comes_has_a_code() {
        for (text, code) in [
            ("", Code::Malformed),
            ("{", Code::Malformed),
            ("[]", Code::Malformed),
            (r#"{"type":"identification","payload":3}"#, Code::Malformed),
            (r#"{"type":"explode"}"#, Code::UnknownType),
            (r#"{"type":7}"#, Code::UnknownType),
            (r#"{"port":1}"#, Code::Invalid),
            (r#"{"type":"require"}"#, Code::Invalid),
            (r#"{"type":"drain","payload":{"deadline":5}}"#, Code::Invalid),
        ] {
            assert_eq!(said(text).map_err(|fault| fault.code), Err(code), "{text}");
        }
        assert_eq!(said(r#"{"type":"deregister"}"#), Ok(Said::Deregister));
        assert_eq!(
            said(r#"{"type":"drain","payload":{"deadline":"5s"}}"#),
            Ok(Said::Drain(Some(Duration::from_secs(5))))
        );
        let needs = r#"{"type":"require","payload":{"requires":["a@2"]}}"#;
        assert!(matches!(said(needs), Ok(Said::Require(needs)) if needs[0].service.version() == Some("2")));
    }

    #[test]
    fn what_is_told_is_json() {
        let versioned = Requirement { service: "b@2".parse().unwrap(), scope: Scope::All };
        let one = r#"{"name":"b","port":1,"host":"h""#;
        let found = Found { requirement: &versioned, chosen: one, all: Some(&[one, one]), revision: 7 };
        let told: Value = serde_json::from_str(&required(&found)).unwrap();
        assert_eq!(told["type"], "required-service");
        assert_eq!((&told["payload"]["port"], &told["payload"]["revision"]), (&json!(1), &json!(7)));
        assert_eq!(told["payload"]["servers"][1]["host"], "h");
        let told: Value = serde_json::from_str(&lost(&versioned, 8)).unwrap();
        assert_eq!(
            told["payload"],
            json!({"name": "b", "version": "2", "requirement": "b@2", "revision": 8})
        );
    }
}
