//! Part two: a filter replaced again and again under load, by clients that do not retry.

use std::{
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use message_flow_tests::{Gateway, guests};
use serde_json::json;

use crate::{
    effort::Effort,
    rig::{Load, Outcome, Rig, Target},
};

const CONNECTIONS: usize = 64;
const RATE: u32 = 5_000;
/// From one replacement to the next: long enough for the slowest to serve.
const PAUSE: Duration = Duration::from_millis(400);

/// Measures and prints.
///
/// # Errors
/// Something did not start, or answers were lost.
pub(crate) async fn measure(binary: &Path, effort: Effort) -> anyhow::Result<()> {
    let mut rig = Rig::new(1)?;
    let origin = rig.origins()?[0];
    let gateway = Gateway::setup().binary(binary).start().await;
    gateway.drop_plugin("stamp.wasm", guests::marked("stamp", "1"));
    gateway.active("stamp").await;
    gateway.put("chat", json!({ "server": format!("http://{origin}"), "filters": ["stamp"] })).await;

    let target = Target::new(gateway.proxy(), "/chat/x", 1000).watched();
    let mut session = rig.open(target, CONNECTIONS)?;
    let time = PAUSE * (effort.replacements + 2);
    rig.drive(&mut session, Load::Open(RATE), Duration::from_secs(1))?;
    let calm = rig.drive(&mut session, Load::Open(RATE), time.min(Duration::from_secs(15)))?;

    let plugins = gateway.path("plugins");
    let (placed, places) = mpsc::sync_channel(effort.replacements as usize);
    let replacer = std::thread::spawn(move || replace(&plugins, effort.replacements, &placed));
    let busy = rig.drive(&mut session, Load::Open(RATE), time)?;
    replacer.join().map_err(|_| anyhow::anyhow!("the replacing thread panicked"))??;

    let watch = session.watch().expect("the target is watched");
    let delays = places.iter().map(|(mark, at)| {
        let first = watch.first.iter().find(|(seen, _)| *seen == mark);
        first.map(|(_, seen)| seen.duration_since(at))
    });
    let delays: Vec<Option<Duration>> = delays.collect();
    let unseen = delays.iter().filter(|delay| delay.is_none()).count();
    let mut delays: Vec<Duration> = delays.into_iter().flatten().collect();
    delays.sort();
    println!(
        "reload: {} replacements under {CONNECTIONS} connections, {RATE} requests/s",
        effort.replacements
    );
    line("without", &calm);
    line("with", &busy);
    println!(
        "mixed or stale builds: {}; builds never seen: {unseen}; from file complete to serving: median {:.1?}, longest {:.1?}\n",
        watch.mixed,
        delays.get(delays.len() / 2).copied().unwrap_or_default(),
        delays.last().copied().unwrap_or_default(),
    );
    Ok(())
}

fn line(name: &str, outcome: &Outcome) {
    let latencies = &outcome.latencies;
    println!(
        "{name:>8} replacements: {} served, {} failed, {} connections dropped; p50 {:.0} µs, p99.9 {:.0} µs, longest {:.1?}",
        outcome.served,
        outcome.failed,
        outcome.dropped,
        latencies.quantile(0.5),
        latencies.quantile(0.999),
        latencies.longest(),
    );
}

/// Places build after build, marked 2, 3, …; reports when each was complete.
fn replace(plugins: &Path, count: u32, placed: &mpsc::SyncSender<(u32, Instant)>) -> anyhow::Result<()> {
    let next = plugins.join(".next");
    for mark in 2..count + 2 {
        std::thread::sleep(PAUSE);
        std::fs::write(&next, guests::marked("stamp", &mark.to_string()))?;
        std::fs::rename(&next, plugins.join("stamp.wasm"))?;
        placed.send((mark, Instant::now()))?;
    }
    Ok(())
}
