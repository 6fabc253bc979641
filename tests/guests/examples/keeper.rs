//! A filter and registrar that keeps things in its state as the header `keep` says, and says in the header
//! `kept` what came of it. As a registrar it counts, and sends the client to the server of that number.

use message_flow_sdk::{Decision, Registrar, RequestFilter, Verdict, candidates, request, state};

struct Keeper;

impl RequestFilter for Keeper {
    fn on_request() -> Result<Verdict, String> {
        let large = vec![7_u8; 8 << 20];
        let part = vec![7_u8; 5 << 19];
        let kept = match request::header("keep").as_deref() {
            Some("value") => format!("{:?}", state::set("k", &large)),
            Some("key") => format!("{:?}", state::set(&"k".repeat(100_000), b"v")),
            Some("count") => format!("{:?}", state::add(&"k".repeat(100_000), 1, None)),
            Some("look") => format!("{:?}", state::get(&"k".repeat(8 << 20))),
            Some("same") => {
                let changes = vec![("k".to_owned(), Some(part)); 4];
                format!("{:?}", state::apply(&changes, &[]))
            }
            Some("expected") => {
                let expected = vec![("k".to_owned(), Some(part)); 4];
                format!("{:?}", state::apply(&[], &expected))
            }
            _ => format!("{:?}", state::add("count", 1, None)),
        };
        request::set_header("kept", &kept);
        Ok(Verdict::Forward)
    }
}

impl Registrar for Keeper {
    fn resolve() -> Result<Decision, String> {
        let count = state::add("turn", 1, None).map_err(|error| format!("{error:?}"))?;
        let servers = candidates::servers();
        let turn = count as usize % servers.len().max(1);
        Ok(servers.get(turn).map_or(Decision::Pass, |server| Decision::Server(server.id.clone())))
    }
}

message_flow_sdk::export!(Keeper: RequestFilter + Registrar);
