//! A filter that fails in the way that the header `fault` names. Otherwise sets `faulty: fine`.

use message_flow_sdk::{RequestFilter, Verdict, log, request};

struct Faulty;

impl RequestFilter for Faulty {
    fn on_request() -> Result<Verdict, String> {
        request::set_header("faulty", "fine");
        match request::header("fault").as_deref() {
            Some("trap") => panic!("told to trap"),
            Some("error") => return Err("told to err".to_owned()),
            Some("loop") => loop {
                std::hint::black_box(());
            },
            Some("allocate") => {
                let mut hoard = vec![];
                loop {
                    hoard.push(vec![1_u8; 1 << 20]);
                    std::hint::black_box(&hoard);
                }
            }
            Some("recurse") => {
                std::hint::black_box(recurse(1));
            }
            Some("header") => request::set_header("bad header", "x"),
            Some("value") => request::set_header("x", "a\r\nb: c"),
            Some("hop") => request::set_header("transfer-encoding", "chunked"),
            Some("path") => request::set_path("no slash"),
            Some("chatter") => {
                for _ in 0..1000 {
                    log::log(log::Level::Info, &"x".repeat(10_000));
                }
            }
            _ => {}
        }
        Ok(Verdict::Forward)
    }
}

#[allow(unconditional_recursion, reason = "that is the fault")]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box(recurse(depth + 1)) + depth
}

message_flow_sdk::export!(Faulty: RequestFilter);
