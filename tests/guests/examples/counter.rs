//! A filter that counts messages in `state` and says the count in the header `count`. One with the
//! header `fault: hoard` makes it keep more than it may.

use message_flow_sdk::{RequestFilter, Verdict, request, state};

struct Counter;

impl RequestFilter for Counter {
    fn on_request() -> Result<Verdict, String> {
        if request::header("fault").is_some_and(|fault| fault == "hoard") {
            for at in 0..100_000 {
                state::set(&at.to_string(), &[0; 4096]).map_err(|error| format!("{error:?}"))?;
            }
        }
        let count = state::add("count", 1, None).map_err(|error| format!("{error:?}"))?;
        request::set_header("count", &count.to_string());
        Ok(Verdict::Forward)
    }
}

message_flow_sdk::export!(Counter: RequestFilter);
