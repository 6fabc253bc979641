//! HTTP/2 clients that are slow, hasty, silent or wrong, and what becomes of others beside them.

use std::{
    future::poll_fn,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::Reason;
use http::{Request, StatusCode, header};
use tokio::io::AsyncWriteExt;

use super::{
    Rig, Server,
    wire2::{Client2, Frames, frame, get, header_block, in_time, post, read_reply},
};

async fn rig(proxy: &str, server: &Server) -> Rig {
    Rig::start(&format!("{proxy}\n[service.chat]\nservers = [\"{}\"]\n", server.uri())).await
}

/// Reads nothing but the head, and answers never.
async fn deaf() -> Server {
    Server::following(|stream, _| {
        Box::pin(async move {
            let _held = stream;
            std::future::pending::<()>().await;
        })
    })
    .await
}

#[tokio::test]
async fn cookie_crumbs_are_one_line() {
    let server = Server::named("a").await;
    let rig = rig("[proxy.limits]\nheaders = 12", &server).await;
    let client = Client2::connect(rig.address()).await;
    let crumbs: Vec<_> = (0..50).map(|at| format!("c{at}={at}")).collect();
    let fields: Vec<_> = crumbs.iter().map(|crumb| ("cookie", crumb.as_str())).collect();
    let reply = client.post(post("/chat/", &fields), "").await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    let heard = server.heard()[0].clone();
    let lines: Vec<_> = heard.lines().filter(|line| line.starts_with("cookie:")).collect();
    assert_eq!(lines, [format!("cookie: {}", crumbs.join("; "))]);
}

#[tokio::test]
async fn a_client_is_known_by_a_crumb() {
    let servers = [Server::named("a").await, Server::named("b").await];
    let uris: Vec<_> = servers.iter().map(Server::uri).collect();
    let text = format!("[proxy]\nclient_id = [\"cookie:who\"]\n[service.chat]\nservers = {uris:?}\n");
    let rig = Rig::start(&text).await;
    let client = Client2::connect(rig.address()).await;
    let ask = |who: String| {
        let client = &client;
        async move {
            let fields = [("cookie", "x=1"), ("cookie", who.as_str()), ("cookie", "y=2")];
            client.post(post("/chat/", &fields), "").await.body
        }
    };
    for number in 0..20 {
        let first = ask(format!("who={number}")).await;
        assert_eq!(ask(format!("who={number}")).await, first);
    }
}

#[tokio::test]
async fn a_window_of_nothing_ends_with_the_body_timeout() {
    let big = "x".repeat(100_000);
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{big}", big.len());
    let server = Server::answering(&response).await;
    let rig = rig("[proxy.timeouts]\nbody = \"300ms\"", &server).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let client = Client2::with(rig.address(), &builder).await;
    let error = client.try_ask(get("/chat/"), None).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    let over = async {
        while rig.metric("message_flow_requests_in_flight", "chat") > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    in_time("the end of the message", over).await;
    assert!(rig.metric("message_flow_timeouts_total", "response_body") >= 1.0);
}

#[tokio::test]
async fn a_slow_reader_that_reads_is_not_cut_off() {
    let big = "x".repeat(40_000);
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{big}", big.len());
    let server = Server::answering(&response).await;
    let rig = rig("[proxy.timeouts]\nbody = \"400ms\"", &server).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(4_000);
    let client = Client2::with(rig.address(), &builder).await;
    let (response, _) = client.sender.clone().send_request(get("/chat/"), true).unwrap();
    let mut body = in_time("a head", response).await.unwrap().into_body();
    let mut length = 0;
    let began = Instant::now();
    while let Some(data) = in_time("data", body.data()).await {
        let data = data.unwrap();
        length += data.len();
        tokio::time::sleep(Duration::from_millis(100)).await;
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(length, big.len());
    assert!(began.elapsed() > Duration::from_millis(400));
}

#[tokio::test]
async fn unread_uploads_do_not_stop_others() {
    let (deaf, server) = (deaf().await, Server::named("a").await);
    let text = format!(
        "[service.deaf]\nservers = [\"{}\"]\n[service.chat]\nservers = [\"{}\"]\n",
        deaf.uri(),
        server.uri()
    );
    let rig = Rig::start(&text).await;
    let client = Client2::connect(rig.address()).await;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut sender = client.sender.clone().ready().await.unwrap();
        let (response, mut stream) = sender.send_request(post("/deaf/", &[]), false).unwrap();
        stream.send_data(Bytes::from(vec![b'x'; 8 << 20]), false).unwrap();
        stuck.push((response, stream));
    }
    let body = "y".repeat(200_000);
    for _ in 0..3 {
        let reply = client.post(post("/chat/", &[]), &body).await;
        assert_eq!((reply.status, reply.body.as_str()), (StatusCode::OK, "a"));
    }
}

#[tokio::test]
async fn pings_do_not_keep_an_idle_connection() {
    let server = Server::named("a").await;
    let rig = rig("[proxy.timeouts]\nkeep_alive = \"300ms\"", &server).await;
    let mut frames = Frames::connect(rig.address()).await;
    frames.until(4).await.unwrap();
    let began = Instant::now();
    loop {
        // Until it is closed; in vain, once the other end has.
        let ping = frame(6, 0, 0, b"are you?");
        if frames.0.write_all(&ping).await.is_err() {
            break;
        }
        match frames.read().await {
            Some((7, ..)) | None => break,
            Some(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        assert!(began.elapsed() < super::wire2::PATIENCE, "kept by pings");
    }
}

#[tokio::test]
async fn an_idle_connection_is_told_and_a_busy_one_stays() {
    let server = Server::following(|mut stream, requests| {
        Box::pin(async move {
            let request = super::rig::hear(&mut stream).await.unwrap();
            requests.lock().push(request);
            tokio::time::sleep(Duration::from_millis(800)).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na").await;
        })
    })
    .await;
    let rig = rig("[proxy.timeouts]\nkeep_alive = \"200ms\"", &server).await;
    let client = Client2::connect(rig.address()).await;
    assert_eq!(client.ask(get("/chat/")).await.body, "a");
    client.ended().await;
}

#[tokio::test]
async fn an_early_answer_leaves_the_client_time_to_finish() {
    let server = Server::named("a").await;
    let rig = rig("[proxy.limits]\nbody = \"10B\"", &server).await;
    let client = Client2::connect(rig.address()).await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (response, mut stream) = sender.send_request(post("/chat/", &[]), false).unwrap();
    let mut left = 700_000;
    while left > 0 {
        stream.reserve_capacity(left.min(10_000));
        let room = in_time("room", poll_fn(|cx| stream.poll_capacity(cx))).await;
        let room = room.expect("the stream is open").unwrap();
        stream.send_data(Bytes::from(vec![b'x'; room.min(left)]), room >= left).unwrap();
        left -= room.min(left);
    }
    let reply = in_time("an answer", read_reply(response)).await.unwrap();
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_endless_upload_is_stopped_after_its_answer() {
    let server = Server::named("a").await;
    let rig = rig("[proxy.limits]\nbody = \"10B\"", &server).await;
    let client = Client2::connect(rig.address()).await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (response, mut stream) = sender.send_request(post("/chat/", &[]), false).unwrap();
    let sending = async {
        loop {
            stream.reserve_capacity(10_000);
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(room)) => {
                    if stream.send_data(Bytes::from(vec![b'x'; room]), false).is_err() {
                        break;
                    }
                }
                _ => break,
            }
        }
    };
    in_time("the end of the upload", sending).await;
    assert_eq!(in_time("an answer", response).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
}

/// So many requests, each cancelled in the same breath.
fn cancels(first: u32, count: u32) -> Vec<u8> {
    let block = header_block("/chat/");
    let streams = (0..count).map(|at| first + 2 * at);
    let of = |stream| [frame(1, 5, stream, &block), frame(3, 0, stream, &8u32.to_be_bytes())].concat();
    streams.flat_map(of).collect()
}

#[tokio::test]
async fn a_page_that_is_left_does_not_close_its_connection() {
    let server = Server::named("a").await;
    let rig = rig("", &server).await;
    let mut frames = Frames::connect(rig.address()).await;
    frames.until(4).await.unwrap();
    for burst in 0..3 {
        frames.0.write_all(&cancels(1 + burst * 400, 200)).await.unwrap();
        // What has come by now was cancelled.
        frames.write(6, 0, 0, &burst.to_be_bytes().repeat(2)).await;
        let pong = frames.until(6).await;
        assert!(pong.is_some_and(|(_, flags, ..)| flags == 1), "cancelled {burst} times");
    }
    frames.write(1, 5, 2001, &header_block("/chat/")).await;
    let (_, _, stream, _) = frames.until(1).await.expect("an answer");
    assert_eq!(stream, 2001);
}

#[tokio::test]
async fn a_flood_of_cancels_is_cut_off() {
    let server = Server::named("a").await;
    let rig = rig("", &server).await;
    let mut frames = Frames::connect(rig.address()).await;
    frames.until(4).await.unwrap();
    let mut first = 1;
    let closed = async {
        for _ in 0..1000 {
            if frames.0.write_all(&cancels(first, 100)).await.is_err() {
                return true;
            }
            first += 200;
            frames.write(6, 0, 0, b"go on...").await;
            loop {
                match frames.read().await {
                    Some((7, _, _, payload)) => return payload[4..8] == 11u32.to_be_bytes(),
                    Some((6, 1, ..)) => break,
                    Some(_) => {}
                    None => return true,
                }
            }
        }
        false
    };
    assert!(in_time("an end", closed).await);
    let others = Client2::connect(rig.address()).await;
    assert_eq!(others.ask(get("/chat/")).await.body, "a");
}

#[tokio::test]
async fn nothing_follows_the_head_that_was_asked_for() {
    let server = Server::named("a").await;
    let rig = rig("", &server).await;
    let client = Client2::connect(rig.address()).await;
    for (path, status) in [("/chat/", StatusCode::OK), ("/nobody/", StatusCode::NOT_FOUND)] {
        let request = Request::head(format!("http://front.test{path}")).body(()).unwrap();
        let reply = client.ask(request).await;
        assert_eq!((reply.status, reply.body.as_str()), (status, ""));
    }
}

#[tokio::test]
async fn a_query_alone_is_one_of_the_root() {
    let server = Server::named("a").await;
    let rig = rig("[[route]]\nhost = \"front.test\"\nservice = \"chat\"", &server).await;
    let client = Client2::connect(rig.address()).await;
    let uri = http::Uri::builder().scheme("http").authority("front.test").path_and_query("?x=1");
    let request = Request::get(uri.build().unwrap()).body(()).unwrap();
    assert_eq!(client.ask(request).await.status, StatusCode::OK);
    assert!(server.heard()[0].starts_with("GET /?x=1 HTTP/1.1\r\n"), "{:?}", server.heard());
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered() {
    let server = Server::named("a").await;
    let rig = rig("[proxy.limits]\nhead = \"8KiB\"", &server).await;
    let client = Client2::connect(rig.address()).await;
    let long = "x".repeat(9000);
    let reply = client.post(post("/chat/", &[("x-long", &long)]), "").await;
    assert_eq!(reply.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert!(reply.body.contains("head-too-large"), "{}", reply.body);
    let call = post("/chat/", &[("x-long", &long), ("content-type", "application/grpc")]);
    let reply = client.post(call, "").await;
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::OK, ""));
    assert_eq!(reply.headers["grpc-status"], "8");
    assert_eq!(client.ask(get("/chat/")).await.body, "a", "the connection goes on");
}

#[tokio::test]
async fn calls_are_told_in_their_own_way() {
    let silent = deaf().await;
    let text = format!(
        "[proxy.timeouts]\nresponse = \"200ms\"\nbody = \"300ms\"\n[proxy.limits]\nbody = \"10B\"\n\
         [service.silent]\nservers = [\"{}\"]\n[service.gone]\nservers = [\"http://127.0.0.1:9\"]\n\
         [service.none]\nservers = []\n",
        silent.uri()
    );
    let rig = Rig::start(&text).await;
    let client = Client2::connect(rig.address()).await;
    let cases = [
        ("/silent/", "", "4", "504"),
        ("/gone/", "", "14", "502"),
        ("/none/", "", "14", "503"),
        ("/nobody/", "", "12", "404"),
        ("/silent/", "longer than ten", "8", "413"),
    ];
    for (path, body, status, _) in cases {
        for kind in ["application/grpc", "application/grpc+proto"] {
            let reply = client.post(post(path, &[("content-type", kind), ("te", "trailers")]), body).await;
            assert_eq!(reply.status, StatusCode::OK, "{path}");
            assert_eq!(reply.headers["grpc-status"], status, "{path}: {reply:?}");
            assert_eq!(reply.headers[header::CONTENT_TYPE], "application/grpc");
            assert!(!reply.headers["grpc-message"].is_empty() && reply.body.is_empty());
        }
        let others = client.post(post(path, &[("content-type", "application/grpc-web")]), body).await;
        assert_ne!(others.status, StatusCode::OK, "{path}");
        assert!(!others.headers.contains_key("grpc-status"));
    }
    // As what they are, whatever the call was told.
    assert!(rig.metric("message_flow_requests_total", "5xx") >= 6.0);
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it() {
    let server = Server::named("a").await;
    let rig = rig("", &server).await;
    let client = Client2::connect(rig.address()).await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let request = post("/chat/", &[("expect", "100-continue"), ("content-length", "4")]);
    let (mut response, mut stream) = sender.send_request(request, false).unwrap();
    let word = in_time("word", poll_fn(|cx| response.poll_informational(cx))).await;
    assert_eq!(word.unwrap().unwrap().status(), StatusCode::CONTINUE);
    stream.send_data(Bytes::from_static(b"body"), true).unwrap();
    assert_eq!(in_time("an answer", read_reply(response)).await.unwrap().body, "a");
    let heard = &server.heard()[0];
    assert!(heard.ends_with("body"), "{heard}");
}

#[tokio::test]
async fn what_breaks_off_is_not_taken_for_whole() {
    let server = Server::following(|mut stream, _| {
        Box::pin(async move {
            super::rig::hear(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        })
    })
    .await;
    let rig = rig("", &server).await;
    let client = Client2::connect(rig.address()).await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (response, _) = sender.send_request(get("/chat/"), true).unwrap();
    let mut body = in_time("a head", response).await.unwrap().into_body();
    let mut got = Vec::new();
    let error = loop {
        match in_time("data", body.data()).await.expect("no orderly end") {
            Ok(data) => got.extend_from_slice(&data),
            Err(error) => break error,
        }
    };
    assert_eq!((got.as_slice(), error.reason()), (&b"half"[..], Some(Reason::INTERNAL_ERROR)));
}

#[tokio::test]
async fn who_cancels_is_not_served_any_further() {
    let deaf = deaf().await;
    let rig = rig("", &deaf).await;
    let client = Client2::connect(rig.address()).await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (response, mut stream) = sender.send_request(post("/chat/", &[]), false).unwrap();
    let in_flight = || rig.metric("message_flow_requests_in_flight", "chat");
    let reached = async {
        while in_flight() < 1.0 || deaf.connections.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    in_time("the message", reached).await;
    stream.send_reset(Reason::CANCEL);
    drop((response, stream));
    let over = async {
        while in_flight() > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    in_time("its end", over).await;
}
