//! A server that took a request and does not begin to answer: how long it is waited for, and whether
//! the request goes to another then.
//!
//! Only what is safe (RFC 9110, section 9.2.1) and has no body is taken from a server that may have
//! begun it: whatever it does with that changes nothing, so that it may be asked of another. And only
//! where another can take it: a request that nobody else would answer goes on waiting.

use std::time::Duration;

use http::Method;

use super::{Settings, forward::Budget, plan::ServicePlan, route::Choice};
use crate::resolve::Health;

/// What became of a request whose server stalled, as the metric names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Another server answered it.
    Answered,
    /// No other server answered it, either.
    Failed,
    /// No other could take it, so that its server was waited for longer.
    Kept,
}

impl Outcome {
    pub(super) const ALL: [Self; 3] = [Self::Answered, Self::Failed, Self::Kept];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Kept => "kept",
        }
    }
}

/// How long one server is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Until the request goes to another server, if one can take it; zero has no end.
    pub(super) first: Duration,
    /// How much longer it is waited for if none can; none: then it has failed.
    pub(super) rest: Option<Duration>,
    /// Whether it may go to another.
    pub(super) movable: bool,
}

impl Patience {
    /// For a request of this method.
    pub(super) fn of(method: &Method, bodiless: bool, settings: &Settings) -> Self {
        let movable = bodiless && method.is_safe();
        let whole = settings.response_timeout;
        let shorter = settings.retry_timeout.filter(|first| whole.is_zero() || *first < whole);
        match shorter.filter(|_| movable) {
            Some(first) => Self { first, rest: Some(whole.saturating_sub(first)), movable },
            None => Self { first: whole, rest: None, movable },
        }
    }
}

/// Whether another server than this one, and those before it, can take a request now.
pub(super) fn can_move(plan: &ServicePlan, choice: &Choice, avoid: &[u32], budget: &Budget) -> bool {
    let Some(place) = choice.place else { return false };
    let left = (avoid.len() as u64) < u64::from(plan.settings.retries);
    let takes = |number: u32, health: Health| {
        !avoid.contains(&number) && matches!(health, Health::Healthy | Health::Suspect)
    };
    let servers = || plan.service.servers.iter().enumerate().filter(|(other, _)| *other != place);
    left && budget.suffices() && servers().any(|(_, server)| takes(server.number, plan.health(server)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn patience(method: Method, bodiless: bool, response: u64, timeout: Option<u64>) -> Patience {
        let config = Config::parse("", "a.toml".as_ref(), &Default::default()).unwrap();
        let mut settings = Settings::new(&config.proxy, &[], "r");
        settings.response_timeout = Duration::from_secs(response);
        settings.retry_timeout = timeout.map(Duration::from_secs);
        Patience::of(&method, bodiless, &settings)
    }

    #[test]
    fn by_default_a_server_has_all_the_time_there_is() {
        let (first, rest) = (Duration::from_secs(60), None);
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert_eq!(patience(method, true, 60, None), Patience { first, rest, movable: true });
        }
        for (method, bodiless) in [(Method::GET, false), (Method::PUT, true), (Method::DELETE, true)] {
            for timeout in [None, Some(5)] {
                assert_eq!(
                    patience(method.clone(), bodiless, 60, timeout),
                    Patience { first, rest, movable: false }
                );
            }
        }
    }

    #[test]
    fn a_shorter_time_is_for_what_may_move() {
        let seconds = Duration::from_secs;
        for (response, timeout, first, rest) in [
            (60, 5, 5, Some(seconds(55))),
            (60, 60, 60, None),
            (60, 90, 60, None),
            // Without an end.
            (0, 5, 5, Some(seconds(0))),
        ] {
            let expect = Patience { first: seconds(first), rest, movable: true };
            assert_eq!(patience(Method::GET, true, response, Some(timeout)), expect, "{response} {timeout}");
        }
    }
}
