//! Bodies flow, over every version of HTTP.

use http_body_util::BodyExt;
use message_flow_tests::{Gateway, Upstream};
use serde_json::json;

async fn plain() -> (Gateway, Upstream) {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    (gateway, upstream)
}

#[tokio::test]
async fn bodies_pass_both_ways_unchanged() {
    let (gateway, _upstream) = plain().await;
    for size in [0, 1, 1000, 100_000, 5_000_000] {
        let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        for h2 in [false, true] {
            let call = gateway.call("POST", "/chat/echo").body(body.clone());
            let reply = if h2 { call.h2c() } else { call }.send().await.expect(200);
            assert!(reply.body == body, "{size} bytes, HTTP/2: {h2}");
        }
    }
}

#[tokio::test]
async fn pieces_pass_as_they_come() {
    let (gateway, _upstream) = plain().await;
    let begin = std::time::Instant::now();
    let mut response = gateway.get("/chat/drip/40").open().await.expect("an answer");
    response.body_mut().frame().await.expect("a first piece").expect("unbroken");
    assert!(begin.elapsed() < std::time::Duration::from_millis(1500), "the first piece waited for the last");
    let rest = response.into_body().collect().await.expect("unbroken").to_bytes();
    assert!(rest.ends_with(b"39\n"));
}

#[tokio::test]
async fn a_body_that_breaks_off_does_not_look_whole() {
    let (gateway, _upstream) = plain().await;
    // The head may be lost with the body.
    let reply = gateway.get("/chat/cut").try_send().await;
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status == 502));
    gateway.get("/chat/").send().await.expect(200);
}

#[tokio::test]
async fn grpc_reaches_an_http2_server_with_its_trailers() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [format!("h2c://{}", upstream.address())] })).await;
    let call = gateway
        .call("POST", "/chat/trailers")
        .h2c()
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let reply = call.body("xxxxx").send().await.expect(200);
    assert_eq!(
        reply
            .trailers
            .as_ref()
            .and_then(|trailers| trailers.get("grpc-status"))
            .map(|value| value.as_bytes()),
        Some(&b"0"[..]),
        "{reply:?}"
    );
    assert!(upstream.last().http2);
    assert_eq!(upstream.last().header("te"), "trailers");

    // What a client says of its content changes nothing about how its server is spoken to.
    gateway.put("plain", json!({ "servers": [upstream.uri()] })).await;
    for kind in ["application/grpc", "application/grpc-web", "text/plain"] {
        let call = gateway.call("POST", "/plain/").h2c().header("content-type", kind);
        call.body("xxxxx").send().await.expect(200);
        assert!(!upstream.last().http2, "an http:// server is spoken to in HTTP/1.1: {kind}");
    }
}

#[tokio::test]
async fn an_h2c_server_gets_http2() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": format!("h2c://{}", upstream.address()) })).await;
    assert_eq!(gateway.get("/chat/").send().await.expect(200).text(), "a");
    assert!(upstream.last().http2);
    for _ in 0..20 {
        gateway.call("POST", "/chat/echo").body("x").send().await.expect(200);
    }
    assert!(upstream.connections() <= 4, "{} connections", upstream.connections());
}

#[tokio::test]
async fn upstream_connections_are_reused() {
    let (gateway, upstream) = plain().await;
    for _ in 0..50 {
        gateway.get("/chat/").send().await.expect(200);
    }
    // Each worker keeps its own.
    assert!(upstream.connections() <= 8, "{} connections", upstream.connections());
}

#[tokio::test]
async fn head_and_empty_answers_have_no_body() {
    let (gateway, _upstream) = plain().await;
    let reply = gateway.call("HEAD", "/chat/big/1000").send().await.expect(200);
    assert!(reply.body.is_empty());
    assert_eq!(reply.header("content-length"), "1000");
    assert!(gateway.get("/chat/status/204").send().await.expect(204).body.is_empty());
    assert!(gateway.get("/chat/status/304").send().await.expect(304).body.is_empty());
    gateway.get("/chat/").send().await.expect(200);
}

#[tokio::test]
async fn many_at_once_are_all_answered() {
    let (gateway, _upstream) = plain().await;
    let calls: Vec<_> = (0..200)
        .map(|at| {
            let call =
                gateway.call("POST", "/chat/echo").client(&format!("c{at}")).body(format!("body {at}"));
            tokio::spawn(async move { (at, if at % 2 == 0 { call.h2c() } else { call }.send().await) })
        })
        .collect();
    for call in calls {
        let (at, reply) = call.await.expect("no panic");
        assert_eq!((reply.status, reply.text()), (200, format!("body {at}")));
    }
}
