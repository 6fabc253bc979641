//! Part one: what a routed request costs, beside nginx and HAProxy.
//!
//! The machine is never as fast as it was a minute ago. So next to every run of a row plain HAProxy
//! runs as the reference, before it in one round and after it in the next, and what is compared is
//! the ratio of those two. Two rows that differ in one thing, a filter or the number of clients, take
//! short turns afterwards, and what is told is the difference between neighbours.

use std::{net::SocketAddr, path::Path, process::Command};

use anyhow::Context;
use message_flow_tests::{Gateway, guests};
use serde_json::json;

use crate::{
    effort::Effort,
    peers::Peer,
    rig::{Load, Outcome, Rig, Session, Target},
    usage,
};

const CONNECTIONS: usize = 64;
const FEW: u32 = 1000;
/// Turns that make as long as one round.
const TURNS: u32 = 4;

const PLAIN: &str = "message-flow";
const FILTER: &str = "message-flow, 1 filter";
const MANY: &str = "message-flow, many clients";
const EARLIER: &str = "message-flow, earlier build";
/// Names another binary, to be compared with the one that is measured.
const EARLIER_BINARY: &str = "MESSAGE_FLOW_EARLIER";

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
    /// The same of the reference, right beside it.
    reference: Option<f64>,
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
    let sticky = Peer::sticky_haproxy(&origins)?;
    let gateways = match binary {
        Some(binary) => Some((gateway(binary, &origins).await?, gateway(binary, &origins).await?)),
        None => None,
    };
    let earlier = match std::env::var_os(EARLIER_BINARY) {
        Some(binary) => Some(gateway(Path::new(&binary), &origins).await?),
        None => None,
    };

    let mut rows = vec![];
    for (name, peer) in [("nginx", &nginx), ("haproxy", &haproxy), ("haproxy, stick table", &sticky)] {
        if let Some(peer) = peer {
            let session = rig.open(Target::new(peer.address(), "/chat/x", FEW), CONNECTIONS)?;
            rows.push(Row::new(name, peer.pids(), session));
        }
    }
    let mut reference = match &haproxy {
        Some(peer) => {
            let session = rig.open(Target::new(peer.address(), "/chat/x", FEW), CONNECTIONS)?;
            Some(Row::new("reference", peer.pids(), session))
        }
        None => None,
    };
    if let Some((few, many)) = &gateways {
        let lines = [
            (PLAIN, few, "/chat/x", FEW),
            (FILTER, few, "/filtered/x", FEW),
            (MANY, many, "/chat/x", effort.many),
        ];
        for (name, gateway, path, clients) in lines {
            let target = Target::new(gateway.proxy(), path, clients).consistent();
            let session = rig.open(target, CONNECTIONS)?;
            rows.push(Row::new(name, vec![gateway.pid()], session));
        }
    }
    if let Some(earlier) = &earlier {
        let session = rig.open(Target::new(earlier.proxy(), "/chat/x", FEW).consistent(), CONNECTIONS)?;
        rows.push(Row::new(EARLIER, vec![earlier.pid()], session));
    }
    let held = || gateways.as_ref().map_or(0, |(_, many)| usage::resident(&[many.pid()]));
    let empty = held();
    for row in rows.iter_mut().chain(&mut reference) {
        row.meet_everyone(&mut rig, effort)?;
    }
    for round in 0..effort.rounds {
        // Each round begins with another row, so that none always follows the same one.
        let count = rows.len();
        for at in 0..count {
            let row = &mut rows[(at + round) % count];
            let before = if round % 2 == 0 { reference_run(&mut reference, &mut rig, effort)? } else { None };
            row.measure(&mut rig, effort)?;
            let after = if round % 2 == 1 { reference_run(&mut reference, &mut rig, effort)? } else { None };
            row.stood_beside(before.or(after));
        }
        println!("round {} of {}: {}", round + 1, effort.rounds, last_ratios(&rows));
    }
    let differences = if gateways.is_some() { Some(differences(&mut rows, &mut rig, effort)?) } else { None };
    print(&rows, effort);
    println!("{}", differences.unwrap_or_default());
    if gateways.is_some() {
        let each = held().saturating_sub(empty) / u64::from(effort.many);
        println!("memory per client known (all of the process, table included): {each} bytes\n");
    }
    Ok(())
}

/// CPU seconds per million requests of the reference, if there is one.
fn reference_run(reference: &mut Option<Row>, rig: &mut Rig, effort: Effort) -> anyhow::Result<Option<f64>> {
    let Some(row) = reference else { return Ok(None) };
    rig.drive(&mut row.session, Load::Closed, effort.time / 10)?;
    let (_, cpu) = row.drive(rig, Load::Closed, effort)?;
    Ok(Some(cpu))
}

/// What a filter and more clients cost, in words.
fn differences(rows: &mut [Row], rig: &mut Rig, effort: Effort) -> anyhow::Result<String> {
    let more = |(plain, with): &(f64, f64)| with - plain;
    let percent = |(few, many): &(f64, f64)| (many / few - 1.0) * 100.0;
    let closed = by_turns(rows, FILTER, Load::Closed, rig, effort)?;
    let at_rate = by_turns(rows, FILTER, Load::Open(effort.rate), rig, effort)?;
    let clients = by_turns(rows, MANY, Load::Closed, rig, effort)?;
    let told = |pairs: &[(f64, f64)], how: &dyn Fn(&(f64, f64)) -> f64| {
        let values: Vec<_> = pairs.iter().map(how).collect();
        let [low, middle, high] = [0.25, 0.5, 0.75].map(|part| quantile(values.clone(), part));
        format!("{middle:+.2} ({low:+.2} to {high:+.2})")
    };
    let builds = match rows.iter().any(|row| row.name == EARLIER) {
        true => Some(by_turns(rows, EARLIER, Load::Closed, rig, effort)?),
        false => None,
    };
    let builds = builds.map_or_else(String::new, |pairs| {
        let percent = |(this, earlier): &(f64, f64)| (this / earlier - 1.0) * 100.0;
        format!(
            "\nthis build against the earlier one: {} % of CPU a request in a closed loop",
            told(&pairs, &percent)
        )
    });
    Ok(format!(
        "\n{} turns each, medians and quartiles:\n\
         one filter: {} µs of CPU a request in a closed loop, {} at {} requests/s\n\
         {} clients against {FEW}: {} % of CPU a request in a closed loop{builds}",
        closed.len(),
        told(&closed, &more),
        told(&at_rate, &more),
        effort.rate,
        effort.many,
        told(&clients, &percent),
    ))
}

/// CPU seconds per million requests of the plain row and of another that take turns, either first.
fn by_turns(
    rows: &mut [Row],
    other: &str,
    load: Load,
    rig: &mut Rig,
    effort: Effort,
) -> anyhow::Result<Vec<(f64, f64)>> {
    let short = Effort { time: effort.time / TURNS, ..effort };
    let place = |rows: &[Row], name: &str| rows.iter().position(|row| row.name == name);
    let (plain, other) = place(rows, PLAIN).zip(place(rows, other)).context("both rows are measured")?;
    let mut pairs = vec![];
    for turn in 0..effort.rounds * TURNS as usize {
        let mut run = |row: usize| rows[row].drive(rig, load, short).map(|(_, cpu)| cpu);
        let pair = if turn % 2 == 0 {
            let first = run(plain)?;
            (first, run(other)?)
        } else {
            let first = run(other)?;
            (run(plain)?, first)
        };
        pairs.push(pair);
    }
    Ok(pairs)
}

fn last_ratios(rows: &[Row]) -> String {
    let ratio = |row: &Row| Some(format!("{} {:.2}", row.name, row.rounds.last()?.ratio()?));
    let ratios: Vec<_> = rows.iter().filter_map(ratio).collect();
    if ratios.is_empty() { "done".to_owned() } else { format!("to haproxy: {}", ratios.join("; ")) }
}

/// A gateway on the first core, with the plain service `chat` and `filtered` with a filter.
async fn gateway(binary: &Path, origins: &[SocketAddr]) -> anyhow::Result<Gateway> {
    // A row's connections are idle while others have their turns.
    let config = "[plugin.memory]\nstate_limit = \"1GiB\"\n[proxy.timeouts]\nkeep_alive = \"1h\"\n";
    let setup =
        Gateway::setup().binary(binary).pinned(0).config(config).plugin("stamp", guests::wasm("one_header"));
    let gateway = setup.start().await;
    gateway.active("stamp").await;
    let servers: Vec<_> = origins.iter().map(|origin| json!({ "uri": format!("http://{origin}") })).collect();
    // So long that no assignment is renewed meanwhile: all would be at once, as all were made at once.
    let sticky = json!({ "ttl": "24h" });
    gateway.put("chat", json!({ "servers": servers, "sticky": sticky })).await;
    gateway.put("filtered", json!({ "servers": servers, "sticky": sticky, "filters": ["stamp"] })).await;
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
            reference: None,
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

    fn stood_beside(&mut self, reference: Option<f64>) {
        if let Some(round) = self.rounds.last_mut() {
            round.reference = reference;
        }
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        quantile(self.rounds.iter().map(of).collect(), 0.5)
    }

    /// CPU a request to that of the reference: the median of the rounds, and its quartiles.
    fn ratio(&self) -> Option<String> {
        let ratios: Vec<_> = self.rounds.iter().filter_map(Round::ratio).collect();
        let [low, middle, high] = [0.25, 0.5, 0.75].map(|part| quantile(ratios.clone(), part));
        (!ratios.is_empty()).then(|| format!("{middle:.2} ({low:.2} to {high:.2})"))
    }
}

impl Round {
    fn ratio(&self) -> Option<f64> {
        self.reference.map(|reference| self.cpu / reference)
    }
}

/// Between the two nearest values, where it lies between two.
fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = part * values.len().saturating_sub(1) as f64;
    let value = |at: f64| values.get(at as usize).copied().unwrap_or(f64::NAN);
    value(at.floor()) + (value(at.ceil()) - value(at.floor())) * at.fract()
}

fn print(rows: &[Row], effort: Effort) {
    println!(
        "\n{:<28} {:>9} {:>9} {:>9} {:>8} {:>8} {:>9} {:>7} {:>21}",
        "medians", "req/s", "CPU s/M", "at rate", "p50 µs", "p99 µs", "RSS MiB", "wrong", "CPU to haproxy's"
    );
    for row in rows {
        println!(
            "{:<28} {:>9.0} {:>9.2} {:>9.2} {:>8.0} {:>8.0} {:>9.1} {:>7} {:>21}",
            row.name,
            row.median(|round| round.rate),
            row.median(|round| round.cpu),
            row.median(|round| round.open_cpu),
            row.median(|round| round.p50),
            row.median(|round| round.p99),
            row.median(|round| round.resident as f64) / (1024.0 * 1024.0),
            row.wrong,
            row.ratio().unwrap_or_else(|| "-".to_owned()),
        );
    }
    println!(
        "(CPU s/M in a closed loop; `at rate`, p50 and p99 at {} requests/s; wrong: failed, moved or dropped; the last \
         column: each run to one of plain HAProxy right beside it, median and quartiles of the rounds)",
        effort.rate
    );
}

/// Moves this process to the second core, away from what it measures.
pub(crate) fn pin_self() -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    let output = Command::new("taskset").args(["-a", "-cp", "1", &pid]).output()?;
    anyhow::ensure!(output.status.success(), "taskset could not pin the benchmark: it needs two cores");
    Ok(())
}
