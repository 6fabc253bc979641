//! The configuration: what a person typed, made into plain, validated data.
//!
//! [`Config::load`] reads a TOML file and either returns a [`Config`] in which everything holds,
//! or every problem at once, each with its line and its fix. Other modules take the parts that
//! concern them; none reads the file. This module knows the records of the table, the rules of
//! [`crate::auth`] and [`crate::token`] and the settings of plugins, because these stand in the
//! file, and no other module.

mod address;
mod diagnose;
mod opening;
mod read;
mod reader;
pub mod record;
pub mod reload;
mod tree;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, Method, Uri};
use rustls::pki_types::CertificateDer;

pub use self::diagnose::{Place, Problem};
pub use crate::units::Cidr;
use crate::{
    auth::{Access, Origin},
    plugin,
    table::record::{ServiceId, ServiceSpec},
    token,
    webhook::{Event, Secret},
};

/// Everything that is configured, with the defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[router]`
    pub router: RouterConfig,
    /// `[proxy]`
    pub proxy: ProxyConfig,
    /// `[api]`
    pub api: ApiConfig,
    /// `[data]`
    pub data: DataConfig,
    /// `[table]`
    pub table: TableConfig,
    /// `[plugins]`
    pub plugins: PluginsConfig,
    /// `[plugin.NAME]`; see [`Config::plugin`] for plugins that are not mentioned.
    pub plugin: BTreeMap<String, plugin::Settings>,
    /// `[[route]]`; the most specific that matches decides. Empty: the path names the service.
    pub routes: Vec<RouteConfig>,
    /// `[service.NAME]`
    pub services: BTreeMap<ServiceId, ServiceSpec>,
    /// `[[access]]`
    pub access: Access,
    /// `[discovery]`
    pub discovery: DiscoveryConfig,
    /// `[[webhook]]`
    pub webhooks: Vec<WebhookConfig>,
    /// `[log]`
    pub log: LogConfig,
}

/// This process among its like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterConfig {
    /// Unique among the routers that share a table; none: made at the first start.
    pub id: Option<String>,
    /// Where others reach its API; none: the API's address.
    pub uri: Option<String>,
}

/// The proxy: its listener, and how messages go through it.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfig {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// None: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Threads; none: one for each processor.
    pub workers: Option<usize>,
    /// Where a client's id is looked for, in this order.
    pub client_id: Vec<ClientIdSource>,
    /// `[proxy.token]`; none: no token is believed.
    pub token: Option<token::Rules>,
    /// Filter plugins for every service, before its own.
    pub filters: Vec<String>,
    /// Peers whose `Forwarded` and `X-Forwarded-*` headers are believed.
    pub trusted: Vec<Cidr>,
    /// Where no route says so.
    pub encoded_slashes: EncodedSlashes,
    /// What a connection may become, in lower case.
    pub upgrades: Vec<Box<str>>,
    /// `[proxy.limits]`
    pub limits: ProxyLimits,
    /// `[proxy.timeouts]`
    pub timeouts: ProxyTimeouts,
    /// `[proxy.retry]`
    pub retry: RetryConfig,
    /// `[proxy.ejection]`
    pub ejection: EjectionConfig,
}

/// Where the id of a client is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientIdSource {
    /// `header:NAME`
    Header(HeaderName),
    /// `cookie:NAME`
    Cookie(String),
    /// `token:CLAIM`: of a bearer token that is believed.
    Token(String),
    /// `peer`: the address of the other end, or what a trusted peer says it is.
    Peer,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Bounds of what clients may make the proxy hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyLimits {
    /// Client connections at once, over all workers.
    pub connections: usize,
    /// Of them from one address; none: as many.
    pub connections_per_peer: Option<usize>,
    /// HTTP/2 streams at once, for each connection.
    pub streams: u32,
    /// Bytes of a request's head.
    pub head: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of a request's body; none: unlimited, as bodies are streamed and never held.
    pub body: Option<u64>,
    /// Bytes that are read and thrown away of a request that was answered before its end.
    pub unread: u64,
    /// Connections to one server, for each worker.
    pub upstream_connections: usize,
    /// Idle connections kept to one server, for each worker.
    pub upstream_idle: usize,
    /// Requests that wait for a connection to one server, for each worker.
    pub upstream_waiting: usize,
    /// Clients without an assignment that get one in a second.
    pub new_clients: u32,
    /// Of them from one address.
    pub new_clients_per_peer: u32,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_peer: None,
            streams: 256,
            head: 32 << 10,
            headers: 100,
            body: None,
            unread: 64 << 20,
            upstream_connections: 1024,
            upstream_idle: 256,
            upstream_waiting: 1024,
            new_clients: 10_000,
            new_clients_per_peer: 1000,
        }
    }
}

/// How long each phase of a message may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyTimeouts {
    /// From accepting a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// From there to the first byte of the first request.
    pub first_byte: Duration,
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between two requests of a connection.
    pub keep_alive: Duration,
    /// Between two pieces of a body, in either direction.
    pub body: Duration,
    /// To read and throw away the rest of a request that was answered before its end.
    pub unread: Duration,
    /// To connect to a server.
    pub connect: Duration,
    /// To wait for a connection to a server when all are in use.
    pub wait: Duration,
    /// From sending a request to the head of its response.
    pub response: Duration,
    /// After which an idle connection to a server is closed.
    pub upstream_idle: Duration,
    /// After which a connection to a server is used for no further message; 0 lets it be.
    pub upstream_age: Duration,
    /// Silence in both directions of an upgraded connection.
    pub tunnel: Duration,
    /// To finish what runs after SIGTERM.
    pub drain: Duration,
    /// For the next request of an idle connection after SIGTERM.
    pub drain_idle: Duration,
}

impl Default for ProxyTimeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            handshake: seconds(10),
            first_byte: seconds(60),
            head: seconds(10),
            keep_alive: seconds(75),
            body: seconds(60),
            unread: seconds(30),
            connect: seconds(2),
            wait: seconds(2),
            response: seconds(60),
            upstream_idle: seconds(60),
            upstream_age: seconds(600),
            tunnel: seconds(3600),
            drain: seconds(30),
            drain_idle: seconds(3),
        }
    }
}

/// When a message is sent to another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Further servers that one message may try; 0 turns retries off.
    pub attempts: u32,
    /// After which a GET, HEAD or OPTIONS without a body goes to another server if its own has not begun to
    /// answer; none: after `[proxy.timeouts] response`.
    pub timeout: Option<Duration>,
    /// Percent of all messages that may be retries.
    pub budget: u32,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 1, timeout: None, budget: 20 }
    }
}

/// When a server that fails is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EjectionConfig {
    /// Failures in a row that eject a server; 0 turns ejection off.
    pub failures: u32,
    /// How long the first ejection takes; further ones take longer.
    pub time: Duration,
    /// Percent of a service's servers that may be ejected at once.
    pub most: u32,
}

impl Default for EjectionConfig {
    fn default() -> Self {
        Self { failures: 5, time: Duration::from_secs(10), most: 50 }
    }
}

/// The API's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// None: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Everybody who can reach it may do everything.
    pub open: bool,
    /// Where web pages may be from that change something or connect, besides here.
    pub origins: Vec<Origin>,
    /// `[api.limits]`
    pub limits: ApiLimits,
    /// `[api.timeouts]`
    pub timeouts: ApiTimeouts,
}

/// Bounds of what the API holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiLimits {
    /// Connections at once.
    pub connections: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// Streams of `/v1/watch` at once.
    pub watchers: usize,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self { connections: 1024, body: 1 << 20, watchers: 256 }
    }
}

/// How long each phase of an API request may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTimeouts {
    /// From accepting a connection, or the end of the last request, to the end of a request's head.
    pub head: Duration,
    /// From there to the response, unless that is a stream.
    pub request: Duration,
}

impl Default for ApiTimeouts {
    fn default() -> Self {
        Self { head: Duration::from_secs(30), request: Duration::from_secs(30) }
    }
}

/// Where this process keeps what it must find again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataConfig {
    /// Made if it is not there.
    pub dir: PathBuf,
}

/// The routing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// The name of a routing-table plugin.
    pub adapter: String,
    /// Assignments that this router remembers, at most.
    pub assignments: usize,
    /// So long a message waits for the table, over all that it asks there.
    pub wait: Duration,
}

/// The directory of plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginsConfig {
    /// Made if it is not there.
    pub dir: PathBuf,
    /// From one look at the directory to the next; file events only hasten it.
    pub interval: Duration,
}

/// Which messages go to which service; all that is said must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// In lower case and canonical form, without a port; `*.example.com` for any host below.
    pub host: Option<String>,
    /// What the path starts with, in normal form; whole segments only, unless it ends with `/`.
    pub path: Option<String>,
    /// Empty: any.
    pub methods: Vec<Method>,
    /// Exact values.
    pub headers: Vec<(HeaderName, String)>,
    /// Where they go.
    pub service: ServiceId,
    /// Whether `path` is taken off before the message is sent on.
    pub strip: bool,
    /// None: as `[proxy]` says.
    pub encoded_slashes: Option<EncodedSlashes>,
}

/// What becomes of a message whose path holds an encoded slash, backslash or NUL: `%2F` is a part of
/// a segment to one server, and the end of it to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlashes {
    /// It is answered with 400.
    #[default]
    Refuse,
    /// It is sent on as it is.
    Keep,
}

/// Services that announce themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// How long a server whose connection ended, or whose router is gone, is kept as suspect.
    pub grace: Duration,
    /// Silence after which a connection is asked whether it still lives.
    pub ping: Duration,
    /// Silence after which a connection is taken to be dead; longer than `ping`.
    pub deadline: Duration,
    /// How long the clients of a server that leaves may stay, unless it says otherwise.
    pub drain: Duration,
    /// Bytes of one message.
    pub message: usize,
    /// Requirements of one connection.
    pub requirements: usize,
    /// Connections at once.
    pub connections: usize,
    /// Messages that one connection may send each second, on average.
    pub rate: u32,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            ping: Duration::from_secs(5),
            deadline: Duration::from_secs(15),
            drain: Duration::from_secs(10),
            message: 32 << 10,
            requirements: 256,
            connections: 20_000,
            rate: 50,
        }
    }
}

/// Who is told of what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// What log and metrics call it.
    pub name: String,
    /// `http` or `https`.
    pub url: Uri,
    /// None: what is sent is not signed.
    pub secret: Option<Secret>,
    /// Empty: all.
    pub events: Vec<Event>,
    /// Certificates that an `https` target's may be signed with, besides the well-known ones.
    pub ca: Vec<CertificateDer<'static>>,
    /// Notifications that may wait; more are dropped.
    pub queue: usize,
    /// Of one attempt.
    pub timeout: Duration,
    /// To send one notification.
    pub attempts: u32,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// In the syntax of tracing's `EnvFilter`.
    pub filter: String,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// An address to listen on, as people write it: `127.0.0.1:8080`, `[::1]:80` or `localhost:80`.
/// The error says what to write instead.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    address::listen(text)
}

/// What the command line says; it goes before the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--plugins`
    pub plugins: Option<PathBuf>,
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--proxy`
    pub proxy: Option<SocketAddr>,
    /// `--api`
    pub api: Option<SocketAddr>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}", path = .path.display())]
    Read {
        /// As it was named.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everything that is wrong with it.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads a file, or without one takes the defaults, and validates all of it. Relative paths in
    /// the file and the defaults of paths are relative to its directory, those of the command line to the
    /// current one.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let Some(path) = file else { return Self::parse("", Path::new("message-flow.toml"), overrides) };
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text, path, overrides)
    }

    /// As [`Config::load`], of a text that was read from a file of this name.
    pub fn parse(text: &str, file: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        read::config(text, file, overrides).map_err(ConfigError::Invalid)
    }

    /// What a plugin of this name is told, given and allowed, whether it is mentioned or not.
    pub fn plugin(&self, name: &str) -> plugin::Settings {
        self.plugin.get(name).cloned().unwrap_or_else(|| plugin::Settings::default_for(name))
    }
}

#[cfg(test)]
mod tests;
