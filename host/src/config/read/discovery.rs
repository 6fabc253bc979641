//! `[discovery]`: services that announce themselves over a WebSocket.

use super::bounded;
use crate::config::{
    DiscoveryConfig,
    reader::{Section, Value},
};

pub(super) fn discovery(section: Section<'_>) -> DiscoveryConfig {
    let default = DiscoveryConfig::default();
    let discovery = DiscoveryConfig {
        grace: section.get("grace", Value::span).unwrap_or(default.grace),
        ping: section.get("ping", Value::span).unwrap_or(default.ping),
        deadline: section.get("deadline", Value::span).unwrap_or(default.deadline),
        drain: section.get("drain", Value::span).unwrap_or(default.drain),
        message: section.get("message", message).unwrap_or(default.message),
        requirements: section
            .get("requirements", |value| bounded(value, 1..10_001))
            .unwrap_or(default.requirements),
        connections: section
            .get("connections", |value| bounded(value, 1..1_000_001))
            .unwrap_or(default.connections),
        rate: section.get("rate", |value| bounded(value, 1..100_001)).unwrap_or(default.rate),
    };
    if discovery.deadline <= discovery.ping {
        section.refuse("`deadline` must be longer than `ping`, or every silent connection would be cut");
    }
    section.end();
    discovery
}

/// Entries of the routing table, which these become, hold 64 KiB.
fn message(value: &Value<'_>) -> Option<usize> {
    match value.size()? {
        size @ 1024..=49_152 => usize::try_from(size).ok(),
        _ => value.refuse("out of bounds: write \"1KiB\" to \"48KiB\""),
    }
}
