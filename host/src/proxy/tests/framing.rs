//! Messages that are framed badly, or in ways that proxies get wrong.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Client, Rig, Server, rig::hear};

async fn rig(server: &Server) -> Rig {
    Rig::start(&format!("[service.chat]\nservers = [\"{}\"]\n", server.uri())).await
}

#[tokio::test]
async fn what_could_smuggle_is_refused() {
    let server = Server::named("a").await;
    let rig = rig(&server).await;
    let smuggled = "GET /chat/smuggled HTTP/1.1\r\nHost: t\r\n\r\n";
    for (name, head, body, status) in [
        ("CL and TE", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("TE and CL", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n", 400),
        ("two different CL", "Content-Length: 5\r\nContent-Length: 6\r\n", "hello", 400),
        ("the same CL twice", "Content-Length: 5\r\nContent-Length: 5\r\n", "hello", 400),
        ("CL list", "Content-Length: 5, 5\r\n", "hello", 400),
        ("CL sign", "Content-Length: +5\r\n", "hello", 400),
        ("CL hex", "Content-Length: 0x5\r\n", "hello", 400),
        ("TE not chunked", "Transfer-Encoding: gzip\r\n", "hello", 400),
        ("TE chunked and more", "Transfer-Encoding: chunked, gzip\r\n", "hello", 400),
        ("TE identity", "Transfer-Encoding: identity\r\n", "hello", 400),
        ("TE in two steps", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n", 501),
        ("TE twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 501),
        ("folded header", "X-A: 1\r\n Content-Length: 5\r\n", "", 400),
        ("space before colon", "Content-Length : 5\r\n", "", 400),
        ("no colon", "X-A\r\n", "", 400),
        ("null in value", "X-A: \0\r\n", "", 400),
        ("two hosts", "Host: u\r\n", "", 400),
    ] {
        let mut client = rig.client().await;
        client.say(&format!("POST /chat/ HTTP/1.1\r\nHost: t\r\n{head}\r\n{body}{smuggled}")).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "{name}: {reply:?}");
    }
    for (name, text) in [
        ("no host", "GET /chat/ HTTP/1.1\r\n\r\n"),
        ("bad host", "GET /chat/ HTTP/1.1\r\nHost: a b\r\n\r\n"),
        ("bad method", "G(T /chat/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("bad version", "GET /chat/ HTTP/3.0\r\nHost: a\r\n\r\n"),
    ] {
        let mut client = rig.client().await;
        client.say(text).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 400, "{name}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{name}");
    }
    let heard = server.heard();
    assert!(!heard.iter().any(|request| request.contains("smuggled")), "{heard:?}");
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let server = Server::named("a").await;
    let text = format!(
        "[proxy.limits]\nbody = \"10B\"\nhead = \"16KiB\"\n[service.chat]\nservers = [\"{}\"]\n",
        server.uri()
    );
    let rig = Rig::start(&text).await;
    for (name, request, status) in [
        ("head", format!("GET /chat/ HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(20_000)), 431),
        ("headers", format!("GET /chat/ HTTP/1.1\r\nHost: t\r\n{}\r\n", "X: 1\r\n".repeat(101)), 431),
        ("body", "POST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: 11\r\n\r\n".to_owned(), 413),
        (
            "chunked body",
            "POST /chat/ HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n0123456789"
                .to_owned()
                + "0123456789012345678901\r\n0\r\n\r\n",
            413,
        ),
        (
            "expectation",
            "POST /chat/ HTTP/1.1\r\nHost: t\r\nExpect: more\r\nContent-Length: 1\r\n\r\n".to_owned(),
            417,
        ),
    ] {
        let mut client = rig.client().await;
        client.say(&request).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, status, "{name}: {reply:?}");
    }
    let counted = |why| rig.metric("message_flow_unserved_total", why);
    assert_eq!((counted("head-too-large"), counted("malformed")), (1.0, 0.0), "the others were requests");
    let mut client = rig.client().await;
    client.say("GET /chat/ HTTP/1.1\r\nno header\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 400);
    assert_eq!(counted("malformed"), 1.0);
}

#[tokio::test]
async fn bodies_pass_both_ways() {
    let server = Server::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    )
    .await;
    let rig = rig(&server).await;
    let mut client = rig.client().await;
    client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "hello world"));
    assert_eq!(reply.header("x-hop"), None);
    client
        .say("POST /chat/ HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.reply().await.status, 200);
    let heard = server.heard();
    assert!(heard[0].ends_with("\r\n\r\nabc"), "{heard:?}");
    assert!(heard[1].ends_with("3\r\nabc\r\n0\r\n\r\n"), "{heard:?}");
}

#[tokio::test]
async fn a_client_that_waits_to_send_is_told_to() {
    let server = Server::named("a").await;
    let rig = rig(&server).await;
    let mut client = rig.client().await;
    client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 100);
    client.say("abc").await;
    assert_eq!(client.reply().await.status, 200);
    assert!(server.heard()[0].contains("\r\nexpect: 100-continue\r\n"));
}

#[tokio::test]
async fn responses_without_a_body() {
    for (method, response, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Some("5")),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n", None),
        ("GET", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", None),
    ] {
        let server = Server::answering(response).await;
        let rig = rig(&server).await;
        let mut client = rig.client().await;
        for _ in 0..2 {
            client.say(&format!("{method} /chat/ HTTP/1.1\r\nHost: t\r\n\r\n")).await;
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                head.push(char::from(client.exactly(1).await[0]));
                if head.starts_with("HTTP/1.1 103 ") && head.ends_with("\r\n\r\n") {
                    head.clear();
                }
            }
            let head = head.to_ascii_lowercase();
            let found = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            assert_eq!(found, length, "{method} {response}: {head}");
        }
        assert_eq!(server.heard().len(), 2);
    }
}

#[tokio::test]
async fn an_absolute_target_names_the_host() {
    let server = Server::named("a").await;
    let rig = rig(&server).await;
    let mut client = rig.client().await;
    client.say("GET http://real.test/chat/x HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    let heard = server.heard()[0].to_ascii_lowercase();
    assert!(heard.starts_with("get /x http/1.1\r\n"), "{heard}");
    assert!(heard.contains("\r\nhost: real.test\r\n"), "{heard}");
    assert!(!heard.contains("\r\nhost: other.test\r\n"), "{heard}");
}

#[tokio::test]
async fn tunnels_begin_with_the_servers_word() {
    let server = Server::following(|mut stream, requests| {
        Box::pin(async move {
            let Some(request) = hear(&mut stream).await else { return };
            requests.lock().push(request);
            let agreed =
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst";
            stream.write_all(agreed.as_bytes()).await.unwrap();
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        })
    })
    .await;
    let config =
        format!("[proxy]\nupgrades = [\"echo\"]\n[service.chat]\nservers = [\"{}\"]\n", server.uri());
    let rig = Rig::start(&config).await;
    let mut client = rig.client().await;
    client.say("GET /chat/ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 101, "{reply:?}");
    assert_eq!(reply.header("upgrade"), Some("echo"));
    assert_eq!(client.exactly(5).await, b"first");
    client.say("ping").await;
    assert_eq!(client.exactly(4).await, b"ping");
    assert_eq!(rig.metric("message_flow_tunnels", ""), 1.0);
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn an_upgrade_that_the_server_ignores_is_an_ordinary_request() {
    let server = Server::named("a").await;
    let rig = rig(&server).await;
    let mut client = rig.client().await;
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(client.get("/chat/", upgrade).await.body, "a");
    assert_eq!(client.get("/chat/", "").await.body, "a");
    client.say(&format!("POST /chat/ HTTP/1.1\r\nHost: t\r\n{upgrade}Content-Length: 3\r\n\r\nabc")).await;
    assert_eq!(client.reply().await.status, 400, "an upgrade with a body");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::named("a").await;
    let rig = rig(&server).await;
    let mut client = rig.client().await;
    let one = "GET /chat/1 HTTP/1.1\r\nHost: t\r\n\r\n";
    client
        .say(&format!("{one}{}{}", one.replace("/chat/1", "/chat/2"), one.replace("/chat/1", "/nobody")))
        .await;
    let statuses = [client.reply().await.status, client.reply().await.status, client.reply().await.status];
    assert_eq!(statuses, [200, 200, 404]);
}

#[tokio::test]
async fn backpressure_reaches_the_server() {
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = sent.clone();
    let server = Server::following(move |mut stream, _| {
        let sent = counted.clone();
        Box::pin(async move {
            hear(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 268435456\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let chunk = vec![b'x'; 1 << 16];
            while stream.write_all(&chunk).await.is_ok() {
                sent.fetch_add(chunk.len(), std::sync::atomic::Ordering::SeqCst);
            }
        })
    })
    .await;
    let rig = rig(&server).await;
    let mut client = Client::connect(rig.address()).await;
    client.say("GET /chat/ HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let mut first = [0; 1024];
    client.stream.read_exact(&mut first).await.unwrap();
    let now = || sent.load(std::sync::atomic::Ordering::SeqCst);
    // The buffers of all sockets between fill, and then nothing moves any more.
    let mut before = usize::MAX;
    while before != now() {
        before = now();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < 64 << 20, "{before} bytes were taken for a client that does not read");
}
