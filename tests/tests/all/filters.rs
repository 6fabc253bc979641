//! What filters see and change.

use message_flow_tests::{Gateway, Upstream, guests};
use serde_json::json;

#[tokio::test]
async fn they_run_in_order_those_of_the_proxy_first() {
    let upstream = Upstream::start("a").await;
    let setup = Gateway::setup().config("[proxy]\nfilters = [\"counter\"]\n");
    let setup = setup.plugin("counter", guests::wasm("counter")).plugin("gate", guests::wasm("gate"));
    let gateway = setup.plugin("stamp", guests::wasm("stamp")).start().await;
    for name in ["counter", "gate", "stamp"] {
        gateway.active(name).await;
    }
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["gate", "stamp"] })).await;

    gateway.get("/chat/").header("ink", "blue").send().await.expect(200);
    assert_eq!((upstream.last().header("count"), upstream.last().header("stamp")), ("1", "blue"));

    let problem = gateway.get("/chat/").header("reject", "418").send().await.problem(418);
    assert_eq!(problem["detail"], "the gate is shut");
    assert_eq!(upstream.seen().len(), 1, "the server did not see it");
    gateway.get("/chat/").send().await.expect(200);
    assert_eq!(upstream.last().header("count"), "3", "the filter before the gate saw it");
}

#[tokio::test]
async fn they_see_the_message_as_it_is() {
    let upstream = Upstream::start("a").await;
    let config = "[plugin.echo.config]\nb = \"2\"\na = \"1\"\n";
    let gateway = Gateway::setup().config(config).plugin("echo", guests::wasm("echo_config")).start().await;
    gateway.active("echo").await;
    gateway.put("chat@2", json!({ "servers": [upstream.uri()], "filters": ["echo"] })).await;

    let call = gateway.call("POST", "/chat@2/p%20q/r?s=t&u").client("alice").header("host", "example.test");
    let reply = call.header("many", "one").header("many", "two").send().await.expect(200);

    let detail = reply.json()["detail"].as_str().unwrap_or_default().to_owned();
    let lines: Vec<_> = detail.lines().collect();
    for line in [
        "config a=1",
        "config b=2",
        "method=POST",
        "path=/p%20q/r",
        "query=Some(\"s=t&u\")",
        "authority=example.test",
        "client=alice",
        "service=chat Some(\"2\")",
        &format!("server=Some({:?})", upstream.id()),
        "many=[\"one\", \"two\"]",
    ] {
        assert!(lines.contains(&line), "{line} is not in {lines:#?}");
    }
    assert!(lines.iter().any(|line| line.starts_with("peer=127.0.0.1:")), "{lines:#?}");
}

#[tokio::test]
async fn bodies_are_read_and_replaced_by_those_that_ask() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup().plugin("reader", guests::wasm("reader")).start().await;
    gateway.active("reader").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["reader"] })).await;

    let reply = gateway.call("POST", "/chat/echo").body("twelve bytes").send().await.expect(200);
    assert_eq!(reply.text(), "twelve bytes");
    assert_eq!(upstream.last().header("length"), "12");
    assert_eq!(reply.header("response-length"), "12");

    let call = gateway.call("POST", "/chat/echo").header("replace", "other").header("shout", "1");
    let reply = call.body("twelve bytes").send().await.expect(200);
    assert_eq!(reply.text(), "OTHER");
    assert_eq!(upstream.last().header("content-length"), "5");

    let large = "x".repeat(3 << 20);
    gateway.call("POST", "/chat/echo").body(large).send().await.expect(413);
    gateway.call("POST", "/chat/echo").body("small").send().await.expect(200);
}
