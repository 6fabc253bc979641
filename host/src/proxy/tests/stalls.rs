//! Servers that take a request and do not begin to answer.

use std::time::{Duration, Instant};

use h2::server;

use super::{
    Rig, Server,
    rig::{Reply, hear},
    wire2::Server2,
};

/// Takes requests and never answers; says when it is let go of.
async fn silent() -> Server {
    Server::following(|mut stream, requests| {
        Box::pin(async move {
            while let Some(request) = hear(&mut stream).await {
                requests.lock().push(request);
            }
            requests.lock().push("closed".to_owned());
        })
    })
    .await
}

/// How many requests a silent server got.
fn asked(server: &Server) -> usize {
    server.heard().iter().filter(|heard| *heard != "closed").count()
}

async fn silent2() -> Server2 {
    Server2::following(&server::Builder::new(), |_, _, _, respond| {
        Box::pin(async move {
            let _held = respond;
            std::future::pending::<()>().await;
        })
    })
    .await
}

async fn rig(proxy: &str, servers: &[String], more: &str) -> Rig {
    // What one stalls is not to be known for the next.
    let ejection = "[proxy.ejection]\nfailures = 0\n";
    Rig::start(&format!("{proxy}\n{ejection}[service.chat]\nservers = {servers:?}\n{more}\n")).await
}

/// Asks for clients until one was sent to a silent server; how that ended.
async fn first_stalled(rig: &Rig, method: &str, seen: impl Fn() -> usize) -> (String, Reply, Duration) {
    let mut client = rig.client().await;
    for number in 0..50 {
        let (before, begun) = (seen(), Instant::now());
        let id = format!("c{number}");
        let head = format!("{method} /chat/ HTTP/1.1\r\nhost: t\r\nmessage-flow-client: {id}\r\n\r\n");
        client.say(&head).await;
        let reply = client.reply().await;
        if seen() > before {
            return (id, reply, begun.elapsed());
        }
        assert_eq!(reply.status, 200);
    }
    panic!("no client went to the silent server");
}

#[tokio::test]
async fn a_get_goes_to_another_server_and_its_client_stays() {
    let (silent, well) = (silent().await, Server::named("b").await);
    let times = "[proxy.timeouts]\nresponse = \"300ms\"\n";
    let rig = rig(times, &[silent.uri(), well.uri()], "").await;
    let (client, reply, took) = first_stalled(&rig, "GET", || asked(&silent)).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "b"));
    assert!(took >= Duration::from_millis(250), "{took:?}");
    assert_eq!(rig.metric("message_flow_stalled_total", "answered"), 1.0);
    assert_eq!(rig.metric("message_flow_retries_total", ""), 1.0);
    // The first attempt is cancelled.
    while silent.heard().last().is_none_or(|last| last != "closed") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The assignment stays: the next message asks the same server first.
    let before = asked(&silent);
    let mut again = rig.client().await;
    let reply = again.get("/chat/", &format!("message-flow-client: {client}\r\n")).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "b"));
    assert_eq!(asked(&silent), before + 1);
}

#[tokio::test]
async fn a_get_to_a_server_of_http2_goes_to_another() {
    let (silent, well) = (silent2().await, Server2::named("b").await);
    let times = "[proxy.timeouts]\nresponse = \"300ms\"\n";
    let rig = rig(times, &[silent.uri(), well.uri()], "sticky = false").await;
    let (_, reply, _) = first_stalled(&rig, "GET", || silent.heard.lock().len()).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "b"));
    assert_eq!(rig.metric("message_flow_stalled_total", "answered"), 1.0);
}

#[tokio::test]
async fn what_changes_something_is_never_asked_twice() {
    let (silent, well) = (silent().await, Server::named("b").await);
    let config = "[proxy.timeouts]\nresponse = \"300ms\"\n[proxy.retry]\ntimeout = \"100ms\"\n";
    let rig = rig(config, &[silent.uri(), well.uri()], "sticky = false").await;
    for method in ["DELETE", "PUT", "POST"] {
        let (_, reply, took) = first_stalled(&rig, method, || asked(&silent)).await;
        assert_eq!(reply.status, 504, "{method}");
        // As coarse as the worker's time.
        assert!(took >= Duration::from_millis(250), "{method}: {took:?}");
        assert_eq!(rig.metric("message_flow_retries_total", ""), 0.0, "{method}");
    }
}

#[tokio::test]
async fn a_shorter_time_moves_what_another_can_take() {
    let (silent, well) = (silent().await, Server::named("b").await);
    let config = "[proxy.timeouts]\nresponse = \"20s\"\n[proxy.retry]\ntimeout = \"200ms\"\n";
    let rig = rig(config, &[silent.uri(), well.uri()], "sticky = false").await;
    let (_, reply, took) = first_stalled(&rig, "GET", || asked(&silent)).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "b"));
    assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_slow_answer_comes_where_nobody_else_can_give_it() {
    // A long poll: longer than the time after which another would be asked.
    let slow = Server::following(|mut stream, requests| {
        Box::pin(async move {
            while let Some(request) = hear(&mut stream).await {
                requests.lock().push(request);
                tokio::time::sleep(Duration::from_millis(600)).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnews";
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
            }
        })
    })
    .await;
    let config = "[proxy.retry]\ntimeout = \"100ms\"\n";
    let rig = rig(config, &[slow.uri()], "").await;
    let reply = rig.client().await.get("/chat/", "").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "news"));
    assert_eq!(slow.heard().len(), 1, "it was asked once");
    assert_eq!(rig.metric("message_flow_stalled_total", "kept"), 1.0);
    assert_eq!(rig.metric("message_flow_timeouts_total", "response_head"), 0.0);
}

#[tokio::test]
async fn without_attempts_it_stays_and_with_them_it_ends() {
    for (attempts, asked_of, failed) in [(0, 1, 0.0), (1, 2, 1.0)] {
        let (one, two) = (silent().await, silent().await);
        let config =
            format!("[proxy.timeouts]\nresponse = \"250ms\"\n[proxy.retry]\nattempts = {attempts}\n");
        let rig = rig(&config, &[one.uri(), two.uri()], "sticky = false").await;
        assert_eq!(rig.client().await.get("/chat/", "").await.status, 504);
        assert_eq!(asked(&one) + asked(&two), asked_of);
        assert_eq!(rig.metric("message_flow_stalled_total", "failed"), failed);
    }
}

#[tokio::test]
async fn a_server_that_stalls_is_ejected() {
    let (silent, well) = (silent().await, Server::named("b").await);
    let config = "[proxy.timeouts]\nresponse = \"100ms\"\n[proxy.ejection]\nfailures = 3\ntime = \"1m\"\n";
    let servers = [silent.uri(), well.uri()];
    let rig = Rig::start(&format!("{config}[service.chat]\nservers = {servers:?}\nsticky = false\n")).await;
    let mut client = rig.client().await;
    let begun = Instant::now();
    while asked(&silent) < 3 {
        assert_eq!(client.get("/chat/", "").await.status, 200);
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    for _ in 0..50 {
        assert_eq!(client.get("/chat/", "").await.status, 200);
    }
    assert_eq!(asked(&silent), 3, "it gets nothing for a while");
}
