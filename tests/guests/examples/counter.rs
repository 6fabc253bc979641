//! A filter that counts messages in `state` and says the count in the header `count`.

use message_flow_sdk::{RequestFilter, Verdict, request, state};

struct Counter;

impl RequestFilter for Counter {
    fn on_request() -> Result<Verdict, String> {
        let count = state::add("count", 1, None).map_err(|error| format!("{error:?}"))?;
        request::set_header("count", &count.to_string());
        Ok(Verdict::Forward)
    }
}

message_flow_sdk::export!(Counter: RequestFilter);
