//! Clients whose bodies are slow to come.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Client, Rig, Server};

fn config(limits: &str, server: &Server) -> String {
    format!(
        "[proxy.limits]\n{limits}\n[proxy.timeouts]\nwait = \"300ms\"\nbody = \"20s\"\n[service.chat]\nservers = [\"{}\"]\n",
        server.uri()
    )
}

async fn begin(rig: &Rig, length: usize) -> Client {
    let mut client = rig.client().await;
    client.say(&format!("POST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\na")).await;
    client
}

#[tokio::test]
async fn slow_small_bodies_hold_no_connection_to_the_server() {
    let server = Server::named("a").await;
    let rig = Rig::start(&config("upstream_connections = 2", &server)).await;
    let mut slow = Vec::new();
    for _ in 0..6 {
        slow.push(begin(&rig, 100).await);
    }
    let reply = rig.client().await.get("/chat/", "").await;
    assert_eq!((reply.status, server.connections.load(Ordering::SeqCst)), (200, 1));
    let rest = "b".repeat(99);
    for client in &mut slow {
        client.say(&rest).await;
        assert_eq!(client.reply().await.status, 200);
    }
    let heard = server.heard();
    assert_eq!(heard.len(), 7);
    assert!(heard[1..].iter().all(|request| request.ends_with(&format!("\r\n\r\na{rest}"))), "{heard:?}");
}

#[tokio::test]
async fn a_small_body_that_stands_still_is_its_clients_fault() {
    let server = Server::named("a").await;
    let times = "[proxy.timeouts]\nbody = \"200ms\"\n";
    let rig = Rig::start(&format!("{times}[service.chat]\nservers = [\"{}\"]\n", server.uri())).await;
    let mut client = begin(&rig, 10).await;
    assert_eq!(client.reply().await.status, 408);
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn uploads_of_one_peer_leave_connections_to_others() {
    let server = Server::named("a").await;
    let rig = Rig::start(&config("upstream_connections = 4", &server)).await;
    let _slow = [begin(&rig, 1_000_000).await, begin(&rig, 1_000_000).await];
    let begun = Instant::now();
    while server.connections.load(Ordering::SeqCst) < 2 {
        assert!(begun.elapsed() < Duration::from_secs(10), "large bodies are passed on as they come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut third = begin(&rig, 1_000_000).await;
    let reply = third.reply().await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{}", reply.body);
    assert_eq!(rig.client().await.get("/chat/", "").await.status, 200);
    let mut small = begin(&rig, 1).await;
    assert_eq!(small.reply().await.status, 200);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_passed_on_piece_by_piece() {
    let server = Server::following(|mut stream, requests| {
        Box::pin(async move {
            let mut read = Vec::new();
            while stream.read_buf(&mut read).await.is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&read).into_owned();
                if text.ends_with("1\r\na\r\n") || text.ends_with("1\r\nb\r\n") {
                    requests.lock().push(text);
                } else if text.ends_with("0\r\n\r\n") {
                    let _ = stream.write_all(b"HTTP/1.1 204 X\r\n\r\n").await;
                }
            }
        })
    })
    .await;
    let rig = Rig::start(&config("", &server)).await;
    let mut client = rig.client().await;
    client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for (pieces, piece) in ["a", "b"].into_iter().enumerate() {
        client.say(&format!("1\r\n{piece}\r\n")).await;
        let begun = Instant::now();
        while server.heard().len() <= pieces {
            assert!(begun.elapsed() < Duration::from_secs(10), "`{piece}` has not come");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    client.say("0\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 204);
}
