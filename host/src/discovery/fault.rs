//! What a service is told when something that it said cannot be done.

use std::fmt;

/// A cause that programs can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Not JSON, or not an object.
    Malformed,
    /// A definition or a requirement with a mistake in it.
    Invalid,
    /// Longer than `[discovery] message`.
    TooLarge,
    /// A `type` that is not known.
    UnknownType,
    /// The token does not allow it.
    Denied,
    /// The configuration defines the service.
    Configured,
    /// The connection has not said who it is.
    Undefined,
    /// The routing table cannot be written at the moment.
    Unavailable,
    /// Its server is not registered any more, and not because it said so; the cause says why.
    Deregistered(Cause),
}

/// Why a server is not registered any more although its connection is open. Both are meant, so a service does not
/// register again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody removed it, as an operator does over the API.
    Removed,
    /// Another connection registered the same server.
    Replaced,
}

impl Cause {
    /// As it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Replaced => "replaced",
        }
    }
}

impl Code {
    /// As it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::TooLarge => "too-large",
            Self::UnknownType => "unknown-type",
            Self::Denied => "denied",
            Self::Configured => "configured",
            Self::Undefined => "undefined",
            Self::Unavailable => "unavailable",
            Self::Deregistered(_) => "deregistered",
        }
    }

    /// What programs are told besides.
    pub fn cause(self) -> Option<Cause> {
        match self {
            Self::Deregistered(cause) => Some(cause),
            _ => None,
        }
    }
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// For programs.
    pub code: Code,
    /// For people.
    pub reason: String,
}

impl Fault {
    /// With this reason.
    pub fn new(code: Code, reason: impl fmt::Display) -> Self {
        Self { code, reason: reason.to_string() }
    }
}
