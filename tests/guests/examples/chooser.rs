//! A registrar that does what the header `choose` says: `server URI-OR-ID`, `pass`, `first`,
//! `reject STATUS REASON`, `echo` (rejects with method and path), `error TEXT`, `trap`, `loop`. Without
//! it: what `config.choose` says, else pass.

use message_flow_sdk::{Decision, Registrar, candidates, config, request};

struct Chooser;

impl Registrar for Chooser {
    fn resolve() -> Result<Decision, String> {
        let told = request::header("choose").or_else(|| config::get("choose")).unwrap_or_default();
        let (word, rest) = told.split_once(' ').unwrap_or((&told, ""));
        match word {
            "server" => Ok(Decision::Server(rest.to_owned())),
            "first" => Ok(candidates::servers()
                .first()
                .map_or(Decision::Pass, |server| Decision::Server(server.id.clone()))),
            "reject" => {
                let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                Ok(Decision::reject(status.parse().unwrap_or(403), reason))
            }
            "echo" => Ok(Decision::reject(418, format!("{} {}", request::method(), request::path()))),
            "error" => Err(rest.to_owned()),
            "trap" => panic!("told to trap"),
            "loop" => loop {
                std::hint::black_box(());
            },
            _ => Ok(Decision::Pass),
        }
    }
}

message_flow_sdk::export!(Chooser: Registrar);
