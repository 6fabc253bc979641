//! WebSockets and other upgrades.

use std::time::Duration;

use message_flow_tests::{
    Gateway, Upstream,
    raw::{Raw, exchange, statuses},
    websocket::WebSocket,
};
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

#[tokio::test]
async fn an_upgrade_that_is_not_wanted_is_ignored() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    let upgrades = ["h2c", "HTTP/2.0", "TLS/1.2", "websocket, h2c", "websocket\r\nupgrade: h2c", "tcp"];
    for upgrade in upgrades {
        // As `curl --http2 -d abc` and Java's HttpClient have it.
        let head = format!(
            "POST /chat/echo HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings, close\r\n\
             http2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nupgrade: {upgrade}\r\ncontent-length: 3\r\n\r\nabc"
        );
        let heard = exchange(gateway.proxy(), head).await;
        assert_eq!(statuses(&heard), [200], "{upgrade}: {heard}");
        assert!(heard.ends_with("abc"), "{upgrade}: {heard}");
        let seen = upstream.last();
        for name in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(seen.header(name), "", "{upgrade}: {name} reached the server");
        }
    }
    // Without a body the same: what follows is the next request, and no tunnel's.
    let head = "GET /chat/ HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n\r\n\
                GET /chat/second HTTP/1.1\r\nhost: a\r\nhttp2-settings: AA\r\nconnection: close\r\n\r\n";
    let heard = exchange(gateway.proxy(), head).await;
    assert_eq!(statuses(&heard), [200, 200], "{heard}");
    assert_eq!((&*upstream.last().target, upstream.last().header("http2-settings")), ("/second", ""));
}

#[tokio::test]
async fn a_server_switches_to_what_it_was_asked_for() {
    let upstream =
        Raw::serving("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": format!("http://{upstream}") })).await;
    let head = "GET /chat/ HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let heard = exchange(gateway.proxy(), head).await;
    assert_eq!(statuses(&heard), [502], "{heard}");
}

#[tokio::test]
async fn what_a_server_requires_is_told() {
    let upstream =
        Raw::serving("HTTP/1.1 426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n\r\n")
            .await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": format!("http://{upstream}") })).await;
    let reply = gateway.get("/chat/").send().await.expect(426);
    assert_eq!((reply.header("upgrade"), reply.header("connection")), ("websocket", "upgrade"));
    assert_eq!(gateway.get("/chat/").h2c().send().await.expect(426).header("upgrade"), "");
}

#[tokio::test]
async fn a_websocket_for_a_server_that_speaks_http2_alone_is_refused() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": upstream.uri().replace("http:", "h2c:") })).await;
    let head = "GET /chat/ HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let heard = exchange(gateway.proxy(), head).await;
    assert_eq!(statuses(&heard), [501], "{heard}");
    assert!(heard.contains("HTTP/2"), "{heard}");
    assert_eq!(upstream.seen().len(), 0);
    gateway.get("/chat/").send().await.expect(200);
}
