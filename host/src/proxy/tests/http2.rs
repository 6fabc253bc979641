//! HTTP/2 on either side, and gRPC from end to end.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use super::{Rig, Server};

type Body = BoxBody<Bytes, Infallible>;

/// Answers with the request's body and trailers that say what it saw of the head.
async fn echo(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-path", HeaderValue::from_str(head.uri.path()).unwrap());
    let authority = head.uri.authority().map_or("", |authority| authority.as_str());
    trailers.insert("x-authority", HeaderValue::from_str(authority).unwrap());
    if let Some(te) = head.headers.get("te") {
        trailers.insert("x-te", te.clone());
    }
    let body = body.collect().await.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
    let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

/// A server that speaks HTTP/2 with prior knowledge and nothing else.
async fn grpc_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(echo)));
        }
    });
    address
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(path: &str, kind: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post(format!("http://front.test{path}"))
        .header("content-type", kind)
        .header("te", "trailers")
        .body(Full::from(body.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    let server = grpc_server().await;
    {
        let text = format!("[service.\"pkg.Greeter\"]\nservers = [\"h2c://{server}\"]\n");
        let rig = Rig::start(&text).await;
        let mut client = connect(rig.address()).await;
        for _ in 0..3 {
            let sent = client.send_request(request("/pkg.Greeter/Hello", "application/grpc+proto", "hi"));
            let response = sent.await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await.unwrap();
            let trailers = body.trailers().cloned().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
            assert_eq!(trailers["x-path"], "/Hello");
            assert_eq!(trailers["x-authority"], "front.test");
            assert_eq!(trailers["x-te"], "trailers");
            assert_eq!(body.to_bytes(), "hi");
        }
    }
}

#[tokio::test]
async fn many_streams_share_connections() {
    let server = grpc_server().await;
    let rig = Rig::start(&format!("[service.chat]\nservers = [\"h2c://{server}\"]\n")).await;
    let client = connect(rig.address()).await;
    let calls = (0..200).map(|number| {
        let mut client = client.clone();
        async move {
            let body = "x".repeat(number * 100);
            client.ready().await.unwrap();
            let response = client.send_request(request("/chat/", "text/plain", &body)).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
        }
    });
    futures_util::future::join_all(calls).await;
    let connections = rig.metric("message_flow_upstream_connections", "");
    assert!((1.0..=4.0).contains(&connections), "{connections}");
}

#[tokio::test]
async fn http2_clients_reach_http1_servers() {
    let server = Server::named("a").await;
    let rig = Rig::start(&format!("[service.chat]\nservers = [\"{}\"]\n", server.uri())).await;
    let mut client = connect(rig.address()).await;
    let response = client.send_request(request("/chat/x?y", "text/plain", "body")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "a");
    let heard = server.heard()[0].to_ascii_lowercase();
    assert!(heard.starts_with("post /x?y http/1.1\r\n"), "{heard}");
    assert!(heard.contains("\r\nhost: front.test\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\nbody"), "{heard}");
    let response = client.send_request(request("/nobody/", "text/plain", "")).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn http1_clients_reach_http2_servers() {
    let server = grpc_server().await;
    let rig = Rig::start(&format!("[service.chat]\nservers = [\"h2c://{server}\"]\n")).await;
    let mut client = rig.client().await;
    for _ in 0..3 {
        client.say("POST /chat/ HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc").await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "abc"));
    }
}

#[tokio::test]
async fn a_silent_server_times_out_on_its_stream_alone() {
    let silent = Server::following(|stream, _| {
        Box::pin(async move {
            let _held = stream;
            std::future::pending::<()>().await;
        })
    })
    .await;
    let server = Server::named("a").await;
    let text = format!(
        "[proxy.timeouts]\nresponse = \"200ms\"\n[service.silent]\nservers = [\"{}\"]\n[service.chat]\nservers = [\"{}\"]\n",
        silent.uri(),
        server.uri()
    );
    let rig = Rig::start(&text).await;
    let mut client = connect(rig.address()).await;
    let slow = client.send_request(request("/silent/", "text/plain", ""));
    assert_eq!(slow.await.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    let fast = client.send_request(request("/chat/", "text/plain", ""));
    assert_eq!(fast.await.unwrap().status(), StatusCode::OK);
}
