//! What the log says of messages that the proxy refuses or fails: one line for each, with its cause
//! and everything that it takes to find the message again, and so few lines of each cause that
//! nobody can fill the log with them.
//!
//! Texts of clients are cut and escaped; the query of a target is left out, as it may hold secrets.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::{StatusCode, request::Parts};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};

use super::{reply::Exchange, respond::Refusal};
use crate::text::shown;

/// So many lines of one cause at once; then one every [`EACH`].
const BURST: u32 = 20;
const EACH: Duration = Duration::from_millis(500);

/// What was said of each cause, and what was not.
pub(super) struct Reports {
    by_cause: Mutex<HashMap<&'static str, Said>>,
    refusals: IntCounterVec,
}

/// Of one cause.
struct Said {
    /// Lines that may be said now.
    left: u32,
    /// When that was counted last.
    at: Instant,
    /// Lines that were not said since the last that was.
    suppressed: u64,
}

impl Reports {
    /// Exports how many there were of each cause.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let refusals = IntCounterVec::new(
            Opts::new(
                "message_flow_refusals_total",
                "Messages that were refused or failed, and bodies that broke off, by cause.",
            ),
            &["cause"],
        )?;
        registry.register(Box::new(refusals.clone()))?;
        Ok(Self { by_cause: Mutex::default(), refusals })
    }

    /// Counts one that is refused or failed. How many of this cause were not said before it, if this one may
    /// be said.
    fn admit(&self, cause: &'static str, now: Instant) -> Option<u64> {
        self.refusals.with_label_values(&[cause]).inc();
        self.turn(cause, now)
    }

    fn turn(&self, cause: &'static str, now: Instant) -> Option<u64> {
        let mut by_cause = self.by_cause.lock();
        let said = by_cause.entry(cause).or_insert(Said { left: BURST, at: now, suppressed: 0 });
        let earned = now.saturating_duration_since(said.at).as_millis() / EACH.as_millis();
        if earned > 0 {
            said.left = BURST.min(said.left.saturating_add(u32::try_from(earned).unwrap_or(BURST)));
            said.at = now;
        }
        if said.left == 0 {
            said.suppressed += 1;
            return None;
        }
        said.left -= 1;
        Some(std::mem::take(&mut said.suppressed))
    }

    /// A message is answered by the proxy in place of a server. What a plugin refuses is its own
    /// affair, and no failure.
    pub(super) fn refused(&self, exchange: &Exchange, head: &Parts, refusal: &Refusal) {
        let (status, cause) = (refusal.status(), refusal.kind());
        let Some(suppressed) = self.admit(cause, Instant::now()) else { return };
        let failed = status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT;
        let Line { service, server, client, peer } = Line::of(exchange);
        let (method, path) = (shown(head.method.as_str()), shown(head.uri.path()));
        let (why, status) = (Causes(refusal), status.as_u16());
        macro_rules! say {
            ($say:ident) => {
                tracing::$say!(
                    cause, status, service, server, client, %peer, %method, %path, suppressed,
                    "message refused: {why}"
                )
            };
        }
        match refusal {
            _ if failed => say!(warn),
            Refusal::Rejected(..) | Refusal::Options => say!(debug),
            _ => say!(info),
        }
    }

    /// A request goes to another server because its own does not begin to answer.
    pub(super) fn stalled(&self, exchange: &Exchange, head: &Parts, server: &str) {
        let cause = "server-stalled";
        let Some(suppressed) = self.turn(cause, Instant::now()) else { return };
        let Line { service, client, peer, .. } = Line::of(exchange);
        let (method, path) = (shown(head.method.as_str()), shown(head.uri.path()));
        tracing::warn!(
            cause, service, server, client, %peer, %method, %path, suppressed,
            "the server does not begin to answer; another is asked"
        );
    }

    /// The body of a response broke off after its head was sent.
    pub(super) fn broke_off(&self, exchange: &Exchange, error: &(dyn Error + 'static)) {
        let cause = "response-broke-off";
        let Some(suppressed) = self.admit(cause, Instant::now()) else { return };
        let Line { service, server, client, peer } = Line::of(exchange);
        let why = Causes(error);
        tracing::warn!(cause, service, server, client, %peer, suppressed, "response broke off: {why}");
    }

    /// A connection or a head was refused before there was a message.
    pub(super) fn unserved(&self, cause: &'static str, peer: SocketAddr) {
        if let Some(suppressed) = self.admit(cause, Instant::now()) {
            tracing::info!(cause, %peer, suppressed, "connection or request head refused");
        }
    }
}

/// From where a message came, and to where it went.
struct Line<'a> {
    service: Option<&'a str>,
    server: Option<&'a str>,
    client: Option<String>,
    peer: SocketAddr,
}

impl<'a> Line<'a> {
    fn of(exchange: &'a Exchange) -> Self {
        let client = exchange.client.as_ref().map(|client| shown(client.as_str()).into_owned());
        Self {
            service: exchange.service.as_ref().map(|service| service.service.id.as_str()),
            server: exchange.server.as_ref().map(|server| server.uri.as_str()),
            client,
            peer: exchange.connection.peer,
        }
    }
}

/// An error with what is behind it, but for what the error itself ends with.
struct Causes<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_cause_hides_no_other() {
        let reports = Reports::new(&Registry::new()).unwrap();
        let began = Instant::now();
        let said = (0..1000).filter(|_| reports.admit("no-server", began).is_some()).count();
        assert_eq!(said, BURST as usize);
        assert_eq!(reports.admit("loop", began), Some(0));
        assert_eq!(reports.admit("no-server", began + EACH), Some(1000 - u64::from(BURST)));
        assert_eq!(reports.admit("no-server", began + EACH), None);
        assert_eq!(reports.refusals.with_label_values(&["no-server"]).get(), 1002);
    }

    #[test]
    fn a_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("malformed response: {0}")]
        struct Malformed(#[source] std::num::ParseIntError);
        let cause = "x".parse::<u8>().unwrap_err();
        let text = Causes(&Malformed(cause.clone())).to_string();
        assert_eq!(text, format!("malformed response: {cause}"));
    }
}
