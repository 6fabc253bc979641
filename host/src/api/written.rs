//! What the API takes, for the OpenAPI document: bodies, path segments and the headers of conditions.
//!
//! Bodies are read by `config::record`, by hand, for the sake of their errors; what is here only says so to
//! programs, and a test holds both against each other.

#![expect(dead_code, reason = "documents what is read elsewhere")]

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::table::record::{Canary, Guard, Sticky};

/// Which service.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ServicePath {
    /// `chat`, or with a version `chat@2`.
    service: String,
}

/// Which service, whatever its version.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamePath {
    /// Its name, without a version.
    service: String,
}

/// Which server of a service.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ServerPath {
    /// `chat`, or with a version `chat@2`.
    service: String,
    /// Unique within the service.
    id: String,
}

/// Which client.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ClientPath {
    /// The client id.
    id: String,
}

/// Which assignment of a client.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct AssignmentPath {
    /// The client id.
    id: String,
    /// `chat`, or with a version `chat@2`.
    service: String,
}

/// Which plugin.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct PluginPath {
    /// Its name: the stem of its file.
    name: String,
}

/// Conditions of a read (RFC 9110, section 13).
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct Reading {
    /// An `ETag`, or several: then 304 is answered if it is still the same.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// Conditions of a write (RFC 9110, section 13).
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct Writing {
    /// An `ETag`, or several, or `*`: else 412 is answered, and nothing is written.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
    /// `*`: only if there is nothing yet.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// A service, all of which can be left out. What is shown of one can be written back as it is.
#[derive(Serialize, ToSchema)]
pub(super) struct WrittenService {
    /// Every message goes here, whatever else is said: `http://HOST:PORT`, or `h2c://HOST:PORT`.
    server: Option<String>,
    /// The registrar plugin that is asked for clients without an assignment.
    registrar: Option<String>,
    /// Whether and for how long a client's server is remembered; else for 30 minutes after its last use.
    sticky: Option<Sticky>,
    /// Filter plugins, in the order in which requests pass them, after those of the configuration.
    filters: Option<Vec<String>>,
    /// Active health checks of its servers; none unless set.
    health: Option<WrittenHealth>,
    /// The same in short, where `health` is not written.
    check: Option<WrittenCheck>,
    /// What services that need this one are told, in place of its servers: a URI, or `HOST:PORT`.
    load_balancer: Option<String>,
    /// `false`: clients of the proxy do not reach it, only this router's plugins do. Else `true`.
    public: Option<bool>,
    /// The server list; replaces the one there.
    servers: Option<Vec<ListedServer>>,
}

/// A server in a list: its URI, or all that can be said of it.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum ListedServer {
    /// `http://HOST:PORT`, or `h2c://HOST:PORT` for HTTP/2 without TLS.
    Uri(String),
    /// With more than its URI.
    Server(ServerObject),
}

/// A server by itself: its URI, or all that can be said of it.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum WrittenServer {
    /// `http://HOST:PORT`, or `h2c://HOST:PORT` for HTTP/2 without TLS.
    Uri(String),
    /// With more than its URI.
    Server(LeasedServerObject),
}

/// A server.
#[derive(Serialize, ToSchema)]
pub(super) struct ServerObject {
    /// `http://HOST:PORT`, or `h2c://HOST:PORT` for HTTP/2 without TLS.
    uri: String,
    /// Unique within its service, 1 to 256 visible characters without `/`; else `HOST:PORT`.
    id: Option<String>,
    /// Its share of unassigned clients relative to the others, 1 unless set; 0 gets none.
    #[schema(maximum = 1_000_000)]
    weight: Option<u32>,
    /// Anything that registrars or people want to know of it.
    metadata: Option<BTreeMap<String, String>>,
    /// What services that need this one are told, in place of the server: a URI, or `HOST:PORT`.
    load_balancer: Option<String>,
    /// Active checks of this server; else those of its service.
    check: Option<WrittenCheck>,
}

/// A server that is written by itself.
#[derive(Serialize, ToSchema)]
pub(super) struct LeasedServerObject {
    #[serde(flatten)]
    server: ServerObject,
    /// It is removed unless a heartbeat comes in this time: `100ms` to `1d`.
    ttl: Option<String>,
}

/// Active checks in short, or in full.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum WrittenCheck {
    /// A path that answers 200 to 399 to a GET, or `tcp`: a connection is enough.
    Short(String),
    /// In full.
    Health(WrittenHealth),
}

/// Active checks; what is left out has its default.
#[derive(Serialize, ToSchema)]
pub(super) struct WrittenHealth {
    /// A path that answers 200 to 399 to a GET; without one, a connection is enough.
    path: Option<String>,
    /// From one check to the next: `5s` unless set.
    interval: Option<String>,
    /// After which a check has failed: `1s` unless set.
    timeout: Option<String>,
    /// So many failures in a row make a server unhealthy: 3 unless set.
    #[schema(minimum = 1, maximum = 100)]
    unhealthy_after: Option<u32>,
    /// So many successes in a row make it healthy again: 2 unless set.
    #[schema(minimum = 1, maximum = 100)]
    healthy_after: Option<u32>,
}

/// Which server to pin a client to; one of both is written.
#[derive(Serialize, ToSchema)]
pub(super) struct Pin {
    /// The id of one of the service's servers, or its URI; or another URI.
    server: Option<String>,
    /// In its place, for a name without a version: which version the name means for this client.
    version: Option<String>,
}

/// What to make live.
#[derive(Serialize, ToSchema)]
pub(super) struct Promotion {
    /// All clients go to this version; or write `weights`.
    version: Option<String>,
    /// Shares of the clients by version.
    weights: Option<BTreeMap<String, u32>>,
    /// Messages with a header go to a version that need not be live; `false` ends that, and so do new weights.
    canary: Option<CanaryOrFalse>,
    /// When the promotion is undone by itself; stays until it is `false`.
    rollback: Option<GuardOrFalse>,
    /// `drain`: clients that have an assignment at a version stay until it ends; `now`: their next message
    /// goes by what is live; or a duration: they stay at most so long.
    r#move: Option<String>,
    /// For the history.
    why: Option<String>,
    /// For the history, besides the token's label.
    by: Option<String>,
}

/// A canary, or `false` for none any more.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum CanaryOrFalse {
    /// `false`.
    Off(bool),
    /// Which messages go where.
    Canary(Canary),
}

/// A guard, or `false` for none any more.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum GuardOrFalse {
    /// `false`.
    Off(bool),
    /// When to go back.
    Guard(Guard),
}

/// What to go back to.
#[derive(Serialize, ToSchema)]
pub(super) struct Rollback {
    /// A number in the history; else what the latest change replaced.
    to: Option<u64>,
    /// As in a promotion; but `now` unless something else is written.
    r#move: Option<String>,
    /// For the history.
    why: Option<String>,
    /// For the history, besides the token's label.
    by: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use crate::config::record;

    /// The keys that a reader knows, as its complaint of an unknown one lists them.
    fn known(problems: Vec<crate::config::Problem>) -> BTreeSet<String> {
        let listed = problems.iter().find_map(|problem| problem.message.split("; known here: ").nth(1));
        listed.expect("it lists them").split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn what_is_documented_is_what_is_read() {
        const ODD: &str = "something-else-altogether";
        let document = serde_json::to_value(super::super::document()).unwrap();
        let properties = |schema: &str| -> BTreeSet<String> {
            let properties = &document["components"]["schemas"][schema]["properties"];
            properties.as_object().unwrap_or_else(|| panic!("{schema}")).keys().cloned().collect()
        };
        let odd = json!({ ODD: 1 });
        assert_eq!(properties("WrittenService"), known(record::service(&odd).unwrap_err()));
        assert_eq!(properties("ServerObject"), known(record::server(&odd).unwrap_err()));
        assert_eq!(properties("Promotion"), known(record::promote(&odd).unwrap_err()));
        assert_eq!(properties("Rollback"), known(record::roll_back(&odd).unwrap_err()));
        let check = json!({ "health": { ODD: 1 } });
        assert_eq!(properties("WrittenHealth"), known(record::service(&check).unwrap_err()));
        // And a body needs no more than it is said to need.
        assert_eq!(document["components"]["schemas"]["ServerObject"]["required"], json!(["uri"]));
        for optional in ["WrittenService", "WrittenHealth", "Promotion", "Rollback", "Pin"] {
            assert_eq!(document["components"]["schemas"][optional]["required"], Value::Null, "{optional}");
        }
    }
}
