//! Part one: what a routed request costs, beside nginx and HAProxy.

use std::{net::SocketAddr, path::Path, process::Command};

use message_flow_tests::{Gateway, guests};
use serde_json::json;

use crate::{
    Effort,
    peers::Peer,
    rig::{Load, Outcome, Rig, Session, Target},
    usage,
};

const CONNECTIONS: usize = 64;
const FEW: u32 = 1000;

/// A line of the table.
struct Row {
    name: &'static str,
    pids: Vec<u32>,
    session: Session,
    rounds: Vec<Round>,
    wrong: u64,
}

/// One measurement of one row.
struct Round {
    /// Requests per second, in a closed loop.
    rate: f64,
    /// CPU seconds per million requests, in a closed loop.
    cpu: f64,
    /// The same at the rate of the open loop.
    open_cpu: f64,
    /// Microseconds at the rate of the open loop.
    p50: f64,
    p99: f64,
    resident: u64,
}

/// Measures and prints.
///
/// # Errors
/// Something did not start, or answers were lost.
pub(crate) async fn measure(binary: Option<&Path>, effort: Effort) -> anyhow::Result<()> {
    let mut rig = Rig::new(4)?;
    let origins = rig.origins()?;
    pin_self()?;
    println!("routing: {CONNECTIONS} connections, 1 KiB, {} rounds of {:?}", effort.rounds, effort.time);
    let nginx = Peer::nginx(&origins)?;
    let haproxy = Peer::haproxy(&origins)?;
    let gateways = match binary {
        Some(binary) => Some((gateway(binary, &origins).await?, gateway(binary, &origins).await?)),
        None => None,
    };

    let mut rows = vec![];
    for (name, peer) in [("nginx", &nginx), ("haproxy", &haproxy)] {
        if let Some(peer) = peer {
            let session = rig.open(Target::new(peer.address(), "/chat/x", FEW), CONNECTIONS)?;
            rows.push(Row::new(name, peer.pids(), session));
        }
    }
    if let Some((few, many)) = &gateways {
        let lines = [
            ("message-flow", few, "/chat/x", FEW),
            ("message-flow, 1 filter", few, "/filtered/x", FEW),
            ("message-flow, many clients", many, "/chat/x", effort.many),
        ];
        for (name, gateway, path, clients) in lines {
            let target = Target::new(gateway.proxy(), path, clients).consistent();
            let session = rig.open(target, CONNECTIONS)?;
            rows.push(Row::new(name, vec![gateway.pid()], session));
        }
    }
    let held = || gateways.as_ref().map_or(0, |(_, many)| usage::resident(&[many.pid()]));
    let empty = held();
    for row in &mut rows {
        row.meet_everyone(&mut rig, effort)?;
    }
    for round in 0..effort.rounds {
        // Each round begins with another row, so that none always follows the same one.
        let count = rows.len();
        for at in 0..count {
            rows[(at + round) % count].measure(&mut rig, effort)?;
        }
        println!("round {} of {} done", round + 1, effort.rounds);
    }
    print(&rows, effort);
    if gateways.is_some() {
        let each = held().saturating_sub(empty) / u64::from(effort.many);
        println!("memory per client known (all of the process, table included): {each} bytes\n");
    }
    Ok(())
}

/// A gateway on the first core, with the plain service `chat` and `filtered` with a filter.
async fn gateway(binary: &Path, origins: &[SocketAddr]) -> anyhow::Result<Gateway> {
    let config = "[plugin.memory]\nstate_limit = \"1GiB\"\n";
    let setup =
        Gateway::setup().binary(binary).pinned(0).config(config).plugin("stamp", guests::wasm("one_header"));
    let gateway = setup.start().await;
    gateway.active("stamp").await;
    let servers: Vec<_> = origins.iter().map(|origin| json!({ "uri": format!("http://{origin}") })).collect();
    gateway.put("chat", json!({ "servers": servers })).await;
    gateway.put("filtered", json!({ "servers": servers, "filters": ["stamp"] })).await;
    Ok(gateway)
}

impl Row {
    fn new(name: &'static str, pids: Vec<u32>, session: Session) -> Self {
        Self { name, pids, session, rounds: vec![], wrong: 0 }
    }

    /// Has every client send one request, so that all are known.
    fn meet_everyone(&mut self, rig: &mut Rig, effort: Effort) -> anyhow::Result<()> {
        let count = if self.name.ends_with("many clients") { effort.many } else { FEW };
        let time = std::time::Duration::from_secs(300);
        let outcome = rig.drive(&mut self.session, Load::Count(count.max(5_000)), time)?;
        self.tally(&outcome);
        self.session.scatter();
        Ok(())
    }

    fn measure(&mut self, rig: &mut Rig, effort: Effort) -> anyhow::Result<()> {
        rig.drive(&mut self.session, Load::Closed, effort.time / 10)?;
        let (closed, cpu) = self.drive(rig, Load::Closed, effort)?;
        let (open, open_cpu) = self.drive(rig, Load::Open(effort.rate), effort)?;
        self.rounds.push(Round {
            rate: closed.served as f64 / closed.elapsed.as_secs_f64(),
            cpu,
            open_cpu,
            p50: open.latencies.quantile(0.5),
            p99: open.latencies.quantile(0.99),
            resident: usage::resident(&self.pids),
        });
        Ok(())
    }

    /// The outcome, and CPU seconds per million requests.
    fn drive(&mut self, rig: &mut Rig, load: Load, effort: Effort) -> anyhow::Result<(Outcome, f64)> {
        let before = usage::cpu(&self.pids);
        let outcome = rig.drive(&mut self.session, load, effort.time)?;
        let used = usage::cpu(&self.pids).saturating_sub(before);
        self.tally(&outcome);
        let answered = outcome.served + outcome.failed;
        Ok((outcome, used.as_secs_f64() * 1e6 / answered.max(1) as f64))
    }

    fn tally(&mut self, outcome: &Outcome) {
        self.wrong += outcome.failed + outcome.moved + outcome.dropped;
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut values: Vec<_> = self.rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

fn print(rows: &[Row], effort: Effort) {
    let base = |name: &str| rows.iter().find(|row| row.name == name).map(|row| row.median(|round| round.cpu));
    let (nginx, haproxy) = (base("nginx"), base("haproxy"));
    println!(
        "\n{:<28} {:>9} {:>9} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>6}",
        "medians",
        "req/s",
        "CPU s/M",
        "at rate",
        "p50 µs",
        "p99 µs",
        "RSS MiB",
        "/nginx",
        "/haproxy",
        "wrong"
    );
    for row in rows {
        let cpu = row.median(|round| round.cpu);
        let ratio = |to: Option<f64>| to.map_or("-".to_owned(), |to| format!("{:.2}", cpu / to));
        println!(
            "{:<28} {:>9.0} {:>9.2} {:>9.2} {:>8.0} {:>8.0} {:>9.1} {:>9} {:>9} {:>6}",
            row.name,
            row.median(|round| round.rate),
            cpu,
            row.median(|round| round.open_cpu),
            row.median(|round| round.p50),
            row.median(|round| round.p99),
            row.median(|round| round.resident as f64) / (1024.0 * 1024.0),
            ratio(nginx),
            ratio(haproxy),
            row.wrong,
        );
    }
    let cpu = |name: &str| base(name).unwrap_or(f64::NAN);
    println!(
        "\none filter: {:+.2} µs of CPU a request\nmany clients ({}) against {FEW}: {:+.1} % CPU a request",
        cpu("message-flow, 1 filter") - cpu("message-flow"),
        effort.many,
        (cpu("message-flow, many clients") / cpu("message-flow") - 1.0) * 100.0,
    );
    println!(
        "(CPU s/M in a closed loop; `at rate`, p50 and p99 at {} requests/s; wrong: failed, moved or dropped)",
        effort.rate
    );
}

/// Moves this process to the second core, away from what it measures.
fn pin_self() -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    let output = Command::new("taskset").args(["-a", "-cp", "1", &pid]).output()?;
    anyhow::ensure!(output.status.success(), "taskset could not pin the benchmark: it needs two cores");
    Ok(())
}
