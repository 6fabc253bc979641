//! The end of a listener, as its clients see it.

use std::time::Duration;

use tokio::net::TcpStream;

use super::{
    Rig, Server,
    rig::Client,
    wire2::{Frames, header_block},
};

const GRACE: Duration = Duration::from_secs(10);

async fn rig(timeouts: &str, server: &Server) -> Rig {
    let (timeouts, uri) = (format!("[proxy.timeouts]\n{timeouts}\n"), server.uri());
    Rig::start(&format!("{timeouts}[service.chat]\nservers = [\"{uri}\"]\n")).await
}

/// Once nothing new is accepted.
async fn closed(address: std::net::SocketAddr) {
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_idle_connection_gets_one_more_answer() {
    let server = Server::named("a").await;
    let rig = rig("drain_idle = \"8s\"", &server).await;
    let address = rig.address();
    let (mut used, mut fresh) = (rig.client().await, Client::connect(address).await);
    assert_eq!(used.get("/chat/", "").await.status, 200);
    let draining = tokio::spawn(rig.proxy.drain(GRACE));
    closed(address).await;
    for client in [&mut used, &mut fresh] {
        let reply = client.get("/chat/", "").await;
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        assert_eq!(client.rest().await, "", "and nothing after it");
    }
    draining.await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_moment() {
    let server = Server::named("a").await;
    let rig = rig("drain_idle = \"200ms\"", &server).await;
    let (mut used, mut fresh) = (rig.client().await, rig.client().await);
    assert_eq!(used.get("/chat/", "").await.status, 200);
    let draining = tokio::spawn(rig.proxy.drain(GRACE));
    assert_eq!(used.rest().await + &fresh.rest().await, "");
    drop((used, fresh));
    tokio::time::timeout(GRACE / 2, draining).await.expect("no longer than it takes").unwrap();
}

#[tokio::test]
async fn what_comes_after_the_last_answer_does_not_take_it_away() {
    let server = Server::named("a").await;
    let rig = rig("drain_idle = \"8s\"", &server).await;
    let (address, mut client) = (rig.address(), rig.client().await);
    assert_eq!(client.get("/chat/", "").await.status, 200);
    let draining = tokio::spawn(rig.proxy.drain(GRACE));
    closed(address).await;
    // Two in one breath: the second is never answered, and resets nothing.
    let request = "GET /chat/ HTTP/1.1\r\nhost: t\r\n\r\n";
    client.say(&request.repeat(2)).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    client.say(request).await;
    assert_eq!(client.rest().await, "");
    drop(client);
    draining.await.unwrap();
}

#[tokio::test]
async fn an_http2_connection_is_told_twice() {
    let server = Server::named("a").await;
    let rig = rig("", &server).await;
    let mut frames = Frames::connect(rig.address()).await;
    frames.until(4).await.unwrap();
    frames.write(4, 1, 0, b"").await;
    frames.write(1, 5, 1, &header_block("/chat/")).await;
    assert_eq!(frames.until(1).await.expect("an answer").2, 1);
    let draining = tokio::spawn(rig.proxy.drain(GRACE));
    // First that it will end, whatever is on its way (RFC 9113, section 6.8), ...
    let (.., payload) = frames.until(7).await.expect("a notice");
    assert_eq!(payload[..4], 0x7fff_ffff_u32.to_be_bytes());
    frames.write(1, 5, 3, &header_block("/chat/")).await;
    assert_eq!(frames.until(1).await.expect("an answer to what was on its way").2, 3);
    // ... and after a round trip, with which stream.
    let (.., payload) = frames.until(7).await.expect("the end");
    assert_eq!(payload[..8], [0, 0, 0, 3, 0, 0, 0, 0]);
    assert!(frames.until(7).await.is_none(), "closed");
    drop(frames);
    tokio::time::timeout(GRACE / 2, draining).await.expect("no longer").unwrap();
}

#[tokio::test]
async fn who_waits_to_be_accepted_is_served() {
    let server = Server::named("a").await;
    for _ in 0..20 {
        let rig = rig("drain_idle = \"5s\"", &server).await;
        let address = rig.address();
        // All of these are connected, whether or not they were accepted by then.
        let mut waiting = Vec::new();
        for _ in 0..20 {
            waiting.push(Client::connect(address).await);
        }
        let draining = tokio::spawn(rig.proxy.drain(GRACE));
        for client in &mut waiting {
            assert_eq!(client.get("/chat/", "").await.status, 200);
        }
        drop(waiting);
        draining.await.unwrap();
    }
}
