//! `GET /v1/explain` says what the rule would do, and changes nothing.

use message_flow_tests::{Gateway, Upstream, guests};
use serde_json::{Value, json};

async fn explain(gateway: &Gateway, query: &str) -> Value {
    gateway.ask("GET", format!("/v1/explain?{query}")).send().await.expect(200).json()
}

#[tokio::test]
async fn every_step_is_named() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup()
        .plugin("first", guests::wasm("chooser"))
        .config("[plugin.first.config]\nchoose = \"first\"\n");
    let gateway = gateway.start().await;
    gateway.active("first").await;
    gateway.put("fixed", json!({ "server": upstream.uri() })).await;
    gateway.put("listed", json!({ "servers": [upstream.uri()] })).await;
    gateway.put("asked", json!({ "servers": [upstream.uri()], "registrar": "first" })).await;

    for (service, step) in [("fixed", "server"), ("listed", "list"), ("asked", "registrar")] {
        let explained = explain(&gateway, &format!("service={service}&client=alice")).await;
        assert_eq!(explained["service"], service, "{explained}");
        assert_eq!(explained["client"], "alice", "{explained}");
        assert_eq!(explained["step"], step, "{explained}");
        assert!(
            explained["server"].as_str().is_some_and(|server| server.contains(&upstream.id())),
            "{explained}"
        );
        let trace = explained["trace"].as_array().expect("a trace");
        assert!(
            trace.iter().all(|line| line["step"].is_string() && line["outcome"].is_string()),
            "{explained}"
        );
        assert_eq!(trace.last().map(|line| &line["step"]), Some(&json!(step)), "{explained}");
    }
    gateway.get("/listed/").client("alice").send().await.expect(200);
    let explained = explain(&gateway, "service=listed&client=alice").await;
    assert_eq!(explained["step"], "assignment", "{explained}");
}

#[tokio::test]
async fn it_changes_nothing() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [a.uri(), b.uri()] })).await;

    for _ in 0..10 {
        let explained = explain(&gateway, "service=chat&client=alice").await;
        assert_eq!(explained["step"], "list", "{explained}");
    }

    let client = gateway.ask("GET", "/v1/clients/alice").send().await;
    assert!(client.status == 404 || client.json()["assignments"] == json!({}), "{}", client.text());
    assert!(a.seen().is_empty() && b.seen().is_empty());
}

#[tokio::test]
async fn unknown_things_are_said() {
    let gateway = Gateway::start().await;
    gateway.ask("GET", "/v1/explain?service=nobody&client=alice").send().await.problem(404);
    gateway.put("empty", json!({ "servers": [] })).await;
    let reply = gateway.ask("GET", "/v1/explain?service=empty&client=alice").send().await;
    let explained = reply.expect(200).json();
    assert_eq!((&explained["server"], &explained["status"]), (&Value::Null, &json!(503)), "{explained}");
    assert!(explained["reason"].as_str().is_some_and(|reason| reason.contains("list")), "{explained}");
}

#[tokio::test]
async fn the_registrar_sees_the_message_that_is_asked_about() {
    let gateway = Gateway::setup().plugin("echo", guests::wasm("chooser")).start().await;
    gateway.active("echo").await;
    gateway.put("chat", json!({ "registrar": "echo" })).await;

    let real = gateway.call("POST", "/chat/rooms?kind=open").header("choose", "echo").send().await;
    let query = "service=chat&client=a&method=POST&path=/rooms%3Fkind=open&header=choose:echo";
    let explained = explain(&gateway, query).await;
    assert_eq!(explained["status"], real.status, "{explained}");
    let reason = explained["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("POST /rooms"), "{explained}");
    assert!(real.text().contains(reason), "{explained} {}", real.text());
}
