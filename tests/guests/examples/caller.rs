//! A filter, of requests and of responses, that asks the server `config.to` for `config.path` first,
//! and says what came of that in the header `called`. The header `call: no` stops it.

use message_flow_sdk::{RequestFilter, ResponseFilter, Verdict, config, request, response};
use wasip2::http::{
    outgoing_handler,
    types::{Fields, OutgoingRequest, Scheme},
};

struct Caller;

impl RequestFilter for Caller {
    fn on_request() -> Result<Verdict, String> {
        if config::get("on").as_deref() != Some("response") {
            request::set_header("called", &call()?);
        }
        Ok(Verdict::Forward)
    }
}

impl ResponseFilter for Caller {
    fn on_response() -> Result<(), String> {
        if config::get("on").as_deref() == Some("response") {
            response::set_header("called", &call()?);
        }
        Ok(())
    }
}

fn call() -> Result<String, String> {
    if request::header("call").as_deref() == Some("no") {
        return Ok("nobody".to_owned());
    }
    let asked = OutgoingRequest::new(Fields::new());
    asked
        .set_scheme(Some(&Scheme::Http))
        .and_then(|()| asked.set_authority(config::get("to").as_deref()))
        .and_then(|()| asked.set_path_with_query(config::get("path").as_deref()))
        .map_err(|()| "nobody can be asked that".to_owned())?;
    let answer = outgoing_handler::handle(asked, None).map_err(|error| format!("{error:?}"))?;
    answer.subscribe().block();
    let answer = answer.get().and_then(Result::ok).ok_or("there is no answer")?;
    answer.map(|answer| answer.status().to_string()).map_err(|error| format!("{error:?}"))
}

message_flow_sdk::export!(Caller: RequestFilter + ResponseFilter);
