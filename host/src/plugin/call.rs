//! Why a call to a plugin gave no answer.

use std::{sync::Arc, time::Duration};

use super::{
    bounds::REASON,
    guest::{Guest, Plugin},
};
use crate::{
    text::cut,
    units::{Size, Span},
};

/// A call that gave no answer. Its text names the plugin, the function, the cause, and the limit
/// where one was exceeded.
#[derive(Clone, Debug, thiserror::Error)]
#[error("plugin {plugin}: {function}: {cause}")]
pub struct CallError {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// The function that was called, or what else was tried.
    pub function: &'static str,
    /// What happened.
    pub cause: Cause,
}

/// What became of a call without an answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The guest returned an error, in these words.
    #[error("it returned an error: {0}")]
    Said(Box<str>),
    /// The guest gave an answer that makes no sense.
    #[error("{0}")]
    Nonsense(Box<str>),
    /// A host function could not do what the guest asked of it.
    #[error("{0}")]
    Fault(Box<str>),
    /// The guest trapped.
    #[error("it trapped: {0}")]
    Trap(Box<str>),
    /// The guest ended itself, with a status. What it said at that follows a comma, if it said anything.
    #[error("it exited with status {status}{said}")]
    Exit {
        /// As it gave it.
        status: u32,
        /// Empty, or in words for people.
        said: Box<str>,
    },
    /// The limit `deadline`, and where it was found then if that is known.
    #[error("it took longer than its deadline of {}{}", Span(*.0), at(.1.as_deref()))]
    Deadline(Duration, Option<Box<str>>),
    /// A script recursed deeper than its engine can. That is an exception of the script, which what clients
    /// send may bring about, though no engine is left to throw it.
    #[error("RangeError: it recursed deeper than the script engine's stack")]
    Depth,
    /// The body that it reads broke off, or did not come in time: the fault of whoever sends it.
    #[error("the body that it reads broke off, or did not come in time")]
    Sender,
    /// The limit `memory`.
    #[error("it needs more than its memory limit of {}", Size(*.0))]
    Memory(u64),
    /// The limit `instances`.
    #[error("all of its {0} instances were busy for the length of its deadline (the limit `instances`)")]
    Instances(u32),
    /// It takes more of the workers' time than its share, and no thread was free for it.
    #[error(
        "it takes more than its share of the workers' time, so it is called on threads of its own, and none was \
         free within its deadline"
    )]
    Confined,
    /// The limit of all plugins together.
    #[error("there are as many instances of all plugins as this process allows")]
    Pool,
    /// It does not export the function.
    #[error("it does not export this function")]
    Missing,
    /// Something in the host failed.
    #[error("{0}")]
    Host(Box<str>),
}

fn at(place: Option<&str>) -> String {
    place.map(|place| format!(", at {place}")).unwrap_or_default()
}

/// The function that was to be called is not exported.
#[derive(Debug, thiserror::Error)]
#[error("it does not export this function")]
pub(super) struct MissingFunction;

impl CallError {
    /// Whether the instance that was called is as good as before.
    pub(super) fn spares_instance(&self) -> bool {
        matches!(self.cause, Cause::Said(_) | Cause::Nonsense(_) | Cause::Fault(_) | Cause::Missing)
    }
}

impl Cause {
    /// Whether the guest came to an end, by itself or by a limit.
    pub(super) fn is_crash(&self) -> bool {
        matches!(
            self,
            Self::Trap(_) | Self::Exit { .. } | Self::Deadline(..) | Self::Memory(_) | Self::Host(_)
        )
    }

    /// With no more of its text than is for people.
    fn bounded(self) -> Self {
        let text = |text: Box<str>| if text.len() > REASON { cut(&text, REASON).into() } else { text };
        match self {
            Self::Said(said) => Self::Said(text(said)),
            Self::Nonsense(what) => Self::Nonsense(text(what)),
            Self::Fault(what) => Self::Fault(text(what)),
            Self::Trap(what) => Self::Trap(text(what)),
            Self::Host(what) => Self::Host(text(what)),
            Self::Exit { status, said } => Self::Exit { status, said: text(said) },
            Self::Deadline(deadline, place) => Self::Deadline(deadline, place.map(text)),
            bounded @ (Self::Sender
            | Self::Depth
            | Self::Memory(_)
            | Self::Instances(_)
            | Self::Confined
            | Self::Pool
            | Self::Missing) => bounded,
        }
    }
}

impl Plugin {
    /// An error of this plugin.
    pub(super) fn error(&self, function: &'static str, cause: Cause) -> CallError {
        CallError { plugin: Arc::clone(&self.name), function, cause: cause.bounded() }
    }
}

impl Guest {
    /// An error of this guest.
    pub(super) fn error(&self, function: &'static str, cause: Cause) -> CallError {
        self.plugin.error(function, cause)
    }
}
