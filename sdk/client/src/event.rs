//! What the router says, and which of it is an event.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A position in the registry's changes; means nothing but to a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Revision {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

/// What a service is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A required service is there: a server of it, or the load balancer before it.
    Required(RequiredService),
    /// The last server of a required service is gone.
    Lost(LostService),
    /// The router did not accept something; the connection stays.
    Refused(Refused),
}

/// Where a required service is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RequiredService {
    /// Its name.
    pub name: String,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// A name or an address.
    pub host: String,
    /// 0 where none is known.
    pub port: u16,
    /// Where more than host and port is known.
    pub uri: Option<String>,
    /// What the service says of itself.
    pub metadata: BTreeMap<String, String>,
    /// Whatever else the router says.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// A required service that is gone.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LostService {
    /// Its name.
    pub name: String,
    /// Whatever else the router says.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// What the router did not accept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// For programs.
    pub code: String,
    /// For people.
    pub reason: String,
    /// With the code `deregistered`, why the server is not registered any more: `removed` by somebody, or `replaced`
    /// by another connection. None: nobody meant it, and it is registered again after a pause.
    pub cause: Option<String>,
}

impl Refused {
    /// Whether the server is not registered any more and nobody meant that.
    pub(crate) fn is_unmeant_end(&self) -> bool {
        self.is_end() && !matches!(self.cause.as_deref(), Some("removed" | "replaced"))
    }

    /// Whether the server is not registered any more.
    pub(crate) fn is_end(&self) -> bool {
        self.code == "deregistered"
    }
}

impl Event {
    /// The requirement that it is about, as the definition names it.
    pub(crate) fn requirement(&self) -> Option<String> {
        let (name, more) = match self {
            Self::Required(there) => (&there.name, &there.more),
            Self::Lost(gone) => (&gone.name, &gone.more),
            Self::Refused(_) => return None,
        };
        let required = more.get("requirement").and_then(Value::as_str);
        Some(required.unwrap_or(name).to_owned())
    }
}

impl Revision {
    /// The higher of this and one that came later; 0 says that what was seen before is of another table.
    pub(crate) fn highest(known: Option<Self>, came: Self) -> Self {
        match (known, &came) {
            (Some(Self::Number(known)), Self::Number(now)) if *now != 0 && known > *now => {
                Self::Number(known)
            }
            _ => came,
        }
    }
}

/// A message of the router, taken apart.
#[derive(Debug, PartialEq)]
pub(crate) struct Heard {
    pub(crate) said: Said,
    pub(crate) revision: Option<Revision>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    Event(Event),
    Drained,
    /// Of a later version, or nothing that can be understood.
    Other,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    payload: Value,
    revision: Option<Revision>,
}

impl Heard {
    pub(crate) fn read(text: &str) -> Self {
        let Envelope { kind, payload, revision } = serde_json::from_str(text).unwrap_or_default();
        let within = payload.get("revision").cloned();
        let revision = revision.or_else(|| serde_json::from_value(within?).ok());
        let event = match kind.as_str() {
            "required-service" => serde_json::from_value(payload).map(Event::Required),
            "required-service-lost" => serde_json::from_value(payload).map(Event::Lost),
            "error" => serde_json::from_value(payload).map(Event::Refused),
            "drained" => return Self { said: Said::Drained, revision },
            _ => return Self { said: Said::Other, revision },
        };
        Self { said: event.map_or(Said::Other, Said::Event), revision }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, said: Said, revision: Option<Revision>) {
        assert_eq!(Heard::read(text), Heard { said, revision }, "{text}");
    }

    #[test]
    fn the_highest_revision_is_kept_but_for_another_table() {
        let highest = |known, came| Revision::highest(known, came);
        let number = |number| Revision::Number(number);
        assert_eq!(highest(None, number(3)), number(3));
        assert_eq!(highest(Some(number(7)), number(3)), number(7));
        assert_eq!(highest(Some(number(7)), number(9)), number(9));
        assert_eq!(highest(Some(number(7)), number(0)), number(0));
        let text = Revision::Text("a-1".into());
        assert_eq!(highest(Some(number(7)), text.clone()), text);
    }

    #[test]
    fn what_is_said_is_understood_as_far_as_it_can_be() {
        let explosion = RequiredService {
            name: "explosion".into(),
            host: "10.9.8.10".into(),
            port: 8003,
            ..Default::default()
        };
        let text = r#"{"type":"required-service","payload":{"name":"explosion","port":8003,"host":"10.9.8.10"},"revision":7}"#;
        check(text, Said::Event(Event::Required(explosion)), Some(Revision::Number(7)));
        let refused = Refused { code: "invalid".into(), reason: "no".into(), cause: None };
        let text = r#"{"type":"error","payload":{"code":"invalid","reason":"no"}}"#;
        check(text, Said::Event(Event::Refused(refused)), None);
        check(r#"{"type":"drained"}"#, Said::Drained, None);
        let text = r#"{"type":"later","payload":{"revision":"a-1"}}"#;
        check(text, Said::Other, Some(Revision::Text("a-1".into())));
        for text in ["", "no JSON", "[]", "{}", r#"{"type":"required-service","payload":[]}"#] {
            check(text, Said::Other, None);
        }
    }
}
