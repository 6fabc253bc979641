//! From TOML to [`Config`], section by section. Each function takes the keys of one section, with
//! their defaults; what a value may be is said next to its key.

mod access;
mod discovery;
mod plugin;
pub(super) mod release;
mod route;
pub(super) mod service;
mod token;
mod webhook;

use std::{collections::BTreeMap, net::SocketAddr, path::Path, str::FromStr};

use http::HeaderName;

use super::{
    ApiConfig, ApiLimits, ApiTimeouts, ClientIdSource, Config, DataConfig, EjectionConfig, EncodedSlashes,
    LogConfig, LogFormat, Overrides, PluginsConfig, Problem, ProxyConfig, ProxyLimits, ProxyTimeouts,
    RetryConfig, RouterConfig, TableConfig, TlsFiles, address,
    diagnose::Source,
    reader::{Section, Value},
    tree::Tree,
};
use crate::{auth::Access, authority};

/// Everything, or everything that is wrong.
pub(super) fn config(text: &str, file: &Path, overrides: &Overrides) -> Result<Config, Vec<Problem>> {
    let directory = file.parent().unwrap_or(Path::new(""));
    let source = Source::new(file.display().to_string(), directory, text);
    let (document, errors) = toml::de::DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().unwrap_or(0..0);
        source.refuse(&at, "", format!("not TOML: {}", error.message().trim_end()));
    }
    let syntax = !errors.is_empty();
    let tree = Tree::of_toml(document.get_ref());
    let config = Value::root(&source, &tree).as_section().map(|section| root(section, overrides));
    let mut problems = source.into_problems();
    if syntax {
        keep_what_does_not_follow(&mut problems);
    }
    config.filter(|_| problems.is_empty()).ok_or(problems)
}

/// What the parser could not read makes other keys seem missing or wrong: only its own complaints,
/// and unknown keys, are sure to be no consequence of it.
fn keep_what_does_not_follow(problems: &mut Vec<Problem>) {
    problems.retain(|problem| problem.key.is_empty() || problem.message.starts_with("unknown key"));
}

fn root(root: Section<'_>, overrides: &Overrides) -> Config {
    let config = Config {
        router: router(root.section("router")),
        proxy: proxy(root.section("proxy"), overrides),
        data: DataConfig { dir: data(root.section("data"), overrides) },
        table: table(root.section("table")),
        plugins: plugins(root.section("plugins"), overrides),
        plugin: root.get("plugin", |value| Some(plugin::all(&value.section()?))).unwrap_or_default(),
        routes: root.get("route", |value| value.list(|one| route::one(one.section()?))).unwrap_or_default(),
        services: root.get("service", |value| Some(service::all(&value.section()?))).unwrap_or_default(),
        webhooks: root
            .get("webhook", |value| value.list(|one| webhook::one(one.section()?)))
            .unwrap_or_default(),
        access: Access::new(
            root.get("access", |value| value.list(|one| access::one(one.section()?))).unwrap_or_default(),
        ),
        discovery: discovery::discovery(root.section("discovery")),
        log: log(root.section("log")),
        // Last, because whom it may listen to depends on `access`.
        api: api(root.section("api"), overrides, root.value("access").is_some()),
    };
    root.end();
    config
}

fn router(section: Section<'_>) -> RouterConfig {
    let router = RouterConfig { id: section.get("id", name), uri: section.get("uri", uri) };
    section.end();
    router
}

fn proxy(section: Section<'_>, overrides: &Overrides) -> ProxyConfig {
    let listen = section.get("listen", listen);
    let workers = section.get("workers", |value| value.number(1..257));
    let client_id = section.get("client_id", client_id).unwrap_or_else(default_client_id);
    let proxy = ProxyConfig {
        listen: overrides.proxy.or(listen).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080))),
        tls: section.get("tls", |value| tls(value.section()?)),
        workers: workers.and_then(|workers| usize::try_from(workers).ok()),
        token: token::token(&section, &client_id),
        client_id,
        filters: section.get("filters", names).unwrap_or_default(),
        trusted: section.get("trusted", |value| value.list(Value::parse)).unwrap_or_default(),
        encoded_slashes: section.get("encoded_slashes", encoded_slashes).unwrap_or_default(),
        upgrades: section
            .get("upgrades", |value| value.list(upgrade))
            .unwrap_or_else(|| vec!["websocket".into()]),
        limits: proxy_limits(section.section("limits")),
        timeouts: proxy_timeouts(section.section("timeouts")),
        retry: retry(section.section("retry")),
        ejection: ejection(section.section("ejection")),
    };
    section.end();
    proxy
}

fn encoded_slashes(value: &Value<'_>) -> Option<EncodedSlashes> {
    value.choice(&[("refuse", EncodedSlashes::Refuse), ("keep", EncodedSlashes::Keep)])
}

/// Behind another HTTP no route, filter or token would be looked at.
fn upgrade(value: &Value<'_>) -> Option<Box<str>> {
    let text = value.text()?.to_ascii_lowercase();
    let token = text.parse::<HeaderName>().is_ok();
    if text.starts_with("h2") || text.starts_with("http") || text.starts_with("tls") {
        value.refuse(format!("`{text}` cannot pass: no route, filter or token would be looked at behind it"))
    } else if token {
        Some(text.into())
    } else {
        value.refuse(format!("`{text}` is not what a connection is upgraded to: write \"websocket\""))
    }
}

fn client_id(value: &Value<'_>) -> Option<Vec<ClientIdSource>> {
    let sources = value.list(Value::parse)?;
    if sources.is_empty() {
        value.refuse("must name at least one source, such as \"peer\"")
    } else {
        Some(sources)
    }
}

fn default_client_id() -> Vec<ClientIdSource> {
    const NAME: &str = "message-flow-client";
    vec![
        ClientIdSource::Header(HeaderName::from_static(NAME)),
        ClientIdSource::Cookie(NAME.to_owned()),
        ClientIdSource::Peer,
    ]
}

impl FromStr for ClientIdSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let source = match text.split_once(':') {
            None if text == "peer" => Some(Self::Peer),
            Some(("header", name)) => name.parse().ok().map(Self::Header),
            Some(("cookie", name)) if name.parse::<HeaderName>().is_ok() => {
                Some(Self::Cookie(name.to_owned()))
            }
            Some(("token", claim)) if !claim.is_empty() => Some(Self::Token(claim.to_owned())),
            _ => None,
        };
        source.ok_or_else(|| {
            format!(
                "`{text}` is not a source of client ids: write \"header:NAME\", \"cookie:NAME\", \"token:sub\" or \"peer\""
            )
        })
    }
}

fn proxy_limits(section: Section<'_>) -> ProxyLimits {
    let default = ProxyLimits::default();
    let streams = section.get("streams", |value| value.number(1..65_537));
    let limits = ProxyLimits {
        connections: section.get("connections", Value::count).unwrap_or(default.connections),
        connections_per_peer: section.get("connections_per_peer", Value::count),
        streams: streams.and_then(|streams| u32::try_from(streams).ok()).unwrap_or(default.streams),
        head: section.get("head", head).unwrap_or(default.head),
        headers: section.get("headers", |value| bounded(value, 1..4097)).unwrap_or(default.headers),
        body: section.get("body", Value::size).or(default.body),
        unread: section.get("unread", Value::size).unwrap_or(default.unread),
        upstream_connections: section
            .get("upstream_connections", Value::count)
            .unwrap_or(default.upstream_connections),
        upstream_idle: section.get("upstream_idle", Value::count).unwrap_or(default.upstream_idle),
        upstream_waiting: section.get("upstream_waiting", Value::count).unwrap_or(default.upstream_waiting),
        new_clients: section.get("new_clients", a_second).unwrap_or(default.new_clients),
        new_clients_per_peer: section
            .get("new_clients_per_peer", a_second)
            .unwrap_or(default.new_clients_per_peer),
    };
    section.end();
    limits
}

/// So many in a second; 0 for none at all.
fn a_second(value: &Value<'_>) -> Option<u32> {
    bounded(value, 0..1 + (1 << 20))
}

/// With less, ordinary browsers with their cookies would be refused.
fn head(value: &Value<'_>) -> Option<usize> {
    match value.size()? {
        size @ 8192..=1_048_576 => usize::try_from(size).ok(),
        _ => value.refuse("out of bounds: write \"8KiB\" to \"1MiB\""),
    }
}

fn proxy_timeouts(section: Section<'_>) -> ProxyTimeouts {
    let default = ProxyTimeouts::default();
    let timeouts = ProxyTimeouts {
        handshake: section.get("handshake", Value::span).unwrap_or(default.handshake),
        first_byte: section.get("first_byte", Value::span).unwrap_or(default.first_byte),
        head: section.get("head", Value::span).unwrap_or(default.head),
        keep_alive: section.get("keep_alive", Value::span).unwrap_or(default.keep_alive),
        body: section.get("body", Value::span).unwrap_or(default.body),
        unread: section.get("unread", Value::span).unwrap_or(default.unread),
        connect: section.get("connect", Value::span).unwrap_or(default.connect),
        wait: section.get("wait", Value::span).unwrap_or(default.wait),
        response: section.get("response", Value::span).unwrap_or(default.response),
        upstream_idle: section.get("upstream_idle", Value::span).unwrap_or(default.upstream_idle),
        upstream_age: section.get("upstream_age", Value::span).unwrap_or(default.upstream_age),
        tunnel: section.get("tunnel", Value::span).unwrap_or(default.tunnel),
        drain: section.get("drain", Value::span).unwrap_or(default.drain),
        drain_idle: section.get("drain_idle", Value::span).unwrap_or(default.drain_idle),
    };
    section.end();
    timeouts
}

fn retry(section: Section<'_>) -> RetryConfig {
    let default = RetryConfig::default();
    let retry = RetryConfig {
        attempts: section.get("attempts", |value| bounded(value, 0..11)).unwrap_or(default.attempts),
        timeout: section.get("timeout", Value::span),
        budget: section.get("budget", percent).unwrap_or(default.budget),
    };
    section.end();
    retry
}

fn ejection(section: Section<'_>) -> EjectionConfig {
    let default = EjectionConfig::default();
    let ejection = EjectionConfig {
        failures: section.get("failures", |value| bounded(value, 0..1001)).unwrap_or(default.failures),
        time: section.get("time", Value::span).unwrap_or(default.time),
        most: section.get("most", percent).unwrap_or(default.most),
    };
    section.end();
    ejection
}

fn api(section: Section<'_>, overrides: &Overrides, guarded: bool) -> ApiConfig {
    let written = section.get("listen", listen);
    let open = section.get("open", Value::switch).unwrap_or(false);
    let listen = overrides.api.or(written).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8081)));
    if !listen.ip().to_canonical().is_loopback() && !open && !guarded {
        refuse_to_be_public(&section, listen, overrides.api.is_some());
    }
    let api = ApiConfig {
        listen,
        tls: section.get("tls", |value| tls(value.section()?)),
        open,
        origins: section.get("origins", |value| value.list(Value::parse)).unwrap_or_default(),
        limits: api_limits(section.section("limits")),
        timeouts: api_timeouts(section.section("timeouts")),
    };
    section.end();
    api
}

fn refuse_to_be_public(section: &Section<'_>, listen: SocketAddr, argument: bool) {
    let reason = "is not a loopback address, and there are no access rules: add an [[access]] section \
                  (`message-flow token` prints one), or set `open = true` in [api] if everybody who can \
                  reach this address may do everything";
    let message = format!("{listen} {reason}");
    match section.value("listen").filter(|_| !argument) {
        Some(value) => value.complain(message),
        None => section.argument("--api", message),
    }
}

fn api_limits(section: Section<'_>) -> ApiLimits {
    let default = ApiLimits::default();
    let body = section.get("body", Value::size).and_then(|size| usize::try_from(size).ok());
    let limits = ApiLimits {
        connections: section.get("connections", Value::count).unwrap_or(default.connections),
        body: body.unwrap_or(default.body),
        watchers: section.get("watchers", Value::count).unwrap_or(default.watchers),
    };
    section.end();
    limits
}

fn api_timeouts(section: Section<'_>) -> ApiTimeouts {
    let default = ApiTimeouts::default();
    let timeouts = ApiTimeouts {
        head: section.get("head", Value::span).unwrap_or(default.head),
        request: section.get("request", Value::span).unwrap_or(default.request),
    };
    section.end();
    timeouts
}

fn data(section: Section<'_>, overrides: &Overrides) -> std::path::PathBuf {
    let dir = section.get("dir", Value::path);
    let default = section.beside("data");
    section.end();
    overrides.data.clone().or(dir).unwrap_or(default)
}

fn table(section: Section<'_>) -> TableConfig {
    let table = TableConfig {
        adapter: section.get("adapter", name).unwrap_or_else(|| "memory".to_owned()),
        assignments: section.get("assignments", Value::count).unwrap_or(1_000_000),
        wait: section.get("wait", table_wait).unwrap_or(std::time::Duration::from_secs(1)),
    };
    section.end();
    table
}

/// A message waits for no time at all only by mistake, and longer than a client does for nothing.
fn table_wait(value: &Value<'_>) -> Option<std::time::Duration> {
    let wait = value.span()?;
    let allowed = std::time::Duration::from_millis(10)..=std::time::Duration::from_secs(60);
    match allowed.contains(&wait) {
        true => Some(wait),
        false => value.refuse("write how long a message may wait for the routing table, from 10ms to 60s"),
    }
}

fn plugins(section: Section<'_>, overrides: &Overrides) -> PluginsConfig {
    let dir = section.get("dir", Value::path);
    let plugins = PluginsConfig {
        dir: overrides.plugins.clone().or(dir).unwrap_or_else(|| section.beside("plugins")),
        interval: section.get("interval", Value::span).unwrap_or(std::time::Duration::from_secs(2)),
    };
    section.end();
    plugins
}

fn log(section: Section<'_>) -> LogConfig {
    let formats = [("human", LogFormat::Human), ("json", LogFormat::Json)];
    let log = LogConfig {
        format: section.get("format", |value| value.choice(&formats)).unwrap_or(LogFormat::Human),
        filter: section.get("filter", filter).unwrap_or_else(|| "info".to_owned()),
    };
    section.end();
    log
}

fn filter(value: &Value<'_>) -> Option<String> {
    let text = value.word()?;
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Some(text),
        Err(_) => value.refuse(format!(
            "`{text}` is not a log filter: write a level such as \"info\", or \"info,message_flow::proxy=debug\""
        )),
    }
}

fn tls(section: Section<'_>) -> Option<TlsFiles> {
    let cert = section.need("cert", "cert = \"FILE.pem\"", Value::path);
    let key = section.need("key", "key = \"FILE.pem\"", Value::path);
    section.end();
    Some(TlsFiles { cert: cert?, key: key? })
}

fn listen(value: &Value<'_>) -> Option<SocketAddr> {
    address::listen(value.text()?).map_err(|message| value.refuse::<()>(message)).ok()
}

fn uri(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let uri: Option<http::Uri> = text.parse().ok();
    let valid = uri.is_some_and(|uri| {
        let authority = uri.authority().and_then(|authority| authority::split(authority.as_str()));
        matches!(uri.scheme_str(), Some("http" | "https")) && authority.is_some()
    });
    if valid {
        Some(text.trim_end_matches('/').to_owned())
    } else {
        value.refuse(format!("`{text}` is not a URI: write http://HOST:PORT"))
    }
}

/// The name of a plugin, or of anything that becomes part of a path or key.
fn name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=128).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(allowed) {
        Some(text.to_owned())
    } else {
        value.refuse(format!("`{text}` is not a name: write up to 128 letters, digits, `-`, `_` and `.`"))
    }
}

fn names(value: &Value<'_>) -> Option<Vec<String>> {
    value.list(name)
}

fn texts<'s>(section: &Section<'s>) -> BTreeMap<String, String> {
    section.entries().filter_map(|(key, value)| Some((key.to_owned(), value.scalar()?))).collect()
}

fn bounded<T: TryFrom<u64>>(value: &Value<'_>, bounds: std::ops::Range<u64>) -> Option<T> {
    value.number(bounds).and_then(|number| T::try_from(number).ok())
}

fn percent(value: &Value<'_>) -> Option<u32> {
    bounded(value, 0..101)
}
