//! The HTTP registrar: asks a server of the operator's which server a client's messages go to.
//!
//! ```toml
//! [plugin.http]
//! config = { uri = "http://registrar.internal:8080/resolve", ttl = "5s" }
//! grant = ["http:registrar.internal:8080"]
//! ```
//!
//! It posts a [`question::Question`] and reads an [`answer::Answer`], both JSON:
//!
//! ```json
//! {"client": "ann", "service": "chat@2", "method": "GET", "path": "/v1/rooms", "peer": "192.0.2.7:50412",
//!  "headers": {"region": "eu"},
//!  "candidates": [{"id": "a", "uri": "http://10.0.0.1:80", "weight": 1, "healthy": true, "in_flight": 0, "metadata": {}}]}
//! ```
//!
//! `{"server": "a"}` (an id or a URI), `{"pass": true}` or `{"reject": {"status": 403, "reason": "…"}}`.
//! Answers are remembered for `ttl`; for `stale` after that they are used again if the server does
//! not answer. [`settings::Settings`] has every key.

mod answer;
mod cache;
mod question;
mod remote;
mod settings;
#[cfg(test)]
mod tests;

use message_flow_sdk::{Decision, Lifecycle, Registrar, candidates, clock, config};

use answer::Answer;
use cache::Cache;
use question::Question;
use settings::Settings;

struct Http;

message_flow_sdk::export!(Http: Registrar + Lifecycle);

impl Lifecycle for Http {
    /// Says at once what is wrong with the configuration. Without a URI there is nothing to ask, and
    /// that is how it waits to be configured.
    fn start() -> Result<(), String> {
        if config::get("uri").is_some() { settings().map(drop) } else { Ok(()) }
    }
}

impl Registrar for Http {
    fn resolve() -> Result<Decision, String> {
        let settings = settings()?;
        decide(&settings, |question| remote::ask(&settings, question))
    }
}

fn settings() -> Result<Settings, String> {
    Settings::read(config::get)
}

/// What is remembered, else what `ask` answers to the question as JSON.
fn decide(
    settings: &Settings,
    ask: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<Decision, String> {
    let question = Question::at_hand(settings);
    let cache = Cache { settings, key: question.key() };
    let known = cache.read().filter(|known| is_there(&known.answer));
    let now = clock::now();
    if let Some(known) = known.as_ref().filter(|known| now < known.fresh_until) {
        return Ok(known.answer.clone().into());
    }
    let asked = ask(&question.to_json()).and_then(|bytes| Answer::read(&bytes));
    match (asked, known) {
        (Ok(answer), _) => {
            cache.write(&answer, now);
            Ok(answer.into())
        }
        (Err(error), Some(known)) if now < known.fresh_until + settings.stale => {
            let message = format!("{error}; an answer of before is used");
            message_flow_sdk::log::log(message_flow_sdk::log::Level::Warn, &message);
            Ok(known.answer.into())
        }
        (Err(error), _) => Err(format!("{}: {error}", settings.uri)),
    }
}

/// A remembered server may have gone meanwhile. One that was named by its URI need not be listed.
fn is_there(answer: &Answer) -> bool {
    match answer {
        Answer::Server(server) => {
            server.contains("://") || candidates::servers().iter().any(|candidate| candidate.id == *server)
        }
        Answer::Pass | Answer::Reject { .. } => true,
    }
}
