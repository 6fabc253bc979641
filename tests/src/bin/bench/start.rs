//! Part three: how soon the gateway is ready, and what it holds when idle.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use message_flow_tests::{Gateway, guests};

use crate::{effort::Effort, usage};

/// Measures and prints.
///
/// # Errors
/// None so far; the gateway not starting panics with its log.
pub(crate) async fn measure(binary: &Path, effort: Effort) -> anyhow::Result<()> {
    let mut times = vec![];
    let mut setup = Gateway::setup().plugin("stamp", guests::wasm("stamp"));
    let mut idle = 0;
    for _ in 0..=effort.rounds {
        let begin = Instant::now();
        let gateway = setup.binary(binary).start().await;
        while gateway.ask("GET", "/ready").try_send().await.is_ok_and(|reply| reply.status != 200) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(begin.elapsed());
        gateway.active("stamp").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        idle = usage::resident(&[gateway.pid()]);
        setup = gateway.kill().await;
    }
    let cold = times.remove(0);
    times.sort();
    println!(
        "start: ready after {cold:.1?} with nothing compiled, {:.1?} with a warm cache (median); idle memory {:.1} MiB\n",
        times.get(times.len() / 2).copied().unwrap_or_default(),
        idle as f64 / (1024.0 * 1024.0),
    );
    Ok(())
}
