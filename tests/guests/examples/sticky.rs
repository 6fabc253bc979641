//! A registrar that reads one header and the client id and answers: what a call costs at least.

use message_flow_sdk::{Decision, Registrar, request};

struct Sticky;

impl Registrar for Sticky {
    fn resolve() -> Result<Decision, String> {
        let Some(region) = request::header("region") else { return Ok(Decision::Pass) };
        let client = request::client();
        let server = if client.len() + region.len() > 64 { "far" } else { "near" };
        Ok(Decision::Server(server.to_owned()))
    }
}

message_flow_sdk::export!(Sticky: Registrar);
