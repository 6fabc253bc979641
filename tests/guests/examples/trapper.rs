//! A filter that always traps: a generation to be rolled back.

use message_flow_sdk::{RequestFilter, Verdict};

struct Trapper;

impl RequestFilter for Trapper {
    fn on_request() -> Result<Verdict, String> {
        panic!("always")
    }
}

message_flow_sdk::export!(Trapper: RequestFilter);
