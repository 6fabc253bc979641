//! A scenario: a message, the servers to choose among, and what a plugin is expected to make of
//! it. One JSON object in a file of its own, or several in an array.
//!
//! ```
//! use message_flow::workbench::scenario::Scenario;
//!
//! let scenarios = Scenario::read_all(r#"{
//!     "name": "a client goes to its region",
//!     "call": "resolve",
//!     "request": { "headers": { "region": "eu" }, "client": "ann", "service": "chat" },
//!     "candidates": [{ "id": "a", "uri": "http://a:1", "metadata": { "region": "eu" } }],
//!     "expect": { "decision": "server", "server": "a" }
//! }"#).unwrap();
//! assert_eq!(scenarios[0].name, "a client goes to its region");
//! let unknown = Scenario::read_all(r#"{ "name": "x", "call": "resolve", "expect": { "decision": "pass", "sever": "a" } }"#);
//! assert!(unknown.unwrap_err().contains("unknown field `sever`"));
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::table::record::ServiceId;

/// What a plugin is asked, and what it should answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// For people.
    pub name: String,
    /// Which function is called.
    pub call: Call,
    /// The message at hand.
    #[serde(default)]
    pub request: Request,
    /// Its response, for `on-response`.
    #[serde(default)]
    pub response: Response,
    /// The event at hand, for `on-event`.
    #[serde(default)]
    pub event: Event,
    /// Whom a registrar may choose among.
    #[serde(default)]
    pub candidates: Vec<Candidate>,
    /// What the plugin is configured with.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// How often it is called before it is held to `expect`, such as by a client that went before.
    #[serde(default)]
    pub before: u32,
    /// What it should answer.
    pub expect: Expect,
}

/// The functions of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// `registrar.resolve`
    Resolve,
    /// `request-filter.on-request`
    OnRequest,
    /// `response-filter.on-response`
    OnResponse,
    /// `event-filter.on-event`
    OnEvent,
}

/// A request; every part has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// `GET`
    pub method: String,
    /// Path and query: `/`
    pub path: String,
    /// What the client asked for: `example.com`
    pub host: String,
    /// A value, or several.
    pub headers: BTreeMap<String, Values>,
    /// The client id: `client`
    pub client: String,
    /// The other end of the connection: `127.0.0.1:50000`
    pub peer: std::net::SocketAddr,
    /// `service`
    pub service: ServiceId,
    /// The id of the chosen server, for filters.
    pub server: Option<String>,
    /// As text; none: there is none to read.
    pub body: Option<String>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: "example.com".to_owned(),
            headers: BTreeMap::new(),
            client: "client".to_owned(),
            peer: ([127, 0, 0, 1], 50_000).into(),
            service: "service".parse().expect("a word is a service"),
            server: None,
            body: None,
        }
    }
}

/// A response; every part has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Response {
    /// 200
    pub status: u16,
    /// A value, or several.
    pub headers: BTreeMap<String, Values>,
    /// As text; none: there is none to read.
    pub body: Option<String>,
}

impl Default for Response {
    fn default() -> Self {
        Self { status: 200, headers: BTreeMap::new(), body: None }
    }
}

/// An event; its client is that of `request`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Event {
    /// `topic`
    pub topic: String,
    /// As text.
    pub payload: String,
    /// Such as `{ "content-type": "text/plain" }`.
    pub attributes: BTreeMap<String, String>,
}

impl Default for Event {
    fn default() -> Self {
        Self { topic: "topic".to_owned(), payload: String::new(), attributes: BTreeMap::new() }
    }
}

/// The values of a header.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Values {
    /// `"eu"`
    One(String),
    /// `["eu", "us"]`
    Several(Vec<String>),
}

impl Values {
    /// Each of them.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
}

/// A server to choose.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Unique among them.
    pub id: String,
    /// Its URI.
    pub uri: String,
    /// 1
    #[serde(default = "one")]
    pub weight: u32,
    /// true
    #[serde(default = "yes")]
    pub healthy: bool,
    /// 0
    #[serde(default)]
    pub in_flight: u32,
    /// Such as `{ "region": "eu" }`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// What is expected of a call; what is not mentioned is not looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// `resolve`: `server`, `pass` or `reject`.
    pub decision: Option<Decision>,
    /// With `server`: the id or URI.
    pub server: Option<String>,
    /// `on-request`: `forward` or `respond`; `on-response`: `forward`; `on-event`: `accept`, `drop`,
    /// `redirect` or `reject`.
    pub verdict: Option<Verdict>,
    /// With `reject` and `respond`, and of `on-response`: the status.
    pub status: Option<u16>,
    /// With `reject` and `respond`: the reason.
    pub reason: Option<String>,
    /// With `redirect`: the topic.
    pub topic: Option<String>,
    /// Of `on-event`: the payload afterwards.
    pub payload: Option<String>,
    /// Of `on-event`: attributes that have these values afterwards.
    pub attributes: BTreeMap<String, String>,
    /// Headers that have this value (or these) afterwards.
    pub set: BTreeMap<String, Values>,
    /// Headers that are gone afterwards.
    pub removed: Vec<String>,
    /// Path and query afterwards.
    pub path: Option<String>,
    /// The body afterwards.
    pub body: Option<String>,
    /// The call fails, and the error contains this.
    pub error: Option<String>,
}

/// What a registrar decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// A server.
    Server,
    /// No opinion.
    Pass,
    /// No server, but this answer.
    Reject,
}

/// What a filter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Send it on.
    Forward,
    /// Send this answer in place of a server's.
    Respond,
    /// Store and deliver the event.
    Accept,
    /// Forget it.
    Drop,
    /// Publish it to another topic.
    Redirect,
    /// Refuse it.
    Reject,
}

impl Scenario {
    /// Every scenario of a file's text. The error says where and what.
    pub fn read_all(text: &str) -> Result<Vec<Self>, String> {
        let several = text.trim_start().starts_with('[');
        let read = if several {
            serde_json::from_str(text)
        } else {
            serde_json::from_str(text).map(|scenario| vec![scenario])
        };
        let scenarios: Vec<Self> = read.map_err(|error| error.to_string())?;
        scenarios.iter().try_for_each(Self::check)?;
        Ok(scenarios)
    }

    /// What is expected must be something that the function can answer.
    fn check(&self) -> Result<(), String> {
        let Expect { decision, server, verdict, status, reason, .. } = &self.expect;
        let wrong = |what: &str| Err(format!("scenario `{}`: {what}", self.name));
        let ends = *decision == Some(Decision::Reject) || *verdict == Some(Verdict::Respond);
        let of_events =
            matches!(verdict, Some(Verdict::Accept | Verdict::Drop | Verdict::Redirect | Verdict::Reject));
        match self.call {
            _ if self.expect.error.is_some() && (decision.is_some() || verdict.is_some()) => {
                wrong("a call that fails with `error` has neither decision nor verdict")
            }
            Call::Resolve if decision.is_none() && self.expect.error.is_none() => {
                wrong("`resolve` needs `decision` (server, pass or reject) or `error` in `expect`")
            }
            Call::OnRequest | Call::OnResponse | Call::OnEvent if decision.is_some() => {
                wrong("`decision` is what `resolve` answers; a filter answers with a `verdict`")
            }
            Call::OnEvent if verdict.is_some() && !of_events => {
                wrong("an event filter answers accept, drop, redirect or reject")
            }
            Call::OnRequest | Call::OnResponse if of_events => {
                wrong("accept, drop, redirect and reject are what `on-event` answers")
            }
            Call::Resolve if verdict.is_some() => wrong("`resolve` answers with a `decision`"),
            Call::OnResponse if *verdict == Some(Verdict::Respond) => {
                wrong("a response filter cannot respond; it changes the response")
            }
            _ if server.is_some() && *decision != Some(Decision::Server) => {
                wrong("`server` belongs to the decision `server`")
            }
            Call::Resolve | Call::OnRequest if (status.is_some() || reason.is_some()) && !ends => {
                wrong("`status` and `reason` belong to `reject` and `respond`")
            }
            _ => Ok(()),
        }
    }
}
