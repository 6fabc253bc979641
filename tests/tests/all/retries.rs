//! Servers that fail.

use std::time::Instant;

use message_flow_tests::{Gateway, Upstream, eventually};
use serde_json::json;

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [a.uri(), b.uri()], "sticky": false })).await;
    b.stop().await;

    for at in 0..20 {
        for method in ["GET", "POST"] {
            let reply = gateway.call(method, "/chat/echo").client(&format!("c{at}")).send().await;
            assert_eq!(reply.status, 200, "{method} {at}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [a.uri(), b.uri()], "sticky": false })).await;

    let reply = gateway.call("POST", "/chat/close").body("x").send().await;

    assert_eq!(reply.status, 502, "{}", reply.text());
    assert_eq!(a.seen().len() + b.seen().len(), 1);
}

#[tokio::test]
async fn answers_of_the_server_are_not_retried() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [a.uri(), b.uri()], "sticky": false })).await;
    gateway.get("/chat/status/500").send().await.expect(500);
    assert_eq!(a.seen().len() + b.seen().len(), 1);
}

#[tokio::test]
async fn nobody_listening_is_a_prompt_problem() {
    let a = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": a.uri() })).await;
    a.stop().await;
    let begin = Instant::now();
    let reply = gateway.get("/chat/").send().await;
    assert!([502, 503].contains(&reply.status), "{reply:?}");
    let status = reply.status;
    reply.problem(status);
    assert!(begin.elapsed().as_secs() < 5);
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_504() {
    let a = Upstream::start("a").await;
    let gateway = Gateway::setup().config("[proxy.timeouts]\nresponse = \"200ms\"\n").start().await;
    gateway.put("chat", json!({ "server": a.uri() })).await;
    gateway.get("/chat/slow/3000").send().await.problem(504);
    gateway.get("/chat/").send().await.expect(200);
}

#[tokio::test]
async fn a_failing_server_is_ejected_and_comes_back() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let config = "[proxy.ejection]\nfailures = 3\ntime = \"300ms\"\n";
    let gateway = Gateway::setup().config(config).start().await;
    gateway.put("chat", json!({ "servers": [a.uri(), b.uri()], "sticky": false })).await;
    b.answer(503);
    let failed = async || {
        let mut failed = 0;
        for _ in 0..30 {
            failed += usize::from(gateway.get("/chat/").send().await.status != 200);
        }
        failed
    };
    failed().await;
    assert!(failed().await <= 8, "the failing server still gets its share");

    b.answer(0);
    message_flow_tests::eventually(|| async {
        let reply = gateway.get("/chat/").send().await;
        if reply.text() == "b" { Ok(()) } else { Err("b gets nothing") }
    })
    .await;
}

#[tokio::test]
async fn an_active_check_finds_a_dead_server() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::start().await;
    let health = json!({ "path": "/status/200", "interval": "50ms", "timeout": "500ms" });
    gateway.put("chat", json!({ "servers": [a.uri(), b.uri()], "health": health, "sticky": false })).await;
    let address = b.stop().await;
    message_flow_tests::eventually(|| async {
        let explained = gateway.ask("GET", "/v1/services/chat").send().await.expect(200).text();
        if explained.contains("unhealthy") { Ok(()) } else { Err(explained) }
    })
    .await;
    let _b = Upstream::start_at("b", address).await;
    message_flow_tests::eventually(|| async {
        let text = gateway.get("/chat/").send().await.text();
        if text == "b" { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test]
async fn servers_of_http2_are_checked_over_http2() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::start().await;
    let health = json!({ "path": "/status/204", "interval": "50ms", "timeout": "500ms" });
    let servers = [&a, &b].map(|upstream| format!("h2c://{}", upstream.address()));
    gateway.put("chat", json!({ "servers": servers, "health": health, "sticky": false })).await;
    let b_is = async |state: &str| {
        eventually(|| async {
            let shown = gateway.ask("GET", "/v1/services/chat").send().await.expect(200).json();
            let servers = shown["servers"].as_array().cloned().unwrap_or_default();
            let b = servers.iter().find(|server| server["id"] == b.id()).cloned().unwrap_or_default();
            if b["checks"] == state { Ok(()) } else { Err(shown) }
        })
        .await;
    };
    b_is("passing").await;
    b.answer(503);
    b_is("failing").await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/chat/").send().await.expect(200).text(), "a");
    }
    b.answer(0);
    b_is("passing").await;
    assert!(b.seen().iter().all(|seen| seen.http2), "{:?}", b.last());
}
