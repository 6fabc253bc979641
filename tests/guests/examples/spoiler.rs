//! A filter that counts in its state as `counter` does, and then always traps: what it did cannot be undone.

use message_flow_sdk::{RequestFilter, Verdict, state};

struct Spoiler;

impl RequestFilter for Spoiler {
    fn on_request() -> Result<Verdict, String> {
        let count = state::add("count", 1, None);
        panic!("after {count:?}")
    }
}

message_flow_sdk::export!(Spoiler: RequestFilter);
