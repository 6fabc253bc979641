//! Webhooks: tell people and programs elsewhere that a server came or went, a version was seen for the first time,
//! a release or a plugin changed.
//!
//! What happened is read off the stream of views and the list of plugins ([`follow()`]), written as a [`Notification`], and
//! put into each target's own bounded queue; a task of that target sends what is in it ([`target`]), signed as Standard
//! Webhooks asks (<https://www.standardwebhooks.com>). So a target that is down fills its queue, loses what does not
//! fit, and holds up nobody.
//!
//! Of several routers that share a table only the one with the lowest id tells what all of them see. Plugins are each
//! router's own, and each tells of its own. While no router, or no such router, is there, nothing is told.
//!
//! May know the table, the plugins and the configuration; knows neither `api` nor `proxy`.

mod changes;
pub mod follow;
mod metrics;
mod send;
mod sign;
mod target;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::units::utc;

pub use follow::{Sources, follow};
pub use metrics::Metrics;
pub use sign::{InvalidSecret, Secret};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// The same for the same thing, however often it is sent.
    id: String,
    event: Event,
    /// Milliseconds since the Unix epoch.
    at: u64,
    /// One line for people.
    text: String,
    data: Value,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A server is there.
    ServerUp,
    /// A server is gone.
    ServerDown,
    /// A version that was not seen since this router started.
    VersionFirstSeen,
    /// Other versions are live.
    ReleasePromoted,
    /// Those before are live again.
    ReleaseRolledBack,
    /// Another build of a plugin serves.
    PluginSwapped,
    /// A build of a plugin does not serve.
    PluginRefused,
}

impl Event {
    /// Every one, as it is written.
    pub const WORDS: [(&'static str, Self); 7] = [
        ("server.up", Self::ServerUp),
        ("server.down", Self::ServerDown),
        ("version.first-seen", Self::VersionFirstSeen),
        ("release.promoted", Self::ReleasePromoted),
        ("release.rolled-back", Self::ReleaseRolledBack),
        ("plugin.swapped", Self::PluginSwapped),
        ("plugin.refused", Self::PluginRefused),
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, event)| *event == self);
        found.map_or("", |(word, _)| word)
    }
}

impl Notification {
    /// `mark` tells it from others of the same kind.
    fn new(event: Event, mark: &str, at: u64, (text, data): (String, Value)) -> Self {
        let digest = Sha256::digest(format!("{}\0{mark}", event.name()));
        let id = digest.iter().take(16).fold("msg_".to_owned(), |id, byte| format!("{id}{byte:02x}"));
        Self { id, event, at, text, data }
    }

    /// As it is sent; `text` is what Slack and its like show.
    fn body(&self) -> String {
        let Self { event, at, text, data, .. } = self;
        let text = without_markup(text);
        json!({ "type": event.name(), "timestamp": utc(*at), "text": text, "data": data }).to_string()
    }
}

/// Whoever may name a server must not be able to call a whole channel with `<!channel>`: these three
/// characters are all that Slack asks to be escaped.
fn without_markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_call_nobody_and_ids_are_the_same_for_the_same() {
        let told = |mark: &str| {
            let text = ("a & <!channel> is up".to_owned(), json!({}));
            Notification::new(Event::ServerUp, mark, 0, text)
        };
        let body: Value = serde_json::from_str(&told("a 1").body()).unwrap();
        assert_eq!(body["text"], "a &amp; &lt;!channel&gt; is up");
        assert_eq!(body["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_eq!(told("a 1").id, told("a 1").id);
        assert_ne!(told("a 1").id, told("a 2").id);
    }
}
