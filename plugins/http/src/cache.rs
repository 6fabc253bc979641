//! Answers that are remembered, in the plugin's `state`: so for all instances, and over reloads.
//!
//! An answer has one of `entries` slots, by the hash of its key, and whoever comes to a slot later
//! takes it: the bound holds without anybody counting or sweeping.

use std::hash::{DefaultHasher, Hash, Hasher};

use message_flow_sdk::state;
use serde::{Deserialize, Serialize};

use crate::{answer::Answer, settings::Settings};

/// Where the answer to one question is.
pub(crate) struct Cache<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) key: String,
}

/// An answer and how long it holds, in milliseconds since the Unix epoch.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    key: String,
    pub(crate) answer: Answer,
    pub(crate) fresh_until: u64,
}

impl Cache<'_> {
    pub(crate) fn read(&self) -> Option<Known> {
        if !self.is_used() {
            return None;
        }
        let known: Known = serde_json::from_slice(&state::get(&self.slot())?).ok()?;
        (known.key == self.key).then_some(known)
    }

    /// What does not fit is not remembered: the next message asks again.
    pub(crate) fn write(&self, answer: &Answer, now: u64) {
        if !self.is_used() {
            return;
        }
        let fresh_until = now + self.settings.ttl;
        let known = Known { key: self.key.clone(), answer: answer.clone(), fresh_until };
        let _ = state::set(&self.slot(), &serde_json::to_vec(&known).expect("texts and numbers are JSON"));
    }

    fn is_used(&self) -> bool {
        self.settings.ttl + self.settings.stale > 0
    }

    fn slot(&self) -> String {
        let mut hasher = DefaultHasher::new();
        // Another server's answers are not this one's.
        (self.settings.uri.to_string(), &self.key).hash(&mut hasher);
        format!("answer/{}", hasher.finish() % self.settings.entries)
    }
}
