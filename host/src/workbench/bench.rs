//! `message-flow plugin bench`: what the calls of a plugin cost, as the proxy pays for them.
//!
//! A warm call is an instance checked out, the message moved in, the guest called, the message and
//! the instance back. Times are those of batches, so that the clock costs nothing.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    WorkbenchError, check,
    scenario::{Call, Scenario},
    stage,
    tests::{call, configured},
};
use crate::plugin::{Generation, Kind, Settings, Solo, SoloError, table::TablePlugin};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How long each call is measured.
    pub time: Duration,
    /// Instances made to find out what one costs.
    pub instances: usize,
}

/// What was found out.
#[derive(Debug)]
pub struct Costs {
    /// The plugin's name.
    pub name: String,
    /// Of each scenario.
    pub calls: Vec<CallCost>,
    /// Median and 99th percentile of making an instance.
    pub instance: [Duration; 2],
    /// The linear memory of an instance after these calls, in bytes.
    pub memory: u64,
    /// Instances that there are after these calls.
    pub instances: i64,
}

/// What one call costs.
#[derive(Debug)]
pub struct CallCost {
    /// What was called.
    pub what: String,
    /// How often.
    pub calls: usize,
    /// The first call of a new build, with what it prepares.
    pub first: Duration,
    /// The median, in nanoseconds.
    pub p50: u64,
    /// The 99th percentile, in nanoseconds.
    pub p99: u64,
}

const BATCH: usize = 20;

/// Measures a plugin with its scenarios, or without any with an ordinary message for each kind.
pub async fn bench(
    solo: &Solo,
    settings: &Settings,
    scenarios: &[Scenario],
    effort: Effort,
) -> Result<Costs, WorkbenchError> {
    let settings = check::with_all_grants(settings.clone(), &solo.inspect(settings)?);
    let build = solo.load(settings.clone()).await?;
    let own = ordinary(&build);
    let scenarios = if scenarios.is_empty() { &own } else { scenarios };
    let mut calls = Vec::new();
    let mut used = Arc::clone(&build);
    for scenario in scenarios {
        used = solo.load(configured(settings.clone(), scenario)).await?;
        calls.push(measure(&used, scenario, effort.time).await?);
    }
    if build.is(Kind::RoutingTable) {
        calls.push(measure_reading(&build, effort.time).await);
    }
    let (instances, _) = used.instances_and_memory();
    let memory = check::memory_of(&used);
    let instance = making(solo, &build, effort.instances).await?;
    Ok(Costs { name: solo.name().to_owned(), calls, instance, memory, instances })
}

/// A message with a handful of headers, for each function that there is.
fn ordinary(build: &Generation) -> Vec<Scenario> {
    let functions = [
        (Kind::Registrar, "resolve", r#""decision": "pass""#),
        (Kind::RequestFilter, "on-request", ""),
        (Kind::ResponseFilter, "on-response", ""),
        (Kind::EventFilter, "on-event", ""),
    ];
    let present = functions.iter().filter(|(kind, ..)| build.is(*kind));
    let scenarios = present.map(|(_, call, expect)| {
        format!(
            r#"{{"name": "an ordinary message", "call": "{call}", "expect": {{ {expect} }},
            "request": {{ "path": "/v1/rooms/7?limit=10", "client": "client-17", "service": "chat",
                "headers": {{ "accept": "*/*", "region": "eu", "user-agent": "bench" }} }},
            "candidates": [
                {{ "id": "10.0.0.1:80", "uri": "http://10.0.0.1:80", "metadata": {{ "region": "eu" }} }},
                {{ "id": "10.0.0.2:80", "uri": "http://10.0.0.2:80", "metadata": {{ "region": "us" }} }}] }}"#
        )
    });
    scenarios.flat_map(|text| Scenario::read_all(&text).expect("it is written above")).collect()
}

async fn measure(
    build: &Generation,
    scenario: &Scenario,
    time: Duration,
) -> Result<CallCost, WorkbenchError> {
    let staged = |reason: String| SoloError::Failed(format!("scenario `{}`: {reason}", scenario.name));
    let function = scenario.call;
    let began = Instant::now();
    let mut message = stage::message(scenario).map_err(staged)?;
    let _ = call(build, function, &mut message).await;
    let first = began.elapsed();
    let mut times = Vec::new();
    let until = Instant::now() + time;
    let mut spent = Duration::ZERO;
    while Instant::now() < until {
        // A filter changes its message, so each call of a batch gets one of its own.
        let mut messages = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            messages.push(stage::message(scenario).map_err(staged)?);
        }
        let began = Instant::now();
        for message in &mut messages {
            let _ = std::hint::black_box(call(build, function, message).await);
        }
        let took = began.elapsed();
        spent += took;
        times.push(nanos(took) / BATCH as u64);
    }
    let warm = times.len() / 10;
    let [p50, p99] = percentiles(&mut times.split_off(warm));
    let what = format!("{}: {}", name(function), scenario.name);
    Ok(CallCost { what, calls: (spent.as_nanos() / u128::from(p50.max(1))) as usize, first, p50, p99 })
}

async fn measure_reading(build: &Arc<Generation>, time: Duration) -> CallCost {
    use crate::table::adapter::Adapter;
    let table = TablePlugin::of(Arc::clone(build));
    let began = Instant::now();
    let _ = table.snapshot().await;
    let first = began.elapsed();
    let mut times = Vec::new();
    let until = Instant::now() + time;
    while Instant::now() < until {
        let began = Instant::now();
        let _ = std::hint::black_box(table.assigned("client-17".into(), "chat".into()).await);
        times.push(nanos(began.elapsed()));
    }
    let calls = times.len();
    let [p50, p99] = percentiles(&mut times);
    CallCost { what: "assigned: of a client that has no assignment".to_owned(), calls, first, p50, p99 }
}

async fn making(solo: &Solo, build: &Generation, instances: usize) -> Result<[Duration; 2], WorkbenchError> {
    let mut times = Vec::with_capacity(instances);
    for _ in 0..instances {
        let took = solo.instantiate(build).await.map_err(|error| SoloError::Failed(error.to_string()))?;
        times.push(nanos(took));
    }
    Ok(percentiles(&mut times).map(Duration::from_nanos))
}

fn percentiles(times: &mut [u64]) -> [u64; 2] {
    times.sort_unstable();
    [50, 99].map(|percent| times.get(times.len() * percent / 100).copied().unwrap_or_default())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn name(call: Call) -> &'static str {
    match call {
        Call::Resolve => "resolve",
        Call::OnRequest => "on-request",
        Call::OnResponse => "on-response",
        Call::OnEvent => "on-event",
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plugin {}", self.name)?;
        writeln!(f, "  {:<52}{:>11}{:>11}{:>12}", "warm call", "p50", "p99", "first")?;
        for cost in &self.calls {
            let (p50, p99) = (Duration::from_nanos(cost.p50), Duration::from_nanos(cost.p99));
            let what: String = cost.what.chars().take(50).collect();
            writeln!(f, "  {what:<52}{p50:>11.2?}{p99:>11.2?}{:>12.2?}", cost.first)?;
        }
        let [p50, p99] = self.instance;
        writeln!(f, "  {:<52}{p50:>11.2?}{p99:>11.2?}", "a new instance")?;
        writeln!(f, "  memory of an instance: {}; instances: {}", check::bytes(self.memory), self.instances)
    }
}
