//! `[service.NAME]`: the record that the API reads and writes as well.

use std::collections::BTreeMap;

use super::{bounded, name, names, texts};
use crate::{
    config::reader::{Section, Value},
    table::record::{
        HealthCheck, ServerRecord, ServerSpec, ServerUri, ServiceId, ServiceRecord, ServiceSpec, Sticky,
    },
    units::Span,
};

pub(super) fn all(section: &Section<'_>) -> BTreeMap<ServiceId, ServiceSpec> {
    section.entries().filter_map(|(name, value)| named(name, &value)).collect()
}

fn named(name: &str, value: &Value<'_>) -> Option<(ServiceId, ServiceSpec)> {
    let spec = value.section().map(service);
    let id = name.parse().map_err(|error| value.refuse::<()>(format!("{error}"))).ok();
    Some((id?, spec?))
}

/// A service by itself, wherever it is written.
pub(in crate::config) fn service(section: Section<'_>) -> ServiceSpec {
    section.shown(&["service", "name", "version", "source", "revision"]);
    let spec = ServiceSpec {
        record: ServiceRecord {
            server: section.get("server", Value::parse),
            registrar: section.get("registrar", name),
            sticky: section.get("sticky", sticky).unwrap_or_default(),
            filters: section.get("filters", names).unwrap_or_default(),
            health: section
                .get("health", |value| Some(health(value.section()?)))
                .or_else(|| section.get("check", check)),
            load_balancer: section.get("load_balancer", load_balancer),
            public: section.get("public", Value::switch).unwrap_or(true),
        },
        servers: section.get("servers", servers).unwrap_or_default(),
    };
    section.end();
    spec
}

fn sticky(value: &Value<'_>) -> Option<Sticky> {
    match value.as_switch() {
        Some(false) => Some(Sticky::Off),
        Some(true) => Some(Sticky::default()),
        None => {
            let Some(section) = value.as_section() else {
                return value.refuse("expected false or a table such as { ttl = \"30m\" }");
            };
            let ttl = section.get("ttl", Value::span);
            section.end();
            Some(ttl.map_or_else(Sticky::default, Sticky::For))
        }
    }
}

fn servers(value: &Value<'_>) -> Option<Vec<ServerSpec>> {
    let servers = value.list(|one| Some((one.clone(), server(one)?)))?;
    for (place, (value, server)) in servers.iter().enumerate() {
        if servers[..place].iter().any(|(_, earlier)| earlier.id == server.id) {
            let id = &server.id;
            value.refuse::<()>(format!("server `{id}` is listed twice: remove one, or give it another `id`"));
        }
    }
    Some(servers.into_iter().map(|(_, server)| server).collect())
}

/// A server by itself, wherever it is written.
pub(in crate::config) fn server(value: &Value<'_>) -> Option<ServerSpec> {
    if value.is_text() {
        let record = ServerRecord::new(value.parse()?);
        return Some(ServerSpec { id: record.uri.host_port(), record });
    }
    let Some(section) = value.as_section() else {
        return value.refuse("expected a URI such as \"http://HOST:PORT\", or a table with `uri`");
    };
    section.shown(&["health", "source", "lease", "draining", "in_flight", "checks", "ejected"]);
    let uri = section.need("uri", "uri = \"http://HOST:PORT\"", Value::parse);
    let id = section.get("id", server_id);
    let weight = section.get("weight", |value| bounded(value, 0..1_000_001)).unwrap_or(1);
    let metadata = section.get("metadata", |value| Some(texts(&value.section()?))).unwrap_or_default();
    let load_balancer = section.get("load_balancer", load_balancer);
    let check = section.get("check", check);
    section.end();
    let record = ServerRecord { weight, metadata, load_balancer, check, ..ServerRecord::new(uri?) };
    Some(ServerSpec { id: id.unwrap_or_else(|| record.uri.host_port()), record })
}

fn server_id(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    if visible && (1..=256).contains(&text.len()) {
        Some(text.to_owned())
    } else {
        value.refuse(format!(
            "`{text}` is not the id of a server: write up to 256 visible characters without `/`"
        ))
    }
}

/// The URI of a balancer; `host:port` is one as well.
fn load_balancer(value: &Value<'_>) -> Option<ServerUri> {
    let text = value.text()?;
    ServerUri::lenient(text).map_err(|error| value.refuse::<()>(format!("{error}"))).ok()
}

/// A path stands for a check that asks for it, `"tcp"` for one that only connects.
fn check(value: &Value<'_>) -> Option<HealthCheck> {
    if !value.is_text() {
        return Some(health(value.section()?));
    }
    let path = if value.text()? == "tcp" { None } else { Some(path(value)?) };
    Some(HealthCheck { path, ..HealthCheck::default() })
}

fn health(section: Section<'_>) -> HealthCheck {
    let default: HealthCheck = HealthCheck::default();
    let times = |value: &Value<'_>| bounded(value, 1..101);
    let health = HealthCheck {
        path: section.get("path", path),
        interval: section.get("interval", Value::span).map_or(default.interval, Span),
        timeout: section.get("timeout", Value::span).map_or(default.timeout, Span),
        unhealthy_after: section.get("unhealthy_after", times).unwrap_or(default.unhealthy_after),
        healthy_after: section.get("healthy_after", times).unwrap_or(default.healthy_after),
    };
    section.end();
    health
}

fn path(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok() {
        Some(text.to_owned())
    } else {
        value.refuse(format!("`{text}` is not a path: write one that starts with `/`, such as \"/health\""))
    }
}
