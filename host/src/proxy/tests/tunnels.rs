//! WebSockets between the versions of HTTP: a client of either, a server of either (RFC 8441).

use bytes::Bytes;
use h2::{ext::Protocol, server};
use http::{Method, Request, Response, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    Rig, Server,
    rig::hear,
    wire2::{Client2, PATIENCE, Server2, in_time, is_over},
};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A server of HTTP/1.1 that agrees, with the right answer to the key, and says everything twice.
async fn websocket1() -> Server {
    Server::following(|mut stream, requests| {
        Box::pin(async move {
            let Some(request) = hear(&mut stream).await else { return };
            let key =
                request.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ").map(str::to_owned));
            requests.lock().push(request);
            let accept = derive_accept_key(key.unwrap_or_default().trim().as_bytes());
            let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade";
            let answer =
                format!("{head}\r\nsec-websocket-accept: {accept}\r\nsec-websocket-protocol: chat\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..read].repeat(2)).await.unwrap();
            }
        })
    })
    .await
}

/// The same of HTTP/2.
async fn websocket2() -> Server2 {
    let mut builder = server::Builder::new();
    builder.enable_connect_protocol();
    Server2::following(&builder, |_, _, request, mut respond| {
        Box::pin(async move {
            let response = Response::builder().header("sec-websocket-protocol", "chat").body(()).unwrap();
            let mut send = respond.send_response(response, false).unwrap();
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                send.send_data(Bytes::from(data.repeat(2)), false).unwrap();
            }
            let _ = send.send_data(Bytes::new(), true);
        })
    })
    .await
}

async fn rig(proxy: &str, uri: &str) -> Rig {
    Rig::start(&format!("{proxy}\n[service.chat]\nservers = [\"{uri}\"]\n")).await
}

fn connect(path: &str) -> Request<()> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://front.test{path}"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .body(())
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

/// What a client of HTTP/2 says and hears.
async fn talk2(rig: &Rig) {
    let client = Client2::connect(rig.address()).await;
    assert!(client.sender.is_extended_connect_protocol_enabled());
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (response, mut send) = sender.send_request(connect("/chat/socket?a=b"), false).unwrap();
    let response = in_time("an answer", response).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for forbidden in ["sec-websocket-accept", "connection", "upgrade"] {
        assert!(!response.headers().contains_key(forbidden), "{forbidden}");
    }
    let mut body = response.into_body();
    for word in ["one", "two", "three"] {
        send.send_data(Bytes::from_static(word.as_bytes()), false).unwrap();
        let mut got = Vec::new();
        while got.len() < 2 * word.len() {
            let data = in_time("an echo", body.data()).await.unwrap().unwrap();
            let _ = body.flow_control().release_capacity(data.len());
            got.extend_from_slice(&data);
        }
        assert_eq!(got, word.repeat(2).as_bytes());
    }
    assert_eq!(rig.metric("message_flow_tunnels", ""), 1.0);
    send.send_data(Bytes::new(), true).unwrap();
    assert!(is_over(&mut body).await);
}

/// What a client of HTTP/1.1 says and hears.
async fn talk1(rig: &Rig) {
    let mut client = rig.client().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13";
    client
        .say(&format!(
            "GET /chat/socket?a=b HTTP/1.1\r\nHost: t\r\n{upgrade}\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        ))
        .await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 101, "{reply:?}");
    assert_eq!(reply.header("sec-websocket-accept"), Some(derive_accept_key(KEY.as_bytes()).as_str()));
    assert_eq!(reply.header("upgrade"), Some("websocket"));
    for word in ["one", "two", "three"] {
        client.say(word).await;
        assert_eq!(client.exactly(2 * word.len()).await, word.repeat(2).as_bytes());
    }
    assert_eq!(rig.metric("message_flow_tunnels", ""), 1.0);
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_client_of_http2_reaches_a_server_of_http1() {
    let server = websocket1().await;
    let rig = rig("", &server.uri()).await;
    talk2(&rig).await;
    let heard = server.heard()[0].to_ascii_lowercase();
    assert!(heard.starts_with("get /socket?a=b http/1.1\r\n"), "{heard}");
    for line in ["host: front.test", "upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13"]
    {
        assert!(heard.contains(&format!("\r\n{line}\r\n")), "{line}: {heard}");
    }
}

#[tokio::test]
async fn a_client_of_http2_reaches_a_server_of_http2() {
    let server = websocket2().await;
    let rig = rig("", &server.uri()).await;
    talk2(&rig).await;
    check_heard(&server);
}

#[tokio::test]
async fn a_client_of_http1_reaches_a_server_of_http2() {
    let server = websocket2().await;
    let rig = rig("", &server.uri()).await;
    talk1(&rig).await;
    check_heard(&server);
}

fn check_heard(server: &Server2) {
    let (_, request) = &server.heard.lock()[0];
    assert_eq!(request.method(), Method::CONNECT);
    assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
    assert_eq!(request.uri().path_and_query().unwrap(), "/socket?a=b");
    assert_eq!(request.headers()["sec-websocket-version"], "13");
    assert!(!request.headers().contains_key("sec-websocket-key"));
}

#[tokio::test]
async fn a_client_of_http1_reaches_a_server_of_http1() {
    let server = websocket1().await;
    let rig = rig("", &server.uri()).await;
    talk1(&rig).await;
}

#[tokio::test]
async fn a_server_without_extended_connect_is_not_asked() {
    let server = Server2::named("a").await;
    let rig = rig("[proxy.ejection]\nfailures = 1", &server.uri()).await;
    for _ in 0..3 {
        let client = Client2::connect(rig.address()).await;
        let reply = client.ask_tunnel(connect("/chat/")).await;
        assert_eq!(reply.status, StatusCode::NOT_IMPLEMENTED);
        let mut client = rig.client().await;
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13";
        client
            .say(&format!("GET /chat/ HTTP/1.1\r\nHost: t\r\n{upgrade}\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"))
            .await;
        assert_eq!(client.reply().await.status, 501);
    }
    assert!(server.heard.lock().is_empty());
    assert_eq!(rig.metric("message_flow_upstream_ejections_total", ""), 0.0);
}

#[tokio::test]
async fn what_is_not_agreed_to_is_told() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno";
    let wrong = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                 sec-websocket-accept: aaaa\r\n\r\n";
    let forbidden = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
    for (answer, status) in [(ok, 502), (wrong, 502), (forbidden, 403)] {
        let server = Server::answering(answer).await;
        let rig = rig("", &server.uri()).await;
        let client = Client2::connect(rig.address()).await;
        assert_eq!(client.ask_tunnel(connect("/chat/")).await.status, status, "{answer}");
        assert_eq!(client.ask_tunnel(connect("/nobody/")).await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_silent_tunnel_ends() {
    let server = websocket1().await;
    let rig = rig("[proxy.timeouts]\ntunnel = \"200ms\"", &server.uri()).await;
    let client = Client2::connect(rig.address()).await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (response, _send) = sender.send_request(connect("/chat/"), false).unwrap();
    let mut body = in_time("an answer", response).await.unwrap().into_body();
    assert!(in_time("the end", body.data()).await.is_none_or(|data| data.is_err()));
    assert_eq!(rig.metric("message_flow_timeouts_total", "tunnel"), 1.0);
}

#[tokio::test]
async fn a_tunnel_is_told_when_the_listener_stops() {
    let server = websocket1().await;
    let rig = rig("", &server.uri()).await;
    let client = Client2::connect(rig.address()).await;
    let mut sender = client.sender.clone().ready().await.unwrap();
    let (response, mut send) = sender.send_request(connect("/chat/"), false).unwrap();
    let mut body = in_time("an answer", response).await.unwrap().into_body();
    let draining = tokio::spawn(rig.proxy.drain(PATIENCE));
    let goodbye = in_time("a goodbye", body.data()).await.unwrap().unwrap();
    assert_eq!(goodbye.as_ref(), [0x88, 0x02, 0x03, 0xE9]);
    send.send_data(Bytes::new(), true).unwrap();
    drop((send, body));
    in_time("the end", draining).await.unwrap();
    client.ended().await;
}

#[tokio::test]
async fn the_headers_of_a_tunnel_are_checked_like_any() {
    let server = websocket1().await;
    let rig = rig("[proxy.limits]\nheaders = 4", &server.uri()).await;
    let client = Client2::connect(rig.address()).await;
    let mut request = connect("/chat/");
    for number in 0..5 {
        request.headers_mut().append(header::ACCEPT, number.into());
    }
    let reply = client.ask_tunnel(request).await;
    assert_eq!(reply.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert!(server.heard().is_empty());
}
