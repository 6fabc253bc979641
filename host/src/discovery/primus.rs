//! What Primus says besides an application's own messages: whether the other end lives, and what a connection
//! is called. Pure.
//!
//! Primus is a WebSocket library for Node and for pages. Over its `websockets` transformer a message is one JSON
//! value, and the library's own words are JSON strings that start with `primus::`. Since version 7 the server
//! sends `primus::ping::N` and gives up on who does not answer `primus::pong::N`, and so does the client on a
//! server that sends none; before, it was the client that asked.

use serde_json::Value;

/// How a peer says that it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// By the pings of the WebSocket alone.
    #[default]
    Plain,
    /// As Primus does, too.
    Primus,
}

/// A word of the library's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The peer asks, as before version 7; the answer.
    Ping(String),
    /// The answer to what it was asked.
    Pong,
    /// What is its connection called?
    Id,
}

/// How much of a ping comes back: the library sends milliseconds.
const LONGEST: usize = 32;

/// The word that a message is; none: it is the application's.
pub(super) fn read(text: &str) -> Option<Word> {
    // Few messages are words, and definitions are long.
    let text = text.trim_ascii();
    if !text.starts_with("\"primus::") {
        return None;
    }
    let word: String = serde_json::from_str(text).ok()?;
    let (kind, value) = word.strip_prefix("primus::")?.split_once("::")?;
    match kind {
        "ping" if value.len() <= LONGEST => Some(Word::Ping(said("pong", value))),
        "pong" => Some(Word::Pong),
        "id" => Some(Word::Id),
        _ => None,
    }
}

/// Asks whether the peer lives, at this time in milliseconds.
pub(super) fn ping(now: u64) -> String {
    said("ping", &now.to_string())
}

/// Says what the connection is called.
pub(super) fn id(id: &str) -> String {
    said("id", id)
}

fn said(kind: &str, value: &str) -> String {
    Value::from(format!("primus::{kind}::{value}")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_from_messages() {
        for (text, word) in [
            (r#""primus::ping::1764306128000""#, Some(Word::Ping(r#""primus::pong::1764306128000""#.into()))),
            (r#" "primus::pong::1764306128000" "#, Some(Word::Pong)),
            (r#""primus::id::""#, Some(Word::Id)),
            (r#""primus::ping::\"\\""#, Some(Word::Ping(r#""primus::pong::\"\\""#.into()))),
            (r#""primus::server::close""#, None),
            (r#""primus::ping""#, None),
            (r#""primus::ping::12"#, None),
            ("primus::ping::12", None),
            (r#"{"name":"primus::ping::12"}"#, None),
            ("", None),
        ] {
            assert_eq!(read(text), word, "{text}");
        }
        assert_eq!(read(&format!("\"primus::ping::{}\"", "1".repeat(33))), None);
        assert_eq!((ping(7), id("a-1")), (r#""primus::ping::7""#.into(), r#""primus::id::a-1""#.into()));
    }
}
