//! The benchmark: Message Flow beside nginx and HAProxy, each on one core, in interleaved rounds.
//!
//! ```text
//! cargo run --release -p message-flow-tests --bin bench                 # everything, about six minutes
//! cargo run --release -p message-flow-tests --bin bench -- --quick      # a smoke run
//! cargo run --release -p message-flow-tests --bin bench -- reload start # these parts only
//! cargo run --release -p message-flow-tests --bin bench -- discovery    # connected services
//! cargo run --release -p message-flow-tests --bin bench -- peers        # nginx and HAProxy alone
//! cargo run --release -p message-flow-tests --bin bench -- routing --rounds 9 --seconds 5
//! ```
//!
//! The first core carries the proxy under test, the second one thread that is origin and load
//! generator at once ([`rig`]). The proxies stand idle while another one is measured; each round
//! measures every row once, so that what the machine does meanwhile hits all of them. A ratio is that
//! of one run to another right beside it; of these the median and the quartiles are printed. `MESSAGE_FLOW_BINARY` names a binary to measure in place of a fresh release
//! build, `MESSAGE_FLOW_EARLIER` another one that `routing` compares it with; a peer that is not installed is left out.

mod discovery;
mod ears;
mod effort;
mod histogram;
mod peers;
mod reload;
mod rig;
mod routing;
mod start;
mod usage;

use effort::Effort;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (effort, parts) = Effort::read(&arguments)?;
    let known = ["routing", "reload", "start", "discovery", "peers"];
    if let Some(unknown) = parts.iter().find(|part| !known.contains(*part)) {
        anyhow::bail!("unknown part {unknown}: there are {known:?}, and {}", effort::OPTIONS);
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
