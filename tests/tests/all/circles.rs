//! Plugins that ask services through the gateway that they are part of.

use message_flow_tests::{Gateway, Upstream, guests};
use serde_json::json;

/// A plugin `name` that asks this gateway for `path`; there have to be few instances to run out of.
fn caller(gateway: &Gateway, name: &str, path: &str, on: &str) -> String {
    let proxy = gateway.proxy();
    format!(
        "[plugin.{name}]\ndeadline = \"5s\"\ninstances = 2\ngrant = [\"http:{proxy}\"]\n\
         config = {{ to = \"{proxy}\", path = \"{path}\", on = \"{on}\" }}\n"
    )
}

/// A gateway with these plugins, each as [`caller`] has it: the address of the proxy is only known once it runs.
async fn gateway(plugins: &[(&str, &str, &str)]) -> Gateway {
    let mut setup = Gateway::setup();
    for (name, ..) in plugins {
        setup = setup.plugin(name, guests::wasm("caller"));
    }
    let gateway = setup.start().await;
    let config: String = plugins.iter().map(|(name, path, on)| caller(&gateway, name, path, on)).collect();
    gateway.reconfigure(config);
    for (name, ..) in plugins {
        gateway.active(name).await;
    }
    gateway
}

#[tokio::test]
async fn a_filter_is_not_shown_its_own_request() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(&[("caller", "/chat/asked", "request")]).await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["caller"] })).await;
    for _ in 0..10 {
        gateway.get("/chat/").send().await.expect(200);
        assert_eq!(upstream.last().header("called"), "508");
    }
    // What the plugin asked for never got that far.
    assert!(upstream.seen().iter().all(|seen| seen.target == "/"), "{:?}", upstream.last());
}

#[tokio::test]
async fn nor_is_a_filter_of_responses() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(&[("caller", "/chat/asked", "response")]).await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["caller"] })).await;
    for _ in 0..10 {
        let reply = gateway.get("/chat/").send().await.expect(200);
        assert_eq!(reply.header("called"), "508");
    }
}

#[tokio::test]
async fn nor_is_one_that_asks_by_way_of_another() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(&[("one", "/two/", "request"), ("two", "/one/", "request")]).await;
    for name in ["one", "two"] {
        gateway.put(name, json!({ "server": upstream.uri(), "filters": [name] })).await;
    }
    for _ in 0..10 {
        gateway.get("/one/").send().await.expect(200);
    }
    // `one` asked `two`, which was answered; `two` asked `one`, which would have come back to it.
    let seen = upstream.seen();
    let called: Vec<_> = seen.iter().map(|seen| seen.header("called")).collect();
    assert_eq!(called, ["508", "200"].repeat(10));
}

#[tokio::test]
async fn a_registrar_that_asks_its_own_service_fails_at_once_and_alone() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    let proxy = gateway.proxy();
    gateway.reconfigure(format!(
        "[plugin.http]\nconfig = {{ uri = \"http://{proxy}/chat/resolve\", timeout = \"20s\" }}\n\
         grant = [\"http:{proxy}\"]\ndeadline = \"20s\"\n"
    ));
    gateway.active("http").await;
    let servers = json!([upstream.uri()]);
    gateway.put("chat", json!({ "servers": servers, "registrar": "http" })).await;
    gateway.put("plain", json!({ "servers": servers })).await;
    for client in ["alice", "bob", "carol"] {
        let begin = std::time::Instant::now();
        let problem = gateway.get("/chat/").client(client).send().await.problem(503);
        assert_eq!(problem["type"], "urn:message-flow:problem:plugin-failed", "{problem}");
        assert!(
            begin.elapsed() < std::time::Duration::from_secs(10),
            "it went in circles until its deadline"
        );
        gateway.get("/plain/").client(client).send().await.expect(200);
    }
    let plugin = gateway.plugin("http", |entry| !entry["last_error"].is_null()).await;
    assert!(plugin["last_error"].as_str().is_some_and(|error| error.contains("508")), "{plugin}");
}
