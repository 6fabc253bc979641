//! HTTP/2 servers with limits, that refuse, go away, read slowly or answer early, and what of that is
//! whose failure.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use h2::{Reason, server};
use http::{Method, Request, Response, StatusCode};
use tokio::{io::AsyncReadExt, net::TcpListener};

use super::{
    Rig, Server,
    wire2::{Client2, Frames, Server2, answer, get, in_time, is_over, post, read_reply},
};

async fn rig(proxy: &str, uri: &str) -> Rig {
    Rig::start(&format!("{proxy}\n[service.chat]\nservers = [\"{uri}\"]\n")).await
}

#[tokio::test]
async fn the_scheme_chooses_the_protocol() {
    let (one, two) = (Server::named("one").await, Server2::named("two").await);
    let text = format!(
        "[service.one]\nservers = [\"{}\"]\n[service.two]\nservers = [\"{}\"]\n",
        one.uri(),
        two.uri()
    );
    let rig = Rig::start(&text).await;
    let client = Client2::connect(rig.address()).await;
    for kind in ["text/plain", "application/grpc", "application/grpc+proto", "application/grpc-web+proto"] {
        for name in ["one", "two"] {
            let reply = client.post(post(&format!("/{name}/"), &[("content-type", kind)]), "x").await;
            assert_eq!((reply.status, reply.body.as_str()), (StatusCode::OK, name), "{kind}");
        }
    }
    assert_eq!((one.heard().len(), two.heard.lock().len()), (4, 4));
}

#[tokio::test]
async fn as_many_streams_as_the_server_takes_and_then_another_connection() {
    for most in [1, 3] {
        let mut builder = server::Builder::new();
        builder.max_concurrent_streams(most);
        let server = Server2::following(&builder, |_, _, _, mut respond| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                answer(&mut respond, "a");
            })
        })
        .await;
        let rig = rig("", &server.uri()).await;
        let client = Client2::connect(rig.address()).await;
        let replies = join_all((0..12).map(|_| client.post(post("/chat/", &[]), ""))).await;
        assert!(replies.iter().all(|reply| reply.body == "a"), "{replies:?}");
        let connections = server.connections();
        assert!((12 / most as usize..=12).contains(&connections), "{most}: {connections}");
        assert_eq!(rig.metric("message_flow_upstream_ejections_total", ""), 0.0);
    }
}

#[tokio::test]
async fn connections_are_bounded_and_waiting_ends() {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(1);
    let server = Server2::following(&builder, |_, _, _, respond| {
        Box::pin(async move {
            let _held = respond;
            std::future::pending::<()>().await;
        })
    })
    .await;
    let proxy =
        "[proxy.limits]\nupstream_connections = 2\n[proxy.timeouts]\nwait = \"200ms\"\nresponse = \"10s\"";
    let rig = rig(proxy, &server.uri()).await;
    let client = Client2::connect(rig.address()).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut sender = client.sender.clone().ready().await.unwrap();
        held.push(sender.send_request(get("/chat/"), true).unwrap());
    }
    let busy = async {
        loop {
            let reply = client.ask(get("/chat/")).await;
            if reply.status == StatusCode::SERVICE_UNAVAILABLE {
                break reply;
            }
        }
    };
    assert!(in_time("an end", busy).await.body.contains("server-busy"));
    drop(held);
    assert!(server.connections() <= 2);
}

#[tokio::test]
async fn what_is_refused_goes_elsewhere_and_counts_for_nothing() {
    let server = Server2::following(&server::Builder::new(), |connection, stream, request, mut respond| {
        Box::pin(async move {
            if connection == 0 && stream % 2 == 0 {
                return respond.send_reset(Reason::REFUSED_STREAM);
            }
            let mut body = request.into_body();
            let mut got = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                got.extend_from_slice(&data);
            }
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from(got), true).unwrap();
        })
    })
    .await;
    let rig = rig("[proxy.ejection]\nfailures = 1", &server.uri()).await;
    let client = Client2::connect(rig.address()).await;
    for number in 0..10 {
        let body = format!("body {number}");
        let reply = client.post(post("/chat/", &[]), &body).await;
        assert_eq!((reply.status, reply.body), (StatusCode::OK, body));
    }
    assert!(server.connections() > 1);
    assert_eq!(rig.metric("message_flow_upstream_ejections_total", ""), 0.0);
}

#[tokio::test]
async fn a_server_that_always_refuses_is_left_for_another() {
    let refusing = Server2::following(&server::Builder::new(), |_, _, _, mut respond| {
        Box::pin(async move { respond.send_reset(Reason::REFUSED_STREAM) })
    })
    .await;
    let other = Server2::named("b").await;
    let text = format!(
        "[proxy.ejection]\nfailures = 1\n[service.chat]\nsticky = false\nservers = [\"{}\", \"{}\"]\n",
        refusing.uri(),
        other.uri()
    );
    let rig = Rig::start(&text).await;
    let client = Client2::connect(rig.address()).await;
    for _ in 0..20 {
        assert_eq!(client.post(post("/chat/", &[]), "x").await.body, "b");
    }
    assert!(!refusing.heard.lock().is_empty());
    assert_eq!(rig.metric("message_flow_upstream_ejections_total", ""), 0.0);
}

#[tokio::test]
async fn who_is_refused_everywhere_may_come_again() {
    let refusing = Server2::following(&server::Builder::new(), |_, _, _, mut respond| {
        Box::pin(async move { respond.send_reset(Reason::REFUSED_STREAM) })
    })
    .await;
    let rig = rig("[proxy.ejection]\nfailures = 1", &refusing.uri()).await;
    let client = Client2::connect(rig.address()).await;
    for _ in 0..3 {
        let reply = client.post(post("/chat/", &[]), "x").await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(reply.body.contains("server-busy"), "{}", reply.body);
    }
    assert_eq!(rig.metric("message_flow_upstream_ejections_total", ""), 0.0);
}

/// A server that goes away with the first stream of each of its first connections, not having looked at
/// it; the rest is answered.
async fn going_away(connections: usize) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            if number >= connections {
                tokio::spawn(async move {
                    let mut connection = server::handshake(stream).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        answer(&mut respond, "served");
                    }
                });
                continue;
            }
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            let mut frames = Frames(stream);
            frames.write(4, 0, 0, b"").await;
            if frames.until(1).await.is_some() {
                // Nothing above stream 0 was or will be looked at.
                frames.write(7, 0, 0, &[0; 8]).await;
                tokio::spawn(async move { while frames.read().await.is_some() {} });
            }
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_goes_away_loses_no_message() {
    let address = going_away(1).await;
    let rig = rig("[proxy.ejection]\nfailures = 1", &format!("h2c://{address}")).await;
    let client = Client2::connect(rig.address()).await;
    for _ in 0..3 {
        let reply = client.post(post("/chat/", &[]), "not idempotent").await;
        assert_eq!((reply.status, reply.body.as_str()), (StatusCode::OK, "served"));
    }
    assert_eq!(rig.metric("message_flow_upstream_ejections_total", ""), 0.0);
}

#[tokio::test]
async fn resets_of_single_streams_eject_nobody() {
    let server = Server2::following(&server::Builder::new(), |_, _, _, mut respond| {
        Box::pin(async move { respond.send_reset(Reason::PROTOCOL_ERROR) })
    })
    .await;
    let rig = rig("[proxy.ejection]\nfailures = 1", &server.uri()).await;
    let client = Client2::connect(rig.address()).await;
    for _ in 0..5 {
        assert_eq!(client.post(post("/chat/", &[]), "x").await.status, StatusCode::BAD_GATEWAY);
    }
    assert_eq!(server.heard.lock().len(), 5, "what may have begun is not repeated");
    assert_eq!(rig.metric("message_flow_upstream_ejections_total", ""), 0.0);
}

#[tokio::test]
async fn slow_readers_do_not_stop_others() {
    let big = Bytes::from(vec![b'x'; 4 << 20]);
    let server = Server2::following(&server::Builder::new(), move |_, _, request, mut respond| {
        let big = big.clone();
        Box::pin(async move {
            if request.uri().path() == "/small" {
                return answer(&mut respond, "small");
            }
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let _ = stream.send_data(big, true);
            std::future::pending::<()>().await;
        })
    })
    .await;
    let rig = rig("", &server.uri()).await;
    let mut slow = Vec::new();
    for _ in 0..30 {
        let client = Client2::connect(rig.address()).await;
        let (response, _) = client.sender.clone().send_request(get("/chat/big"), true).unwrap();
        slow.push((in_time("a head", response).await.unwrap(), client));
    }
    let client = Client2::connect(rig.address()).await;
    for _ in 0..10 {
        assert_eq!(client.ask(get("/chat/small")).await.body, "small");
    }
    assert_eq!(server.connections(), 1, "on the same connection");
}

#[tokio::test]
async fn the_whole_server_is_asked_by_a_star() {
    let server = Server2::named("a").await;
    let rig = rig("[[route]]\nhost = \"front.test\"\nservice = \"chat\"", &server.uri()).await;
    let client = Client2::connect(rig.address()).await;
    let uri = http::Uri::builder().scheme("http").authority("front.test").path_and_query("*").build();
    let request = Request::options(uri.unwrap()).body(()).unwrap();
    assert_eq!(client.ask(request).await.status, StatusCode::OK);
    let mut client = rig.client().await;
    client.say("OPTIONS * HTTP/1.1\r\nHost: front.test\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    let heard = server.heard.lock();
    assert_eq!(heard.len(), 2);
    for (_, request) in heard.iter() {
        assert_eq!((request.method(), request.uri().path()), (&Method::OPTIONS, "*"));
    }
}

#[tokio::test]
async fn trailers_that_http2_forbids_hang_nobody() {
    let server = Server2::following(&server::Builder::new(), |_, _, request, mut respond| {
        Box::pin(async move {
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            let ended = body.trailers().await;
            answer(&mut respond, if ended.is_ok() { "whole" } else { "broken" });
        })
    })
    .await;
    let rig = rig("", &server.uri()).await;
    for trailer in
        ["Connection: close", "Transfer-Encoding: chunked", "TE: gzip", "Upgrade: h2c", "Keep-Alive: 1"]
    {
        let mut client = rig.client().await;
        let head = "POST /chat/ HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n";
        client.say(&format!("{head}{trailer}\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "whole"), "{trailer}");
    }
}

#[tokio::test]
async fn a_clients_broken_body_is_not_the_servers_failure() {
    let server = Server2::following(&server::Builder::new(), |_, _, request, respond| {
        Box::pin(async move {
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            drop(respond);
        })
    })
    .await;
    let rig = rig("[proxy.ejection]\nfailures = 1", &server.uri()).await;
    for _ in 0..3 {
        let mut client = rig.client().await;
        client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n").await;
        let heard = client.rest().await;
        assert!(heard.starts_with("HTTP/1.1 400 "), "{heard}");
        let client = Client2::connect(rig.address()).await;
        let mut sender = client.sender.clone().ready().await.unwrap();
        let (response, mut stream) = sender.send_request(post("/chat/", &[]), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        stream.send_reset(Reason::CANCEL);
        assert!(in_time("an end", response).await.is_err());
    }
    assert_eq!(rig.metric("message_flow_upstream_ejections_total", ""), 0.0);
}

#[tokio::test]
async fn both_directions_stream_at_once() {
    let server = Server2::following(&server::Builder::new(), |_, _, request, mut respond| {
        Box::pin(async move {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                stream.send_data(data, false).unwrap();
            }
            stream.send_data(Bytes::new(), true).unwrap();
        })
    })
    .await;
    let rig = rig("", &server.uri()).await;
    let client = Client2::connect(rig.address()).await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (response, mut stream) = sender.send_request(post("/chat/", &[]), false).unwrap();
    let mut body = in_time("a head", response).await.unwrap().into_body();
    for number in 0..20_u8 {
        stream.send_data(Bytes::from(vec![number; 100]), false).unwrap();
        let mut got = Vec::new();
        while got.len() < 100 {
            got.extend_from_slice(&in_time("an echo", body.data()).await.unwrap().unwrap());
        }
        assert_eq!(got, vec![number; 100]);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(is_over(&mut body).await);
}

#[tokio::test]
async fn an_early_answer_of_the_server_is_the_clients() {
    let server = Server2::following(&server::Builder::new(), |_, _, _request, mut respond| {
        Box::pin(async move { answer(&mut respond, "enough") })
    })
    .await;
    let rig = rig("", &server.uri()).await;
    let client = Client2::connect(rig.address()).await;
    for _ in 0..5 {
        let mut sender = client.sender.clone().ready().await.unwrap();
        let (response, mut stream) = sender.send_request(post("/chat/", &[]), false).unwrap();
        stream.send_data(Bytes::from(vec![b'x'; 100_000]), false).unwrap();
        assert_eq!(in_time("an answer", read_reply(response)).await.unwrap().body, "enough");
    }
}

#[tokio::test]
async fn who_speaks_no_http2_is_found_out() {
    let server = Server::answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let rig = rig("", &format!("h2c://{}", server.address)).await;
    let reply = in_time("an answer", async { rig.client().await.get("/chat/", "").await }).await;
    assert_eq!(reply.status, 502);
    assert!(reply.body.contains("server-unreachable"), "{}", reply.body);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let server = Server2::named("a").await;
    let rig = rig("[proxy.timeouts]\nupstream_idle = \"100ms\"", &server.uri()).await;
    let client = Client2::connect(rig.address()).await;
    assert_eq!(client.ask(get("/chat/")).await.body, "a");
    let closed = async {
        while rig.metric("message_flow_upstream_connections", "") > 0.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time("the end of the connection", closed).await;
    assert_eq!(client.ask(get("/chat/")).await.body, "a");
}

#[tokio::test]
async fn a_connection_that_breaks_is_replaced_once_for_all() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counts = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = counts.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut connection = server::handshake(stream).await.unwrap();
                let (mut held, mut streams) = (Vec::new(), 0);
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    match number {
                        // What comes after the first waits until all are there.
                        0 if streams > 0 => held.push(respond),
                        _ => answer(&mut respond, "a"),
                    }
                    streams += 1;
                    if held.len() == 20 {
                        return;
                    }
                }
            });
        }
    });
    let rig = rig("", &format!("h2c://{address}")).await;
    let client = Client2::connect(rig.address()).await;
    assert_eq!(client.ask(get("/chat/")).await.body, "a");
    let replies = join_all((0..20).map(|_| client.ask(get("/chat/")))).await;
    assert!(replies.iter().all(|reply| reply.body == "a"), "{replies:?}");
    assert!(accepted.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn hints_pass_between_all_versions() {
    let one = Server::answering(
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none",
    )
    .await;
    let two = Server2::following(&server::Builder::new(), |_, _, _, mut respond| {
        Box::pin(async move {
            let hints = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
            respond.send_informational(hints).unwrap();
            answer(&mut respond, "two");
        })
    })
    .await;
    let text = format!(
        "[service.one]\nservers = [\"{}\"]\n[service.two]\nservers = [\"{}\"]\n",
        one.uri(),
        two.uri()
    );
    let rig = Rig::start(&text).await;
    for name in ["one", "two"] {
        let client = Client2::connect(rig.address()).await;
        let mut sender = client.sender.clone().ready().await.unwrap();
        let (mut response, _) = sender.send_request(get(&format!("/{name}/")), true).unwrap();
        let hints = in_time("hints", std::future::poll_fn(|cx| response.poll_informational(cx))).await;
        let hints = hints.unwrap().unwrap();
        assert_eq!(
            (hints.status(), &hints.headers()["link"]),
            (StatusCode::EARLY_HINTS, &"</a>".parse().unwrap())
        );
        assert_eq!(in_time("an answer", read_reply(response)).await.unwrap().body, name);
        let mut client = rig.client().await;
        client.say(&format!("GET /{name}/ HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")).await;
        let all = client.rest().await;
        assert!(
            all.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "{all}"
        );
    }
}

#[tokio::test]
async fn a_server_of_http2_is_asked_whether_it_wants_a_body() {
    let server = Server2::following(&server::Builder::new(), |_, stream, request, mut respond| {
        Box::pin(async move {
            if stream == 0 {
                let refusal = Response::builder().status(403).body(()).unwrap();
                respond.send_response(refusal, true).unwrap();
                return;
            }
            respond.send_informational(Response::builder().status(100).body(()).unwrap()).unwrap();
            let mut body = request.into_body();
            let data = body.data().await.unwrap().unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(data, true).unwrap();
        })
    })
    .await;
    let rig = rig("", &server.uri()).await;
    let mut client = rig.client().await;
    let head = "POST /chat/ HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.say(head).await;
    assert_eq!(client.reply().await.status, 403, "and the body was never asked for");
    let mut client = rig.client().await;
    client.say(head).await;
    assert_eq!(client.reply().await.status, 100);
    client.say("body").await;
    assert_eq!(client.reply().await.body, "body");
    assert!(server.heard.lock().iter().all(|(_, request)| request.headers()["expect"] == "100-continue"));
}
