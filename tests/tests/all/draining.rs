//! SIGTERM: what runs is finished, nothing new is begun.

use std::time::Duration;

use message_flow_tests::{Gateway, Upstream, raw::Raw, websocket::WebSocket};
use serde_json::json;
use tokio::net::TcpStream;

#[tokio::test]
async fn running_messages_are_finished() {
    let upstream = Upstream::start("a").await;
    let mut gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": upstream.uri() })).await;
    let running = tokio::spawn(gateway.get("/chat/slow/700").send());
    let streaming = tokio::spawn(gateway.get("/chat/drip/10").send());
    while upstream.seen().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    gateway.signal("TERM").await;

    assert_eq!(running.await.expect("no panic").expect(200).text(), "a");
    assert!(streaming.await.expect("no panic").expect(200).text().ends_with("9\n"));
    let status = gateway.ended(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    assert!(TcpStream::connect(gateway.proxy()).await.is_err());
}

#[tokio::test]
async fn idle_connections_do_not_hold_it_up() {
    let upstream = Upstream::start("a").await;
    let mut gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": upstream.uri() })).await;
    let mut idle = Raw::connect(gateway.proxy()).await;
    idle.say("GET /chat/ HTTP/1.1\r\nhost: a\r\n\r\n").await;
    idle.hear("\r\n\r\na").await;
    let _watching = gateway.ask("GET", "/v1/watch").open().await.expect("a stream");

    gateway.signal("TERM").await;

    idle.until_closed(Duration::from_secs(5)).await;
    assert_eq!(gateway.ended(Duration::from_secs(5)).await.code(), Some(0));
}

#[tokio::test]
async fn websockets_are_told_and_the_deadline_holds() {
    let upstream = Upstream::start("a").await;
    let mut gateway = Gateway::setup().config("[proxy.timeouts]\ndrain = \"1s\"\n").start().await;
    gateway.put("chat", json!({ "server": upstream.uri() })).await;
    let mut socket = WebSocket::open(gateway.proxy(), "/chat/websocket").await.expect("a handshake");
    socket.say("hello").await;
    assert_eq!(socket.hear().await.as_deref(), Ok("hello"));

    gateway.signal("TERM").await;

    let code = socket.hear().await.expect_err("no text");
    assert_eq!(code, 1001, "going away (RFC 6455, 7.4.1)");
    assert_eq!(gateway.ended(Duration::from_secs(8)).await.code(), Some(0));
}
