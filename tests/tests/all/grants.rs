//! What a plugin imports must be granted.

use message_flow_tests::{Gateway, Upstream, guests};
use serde_json::json;

#[tokio::test]
async fn what_is_not_granted_is_refused_with_the_line_that_would() {
    let gateway = Gateway::setup().plugin("needy", guests::wasm("needy")).start().await;
    let entry = gateway.plugin("needy", |entry| entry["error"].is_string()).await;
    assert_eq!(entry["state"], "refused", "{entry}");
    let error = entry["error"].as_str().unwrap_or_default();
    for part in ["message-flow:plugin/etcd", "[plugin.needy]", "grant = [\"etcd\"]"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

#[tokio::test]
async fn a_new_build_that_asks_for_more_is_refused_and_the_old_one_stays() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.drop_plugin("stamp.wasm", guests::marked("stamp", "1"));
    gateway.active("stamp").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["stamp"] })).await;

    gateway.drop_plugin("stamp.wasm", guests::bytes("needy"));

    let entry = gateway.plugin("stamp", |entry| entry["error"].is_string()).await;
    assert!(entry["error"].as_str().unwrap_or_default().contains("etcd"), "{entry}");
    for _ in 0..5 {
        assert_eq!(gateway.get("/chat/").send().await.expect(200).header("stamped"), "1");
    }
}

#[tokio::test]
async fn a_grant_admits_it() {
    let config = "[plugin.needy]\ngrant = [\"etcd\"]\nconfig = { endpoints = \"http://127.0.0.1:1\" }\non_error = \"closed\"\ndeadline = \"500ms\"\n";
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup().config(config).plugin("needy", guests::wasm("needy")).start().await;
    gateway.active("needy").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["needy"] })).await;
    gateway.get("/chat/").send().await.expect(200);
    assert_eq!(upstream.last().header("stamp"), "unreached");
}
