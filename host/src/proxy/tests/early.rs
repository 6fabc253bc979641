//! Answers that come before their request has ended, and what comes before an answer.

use tokio::io::AsyncWriteExt;

use super::{Rig, Server, rig::hear_head};

/// Answers as soon as the head of a request is there, whatever body follows, and closes once the router
/// does or sends nothing more.
async fn hasty(answer: String) -> Server {
    Server::following(move |mut stream, requests| {
        let answer = answer.clone();
        Box::pin(async move {
            while let Some(head) = hear_head(&mut stream).await {
                requests.lock().push(head);
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
    })
    .await
}

async fn rig(server: &Server, settings: &str) -> Rig {
    Rig::start(&format!("{settings}[service.chat]\nservers = [\"{}\"]\n", server.uri())).await
}

const NO: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";

#[tokio::test]
async fn the_rest_of_a_request_is_thrown_away() {
    let server = hasty(NO.to_owned()).await;
    let rig = rig(&server, "").await;
    let body = "x".repeat(300_000);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (path, status) in [("/chat/", 403), ("/nobody/", 404)] {
        let mut client = rig.client().await;
        for (framing, body) in [("Content-Length: 300000", &body), ("Transfer-Encoding: chunked", &chunked)] {
            client.say(&format!("POST {path} HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n")).await;
            let reply = client.reply().await;
            assert_eq!((reply.status, reply.header("connection")), (status, None), "{path} {framing}");
            client.say(body).await;
            // What follows the body is the next request.
            assert_eq!(client.get("/chat/", "").await.status, 403, "{path} {framing}");
        }
    }
}

#[tokio::test]
async fn a_client_that_sends_before_it_reads_gets_its_answer_whole() {
    // It answers and is gone, with most of the request unread, which resets the connection.
    let server = Server::following(|mut stream, _| {
        Box::pin(async move {
            hear_head(&mut stream).await;
            stream.write_all(NO.as_bytes()).await.unwrap();
        })
    })
    .await;
    let rig = rig(&server, "").await;
    for head in
        ["POST /chat/ HTTP/1.1\r\nHost: t\r\n", "POST /chat/ HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"]
    {
        let mut client = rig.client().await;
        let body = "b".repeat(16 << 20);
        // Nothing is read until all of it is sent: the sockets between hold far less.
        client.say(&format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, &*reply.body), (403, "no"));
    }
}

#[tokio::test]
async fn what_is_too_much_to_throw_away_closes_the_connection() {
    // Longer than what is read before a server is asked.
    let server = hasty(NO.to_owned()).await;
    let rig = rig(&server, "[proxy.limits]\nunread = \"128KiB\"\n").await;
    let mut client = rig.client().await;
    client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: 131073\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (403, Some("close")), "it is said");
    client.say(&"x".repeat(131_073)).await;
    assert_eq!(client.rest().await, "");

    let mut client = rig.client().await;
    client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: 131072\r\n\r\n").await;
    assert_eq!(client.reply().await.header("connection"), None);
    client.say(&"x".repeat(131_072)).await;
    assert_eq!(client.get("/chat/", "").await.status, 403);

    // How much more will come cannot be said here; it is cut off where it is too much.
    let mut client = rig.client().await;
    client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 403);
    let endless = format!("10000\r\n{}\r\n", "x".repeat(65_536));
    let mut sent = 0;
    while client.stream.write_all(endless.as_bytes()).await.is_ok() {
        sent += 1;
        assert!(sent < 1000, "nobody stops it");
    }
}

#[tokio::test]
async fn what_takes_too_long_to_throw_away_closes_the_connection() {
    let server = hasty(NO.to_owned()).await;
    let rig = rig(&server, "[proxy.timeouts]\nunread = \"100ms\"\n").await;
    let mut client = rig.client().await;
    client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 403);
    assert_eq!(client.rest().await, "", "the body never comes");
}

#[tokio::test]
async fn a_server_is_asked_whether_it_wants_a_body() {
    const POST: &str = "POST /chat/ HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    for answer in [NO, "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno"] {
        let server = hasty(answer.to_owned()).await;
        let rig = rig(&server, "").await;
        let mut client = rig.client().await;
        client.say(POST).await;
        let reply = client.reply().await;
        assert_eq!(format!("{}", reply.status), answer[9..12]);
        assert_eq!(reply.header("connection"), Some("close"), "nobody can say whether the body comes");
        assert!(server.heard()[0].contains("\r\nexpect: 100-continue\r\n"), "{:?}", server.heard());
    }
    let willing = Server::following(|mut stream, requests| {
        Box::pin(async move {
            let Some(head) = hear_head(&mut stream).await else { return };
            requests.lock().push(head);
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = [0; 3];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body).await.unwrap();
            requests.lock().push(String::from_utf8_lossy(&body).into_owned());
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes").await.unwrap();
        })
    })
    .await;
    let rig = rig(&willing, "").await;
    let mut client = rig.client().await;
    client.say(POST).await;
    assert_eq!(client.reply().await.status, 100);
    assert_eq!(willing.heard().len(), 1, "the head alone");
    client.say("abc").await;
    assert_eq!(client.reply().await.body, "yes");
    assert_eq!(willing.heard()[1], "abc");
}

#[tokio::test]
async fn a_server_that_is_silent_about_a_body_gets_it() {
    let server = Server::named("a").await;
    let rig = rig(&server, "").await;
    let mut client = rig.client().await;
    client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 100);
    client.say("abc").await;
    assert_eq!(client.reply().await.status, 200);
    // One that sends its body at once, and one of HTTP/1.0, which knows no such thing.
    client
        .say("POST /chat/ HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(client.reply().await.status, 200);
    client
        .say("POST /chat/ HTTP/1.0\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(client.reply().await.status, 200);
    let heard = server.heard();
    assert!(!heard[2].contains("expect"), "{heard:?}");
    assert!(heard.iter().all(|request| request.ends_with("\r\n\r\nabc")), "{heard:?}");
}

#[tokio::test]
async fn interim_responses_pass() {
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n";
    let end = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na";
    let server = Server::answering(&format!("{hints}HTTP/1.1 102 Processing\r\n\r\n{hints}{end}")).await;
    let rig = rig(&server, "").await;
    let mut client = rig.client().await;
    for _ in 0..2 {
        client.say("GET /chat/ HTTP/1.1\r\nHost: t\r\n\r\n").await;
        for status in [103, 102, 103, 200] {
            let reply = client.reply().await;
            assert_eq!(reply.status, status);
            assert_eq!(reply.header("link"), (status == 103).then_some("</a.css>"));
            assert_eq!((reply.header("x-hop"), reply.header("connection")), (None, None));
        }
    }
    client.say("GET /chat/ HTTP/1.0\r\nHost: t\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200, "HTTP/1.0 knows no interim responses");
}

#[tokio::test]
async fn interim_responses_come_at_once_and_are_counted() {
    let (go, gone) = tokio::sync::watch::channel(());
    let server = Server::following(move |mut stream, _| {
        let mut gone = gone.clone();
        Box::pin(async move {
            let Some(head) = hear_head(&mut stream).await else { return };
            let times = if head.starts_with("GET /many") { 17 } else { 1 };
            stream.write_all("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(times).as_bytes()).await.unwrap();
            let _ = gone.changed().await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na").await;
        })
    })
    .await;
    let rig = rig(&server, "").await;
    let mut client = rig.client().await;
    client.say("GET /chat/many HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let mut status = 103;
    while status == 103 {
        status = client.reply().await.status;
    }
    assert_eq!(status, 502, "there is no end to them");
    client.say("GET /chat/ HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 103, "before there is anything else");
    go.send_replace(());
    assert_eq!(client.reply().await.status, 200);
}
