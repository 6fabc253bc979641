//! What an operator can say about a plugin: `[plugin.NAME]` as plain data.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{Grant, OnError, builtin};

/// Configuration, limits and grants of one plugin. The default is that of a plugin of which the
/// configuration says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the plugin reads through the `config` capability.
    pub config: BTreeMap<String, String>,
    /// The most linear memory of one instance, in bytes; at most [`super::MAX_MEMORY`].
    pub memory: u64,
    /// How long a call may take; none: 50 ms, and for a routing-table adapter 5 s.
    pub deadline: Option<Duration>,
    /// The most instances that run at the same time.
    pub instances: u32,
    /// Whether `state` survives the process.
    pub durable_state: bool,
    /// The most bytes that `state` holds; keys and values count.
    pub state_limit: u64,
    /// The most bytes of a body that the plugin can read.
    pub body: u64,
    /// What a message gets when a call fails; none: as [`OnError::Closed`].
    pub on_error: Option<OnError>,
    /// Whether the build before a new one comes back by itself when that crashes at once; none: unless
    /// it is a filter that closes its service when it fails.
    pub rollback: Option<bool>,
    /// Capabilities beyond those that every plugin has.
    pub grant: Vec<Grant>,
    /// The next build, to be tried out.
    pub next: Option<NextBuild>,
}

/// A build that is tried out beside the one that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextBuild {
    /// Its file.
    pub file: PathBuf,
    /// Percent of the clients for whom it decides; of other messages it gets a copy, without effect.
    pub canary: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            config: BTreeMap::new(),
            memory: 64 << 20,
            deadline: None,
            instances: 64,
            durable_state: false,
            state_limit: 16 << 20,
            body: 1 << 20,
            on_error: None,
            rollback: None,
            grant: Vec::new(),
            next: None,
        }
    }
}

impl Settings {
    /// Those of a plugin of this name of which the configuration says nothing: default plugins come
    /// with what they need.
    pub fn default_for(name: &str) -> Self {
        let mut settings = Self { grant: builtin::grants(name).to_vec(), ..Self::default() };
        match name {
            "memory" => settings.state_limit = 1 << 30,
            "http" => settings.deadline = Some(Duration::from_secs(3)),
            _ => {}
        }
        settings
    }
}
