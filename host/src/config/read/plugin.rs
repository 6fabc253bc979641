//! `[plugin.NAME]`: what one plugin is told, given and allowed.

use std::collections::BTreeMap;

use super::{bounded, texts};
use crate::config::{
    OnError, PluginConfig, StateKind,
    reader::{Section, Value},
};

pub(super) fn all(section: &Section<'_>) -> BTreeMap<String, PluginConfig> {
    let plugin = |(name, value): (&str, Value<'_>)| Some((name.to_owned(), one(name, value.section()?)));
    section.entries().filter_map(plugin).collect()
}

fn one(name: &str, section: Section<'_>) -> PluginConfig {
    const STATES: [(&str, StateKind); 2] = [("memory", StateKind::Memory), ("durable", StateKind::Durable)];
    const ON_ERROR: [(&str, OnError); 2] = [("closed", OnError::Closed), ("open", OnError::Open)];
    let default = PluginConfig::default_for(name);
    let plugin = PluginConfig {
        config: section.get("config", |value| Some(texts(&value.section()?))).unwrap_or(default.config),
        memory: section.get("memory", memory).unwrap_or(default.memory),
        deadline: section.get("deadline", Value::span).or(default.deadline),
        instances: section.get("instances", |value| bounded(value, 1..4097)).unwrap_or(default.instances),
        state: section.get("state", |value| value.choice(&STATES)).unwrap_or(default.state),
        state_limit: section.get("state_limit", Value::size).unwrap_or(default.state_limit),
        body: section.get("body", Value::size).unwrap_or(default.body),
        on_error: section.get("on_error", |value| value.choice(&ON_ERROR)).or(default.on_error),
        grant: section.get("grant", |value| value.list(Value::parse)).unwrap_or(default.grant),
        shadow: section.get("shadow", Value::path),
        canary: section.get("canary", |value| bounded(value, 0..101)).unwrap_or(default.canary),
    };
    if plugin.shadow.is_none() && plugin.canary > 0 {
        section.refuse("`canary` needs `shadow`: write the file of the next build");
    }
    section.end();
    plugin
}

/// From one page of WebAssembly to the most that the plugin host sets aside for an instance.
fn memory(value: &Value<'_>) -> Option<u64> {
    const BOUNDS: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;
    let size = value.size()?;
    if BOUNDS.contains(&size) {
        Some(size)
    } else {
        value.refuse("out of bounds: write \"64KiB\" to \"1GiB\"")
    }
}
