//! A filter that reads one header and sets another: `stamp` becomes this build's mark and what
//! the header `ink` says; on the way back `stamped` becomes the mark.

use message_flow_sdk::{RequestFilter, ResponseFilter, Verdict, request, response};

/// Tests write over the digits, and so make builds that differ.
static MARK: [u8; 13] = *b"mark:00000000";

struct Stamp;

fn mark() -> String {
    // Volatile, so that the compiler does not take the digits for granted.
    let bytes = unsafe { std::ptr::read_volatile(&raw const MARK) };
    String::from_utf8_lossy(&bytes[5..]).trim_start_matches('0').to_owned()
}

impl RequestFilter for Stamp {
    fn on_request() -> Result<Verdict, String> {
        let ink = request::header("ink").unwrap_or_default();
        request::set_header("stamp", &format!("{}{ink}", mark()));
        Ok(Verdict::Forward)
    }
}

impl ResponseFilter for Stamp {
    fn on_response() -> Result<(), String> {
        response::set_header("stamped", &mark());
        Ok(())
    }
}

message_flow_sdk::export!(Stamp: RequestFilter + ResponseFilter);
