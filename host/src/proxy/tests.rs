//! The proxy over real sockets, with a table in memory and servers that follow a script.

mod connections;
mod detours;
mod draining;
mod early;
mod framing;
mod http2;
mod http2_clients;
mod http2_servers;
mod rig;
mod routing;
mod stalls;
mod strict;
mod trouble;
mod tunnels;
mod uploads;
mod wire2;

use std::path::Path;

use http::{HeaderMap, HeaderName};

use super::Settings;
use crate::config::{Config, Overrides};

pub(super) use rig::{Client, Rig, Server};

/// The settings of a `[proxy]` section.
pub(super) fn settings(proxy: &str) -> Settings {
    let config = config(&format!("[proxy]\n{proxy}\n"));
    Settings::new(&config.proxy, &config.routes, "test")
}

pub(super) fn config(text: &str) -> Config {
    Config::parse(text, Path::new("test.toml"), &Overrides::default()).unwrap()
}

/// Headers in this order.
pub(super) fn map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    map
}

/// The names of headers, sorted.
pub(super) fn names(map: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}
