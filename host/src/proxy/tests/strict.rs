//! Bytes that are not HTTP to the letter, from clients and from servers, and what may follow a body.

use super::{Rig, Server};

async fn rig(server: &Server) -> Rig {
    Rig::start(&format!("[service.chat]\nservers = [\"{}\"]\n", server.uri())).await
}

#[tokio::test]
async fn requests_that_are_not_to_the_letter() {
    let server = Server::named("a").await;
    let rig = rig(&server).await;
    let chunked = "POST /chat/ HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases = [
        "GET /chat/ HTTP/1.1\nHost: t\r\n\r\n".to_owned(),
        "GET /chat/ HTTP/1.1\r\nHost: t\n\r\n".into(),
        "GET /chat/ HTTP/1.1\r\nHost: t\r\n\n".into(),
        "GET /chat/ HTTP/1.1\nHost: t\n\n".into(),
        "GET /chat/ HTTP/1.1\r\nHost: t\rX: y\r\n\r\n".into(),
        "\nGET /chat/ HTTP/1.1\r\nHost: t\r\n\r\n".into(),
        "GET  /chat/ HTTP/1.1\r\nHost: t\r\n\r\n".into(),
        "GET /chat/ HTTP/1.1 \r\nHost: t\r\n\r\n".into(),
        "GET chat/ HTTP/1.1\r\nHost: t\r\n\r\n".into(),
        format!("{chunked}\r\n\r\n"),
        format!("{chunked}\n0\r\n\r\n"),
        format!("{chunked}3\nabc\r\n0\r\n\r\n"),
        format!("{chunked}3\r\nabc\n0\r\n\r\n"),
        format!("{chunked}3\r\nabc\r\n0\n\r\n"),
        format!("{chunked}3\r\nabc\r\n0\r\n\n"),
        format!("{chunked}3;a\nb\r\nabc\r\n0\r\n\r\n"),
        format!("{chunked}3;a=\"\n\"\r\nabc\r\n0\r\n\r\n"),
        format!("{chunked}3;\r\nabc\r\n0\r\n\r\n"),
        format!("{chunked}3 \r\nabc\r\n0\r\n\r\n"),
        format!("{chunked}3\r\nabc\r\n\r\n\r\n"),
        format!("{chunked}3\r\nabc\r\n0\r\nx: y\n\r\n"),
        format!("{chunked}3\r\nabc\r\n0\r\nx: y\r\n z\r\n\r\n"),
        format!("{chunked}3\r\nabc\r\n0\r\nx : y\r\n\r\n"),
        format!("{chunked}10000000000000003\r\nabc\r\n0\r\n\r\n"),
        format!("{chunked}ffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    ];
    for text in cases {
        let mut client = rig.client().await;
        client.say(&format!("{text}GET /chat/smuggled HTTP/1.1\r\nHost: t\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!(reply.status, 400, "{text:?}: {reply:?}");
        assert_eq!(reply.header("connection"), Some("close"), "{text:?}");
    }
    let heard = server.heard();
    assert!(!heard.iter().any(|request| request.contains("smuggled")), "{heard:?}");
}

#[tokio::test]
async fn responses_that_are_not_to_the_letter() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let cases = [
        "HTTP/1.1 200 OK\ncontent-length: 1\r\n\r\na".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\n\r\na".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\na".into(),
        "HTTP/1.1 200 OK\ncontent-length: 1\n\na".into(),
        "HTTP/1.1 200 OK\r\nx: y\rz\r\ncontent-length: 1\r\n\r\na".into(),
        "HTTP/1.1 200 OK\r\nx: y\r\n z\r\ncontent-length: 1\r\n\r\na".into(),
        "HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\na".into(),
        "HTTP/1.1 099 Low\r\ncontent-length: 1\r\n\r\na".into(),
        "HTTP/1.1 103 Early\r\ncontent-length: 1\r\n\r\naHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"
            .into(),
        format!("{chunked}1\na\r\n0\r\n\r\n"),
        format!("{chunked}1\r\na\n0\r\n\r\n"),
        format!("{chunked}1\r\na\r\n\r\n\r\n"),
        format!("{chunked}1\r\na\r\n0\n\r\n"),
        format!("{chunked}1\r\na\r\n0\r\n\n"),
        format!("{chunked}1;x=\"\n\"\r\na\r\n0\r\n\r\n"),
        format!("{chunked}\r\n\r\n"),
    ];
    for text in cases {
        let server = Server::answering(&text).await;
        let reply = rig(&server).await.client().await.get("/chat/", "").await;
        assert_eq!(reply.status, 502, "{text:?}: {reply:?}");
    }
}

#[tokio::test]
async fn versions_and_statuses_beyond_the_usual() {
    for (line, status) in
        [("HTTP/1.2 200 OK", 200), ("HTTP/1.9 200", 200), ("HTTP/1.1 600 X", 600), ("HTTP/1.1 999 X", 999)]
    {
        let server = Server::answering(&format!("{line}\r\ncontent-length: 1\r\n\r\na")).await;
        let rig = rig(&server).await;
        let mut client = rig.client().await;
        for _ in 0..2 {
            client.say("GET http://one/chat?x={1} HTTP/1.8\r\nHost: t\r\n\r\n").await;
            let reply = client.reply().await;
            assert_eq!((reply.status, &*reply.body), (status, "a"), "{line}");
        }
        assert!(server.heard()[1].starts_with("GET /?x=%7B1%7D HTTP/1.1\r\n"), "{:?}", server.heard());
        assert_eq!(server.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "{line}");
    }
}

#[tokio::test]
async fn a_body_where_none_may_be_ends_the_servers_connection() {
    for response in [
        "HTTP/1.1 204 No Content\r\n\r\nbody",
        "HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\nbody",
    ] {
        let server = Server::answering(response).await;
        let rig = rig(&server).await;
        for times in 1..=3 {
            let mut client = rig.client().await;
            client.say("GET /chat/ HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await;
            let rest = client.rest().await;
            assert!(rest.starts_with("HTTP/1.1 204") || rest.starts_with("HTTP/1.1 304"), "{rest}");
            assert!(rest.ends_with("\r\n\r\n"), "{response:?}: {rest}");
            assert_eq!(server.connections.load(std::sync::atomic::Ordering::SeqCst), times, "{response:?}");
        }
    }
}

#[tokio::test]
async fn trailers_pass_if_they_are_harmless() {
    let announced = "trailer: x-count, authorization, x-user, message-flow-client\r\n";
    let trailers = "x-count: 1\r\nauthorization: b\r\nx-user: c\r\nmessage-flow-client: d\r\nx-other: e\r\n\
        content-length: 9\r\nhost: f\r\nx-forwarded-for: g\r\nset-cookie: h\r\ncontent-digest: i\r\ngrpc-status: 0\r\n";
    let server = Server::answering(&format!(
        "HTTP/1.1 200 OK\r\n{announced}transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{trailers}\r\n"
    ))
    .await;
    let rig = rig(&server).await;
    let mut client = rig.client().await;
    let post = "POST /chat/ HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
    client.say(&format!("{post}{announced}\r\n1\r\na\r\n0\r\n{trailers}\r\n")).await;
    let rest = client.rest().await;
    let (_, passed) = rest.split_once("\r\n0\r\n").unwrap();
    // What comes with gRPC's status is its metadata: `x-user` and `x-other` are that.
    let mut passed: Vec<_> = passed.lines().filter(|line| !line.is_empty()).collect();
    passed.sort_unstable();
    assert_eq!(passed, ["content-digest: i", "grpc-status: 0", "x-count: 1", "x-other: e", "x-user: c"]);
    let heard = server.heard().pop().unwrap();
    let mut passed: Vec<_> =
        heard.split_once("\r\n0\r\n").unwrap().1.lines().filter(|line| !line.is_empty()).collect();
    passed.sort_unstable();
    assert_eq!(passed, ["content-digest: i", "grpc-status: 0", "x-count: 1"]);
}
