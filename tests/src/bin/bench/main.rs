//! The benchmark: Message Flow beside nginx and HAProxy, each on one core, in interleaved rounds.
//!
//! ```text
//! cargo run --release -p message-flow-tests --bin bench                 # everything, about six minutes
//! cargo run --release -p message-flow-tests --bin bench -- --quick      # a smoke run
//! cargo run --release -p message-flow-tests --bin bench -- reload start # these parts only
//! cargo run --release -p message-flow-tests --bin bench -- discovery    # connected services
//! cargo run --release -p message-flow-tests --bin bench -- peers        # nginx and HAProxy alone
//! ```
//!
//! The first core carries the proxy under test, the second one thread that is origin and load
//! generator at once ([`rig`]). The proxies stand idle while another one is measured; each round
//! measures every row once, so that what the machine does meanwhile hits all of them; medians of
//! rounds are compared. `MESSAGE_FLOW_BINARY` names a binary to measure in place of a fresh release
//! build; a peer that is not installed is left out.

mod discovery;
mod histogram;
mod peers;
mod reload;
mod rig;
mod routing;
mod start;
mod usage;

use std::time::Duration;

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: usize,
    /// How long each row is measured in each round, in each of the two ways.
    time: Duration,
    /// Requests per second of the open loop.
    rate: u32,
    /// The clients of the row with many.
    many: u32,
    replacements: u32,
}

const FULL: Effort =
    Effort { rounds: 5, time: Duration::from_secs(3), rate: 20_000, many: 1_000_000, replacements: 100 };

const QUICK: Effort =
    Effort { rounds: 2, time: Duration::from_millis(500), rate: 5_000, many: 20_000, replacements: 5 };

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let effort = if arguments.iter().any(|argument| argument == "--quick") { QUICK } else { FULL };
    let parts: Vec<_> =
        arguments.iter().filter(|argument| *argument != "--quick").map(String::as_str).collect();
    let known = ["routing", "reload", "start", "discovery", "peers"];
    if let Some(unknown) = parts.iter().find(|part| !known.contains(*part)) {
        anyhow::bail!("unknown part {unknown}: there are {known:?}, and --quick");
    }
    if parts == ["peers"] {
        return routing::measure(None, effort).await;
    }
    let wanted = |part: &str| parts.is_empty() || parts.contains(&part);
    let binary = message_flow_tests::gateway::release();
    if wanted("start") {
        start::measure(&binary, effort).await?;
    }
    if wanted("reload") {
        reload::measure(&binary, effort).await?;
    }
    if wanted("discovery") {
        discovery::measure(&binary, effort).await?;
    }
    if wanted("routing") {
        routing::measure(Some(&binary), effort).await?;
    }
    Ok(())
}
