//! A filter that turns clients away who ask too often.
//!
//! Each client may send so many requests in a window of time, which begins with its first. The count
//! is in `state`, so it is shared by all instances of the plugin and survives a new build; the entry
//! goes away with its window. It is a count of this router alone.

use message_flow_sdk::{Lifecycle, RequestFilter, Verdict, config, request, state};

struct RateLimit;

message_flow_sdk::export!(RateLimit: RequestFilter + Lifecycle);

struct Limit {
    requests: i64,
    seconds: u64,
}

impl Limit {
    /// `requests` and `seconds` of the configuration: 100 in 60 unless set.
    fn configured() -> Result<Self, String> {
        Ok(Self { requests: number("requests", 100)?.cast_signed(), seconds: number("seconds", 60)? })
    }
}

fn number(key: &str, default: u64) -> Result<u64, String> {
    let Some(text) = config::get(key) else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| format!("config.{key} is `{text}`: write a whole number from 1 to 1000000"))
}

impl Lifecycle for RateLimit {
    fn start() -> Result<(), String> {
        Limit::configured().map(|_| ())
    }
}

impl RequestFilter for RateLimit {
    fn on_request() -> Result<Verdict, String> {
        let limit = Limit::configured()?;
        let count = state::add(&request::client(), 1, Some(limit.seconds * 1000));
        // Out of memory for counts: what then happens to the message is the operator's `on_error`.
        let count = count.map_err(|error| format!("cannot count: {error}"))?;
        if count <= limit.requests {
            return Ok(Verdict::Forward);
        }
        let Limit { requests, seconds } = limit;
        Ok(Verdict::respond(
            429,
            format!("at most {requests} requests in {seconds} seconds; try again later"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use message_flow_sdk::testing::Scene;

    use super::*;

    fn scene() -> Scene {
        Scene::new().config("requests", "2").config("seconds", "10").client("ann")
    }

    fn is_refused(scene: &mut Scene) -> bool {
        match scene.on_request::<RateLimit>().unwrap() {
            Verdict::Respond(rejection) => rejection.status == 429,
            _ => false,
        }
    }

    #[test]
    fn the_limit_is_each_clients_own() {
        let mut scene = scene();
        assert_eq!([(); 4].map(|()| is_refused(&mut scene)), [false, false, true, true]);
        scene.client = "bob".into();
        assert!(!is_refused(&mut scene));
    }

    #[test]
    fn a_new_window_is_a_new_count() {
        let mut scene = scene();
        assert_eq!([(); 3].map(|()| is_refused(&mut scene)), [false, false, true]);
        scene.now += 10_000;
        assert_eq!([(); 3].map(|()| is_refused(&mut scene)), [false, false, true]);
    }

    #[test]
    fn configuration_is_checked_at_start() {
        assert_eq!(Scene::new().start::<RateLimit>(), Ok(()));
        let error = Scene::new().config("requests", "many").start::<RateLimit>().unwrap_err();
        assert!(error.contains("config.requests") && error.contains("many"), "{error}");
    }

    #[test]
    fn without_room_to_count_it_says_so() {
        let mut scene = scene();
        scene.state_limit = 1;
        assert!(scene.on_request::<RateLimit>().unwrap_err().contains("cannot count"));
    }
}
