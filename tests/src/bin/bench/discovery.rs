//! Part four: how soon connected services are told, with a table in memory and through three etcd, what
//! an idle connection costs, and how soon a thousand are back.
//!
//! The gateways have the first core, whoever listens the second; etcd may use both, and writes to disk.

use std::{
    io::Write,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::SinkExt;
use message_flow_tests::{Etcd, Gateway};
use serde_json::json;
use tokio::{net::TcpStream, process::Command, task::JoinSet};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::{
    ears::{Ears, frame},
    effort::Effort,
    histogram::Histogram,
    routing, usage,
};

/// Services that are connected while notifications are measured.
const CONNECTED: usize = 1000;
/// Of these so many need the service that comes and goes.
const CONCERNED: usize = 100;
/// Connections that do nothing, if so many files may be open.
const IDLE: usize = 10_000;
/// Connections opened at once.
const AT_ONCE: usize = 200;
/// From one registration to the next, so that none waits for what the one before left to do.
const BREATH: Duration = Duration::from_millis(20);
/// Clients that only listen now and then answer no pings.
const CONFIG: &str =
    "[api.limits]\nconnections = 4096\n[discovery]\nrate = 1000\nping = \"10m\"\ndeadline = \"20m\"\n";

type Socket = WebSocketStream<TcpStream>;

/// Measures and prints.
///
/// # Errors
/// A connection broke off.
pub(crate) async fn measure(binary: &Path, effort: Effort) -> anyhow::Result<()> {
    let most = raise_limit().await?;
    anyhow::ensure!(most > CONNECTED, "only {most} files may be open: raise the limit");
    let etcd = Etcd::cluster(3).await;
    routing::pin_self()?;
    let gateway = Gateway::setup().binary(binary).pinned(0).config(CONFIG).start().await;
    let sockets = notifications("", &[&gateway, &gateway], effort).await?;
    reconnects(&gateway, sockets).await?;
    drop(gateway);
    let endpoints: Vec<_> = etcd.iter().map(Etcd::endpoint).collect();
    let table = format!(
        "[table]\nadapter = \"etcd\"\n[plugin.etcd]\nconfig = {{ endpoints = \"{}\", prefix = \"/bench\" }}\n",
        endpoints.join(",")
    );
    let router = || Gateway::setup().binary(binary).pinned(0).config(CONFIG).config(&table).start();
    let (told, tells) = (router().await, router().await);
    drop(notifications(" at another router of three etcd", &[&told, &tells], effort).await?);
    drop((told, tells, etcd));
    idle(binary, most.min(usize::try_from(effort.many)?).min(IDLE)).await
}

/// Every connection has a descriptor in either process; the gateway inherits the limit. Returns how
/// many connections that allows.
async fn raise_limit() -> anyhow::Result<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    let hard: usize = line.split_whitespace().nth(4).and_then(|hard| hard.parse().ok()).unwrap_or(1 << 20);
    let (pid, limit) = (std::process::id().to_string(), format!("--nofile={hard}:{hard}"));
    let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status().await?;
    anyhow::ensure!(status.success(), "prlimit {limit} failed");
    Ok(hard.saturating_sub(500))
}

/// The services are connected to the first gateway, the one that comes and goes to the second.
async fn notifications(
    where_from: &str,
    [told, tells]: &[&Gateway; 2],
    effort: Effort,
) -> anyhow::Result<Vec<std::net::TcpStream>> {
    let needs = |at: usize| if at < CONCERNED { json!(["explosion-service"]) } else { json!(["nothing"]) };
    let define =
        |at: usize| json!({ "name": format!("service-{at}"), "port": 1 + at, "requires": needs(at) });
    let mut sockets = connect(told.api(), CONNECTED, |at| Some(define(at).to_string())).await?;
    wait_for_servers(told, CONNECTED).await;
    let streams = plain(sockets.drain(..CONCERNED))?;
    let mut ears = Ears::new(streams.iter().map(std::net::TcpStream::try_clone).collect::<Result<_, _>>()?)?;
    let mut latencies = Histogram::new();
    let (_, explosion) = open(tells.api(), 0, None).await?;
    let mut explosion = plain([explosion])?.remove(0);
    explosion.set_nonblocking(false)?;
    for round in 0..effort.replacements.max(20) * 3 {
        tokio::time::sleep(BREATH).await;
        let definition = json!({ "name": "explosion-service", "port": 10_000 + round });
        ears.hear(&mut explosion, &frame(&definition.to_string()), &mut latencies)?;
    }
    explosion.write_all(&frame(r#"{"type":"deregister"}"#))?;
    println!(
        "discovery: {CONCERNED} of {CONNECTED} connected services told of a registration{where_from} after p50 {:.1} ms, p99 {:.1} ms, longest {:.1?}",
        latencies.quantile(0.5) / 1000.0,
        latencies.quantile(0.99) / 1000.0,
        latencies.longest(),
    );
    let mut all = streams;
    all.extend(plain(sockets)?);
    Ok(all)
}

/// The sockets themselves; nothing has come on them yet.
fn plain(sockets: impl IntoIterator<Item = Socket>) -> anyhow::Result<Vec<std::net::TcpStream>> {
    Ok(sockets.into_iter().map(|socket| socket.into_inner().into_std()).collect::<Result<_, _>>()?)
}

/// All connections break off at once; how long until every service is there again.
async fn reconnects(gateway: &Gateway, sockets: Vec<std::net::TcpStream>) -> anyhow::Result<()> {
    drop(sockets);
    let begin = Instant::now();
    let define = |at: usize| json!({ "name": format!("service-{at}"), "port": 1 + at }).to_string();
    let sockets = connect(gateway.api(), CONNECTED, |at| Some(define(at))).await?;
    while gateway.metric("message_flow_view_suspects ").await > 0.5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("discovery: {CONNECTED} services reconnected and settled in {:.1?}", begin.elapsed());
    drop(sockets);
    Ok(())
}

async fn idle(binary: &Path, count: usize) -> anyhow::Result<()> {
    let gateway = Gateway::setup().binary(binary).pinned(0).config(CONFIG).start().await;
    let before = usage::resident(&[gateway.pid()]);
    let define = |at: usize| json!({ "name": format!("idle-{at}"), "requires": ["nothing"] }).to_string();
    let sockets = connect(gateway.api(), count, |at| Some(define(at))).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = usage::resident(&[gateway.pid()]).saturating_sub(before);
    println!(
        "discovery: {count} idle connections take {:.1} KiB each\n",
        used as f64 / 1024.0 / count as f64
    );
    drop(sockets);
    Ok(())
}

async fn connect(
    api: SocketAddr,
    count: usize,
    says: impl Fn(usize) -> Option<String>,
) -> anyhow::Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(count);
    let mut opening = JoinSet::new();
    for at in 0..count {
        if opening.len() >= AT_ONCE
            && let Some(opened) = opening.join_next().await
        {
            sockets.push(opened??);
        }
        opening.spawn(open(api, at, says(at)));
    }
    while let Some(opened) = opening.join_next().await {
        sockets.push(opened??);
    }
    sockets.sort_by_key(|(at, _)| *at);
    Ok(sockets.into_iter().map(|(_, socket)| socket).collect())
}

async fn open(api: SocketAddr, at: usize, says: Option<String>) -> anyhow::Result<(usize, Socket)> {
    let stream = TcpStream::connect(api).await?;
    let (mut socket, _) = client_async(format!("ws://{api}/v1/connect"), stream).await?;
    if let Some(text) = says {
        socket.send(Message::text(text)).await?;
    }
    Ok((at, socket))
}

async fn wait_for_servers(gateway: &Gateway, count: usize) {
    while gateway.metric("message_flow_view_servers ").await < count as f64 - 0.5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
