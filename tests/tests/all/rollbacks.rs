//! A new build that crashes costs no messages, or as few as can be.

use std::{cell::Cell, time::Duration};

use message_flow_tests::{Gateway, Reply, Upstream, guests};
use serde_json::json;

/// A registrar that traps.
const BROKEN: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "message-flow:plugin/registrar@0.1.0#resolve") (result i32) unreachable))"#;

/// One that loops.
const ENDLESS: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "message-flow:plugin/registrar@0.1.0#resolve") (result i32) (loop br 0) unreachable))"#;

/// Fifty messages a second, of one client, from before a build is replaced until it was rolled back and a
/// hundred messages on; how many of them were not answered with 200.
async fn lost(gateway: &Gateway, path: &str, plugin: &str, build: Vec<u8>) -> usize {
    let (sent, lost, left) = (Cell::new(0), Cell::new(0), Cell::new(100));
    let mut every = tokio::time::interval(Duration::from_millis(20));
    let mut send = async || {
        every.tick().await;
        let reply: Reply = gateway.get(path).client("ann").send().await;
        sent.set(sent.get() + 1);
        if reply.status != 200 {
            lost.set(lost.get() + 1);
        }
    };
    for _ in 0..10 {
        send().await;
    }
    gateway.drop_plugin(&format!("{plugin}.wasm"), build);
    while left.get() > 0 {
        send().await;
        if gateway.log().contains("plugin rolled back") {
            left.set(left.get() - 1);
        }
        assert!(
            sent.get() < 1000,
            "it is not rolled back: {lost:?} of {sent:?} were lost\n{}",
            gateway.log()
        );
    }
    println!("{} of {} messages were lost", lost.get(), sent.get());
    lost.get()
}

async fn registrar() -> (Gateway, Upstream) {
    let upstream = Upstream::start("a").await;
    let config = "[plugin.geo.config]\nchoose = \"first\"\n";
    let gateway = Gateway::setup().config(config).plugin("geo", guests::wasm("chooser")).start().await;
    gateway.active("geo").await;
    let record = json!({ "servers": [upstream.uri()], "registrar": "geo", "sticky": false });
    gateway.put("chat", record).await;
    gateway.get("/chat/").send().await.expect(200);
    (gateway, upstream)
}

#[tokio::test]
async fn a_registrar_that_traps_costs_no_message() {
    let (gateway, _upstream) = registrar().await;
    assert_eq!(lost(&gateway, "/chat/", "geo", wat::parse_str(BROKEN).unwrap()).await, 0);
    let failed = gateway.plugin("geo", |entry| entry["state"] == "failed").await;
    let error = failed["error"].as_str().unwrap_or_default();
    assert!(error.contains("2 of its first 2 calls") && error.contains("answered 2 of these"), "{error}");
}

#[tokio::test]
async fn a_registrar_that_loops_costs_no_message() {
    let (gateway, _upstream) = registrar().await;
    assert_eq!(lost(&gateway, "/chat/", "geo", wat::parse_str(ENDLESS).unwrap()).await, 0);
}

#[tokio::test]
async fn a_filter_that_traps_after_it_counted_costs_three() {
    let upstream = Upstream::start("a").await;
    let config = "[plugin.counter]\nrollback = true\n";
    let gateway = Gateway::setup().config(config).plugin("counter", guests::wasm("counter")).start().await;
    gateway.active("counter").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["counter"] })).await;
    assert_eq!(lost(&gateway, "/chat/", "counter", guests::bytes("spoiler")).await, 3);
    let count: usize = upstream.last().header("count").parse().unwrap();
    assert_eq!(count, upstream.seen().len() + 3, "each message counted once");
}

#[tokio::test]
async fn the_build_before_gets_the_message_and_its_body_as_they_were() {
    let upstream = Upstream::start("a").await;
    let config = "[plugin.reader]\nrollback = true\n";
    let gateway = Gateway::setup().config(config).plugin("reader", guests::wasm("reader")).start().await;
    let first = gateway.active("reader").await["generation"].clone();
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["reader"] })).await;
    gateway.reconfigure(format!("{config}config = {{ fails = \"yes\" }}\n"));
    gateway.plugin("reader", |entry| entry["state"] == "active" && entry["generation"] != first).await;
    for replace in ["", "instead"] {
        let call = gateway.call("POST", "/chat/echo").body("0123456789");
        let call = if replace.is_empty() { call } else { call.header("replace", replace) };
        let reply = call.send().await.expect(200);
        let sent = if replace.is_empty() { "0123456789" } else { replace };
        assert_eq!((reply.text().as_str(), upstream.last().header("replace")), (sent, replace));
        assert_eq!(upstream.last().header("length"), "10");
    }
    gateway.logged("plugin rolled back").await;
    gateway.plugin("reader", |entry| entry["state"] == "active" && entry["generation"] == first).await;
}

#[tokio::test]
async fn a_next_build_that_traps_costs_its_clients_no_message() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup()
        .config("[plugin.gate]\nshadow = \"{dir}/plugins/gate-next.wasm\"\ncanary = 100\n")
        .plugin("gate", guests::wasm("gate"))
        .plugin("gate-next", guests::wasm("trapper"))
        .start()
        .await;
    gateway.plugin("gate@next", |entry| entry["state"] == "trial").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["gate"] })).await;
    for _ in 0..3 {
        gateway.get("/chat/").header("reject", "418").send().await.expect(418);
        gateway.get("/chat/").send().await.expect(200);
    }
    let failed = gateway.plugin("gate@next", |entry| entry["state"] == "failed").await;
    assert!(failed["error"].as_str().unwrap_or_default().contains("trapped"), "{failed}");
}
