//! The harness itself: what a test blames the gateway for must not be the upstream's doing.

use message_flow_tests::{Call, Upstream, websocket::WebSocket};

#[tokio::test]
async fn the_upstream_misbehaves_as_told() {
    let upstream = Upstream::start("a").await;
    let get = |path: &str| Call::new(upstream.address(), "GET", path);
    assert!(get("/cut").try_send().await.is_err());
    assert!(get("/close").try_send().await.is_err());
    assert_eq!(get("/drip/2").send().await.text(), "0\n1\n");
    assert!(get("/trailers").h2c().send().await.trailers.is_some());
    get("/status/503").send().await.expect(503);
    let mut socket = WebSocket::open(upstream.address(), "/websocket").await.expect("a handshake");
    socket.say("hello").await;
    assert_eq!(socket.hear().await.as_deref(), Ok("hello"));
}
