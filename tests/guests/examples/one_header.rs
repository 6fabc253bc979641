//! A filter that reads one header and sets another: what a call costs at least.

use message_flow_sdk::{RequestFilter, Verdict, request};

struct OneHeader;

impl RequestFilter for OneHeader {
    fn on_request() -> Result<Verdict, String> {
        let region = request::header("region").unwrap_or_default();
        request::set_header("x-region", &region);
        Ok(Verdict::Forward)
    }
}

message_flow_sdk::export!(OneHeader: RequestFilter);
