//! A filter and registrar that passes more to the host than it should, in the way that the header
//! `excess` names. Otherwise forwards, and passes.

use message_flow_sdk::{
    Decision, Registrar, RequestFilter, ResponseFilter, Verdict, candidates, log, request, response,
};

const MUCH: usize = 4 << 20;

struct Excess;

fn text(byte: &str) -> String {
    byte.repeat(MUCH)
}

impl RequestFilter for Excess {
    fn on_request() -> Result<Verdict, String> {
        request::set_header("excess-began", "yes");
        match request::header("excess").as_deref() {
            Some("name") => request::set_header(&text("n"), "x"),
            Some("value") => request::set_header("x", &text("v")),
            Some("add") => request::add_header("x", &text("v")),
            Some("remove") => request::remove_header(&text("n")),
            Some("ask") => drop(request::header(&text("n"))),
            Some("ask all") => drop(request::headers(&text("n"))),
            Some("path") => request::set_path(&format!("/{}", text("p"))),
            Some("bad name") => request::set_header(&"\n".repeat(200), "x"),
            Some("headers") => {
                for at in 0..40_000 {
                    request::set_header(&format!("x-{at}"), "");
                }
            }
            Some("one header") => {
                for _ in 0..40_000 {
                    request::add_header("x", "y");
                }
            }
            Some("values") => {
                for at in 0..100 {
                    request::set_header(&format!("x-{at}"), &"v".repeat(60_000));
                }
            }
            Some("changes") => {
                for _ in 0..40_000 {
                    request::set_path("/elsewhere");
                }
            }
            Some("response") => {
                for _ in 0..40_000 {
                    response::set_status(200);
                }
            }
            Some("pairs") => drop(candidates::least_loaded(&[(&text("k"), "v")])),
            Some("reason") => return Ok(Verdict::respond(403, text("r"))),
            Some("error") => return Err(text("e")),
            Some("error ü") => return Err(text("ü")),
            Some("other") => return Ok(Verdict::Other(text("o"))),
            Some("panic") => panic!("{}", text("p")),
            Some("log") => log::log(log::Level::Info, &text("l")),
            Some("forge") => log::log(
                log::Level::Info,
                "begun\r\n2026-01-01T00:00:00.000000Z ERROR forged: by a plugin\u{1b}[2J\u{9b}2J\u{202e}",
            ),
            _ => {}
        }
        Ok(Verdict::Forward)
    }
}

impl ResponseFilter for Excess {
    fn on_response() -> Result<(), String> {
        match request::header("excess").as_deref() {
            Some("response headers") => {
                for at in 0..40_000 {
                    response::add_header(&format!("x-{at}"), "");
                }
            }
            Some("response error") => return Err(text("e")),
            _ => {}
        }
        Ok(())
    }
}

impl Registrar for Excess {
    fn resolve() -> Result<Decision, String> {
        match request::header("excess").as_deref() {
            Some("server") => Ok(Decision::Server(text("s"))),
            Some("lines") => Ok(Decision::Server("a\nERROR forged\u{1b}[2J".to_owned())),
            Some("nothing") => Ok(Decision::Server(String::new())),
            Some("unknown") => Ok(Decision::Server("no such server".to_owned())),
            Some("reject") => Ok(Decision::reject(403, text("r"))),
            _ => Ok(Decision::Pass),
        }
    }
}

message_flow_sdk::export!(Excess: Registrar + RequestFilter + ResponseFilter);
