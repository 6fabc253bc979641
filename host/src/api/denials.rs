//! What the log says of requests that are denied: so few lines that nobody can fill it, and those of
//! unknown callers apart from those of callers that have a token, so that neither hides the other.

use std::net::SocketAddr;

use super::problem::{Kind, Problem};
use crate::pace::Pace;

/// Of one API.
#[derive(Debug, Default)]
pub(super) struct Denials {
    unknown: Pace,
    known: Pace,
}

/// A request, as the log names it.
#[derive(Clone, Copy)]
pub(super) struct Denied<'a> {
    /// Of the caller's token; none: nobody knows it.
    pub(super) label: Option<&'a str>,
    pub(super) peer: Option<SocketAddr>,
    /// Method and path.
    pub(super) request: &'a str,
}

impl Denials {
    /// Logs why a request is denied, if it is time to, and makes the answer that says so.
    pub(super) fn deny(&self, denied: Denied<'_>, kind: Kind, detail: String) -> Problem {
        let pace = if denied.label.is_some() { &self.known } else { &self.unknown };
        if let Some(unsaid) = pace.turn() {
            let Denied { label, peer, request } = denied;
            tracing::warn!(label, ?peer, %request, unsaid, "denied: {detail}");
        }
        Problem::new(kind, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_unknown_callers_hides_no_known_one() {
        let denials = Denials::default();
        let (unknown, known) = (None, Some("deploy"));
        let deny = |label| {
            denials.deny(Denied { label, peer: None, request: "GET /" }, Kind::Denied, "why".to_owned())
        };
        (0..1000).for_each(|_| drop(deny(unknown)));
        assert_eq!(denials.known.turn(), Some(0), "known callers have a turn of their own");
        assert_eq!(denials.unknown.turn(), None);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(denials.unknown.turn(), Some(1000), "999 were not said, and the turn before");
        assert_eq!(deny(known).status().as_u16(), 403);
    }
}
