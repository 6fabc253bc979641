//! Servers and clients that break off, are slow or are not there.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use tokio::io::AsyncWriteExt;

use super::{Rig, Server, rig::hear};

/// An address at which nothing listens.
fn nowhere() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", socket.local_addr().unwrap())
}

fn service(servers: &[&str], more: &str) -> String {
    format!("[service.chat]\nservers = {servers:?}\n{more}\n")
}

#[tokio::test]
async fn another_server_takes_over_what_could_not_be_sent() {
    let server = Server::named("a").await;
    let rig = Rig::start(&service(&[&nowhere(), &server.uri()], "sticky = false")).await;
    let mut client = rig.client().await;
    for _ in 0..20 {
        client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc").await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "a"));
    }
    assert!(server.heard().iter().all(|request| request.ends_with("abc")));
    assert!(rig.metric("message_flow_retries_total", "") > 0.0);
    assert_eq!(rig.metric("message_flow_upstream_ejections_total", ""), 1.0, "five failures in a row");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_problem() {
    let rig = Rig::start(&service(&[&nowhere()], "")).await;
    let mut client = rig.client().await;
    for _ in 0..10 {
        let reply = client.get("/chat/", "").await;
        assert_eq!(reply.status, 502, "the only server is never ejected");
        assert!(!reply.body.contains("127.0.0.1"), "{}", reply.body);
    }
    assert_eq!(rig.metric("message_flow_upstream_ejections_total", ""), 0.0);
}

#[tokio::test]
async fn link_local_addresses_are_not_dialled() {
    let rig = Rig::start(&service(&["http://169.254.169.254"], "")).await;
    let begun = Instant::now();
    assert_eq!(rig.client().await.get("/chat/", "").await.status, 502);
    assert!(begun.elapsed() < Duration::from_secs(1), "refused, not timed out");
}

/// Answers one request of each connection and closes.
async fn closing(answered: &'static str) -> Server {
    Server::following(move |mut stream, requests| {
        Box::pin(async move {
            if let Some(request) = hear(&mut stream).await {
                requests.lock().push(request);
                let _ = stream.write_all(answered.as_bytes()).await;
            }
        })
    })
    .await
}

#[tokio::test]
async fn connections_that_servers_close_are_not_missed() {
    let server = closing("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let rig = Rig::start(&service(&[&server.uri()], "")).await;
    let mut client = rig.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/chat/", "").await.status, 200);
        // The close arrives at some time between now and the next request.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn only_the_idempotent_is_sent_again() {
    let broken = closing("").await;
    let server = Server::named("a").await;
    let rig = Rig::start(&service(&[&broken.uri(), &server.uri()], "sticky = false")).await;
    let mut client = rig.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/chat/", "").await.body, "a");
    }
    let rig = Rig::start(&service(&[&broken.uri()], "")).await;
    let before = broken.heard().len();
    let mut client = rig.client().await;
    client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(client.reply().await.status, 502);
    assert_eq!(broken.heard().len(), before + 1, "sent once");
}

#[tokio::test]
async fn a_response_that_breaks_off_breaks_off_for_the_client() {
    let server = closing("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    let rig = Rig::start(&service(&[&server.uri()], "")).await;
    let mut client = rig.client().await;
    client.say("GET /chat/ HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert!(client.rest().await.ends_with("half"));
}

#[tokio::test]
async fn servers_that_say_that_they_cannot_are_ejected() {
    let unwell = Server::answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let well = Server::named("a").await;
    let rig = Rig::start(&service(&[&unwell.uri(), &well.uri()], "sticky = false")).await;
    let mut client = rig.client().await;
    let mut failures = 0;
    for _ in 0..60 {
        failures += usize::from(client.get("/chat/", "").await.status == 503);
    }
    assert_eq!(failures, 5, "as many as it takes to eject it");
}

#[tokio::test]
async fn active_checks_take_a_server_out_and_back() {
    let up = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let said = up.clone();
    let server = Server::following(move |mut stream, requests| {
        let up = said.clone();
        Box::pin(async move {
            while let Some(request) = hear(&mut stream).await {
                let check = request.starts_with("GET /health ");
                requests.lock().push(request);
                let status = if check && !up.load(Ordering::SeqCst) { 500 } else { 200 };
                let _ = stream
                    .write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes())
                    .await;
            }
        })
    })
    .await;
    let health =
        "health = { path = \"/health\", interval = \"20ms\", unhealthy_after = 2, healthy_after = 2 }";
    let rig = Rig::start(&service(&[&server.uri()], health)).await;
    let mut client = rig.client().await;
    let mut wait = async |status: u16| {
        for _ in 0..400 {
            if client.get("/chat/", "").await.status == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never answered {status}");
    };
    wait(503).await;
    up.store(true, Ordering::SeqCst);
    wait(200).await;
}

#[tokio::test]
async fn every_phase_has_an_end() {
    let silent = Server::following(|mut stream, _| {
        Box::pin(async move {
            hear(&mut stream).await;
            std::future::pending::<()>().await;
        })
    })
    .await;
    let stalling = Server::following(|mut stream, _| {
        Box::pin(async move {
            hear(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
            std::future::pending::<()>().await;
        })
    })
    .await;
    let times = "[proxy.timeouts]\nfirst_byte = \"200ms\"\nhead = \"200ms\"\nkeep_alive = \"300ms\"\nbody = \"200ms\"\nresponse = \"200ms\"\n";
    let services = format!(
        "[service.silent]\nservers = [\"{}\"]\n[service.stalling]\nservers = [\"{}\"]\n",
        silent.uri(),
        stalling.uri()
    );
    let rig = Rig::start(&format!("{times}{services}")).await;

    assert_eq!(rig.client().await.rest().await, "", "no first byte");
    let mut client = rig.client().await;
    client.say("GET /silent/ HTTP/1.1\r\nHo").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "), "a head that does not end");
    let mut client = rig.client().await;
    assert_eq!(client.get("/silent/", "").await.status, 504, "no response");
    assert_eq!(client.rest().await, "", "nothing more on a kept connection");
    let mut client = rig.client().await;
    client.say("POST /silent/ HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_eq!(client.reply().await.status, 408, "a body that does not end");
    let mut client = rig.client().await;
    client.say("GET /stalling/ HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert!(client.rest().await.ends_with("half"), "a response that does not end");
    for phase in ["first_byte", "request_head", "keep_alive", "request_body", "response_head"] {
        assert!(rig.metric("message_flow_timeouts_total", phase) > 0.0, "{phase}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let server = Server::following(|mut stream, _| {
        Box::pin(async move {
            hear(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 268435456\r\n\r\n").await;
            while stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
        })
    })
    .await;
    let rig =
        Rig::start(&format!("[proxy.timeouts]\nbody = \"200ms\"\n{}", service(&[&server.uri()], ""))).await;
    let mut client = rig.client().await;
    client.say("GET /chat/ HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let begun = Instant::now();
    while rig.metric("message_flow_timeouts_total", "response_body") == 0.0
        || rig.proxy.open_connections() > 0
    {
        assert!(begun.elapsed() < Duration::from_secs(10), "still open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_slow_loris_does_not_keep_its_connection() {
    let rig = Rig::start("[proxy.timeouts]\nhead = \"300ms\"\n").await;
    let mut client = rig.client().await;
    let begun = Instant::now();
    for byte in "GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".bytes() {
        if client.stream.write_all(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.rest().await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(rig.metric("message_flow_timeouts_total", "request_head") > 0.0);
}

#[tokio::test]
async fn too_many_connections_are_closed_at_once() {
    let rig = Rig::start("[proxy.limits]\nconnections = 1\n").await;
    let mut first = rig.client().await;
    assert_eq!(first.get("/", "").await.status, 404);
    assert_eq!(rig.client().await.rest().await, "");
    assert_eq!(rig.metric("message_flow_unserved_total", "connections"), 1.0);
    assert_eq!(first.get("/", "").await.status, 404);
}

#[tokio::test]
async fn a_drain_finishes_what_runs() {
    static WAITING: AtomicUsize = AtomicUsize::new(0);
    let server = Server::following(|mut stream, _| {
        Box::pin(async move {
            while hear(&mut stream).await.is_some() {
                WAITING.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(300)).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        })
    })
    .await;
    let rig = Rig::start(&service(&[&server.uri()], "")).await;
    let (mut idle, mut busy) = (rig.client().await, rig.client().await);
    assert_eq!(idle.get("/", "").await.status, 404);
    busy.say("GET /chat/ HTTP/1.1\r\nHost: t\r\n\r\n").await;
    while WAITING.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let address = rig.address();
    let draining = tokio::spawn(rig.proxy.drain(Duration::from_secs(10)));
    assert_eq!(idle.rest().await, "", "an idle connection is closed");
    let reply = busy.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    draining.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_drain_tells_websockets_and_cuts_off_what_does_not_end() {
    let server = Server::following(|mut stream, _| {
        Box::pin(async move {
            hear(&mut stream).await;
            let agreed =
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            let _ = stream.write_all(agreed).await;
            std::future::pending::<()>().await;
        })
    })
    .await;
    let rig = Rig::start(&service(&[&server.uri()], "")).await;
    let mut client = rig.client().await;
    let reply = client.get("/chat/", "Connection: upgrade\r\nUpgrade: websocket\r\n").await;
    assert_eq!(reply.status, 101);
    let begun = Instant::now();
    rig.proxy.drain(Duration::from_millis(300)).await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(client.exactly(4).await, [0x88, 0x02, 0x03, 0xE9], "told that it goes away");
}
