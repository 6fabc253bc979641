//! WebSockets and other upgrades.

use std::time::Duration;

use message_flow_tests::{Gateway, Upstream, raw::Raw, websocket::WebSocket};
use serde_json::json;

#[tokio::test]
async fn a_websocket_passes() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;

    let mut socket = WebSocket::open(gateway.proxy(), "/chat/websocket").await.expect("a handshake");
    for text in ["one", "two", &"x".repeat(100_000)] {
        socket.say(text).await;
        assert_eq!(socket.hear().await.as_deref(), Ok(text));
    }
    assert_eq!(upstream.last().header("upgrade"), "websocket");

    // Removing its server does not break it.
    gateway.put("chat", json!({ "servers": [] })).await;
    socket.say("still here").await;
    assert_eq!(socket.hear().await.as_deref(), Ok("still here"));
}

#[tokio::test]
async fn what_the_server_does_not_switch_is_not_tunnelled() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;

    let mut raw = Raw::connect(gateway.proxy()).await;
    raw.say("GET /chat/ HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    raw.say("GET /chat/second HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let heard = raw.until_closed(Duration::from_secs(10)).await;

    assert!(!heard.contains(" 101 "), "{heard}");
    assert!(
        upstream.seen().iter().all(|seen| seen.target == "/" || seen.target == "/second"),
        "{:?}",
        upstream.seen()
    );
}

#[tokio::test]
async fn a_refused_handshake_is_told() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    assert!(WebSocket::open(gateway.proxy(), "/chat/status/403").await.is_err());
    gateway.get("/chat/").send().await.expect(200);
}
