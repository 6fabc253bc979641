//! A plugin that takes too much of the workers' time is called on threads of its own, and who does not
//! use it notices nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use message_flow_tests::{Gateway, Upstream, guests};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// How long messages are sent for one measurement.
const TIME: Duration = Duration::from_secs(4);

/// A gateway with two services: `plain`, and `filtered` that passes the guest `faulty`.
async fn gateway(config: &str) -> (Arc<Gateway>, Upstream) {
    let upstream = Upstream::start("a").await;
    let setup = Gateway::setup().config(config).plugin("faulty", guests::wasm("faulty"));
    let gateway = setup.start().await;
    gateway.active("faulty").await;
    gateway.put("plain", json!({ "server": upstream.uri() })).await;
    gateway.put("filtered", json!({ "server": upstream.uri(), "filters": ["faulty"] })).await;
    (Arc::new(gateway), upstream)
}

/// What the slowest tenth of the messages of `plain` takes at least.
async fn p90(gateway: &Gateway) -> Duration {
    let (end, mut took) = (Instant::now() + TIME, vec![]);
    while Instant::now() < end {
        let began = Instant::now();
        gateway.get("/plain/").send().await.expect(200);
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    took.sort();
    took[took.len() * 9 / 10]
}

/// Sends so many messages a second with this fault, whatever becomes of them, until it is dropped.
fn load(gateway: &Arc<Gateway>, fault: &'static str, rate: u32) -> JoinSet<()> {
    let (mut load, gateway) = (JoinSet::new(), Arc::clone(gateway));
    load.spawn(async move {
        let mut calls = JoinSet::new();
        let mut every = tokio::time::interval(Duration::from_secs(1) / rate);
        loop {
            every.tick().await;
            let call = gateway.get("/filtered/").header("fault", fault);
            calls.spawn(call.try_send());
            while calls.try_join_next().is_some() {}
        }
    });
    load
}

async fn is_confined(gateway: &Gateway) -> Value {
    let entry = gateway.plugin("faulty", |entry| entry["confined"].is_object()).await;
    assert!(entry["confined"]["reason"].as_str().unwrap().contains("more than their share"), "{entry}");
    assert!(entry["confined"]["since"].as_str().unwrap().ends_with('Z'), "{entry}");
    let line = gateway.logged("plugin confined").await;
    assert!(line.contains("plugin=\"faulty\""), "{line}");
    assert_eq!(gateway.log().matches("plugin confined").count(), 1, "it is said once");
    assert!(gateway.metric("message_flow_plugin_confined{").await > 0.0);
    entry
}

async fn others_do_not_wait(fault: &'static str, config: &str) {
    let (gateway, _upstream) = gateway(config).await;
    let alone = p90(&gateway).await;
    let load = load(&gateway, fault, 100);
    let beside = p90(&gateway).await;
    println!("p90 of a service without plugins: {alone:?} alone, {beside:?} beside `{fault}`");
    is_confined(&gateway).await;
    drop(load);
    // The deadline is 50 ms, and before it two messages of three waited for one call after another.
    assert!(beside < 5 * alone + Duration::from_millis(10), "{alone:?} alone, {beside:?} beside {fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_uses_no_plugin_does_not_wait_for_one_that_loops() {
    others_do_not_wait("loop", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_uses_no_plugin_does_not_wait_for_one_that_eats_memory() {
    others_do_not_wait("allocate", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confined_plugin_serves_and_is_let_out() {
    let config = "[plugin.faulty]\non_error = \"open\"\ndeadline = \"1s\"\n";
    let (gateway, upstream) = gateway(config).await;
    for _ in 0..2 {
        gateway.get("/filtered/").header("fault", "loop").send().await.expect(200);
        assert_eq!(upstream.last().header("faulty"), "", "what it did before it looped is undone");
    }
    is_confined(&gateway).await;
    // Whoever behaves is served there as anywhere.
    for _ in 0..20 {
        gateway.get("/filtered/").send().await.expect(200);
        assert_eq!(upstream.last().header("faulty"), "fine");
    }
    message_flow_tests::eventually(|| async {
        gateway.get("/filtered/").send().await.expect(200);
        let log = gateway.log();
        if log.contains("called in place again") { Ok(()) } else { Err("it is still confined") }
    })
    .await;
    gateway.plugin("faulty", |entry| entry["confined"].is_null()).await;
    assert!(gateway.metric("message_flow_plugin_confined{").await < 1.0);
    gateway.get("/filtered/").send().await.expect(200);
    assert_eq!(upstream.last().header("faulty"), "fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confined_filter_reads_bodies() {
    let upstream = Upstream::start("a").await;
    let config = "[plugin.reader]\ndeadline = \"1s\"\n";
    let gateway = Gateway::setup().config(config).plugin("reader", guests::wasm("reader")).start().await;
    gateway.active("reader").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["reader"] })).await;
    for _ in 0..2 {
        gateway.get("/chat/").header("fault", "loop").send().await.expect(503);
    }
    gateway.plugin("reader", |entry| entry["confined"].is_object()).await;
    let body = "x".repeat(200_000);
    let call = gateway.call("POST", "/chat/echo").header("shout", "yes").body(body.clone());
    let reply = call.send().await.expect(200);
    assert_eq!(upstream.last().header("length"), "200000");
    assert_eq!((reply.header("response-length"), reply.text()), ("200000", body.to_uppercase()));
    let call = gateway.call("POST", "/chat/echo").header("replace", "another").body(body);
    assert_eq!(call.send().await.expect(200).text(), "another");
}
