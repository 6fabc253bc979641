//! `[plugin.NAME]`: what one plugin is told, given and allowed.

use std::collections::BTreeMap;

use super::{bounded, texts};
use crate::{
    config::reader::{Section, Value},
    plugin::{MAX_MEMORY, NextBuild, OnError, Settings},
    units::Size,
};

pub(super) fn all(section: &Section<'_>) -> BTreeMap<String, Settings> {
    let plugin = |(name, value): (&str, Value<'_>)| Some((name.to_owned(), one(name, value.section()?)));
    section.entries().filter_map(plugin).collect()
}

fn one(name: &str, section: Section<'_>) -> Settings {
    const STATES: [(&str, bool); 2] = [("memory", false), ("durable", true)];
    const ON_ERROR: [(&str, OnError); 2] = [("closed", OnError::Closed), ("open", OnError::Open)];
    let default = Settings::default_for(name);
    let settings = Settings {
        config: section.get("config", |value| Some(texts(&value.section()?))).unwrap_or(default.config),
        memory: section.get("memory", memory).unwrap_or(default.memory),
        deadline: section.get("deadline", Value::span).or(default.deadline),
        instances: section.get("instances", |value| bounded(value, 1..4097)).unwrap_or(default.instances),
        durable_state: section.get("state", |value| value.choice(&STATES)).unwrap_or(default.durable_state),
        state_limit: section.get("state_limit", Value::size).unwrap_or(default.state_limit),
        body: section.get("body", Value::size).unwrap_or(default.body),
        on_error: section.get("on_error", |value| value.choice(&ON_ERROR)).or(default.on_error),
        rollback: section.get("rollback", Value::switch).or(default.rollback),
        grant: section.get("grant", |value| value.list(Value::parse)).unwrap_or(default.grant),
        next: next(&section),
    };
    section.end();
    settings
}

fn next(section: &Section<'_>) -> Option<NextBuild> {
    let canary = section.get("canary", |value| bounded(value, 0..101)).unwrap_or(0);
    if section.value("shadow").is_none() && canary > 0 {
        section.refuse("`canary` needs `shadow`: write the file of the next build");
    }
    section.get("shadow", Value::path).map(|file| NextBuild { file, canary })
}

/// From one page of WebAssembly to the most that the plugin host sets aside for an instance.
fn memory(value: &Value<'_>) -> Option<u64> {
    const PAGE: u64 = 64 << 10;
    let size = value.size()?;
    if (PAGE..=MAX_MEMORY).contains(&size) {
        Some(size)
    } else {
        value.refuse(format!("out of bounds: write \"{}\" to \"{}\"", Size(PAGE), Size(MAX_MEMORY)))
    }
}
