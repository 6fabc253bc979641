//! When connections of HTTP/1.1 clients go on, when they end, and what becomes of who is on them.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use super::{Rig, Server, rig::hear};

async fn rig(server: &Server, limits: &str) -> Rig {
    Rig::start(&format!("[proxy.limits]\n{limits}\n[service.chat]\nservers = [\"{}\"]\n", server.uri())).await
}

/// A body of unknown length, with trailers.
const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntrailer: x-sum, host\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\nhost: no\r\n\r\n";

#[tokio::test]
async fn old_clients_are_told_by_the_end() {
    let server = Server::answering(CHUNKS).await;
    let rig = rig(&server, "").await;
    let mut client = rig.client().await;
    client.say("GET /chat/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let all = client.rest().await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with("connection: close") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(body, "abc");
}

#[tokio::test]
async fn old_clients_keep_a_connection_if_they_ask() {
    let server = Server::named("a").await;
    let rig = rig(&server, "").await;
    let mut client = rig.client().await;
    for _ in 0..2 {
        client.say("GET /chat/ HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").await;
        assert_eq!(client.reply().await.header("connection"), Some("keep-alive"));
    }
    client.say("GET /chat/ HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.reply().await.header("connection"), Some("close"));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn trailers_are_for_who_takes_them() {
    let server = Server::answering(CHUNKS).await;
    let rig = rig(&server, "").await;
    for (te, ends) in [("TE: trailers\r\n", "\r\n0\r\nx-sum: 1\r\n\r\n"), ("", "\r\n0\r\n\r\n")] {
        let mut client = rig.client().await;
        client.say(&format!("GET /chat/ HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{te}\r\n")).await;
        let all = client.rest().await;
        assert!(all.ends_with(ends), "{te}: {all}");
    }
}

#[tokio::test]
async fn a_response_is_dated_once() {
    for date in ["", "date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"] {
        let server = Server::answering(&format!("HTTP/1.1 200 OK\r\n{date}content-length: 1\r\n\r\na")).await;
        let rig = rig(&server, "").await;
        let reply = rig.client().await.get("/chat/", "").await;
        assert_eq!(reply.head.to_ascii_lowercase().matches("\r\ndate: ").count(), 1, "{}", reply.head);
        assert!(date.is_empty() || reply.head.contains("1994"), "{}", reply.head);
    }
}

#[tokio::test]
async fn an_answer_reaches_a_client_that_is_still_sending() {
    let server = Server::named("a").await;
    let rig = rig(&server, "body = \"10B\"").await;
    let client = rig.client().await;
    let (mut from, mut to) = client.stream.into_split();
    let sending = tokio::spawn(async move {
        let head = "POST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: 500000\r\n\r\n";
        to.write_all(head.as_bytes()).await?;
        for _ in 0..100 {
            to.write_all(&[b'x'; 5000]).await?;
        }
        std::io::Result::Ok(())
    });
    let mut all = String::new();
    timeout(Duration::from_secs(10), from.read_to_string(&mut all)).await.unwrap().unwrap();
    assert!(all.starts_with("HTTP/1.1 413 "), "{all}");
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn as_many_headers_as_configured() {
    let server = Server::named("a").await;
    let rig = rig(&server, "headers = 300").await;
    for (lines, status) in [(290, 200), (310, 431)] {
        let headers: String = (0..lines).map(|at| format!("X{at}: 1\r\n")).collect();
        assert_eq!(rig.client().await.get("/chat/", &headers).await.status, status);
    }
}

#[tokio::test]
async fn a_head_may_drip_in() {
    let server = Server::named("a").await;
    let rig = rig(&server, "").await;
    let mut client = rig.client().await;
    client.stream.set_nodelay(true).unwrap();
    for byte in "\r\nPOST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc".split_inclusive("") {
        client.say(byte).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.reply().await.status, 200);
    assert!(server.heard()[0].ends_with("\r\n\r\nabc"));
}

#[tokio::test]
async fn who_hangs_up_is_not_served_any_further() {
    let (tell, mut told) = mpsc::channel(1);
    let server = Server::following(move |mut stream, _| {
        let tell = tell.clone();
        Box::pin(async move {
            hear(&mut stream).await;
            tell.send("asked").await.unwrap();
            // Ends when the proxy lets go of the request.
            let _ = stream.read(&mut [0]).await;
            tell.send("left").await.unwrap();
        })
    })
    .await;
    let rig = rig(&server, "").await;
    let mut client = rig.client().await;
    client.say("GET /chat/ HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(told.recv().await, Some("asked"));
    drop(client);
    assert_eq!(timeout(Duration::from_secs(10), told.recv()).await.unwrap(), Some("left"));
    let let_go = async {
        while rig.metric("message_flow_requests_in_flight", "chat") > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), let_go).await.expect("the message has ended");
}

#[tokio::test]
async fn what_comes_early_waits_its_turn() {
    let server = Server::following(|mut stream, requests| {
        Box::pin(async move {
            while let Some(request) = hear(&mut stream).await {
                requests.lock().push(request);
                tokio::time::sleep(Duration::from_millis(50)).await;
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
    })
    .await;
    let rig = rig(&server, "").await;
    let mut client = rig.client().await;
    let post = "POST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: 20000\r\n\r\n";
    client.say("GET /chat/1 HTTP/1.1\r\nHost: t\r\n\r\n").await;
    client.say(&format!("{post}{}GET /chat/3 HTTP/1.1\r\nHost: t\r\n\r\n", "x".repeat(20_000))).await;
    for _ in 0..3 {
        assert_eq!(client.reply().await.status, 200);
    }
    let heard = server.heard();
    assert_eq!(heard.len(), 3);
    assert!(heard[1].ends_with(&"x".repeat(20_000)) && heard[2].starts_with("GET /3 "));
}
