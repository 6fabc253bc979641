//! What a plugin may use besides the message at hand, and what it must be granted for.

use std::{fmt, net::SocketAddr, sync::Arc};

use super::{etcd::EtcdClient, state::StateStore};
use crate::authority;

/// The host's side of the capabilities of one plugin.
pub(super) struct Capabilities {
    /// What it remembers.
    pub(super) state: Arc<StateStore>,
    /// Its cluster, if that is granted.
    pub(super) etcd: Option<Arc<EtcdClient>>,
}

/// A grant as the operator writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// `etcd`: the cluster of the plugin's configuration.
    Etcd,
    /// `http:HOST` or `http:HOST:PORT`: outbound HTTP to that host; `http:*.HOST` to any below it;
    /// `http:*` to any at all.
    Http(String),
    /// `tcp:IP:PORT`: a connection to that address.
    Tcp(SocketAddr),
    /// `env:NAME`: that variable of the router's environment.
    Env(String),
}

/// Why a text is not a [`Grant`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not a grant: write \"etcd\", \"http:HOST\", \"http:HOST:PORT\", \"http:*.HOST\", \"http:*\", \"tcp:IP:PORT\" or \"env:NAME\""
)]
pub struct InvalidGrant(String);

impl std::str::FromStr for Grant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let grant = match text.split_once(':') {
            None if text == "etcd" => Some(Self::Etcd),
            Some(("http", host)) if is_host(host) => Some(Self::Http(host.to_ascii_lowercase())),
            Some(("tcp", address)) => address.parse().ok().map(Self::Tcp),
            Some(("env", name)) if is_variable(name) => Some(Self::Env(name.to_owned())),
            _ => None,
        };
        grant.ok_or_else(|| InvalidGrant(text.chars().take(200).collect()))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd => f.write_str("etcd"),
            Self::Http(host) => write!(f, "http:{host}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Env(name) => write!(f, "env:{name}"),
        }
    }
}

fn is_host(text: &str) -> bool {
    text == "*" || authority::split(text.strip_prefix("*.").unwrap_or(text)).is_some()
}

fn is_variable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Grant {
    /// Whether this lets a plugin speak to `authority`, a `host` or `host:port`.
    pub(super) fn allows_http(&self, authority: &http::uri::Authority, default_port: u16) -> bool {
        let Self::Http(granted) = self else { return false };
        let Some((asked, port)) = authority::split(authority.as_str()) else { return false };
        let (asked, port) = (asked.to_ascii_lowercase(), port.unwrap_or(default_port));
        let (name, below) = match granted.strip_prefix("*.") {
            Some(parent) => (parent, true),
            None => (granted.as_str(), false),
        };
        let (host, granted_port) = authority::split(name).unwrap_or((name, None));
        let same_host = match below {
            true => asked.strip_suffix(host).is_some_and(|rest| rest.ends_with('.')),
            false => host == "*" || asked == host,
        };
        same_host && granted_port.is_none_or(|granted| granted == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_read_and_print_alike() {
        for text in [
            "etcd",
            "http:geo.internal",
            "http:10.0.0.1:8080",
            "http:*.example.com",
            "http:*",
            "tcp:127.0.0.1:6379",
            "tcp:[::1]:6379",
            "env:HOME",
        ] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "everything",
            "http",
            "http:",
            "http://geo",
            "http:a/b",
            "http:a b",
            "http:*a",
            "http:u@h",
            "http:geo:99999",
            "http:geo:0",
            "http:geo:",
            "http:*.geo:+80",
            "tcp:127.0.0.1:99999",
            "env:",
            "env:A=B",
            "etcd:1",
            "tcp:redis:6379",
            "tcp:127.0.0.1",
        ] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }

    #[test]
    fn http_is_granted_by_host_and_port() {
        let cases = [
            ("http:geo.internal", "geo.internal", true),
            ("http:geo.internal", "GEO.internal:8080", true),
            ("http:geo.internal:8080", "geo.internal", false),
            ("http:geo.internal:80", "geo.internal", true),
            ("http:*.internal", "a.geo.internal", true),
            ("http:*.internal", "internal", false),
            ("http:*.internal", "notinternal", false),
            ("http:geo.internal", "geo.internal.evil.test", false),
            ("http:*", "geo.internal", true),
            ("http:*", "geo.internal:99999", false),
            ("http:geo.internal", "geo.internal:", false),
            ("http:*.internal:81", "a.internal:81", true),
            ("http:*.internal:81", "a.internal", false),
            ("http:[::1]:81", "[::1]:81", true),
            ("etcd", "geo.internal", false),
        ];
        for (grant, authority, allowed) in cases {
            let grant: Grant = grant.parse().unwrap();
            assert_eq!(grant.allows_http(&authority.parse().unwrap(), 80), allowed, "{grant:?} {authority}");
        }
    }
}
