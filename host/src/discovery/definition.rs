//! Who a service says that it is, where it is and what it needs, read from JSON with every mistake
//! at once.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Map, Value};

use super::{
    fault::{Code, Fault},
    requirement::{self, Requirement, Scope, cut, shown},
};
use crate::table::{
    ServerRecord, ServiceId,
    adapter::Revision,
    record::{HealthCheck, ServerUri},
};

/// Entries of a server's metadata, at most.
const METADATA: usize = 64;
const MOST_WEIGHT: u64 = 1_000_000;

/// A service as it defines itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What it is called.
    pub service: ServiceId,
    /// Where it is served; none: it only needs others.
    pub server: Option<Offered>,
    /// What it needs, each once.
    pub requires: Vec<Requirement>,
    /// The revision up to which it has been told everything.
    pub since: Option<Revision>,
    /// But of these, of which it has been told nothing.
    pub anew: Vec<ServiceId>,
}

/// A server that a service offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// `host:port` unless it says another.
    pub id: String,
    /// Without a lease.
    pub record: ServerRecord,
}

/// What a definition may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requirements of one connection.
    pub requirements: usize,
}

impl Definition {
    /// Reads a definition that came from this address.
    pub fn read(object: &Map<String, Value>, peer: IpAddr, limits: Limits) -> Result<Self, Fault> {
        let mut reader = Reader { object, mistakes: Vec::new() };
        let service = reader.service();
        let server = reader.server(peer);
        let requires = reader.requires(limits);
        let since = reader.take("since", |json| {
            json.as_u64().ok_or_else(|| format!("`since` is {}: write a revision, a number", shown(json)))
        });
        let anew = reader.take("anew", anew).unwrap_or_default();
        match service {
            Some(service) if reader.mistakes.is_empty() => {
                Ok(Self { service, server, requires, since, anew })
            }
            _ => Err(Fault::new(Code::Invalid, reader.mistakes.join("; "))),
        }
    }
}

fn anew(json: &Value) -> Result<Vec<ServiceId>, String> {
    let names =
        json.as_array().ok_or_else(|| format!("`anew` is {}: write an array of names", shown(json)))?;
    let service = |name| Requirement::read(name, Scope::One).map(|requirement| requirement.service);
    names.iter().map(service).collect::<Result<_, _>>().map_err(|mistake| format!("`anew`: {mistake}"))
}

/// `requires` as a definition and the messages `require` and `drop` hold it.
pub(super) fn requirements(object: &Map<String, Value>, limits: Limits) -> Result<Vec<Requirement>, Fault> {
    let mut reader = Reader { object, mistakes: Vec::new() };
    if !object.contains_key("requires") {
        reader.mistakes.push("`requires` is missing: write an array of names".to_owned());
    }
    let requires = reader.requires(limits);
    match reader.mistakes.is_empty() {
        true => Ok(requires),
        false => Err(Fault::new(Code::Invalid, reader.mistakes.join("; "))),
    }
}

struct Reader<'a> {
    object: &'a Map<String, Value>,
    mistakes: Vec<String>,
}

impl Reader<'_> {
    /// A key that is there and not null; what is wrong with it is noted.
    fn take<T>(&mut self, key: &str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let json = self.object.get(key).filter(|json| !json.is_null())?;
        read(json).map_err(|mistake| self.mistakes.push(mistake)).ok()
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.take(key, |json| match json.as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(format!("`{key}` is {}: write a text", shown(json))),
        })
    }

    fn service(&mut self) -> Option<ServiceId> {
        if !self.object.contains_key("name") {
            self.mistakes.push("`name` is missing: write what the service is called".to_owned());
            return None;
        }
        let name = self.text("name")?;
        let service = requirement::service(&name, self.object.get("version"));
        service.map_err(|mistake| self.mistakes.push(mistake)).ok()
    }

    fn server(&mut self, peer: IpAddr) -> Option<Offered> {
        let uri = self.uri(peer);
        let id = self.take("id", id);
        let weight = self.take("weight", |json| match json.as_u64() {
            Some(weight @ ..=MOST_WEIGHT) => u32::try_from(weight).map_err(|error| error.to_string()),
            _ => Err(format!("`weight` is {}: write 0 to {MOST_WEIGHT}", shown(json))),
        });
        let metadata = self.take("metadata", metadata);
        let check = self.take("check", check);
        let uri = uri?;
        let load_balancer = self.take("load_balancer", |json| load_balancer(json, &uri));
        let id = id.unwrap_or_else(|| uri.host_port());
        let record = ServerRecord {
            weight: weight.unwrap_or(1),
            metadata: metadata.unwrap_or_default(),
            load_balancer,
            check,
            ..ServerRecord::new(uri)
        };
        Some(Offered { id, record })
    }

    /// What `uri` says, else `host` (or the peer) and `port`.
    fn uri(&mut self, peer: IpAddr) -> Option<ServerUri> {
        let uri = self.take("uri", |json| {
            let text = json.as_str().ok_or_else(|| format!("`uri` is {}: write a text", shown(json)))?;
            text.parse::<ServerUri>().map_err(|error| error.to_string())
        });
        let port = self.take("port", port);
        let host = self.text("host").and_then(|host| {
            let made = address(&host, 1).map(|_| host.clone());
            made.map_err(|()| self.mistakes.push(format!("`{}` is not a host", cut(&host)))).ok()
        });
        if let Some(uri) = uri {
            let written = uri.host_port().rsplit(':').next().and_then(|port| port.parse().ok());
            if port.is_some_and(|port| Some(port) != written) {
                self.mistakes.push("`port` and `uri` disagree: leave one out".to_owned());
            }
            return Some(uri);
        }
        address(&host.unwrap_or_else(|| peer.to_canonical().to_string()), port?).ok()
    }

    fn requires(&mut self, limits: Limits) -> Vec<Requirement> {
        let scope = self.take("servers", Scope::read).unwrap_or_default();
        let limit = limits.requirements;
        let list = self.take("requires", |json| match json {
            Value::Array(list) if list.len() <= limit => Ok(list.clone()),
            Value::Array(list) => Err(format!(
                "`requires` names {} services, at most {limit} are allowed (`[discovery] requirements`)",
                list.len()
            )),
            Value::String(_) => Ok(vec![json.clone()]),
            other => Err(format!("`requires` is {}: write an array of names", shown(other))),
        });
        let mut requires: Vec<Requirement> = Vec::new();
        for json in list.unwrap_or_default() {
            match Requirement::read(&json, scope) {
                Ok(requirement) if requires.iter().any(|known| known.service == requirement.service) => {}
                Ok(requirement) => requires.push(requirement),
                Err(mistake) if self.mistakes.len() < 16 => self.mistakes.push(mistake),
                Err(_) => {}
            }
        }
        requires
    }
}

fn port(json: &Value) -> Result<u16, String> {
    let port = json.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    port.ok_or_else(|| format!("`port` is {}: write a number from 1 to 65535", shown(json)))
}

fn id(json: &Value) -> Result<String, String> {
    let valid = |text: &&str| {
        (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
    };
    json.as_str()
        .filter(valid)
        .map(str::to_owned)
        .ok_or_else(|| format!("`id` is {}: write up to 256 visible characters without `/`", shown(json)))
}

fn address(host: &str, port: u16) -> Result<ServerUri, ()> {
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let text = match plain.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("http://[{address}]:{port}"),
        Ok(address) => format!("http://{address}:{port}"),
        Err(_) if host.len() <= 253 && host.bytes().all(named) => format!("http://{host}:{port}"),
        Err(_) => return Err(()),
    };
    text.parse().map_err(drop)
}

/// A URI, `host:port`, or a host on the server's own port; or an object with `host` and `port`.
fn load_balancer(json: &Value, server: &ServerUri) -> Result<ServerUri, String> {
    let own = server.host_port().rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(80);
    let wrong = || format!("`load_balancer` is {}: write \"HOST:PORT\" or \"http://HOST:PORT\"", shown(json));
    match json {
        Value::Object(object) => {
            let host = object.get("host").and_then(Value::as_str).ok_or_else(wrong)?;
            let port = object.get("port").map_or(Ok(own), port)?;
            address(host, port).map_err(|()| wrong())
        }
        Value::String(text) => {
            let alone = address(text, own).ok();
            alone.map_or_else(|| ServerUri::lenient(text).map_err(|_| wrong()), Ok)
        }
        _ => Err(wrong()),
    }
}

fn metadata(json: &Value) -> Result<BTreeMap<String, String>, String> {
    let object = json.as_object().ok_or_else(|| format!("`metadata` is {}: write an object", shown(json)))?;
    if object.len() > METADATA {
        return Err(format!("`metadata` has {} entries, at most {METADATA} are allowed", object.len()));
    }
    let entry = |(key, value): (&String, &Value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        Value::Number(_) | Value::Bool(_) => Ok((key.clone(), value.to_string())),
        other => Err(format!("`metadata.{}` is {}: write a text", cut(key), shown(other))),
    };
    object.iter().map(entry).collect()
}

/// `"tcp"`, a path, or an object as in `[service.NAME.health]`.
fn check(json: &Value) -> Result<HealthCheck, String> {
    let path = |text: &str| text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok();
    let check = match json {
        Value::String(text) if text == "tcp" => HealthCheck::default(),
        Value::String(text) => HealthCheck { path: Some(text.clone()), ..HealthCheck::default() },
        _ => {
            known(json)?;
            serde_json::from_value(json.clone()).map_err(|error| format!("`check`: {error}"))?
        }
    };
    if check.interval.0.is_zero() || check.timeout.0.is_zero() {
        return Err("`check`: `interval` and `timeout` must be longer than 0".to_owned());
    }
    match &check.path {
        Some(text) if !path(text) => {
            Err(format!("`check` is `{}`: write \"tcp\" or a path such as \"/health\"", cut(text)))
        }
        _ => Ok(check),
    }
}

/// Records of the table may hold what a later version knows; what is sent here is read by this one.
fn known(check: &Value) -> Result<(), String> {
    const KEYS: [&str; 5] = ["path", "interval", "timeout", "unhealthy_after", "healthy_after"];
    let unknown =
        check.as_object().and_then(|object| object.keys().find(|key| !KEYS.contains(&key.as_str())));
    unknown
        .map_or(Ok(()), |key| Err(format!("`check` has no `{}`; it may hold {}", cut(key), KEYS.join(", "))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Value) -> Result<Definition, Fault> {
        let peer = "::ffff:10.9.8.10".parse().unwrap();
        Definition::read(json.as_object().unwrap(), peer, Limits { requirements: 3 })
    }

    fn uri(json: Value) -> String {
        read(json).unwrap().server.unwrap().record.uri.to_string()
    }

    #[test]
    fn the_peer_is_the_host_unless_another_is_given() {
        assert_eq!(uri(json!({"name": "a", "port": 8003})), "http://10.9.8.10:8003");
        assert_eq!(uri(json!({"name": "a", "port": 1, "host": "a.test"})), "http://a.test:1");
        assert_eq!(uri(json!({"name": "a", "port": 1, "host": "::1"})), "http://[::1]:1");
        assert_eq!(uri(json!({"name": "a", "uri": "h2c://b:2/base"})), "h2c://b:2/base");
        assert_eq!(read(json!({"name": "a", "requires": ["b"]})).unwrap().server, None);
    }

    #[test]
    fn balancers_are_written_in_many_ways() {
        for balancer in [json!("lb:8003"), json!("lb"), json!("http://lb:8003"), json!({"host": "lb"})] {
            let definition = read(json!({"name": "a", "port": 8003, "load_balancer": balancer})).unwrap();
            let found = definition.server.unwrap().record.load_balancer.unwrap();
            assert_eq!(found.host_port(), "lb:8003");
        }
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let fault = read(json!({
            "name": "a b", "port": 70000, "host": "x y", "weight": -1, "metadata": {"a": []},
            "check": "health", "requires": ["c d", "e"], "since": "yesterday",
        }));
        let reason = fault.unwrap_err().reason;
        for part in [
            "`a b` is not a service",
            "`port` is 70000",
            "`x y` is not a host",
            "`weight` is -1",
            "`metadata.a`",
        ] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        for part in ["`check` is `health`", "`c d` is not a service", "`since`"] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        let many = read(json!({"name": "a", "requires": ["a", "b", "c", "d"]})).unwrap_err();
        assert!(many.reason.contains("names 4 services, at most 3"), "{many}");
        assert_eq!(read(json!({"port": 1})).unwrap_err().code, Code::Invalid);
    }
}
