//! A registrar that was built for version 0.1.0: from the WIT as it was then
//! (`tests/golden/wit-0.1.0`), not from the SDK. Sends a client to the server that `to` names.

wit_bindgen::generate!({ path: "../golden/wit-0.1.0", world: "registrar-plugin", generate_all });

use exports::message_flow::plugin::registrar::{Decision, Guest};
use message_flow::plugin::{candidates, config, request, types::Rejection};

struct Frozen;

impl Guest for Frozen {
    fn resolve() -> Result<Decision, String> {
        let Some(wanted) = request::header("to").or_else(|| config::get("to")) else {
            return Ok(Decision::Reject(Rejection { status: 404, reason: request::client() }));
        };
        let found = candidates::servers().into_iter().find(|server| server.id == wanted);
        Ok(found.map_or(Decision::Pass, |server| Decision::Server(server.id)))
    }
}

export!(Frozen);
