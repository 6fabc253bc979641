//! A filter that reads bodies and says their length in the header `length`; the header `replace`
//! has it send other bytes instead, and `fault: loop` has it never come to an end. With `config.fails` it traps
//! once it has done all that.

use message_flow_sdk::{
    RequestFilter, ResponseFilter, Verdict, config, request, request_body, response, response_body,
};

struct Reader;

impl RequestFilter for Reader {
    fn on_request() -> Result<Verdict, String> {
        if request::header("fault").is_some_and(|fault| fault == "loop") {
            loop {
                std::hint::black_box(());
            }
        }
        match request_body::read(1 << 20) {
            Ok(body) => request::set_header("length", &body.len().to_string()),
            Err(error) => return Ok(Verdict::respond(413, format!("{error:?}"))),
        }
        if let Some(text) = request::header("replace") {
            request_body::replace(text.as_bytes()).map_err(|error| format!("{error:?}"))?;
        }
        if config::get("fails").is_some() {
            request::set_header("replace", "what a trap leaves");
            panic!("config.fails is there");
        }
        Ok(Verdict::Forward)
    }
}

impl ResponseFilter for Reader {
    fn on_response() -> Result<(), String> {
        let body = response_body::read(1 << 20).map_err(|error| format!("{error:?}"))?;
        response::set_header("response-length", &body.len().to_string());
        if request::header("shout").is_some() {
            response_body::replace(&body.to_ascii_uppercase()).map_err(|error| format!("{error:?}"))?;
        }
        Ok(())
    }
}

message_flow_sdk::export!(Reader: RequestFilter + ResponseFilter);
