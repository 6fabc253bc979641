//! A filter that answers in place of the server when the header `reject` says a status.

use message_flow_sdk::{RequestFilter, Verdict, request};

struct Gate;

impl RequestFilter for Gate {
    fn on_request() -> Result<Verdict, String> {
        Ok(match request::header("reject").and_then(|status| status.parse().ok()) {
            Some(status) => Verdict::respond(status, "the gate is shut"),
            None => Verdict::Forward,
        })
    }
}

message_flow_sdk::export!(Gate: RequestFilter);
