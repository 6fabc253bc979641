//! A filter whose `start` does what `config.start` says: `fail`, `trap`, `loop`.

use message_flow_sdk::{Lifecycle, RequestFilter, Verdict, config, request, state};

struct Beginner;

impl Lifecycle for Beginner {
    fn start() -> Result<(), String> {
        match config::get("start").as_deref() {
            Some("fail") => return Err("config.start says fail".to_owned()),
            Some("trap") => panic!("told to trap"),
            Some("loop") => loop {
                std::hint::black_box(());
            },
            _ => {}
        }
        state::set("started", b"yes").map_err(|error| format!("{error:?}"))
    }
}

impl RequestFilter for Beginner {
    fn on_request() -> Result<Verdict, String> {
        let started = state::get("started").is_some();
        request::set_header("started", if started { "yes" } else { "no" });
        Ok(Verdict::Forward)
    }
}

message_flow_sdk::export!(Beginner: Lifecycle + RequestFilter);
