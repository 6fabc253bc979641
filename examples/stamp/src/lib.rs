//! A filter that stamps messages, so that one can be followed from log to log.
//!
//! Each request gets an `x-request-id`, unless it brought one, and its response gets the same.

use message_flow_sdk::{RequestFilter, ResponseFilter, Verdict, config, random, request, response};

struct Stamp;

message_flow_sdk::export!(Stamp: RequestFilter + ResponseFilter);

/// An id that a client brings is kept up to this length: it goes into every log.
const LONGEST: usize = 128;

impl RequestFilter for Stamp {
    fn on_request() -> Result<Verdict, String> {
        let header = header();
        if request::header(&header).is_none_or(|id| !is_id(&id)) {
            request::set_header(&header, &format!("{:016x}", random::next()));
        }
        Ok(Verdict::Forward)
    }
}

impl ResponseFilter for Stamp {
    fn on_response() -> Result<(), String> {
        let header = header();
        if let Some(id) = request::header(&header) {
            response::set_header(&header, &id);
        }
        Ok(())
    }
}

fn header() -> String {
    config::get("header").unwrap_or_else(|| "x-request-id".to_owned())
}

fn is_id(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use message_flow_sdk::testing::Scene;

    use super::*;

    fn stamped(mut scene: Scene) -> String {
        assert_eq!(scene.on_request::<Stamp>(), Ok(Verdict::Forward));
        assert_eq!(scene.on_response::<Stamp>(), Ok(()));
        let (request, response) =
            (scene.request_header("x-request-id"), scene.response_header("x-request-id"));
        assert_eq!(request, response);
        request.unwrap_or_default().to_owned()
    }

    #[test]
    fn a_request_without_an_id_gets_one() {
        assert_eq!(stamped(Scene::new()).len(), 16);
    }

    #[test]
    fn a_request_keeps_the_id_that_it_brought() {
        assert_eq!(stamped(Scene::new().header("X-Request-Id", "mine")), "mine");
    }

    #[test]
    fn what_is_no_id_is_replaced() {
        for id in ["", "two words", &"x".repeat(129)] {
            assert_eq!(stamped(Scene::new().header("x-request-id", id)).len(), 16, "{id}");
        }
    }

    #[test]
    fn the_header_can_be_configured() {
        let mut scene = Scene::new().config("header", "trace");
        scene.on_request::<Stamp>().unwrap();
        assert!(scene.request_header("trace").is_some() && scene.request_header("x-request-id").is_none());
    }
}
