//! What the server answers.

use message_flow_sdk::Decision;
use serde::{Deserialize, Serialize};

/// `{"server": …}`, `{"pass": true}` or `{"reject": {"status": …, "reason": …}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Wire", try_from = "Wire")]
pub(crate) enum Answer {
    Server(String),
    Pass,
    Reject { status: u16, reason: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pass: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reject: Option<Rejection>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rejection {
    status: u16,
    #[serde(default)]
    reason: String,
}

impl Answer {
    /// Reads an answer. The error says what was sent and what should be.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| {
            let sent: String = String::from_utf8_lossy(bytes).chars().take(100).collect();
            format!(
                "it answered `{}` ({error}): answer {{\"server\": ID-OR-URI}}, {{\"pass\": true}} or \
                 {{\"reject\": {{\"status\": 403, \"reason\": \"…\"}}}}",
                sent.escape_debug()
            )
        })
    }
}

impl TryFrom<Wire> for Answer {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        match (wire.server, wire.pass, wire.reject) {
            (Some(server), None | Some(false), None) => Ok(Self::Server(server)),
            (None, Some(true), None) => Ok(Self::Pass),
            (None, None | Some(false), Some(Rejection { status, reason }))
                if (200..600).contains(&status) =>
            {
                Ok(Self::Reject { status, reason })
            }
            (None, None | Some(false), Some(Rejection { status, .. })) => {
                Err(format!("{status} is not a status from 200 to 599"))
            }
            _ => Err("it says not exactly one of server, pass and reject".to_owned()),
        }
    }
}

impl From<Answer> for Wire {
    fn from(answer: Answer) -> Self {
        let nothing = Self { server: None, pass: None, reject: None };
        match answer {
            Answer::Server(server) => Self { server: Some(server), ..nothing },
            Answer::Pass => Self { pass: Some(true), ..nothing },
            Answer::Reject { status, reason } => {
                Self { reject: Some(Rejection { status, reason }), ..nothing }
            }
        }
    }
}

impl From<Answer> for Decision {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Server(server) => Self::Server(server),
            Answer::Pass => Self::Pass,
            Answer::Reject { status, reason } => Self::reject(status, reason),
        }
    }
}
