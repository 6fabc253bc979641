//! The records that the table holds, as JSON and as types. What the API reads and writes and what
//! `[service.NAME]` says in the configuration are these same records.

mod release;

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use release::{
    Action as ReleaseAction, Canary, Change as ReleaseChange, Guard, HeaderMatch, Move,
    Named as ReleaseVersions, Note as ReleaseNote, Promotion, Refused as ReleaseRefused, ReleaseRecord,
    Rollback, UNVERSIONED,
};

use crate::{authority, path, units::Span};

pub use super::lease::{Draining, Lease};

/// A service's name and version, written `chat` or `chat@2`.
///
/// A name is 1 to 128 letters, digits, `-`, `_` or `.`, and does not start with a `.`; a version
/// is 1 to 64 of the same.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId {
    text: Arc<str>,
    name: usize,
}

const CHOICES: &str = ".version";

/// Why a text is not a [`ServiceId`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a service: write NAME or NAME@VERSION, each of letters, digits, `-`, `_` and `.`")]
pub struct InvalidServiceId(pub String);

impl ServiceId {
    /// Without the version.
    pub fn name(&self) -> &str {
        &self.text[..self.name]
    }

    /// None for an unversioned service.
    pub fn version(&self) -> Option<&str> {
        self.text.get(self.name + 1..)
    }

    /// The service of this name that has this version; [`UNVERSIONED`] for the one without.
    pub fn versioned(name: &str, version: &str) -> Result<Self, InvalidServiceId> {
        match version {
            UNVERSIONED => name.parse(),
            version => format!("{name}@{version}").parse(),
        }
    }

    /// Under which it is remembered in the table which version of a name a client was given. No
    /// service is called so: a version does not start with a `.`.
    pub fn choices(name: &str) -> Self {
        Self { text: format!("{name}@{CHOICES}").into(), name: name.len() }
    }

    /// Whether this is no service, but where choices of a version are remembered.
    pub fn is_choices(text: &str) -> Option<&str> {
        text.strip_suffix(CHOICES)?.strip_suffix('@')
    }

    /// As written: `chat` or `chat@2`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for ServiceId {
    type Err = InvalidServiceId;

    fn from_str(text: &str) -> Result<Self, InvalidServiceId> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let valid = is_word(name, 128) && version.is_none_or(|version| is_word(version, 64));
        if !valid {
            return Err(InvalidServiceId(text.chars().take(200).collect()));
        }
        Ok(Self { text: text.into(), name: name.len() })
    }
}

fn is_word(text: &str, limit: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=limit).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(allowed)
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

crate::units::as_text!(ServiceId);

/// Whether a text can be a client id: 1 to 256 printable ASCII characters.
pub fn is_client_id(text: &[u8]) -> bool {
    (1..=256).contains(&text.len()) && text.iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// The URI of a server: `http://host[:port][/base]`, or `h2c://…` for one that speaks HTTP/2 with
/// prior knowledge and nothing else. Without a trailing slash, query, fragment or credentials; its base
/// is in normal form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerUri(Arc<str>);

/// Why a text is not a [`ServerUri`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a server: write http://HOST:PORT (or h2c://HOST:PORT for HTTP/2 without TLS)")]
pub struct InvalidServerUri(pub String);

impl ServerUri {
    /// As written, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `host:port`, with the scheme's port 80 where none is written.
    pub fn host_port(&self) -> String {
        let authority = self.authority();
        let has_port = authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
        if has_port { authority.to_owned() } else { format!("{authority}:80") }
    }

    /// As written, with or without a port.
    pub fn authority(&self) -> &str {
        let rest = self.after_scheme();
        rest.split('/').next().unwrap_or(rest)
    }

    /// The host, as written: a name, an address, or an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        let authority = self.authority();
        let after = authority.find(']').map_or(0, |end| end + 1);
        authority[after..].find(':').map_or(authority, |port| &authority[..after + port])
    }

    /// What goes before every path; empty or starting with `/`.
    pub fn base(&self) -> &str {
        let rest = self.after_scheme();
        rest.find('/').map_or("", |at| &rest[at..])
    }

    /// Whether it speaks HTTP/2 whatever the client spoke.
    pub fn is_h2c(&self) -> bool {
        self.0.starts_with("h2c:")
    }

    /// As [`str::parse`], but `host:port` alone is `http://host:port`.
    pub fn lenient(text: &str) -> Result<Self, InvalidServerUri> {
        match text.contains("://") {
            true => text.parse(),
            false => format!("http://{text}").parse(),
        }
    }

    fn after_scheme(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, rest)| rest)
    }
}

impl FromStr for ServerUri {
    type Err = InvalidServerUri;

    fn from_str(text: &str) -> Result<Self, InvalidServerUri> {
        let invalid = || InvalidServerUri(text.chars().take(200).collect());
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        authority::split(authority).ok_or_else(invalid)?;
        let plain =
            rest.bytes().all(|byte| byte.is_ascii_graphic()) && !rest.contains(['?', '#', '"', '<', '>']);
        if !matches!(scheme, "http" | "h2c") || !plain || text.len() > 1024 {
            return Err(invalid());
        }
        let base = path::normal(base).map_err(|_| invalid())?;
        Ok(Self(format!("{scheme}://{authority}{}", base.target.trim_end_matches('/')).into()))
    }
}

impl fmt::Display for ServerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

crate::units::as_text!(ServerUri);

/// A service as the configuration and the API write it: its record and its server list at once.
/// Both are read by `config`, which refuses what it does not know; records that come from the
/// table may hold keys of a later version and are read leniently, as serde does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ServiceSpec {
    /// The record proper.
    #[serde(flatten)]
    pub record: ServiceRecord,
    /// The server list; replaces the one there.
    pub servers: Vec<ServerSpec>,
}

/// What the table holds of a service besides its servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceRecord {
    /// Every message goes here, whatever else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub server: Option<ServerUri>,
    /// The registrar plugin that is asked for clients without an assignment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrar: Option<String>,
    /// Whether and for how long a client's server is remembered.
    #[serde(default)]
    pub sticky: Sticky,
    /// Filter plugins, in the order in which requests pass them, after those of `[proxy]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// Active health checks of its servers; none unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// What is announced to services that require this one, in place of its servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub load_balancer: Option<ServerUri>,
    /// Whether clients of the proxy reach it. `false`: only this router's plugins do, and to everybody
    /// else it is as if it were not there.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    #[schema(default = true)]
    pub public: bool,
}

impl Default for ServiceRecord {
    fn default() -> Self {
        Self {
            server: None,
            registrar: None,
            sticky: Sticky::default(),
            filters: Vec::new(),
            health: None,
            load_balancer: None,
            public: true,
        }
    }
}

fn yes() -> bool {
    true
}

/// For what is only written where it is `false`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
pub(crate) fn is_yes(public: &bool) -> bool {
    *public
}

/// Consistent routing: `{"ttl": "30m"}`, or `false` to remember nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// An assignment ends this long after its last use, give or take a quarter.
    For(Duration),
    /// Every message is decided anew.
    Off,
}

impl Default for Sticky {
    fn default() -> Self {
        Self::For(Duration::from_secs(30 * 60))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "`sticky` is false, or { ttl = \"30m\" }")]
enum StickyText {
    Switch(bool),
    For(StickyTtl),
}

#[derive(Serialize, Deserialize)]
struct StickyTtl {
    ttl: Span,
}

impl Serialize for Sticky {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => StickyText::Switch(false),
            Self::For(ttl) => StickyText::For(StickyTtl { ttl: Span(*ttl) }),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Sticky {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match StickyText::deserialize(deserializer)? {
            StickyText::Switch(false) => Self::Off,
            StickyText::Switch(true) => Self::default(),
            StickyText::For(StickyTtl { ttl: Span(ttl) }) if ttl.is_zero() => {
                return Err(serde::de::Error::custom(
                    "`sticky.ttl` must be longer than 0; `sticky = false` turns it off",
                ));
            }
            StickyText::For(StickyTtl { ttl: Span(ttl) }) => Self::For(ttl),
        })
    }
}

impl utoipa::PartialSchema for Sticky {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::{ObjectBuilder, OneOfBuilder, schema::Type};
        let switch = ObjectBuilder::new().schema_type(Type::Boolean).description(Some("`false`: not at all"));
        let ttl = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("After its last use, give or take a quarter: `30m`"));
        let table = ObjectBuilder::new().property("ttl", ttl).required("ttl");
        let either = OneOfBuilder::new().item(switch).item(table);
        either.description(Some("`false`, or `{\"ttl\": \"30m\"}`")).into()
    }
}

impl utoipa::ToSchema for Sticky {}

/// A server as the configuration and the API write it: a URI, or an object with one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ServerSpec {
    /// Defaults to the URI's `host:port`. 1 to 256 printable ASCII characters without `/`.
    pub id: String,
    /// The record proper.
    #[serde(flatten)]
    pub record: ServerRecord,
}

/// What the table holds of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServerRecord {
    /// Where it is.
    #[schema(value_type = String)]
    pub uri: ServerUri,
    /// Its share of unassigned clients relative to the others; 0 gets none.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
    /// Anything that registrars or people want to know of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What is announced to services that require this one, in place of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub load_balancer: Option<ServerUri>,
    /// Active checks of this server; none: those of its service, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<HealthCheck>,
    /// What keeps it in the table; none: it stays until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// It is leaving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<Draining>,
}

impl ServerRecord {
    /// With weight 1 and nothing else.
    pub fn new(uri: ServerUri) -> Self {
        Self {
            uri,
            weight: 1,
            metadata: BTreeMap::new(),
            load_balancer: None,
            check: None,
            lease: None,
            draining: None,
        }
    }
}

impl ServerRecord {
    /// Everywhere it leads.
    pub fn uris(&self) -> impl Iterator<Item = &ServerUri> {
        std::iter::once(&self.uri).chain(&self.load_balancer)
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_one(weight: &u32) -> bool {
    *weight == 1
}

/// Active checks of a service's servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HealthCheck {
    /// A path that answers 200 to 399 to a GET; without one, a TCP connection is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// From one check to the next.
    #[serde(default = "HealthCheck::interval")]
    #[schema(value_type = String)]
    pub interval: Span,
    /// After which a check has failed.
    #[serde(default = "HealthCheck::timeout")]
    #[schema(value_type = String)]
    pub timeout: Span,
    /// So many failures in a row make a server unhealthy.
    #[serde(default = "HealthCheck::unhealthy_after")]
    pub unhealthy_after: u32,
    /// So many successes in a row make it healthy again.
    #[serde(default = "HealthCheck::healthy_after")]
    pub healthy_after: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: None,
            interval: Self::interval(),
            timeout: Self::timeout(),
            unhealthy_after: Self::unhealthy_after(),
            healthy_after: Self::healthy_after(),
        }
    }
}

impl HealthCheck {
    fn interval() -> Span {
        Span(Duration::from_secs(5))
    }

    fn timeout() -> Span {
        Span(Duration::from_secs(1))
    }

    fn unhealthy_after() -> u32 {
        3
    }

    fn healthy_after() -> u32 {
        2
    }
}

/// One running Message Flow process: the value of a `router` entry, whose key is its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RouterRecord {
    /// Where other routers and people reach its API.
    pub uri: String,
    /// Differs with every start of the process.
    pub incarnation: String,
    /// The data directory of this router, as the machine names it while it runs: only one process holds it, so
    /// whoever finds a record of its own directory knows that the process that wrote it is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The id that it came with and that another running router has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// Servers that drain and to which it sends nothing any more, by `SERVICE/SERVER`, with the
    /// stamps of their drains.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drained: BTreeMap<String, u32>,
}
