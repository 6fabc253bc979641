//! What an upstream answers, by the path.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The answer of the upstream `name`; an error closes the connection.
pub(super) async fn to(request: Request<Incoming>, name: &str, status: u16) -> io::Result<Response<Body>> {
    let path = request.uri().path().to_owned();
    let mut parts = path.split('/').skip(1);
    let kind = parts.next().unwrap_or_default();
    let number = parts.next().and_then(|part| part.parse::<u64>().ok()).unwrap_or_default();
    let mut response = if status != 0 {
        with_status(status, name)
    } else {
        match kind {
            "echo" => echo(request),
            "answer" => answer(request),
            "status" => with_status(u16::try_from(number).unwrap_or(500), name),
            "slow" => slow(number, name).await,
            "close" => return Err(io::Error::other("asked to close")),
            "cut" => Response::new(frames(vec![Ok(data("cut off")), Err(io::Error::other("cut"))])),
            "big" => Response::new(whole(vec![b'x'; usize::try_from(number).unwrap_or_default()])),
            "drip" => drip(number),
            "trailers" => Response::new(frames(vec![Ok(data(name)), Ok(trailers())])),
            "hop" => hop(name),
            "websocket" => return Ok(websocket(request)),
            _ => Response::new(whole(name.to_owned())),
        }
    };
    response.headers_mut().insert("upstream", HeaderValue::from_str(name).expect("a test's name"));
    Ok(response)
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn frames(frames: Vec<io::Result<Frame<Bytes>>>) -> Body {
    BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames)))
}

fn data(text: &str) -> Frame<Bytes> {
    Frame::data(Bytes::copy_from_slice(text.as_bytes()))
}

fn trailers() -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        "0".parse().expect("valid"),
    )]))
}

fn with_status(status: u16, name: &str) -> Response<Body> {
    let mut response = Response::new(whole(name.to_owned()));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("a test's status");
    response
}

async fn slow(millis: u64, name: &str) -> Response<Body> {
    tokio::time::sleep(Duration::from_millis(millis)).await;
    Response::new(whole(name.to_owned()))
}

fn drip(count: u64) -> Response<Body> {
    let drops = stream::unfold(0, move |at| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        (at < count).then(|| (Ok(data(&format!("{at}\n"))), at + 1))
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(drops)))
}

fn hop(name: &str) -> Response<Body> {
    let mut response = Response::new(whole(name.to_owned()));
    let pairs = [("connection", "x-secret"), ("x-secret", "1"), ("keep-alive", "timeout=5"), ("x-open", "1")];
    for (name, value) in pairs {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let kind = request.headers().get("content-type").cloned();
    let mut response = Response::new(request.into_body().map_err(io::Error::other).boxed_unsync());
    if let Some(kind) = kind {
        response.headers_mut().insert("content-type", kind);
    }
    response
}

/// The status and the headers that the request's `answer-…` headers say.
fn answer(request: Request<Incoming>) -> Response<Body> {
    let headers = request.headers().clone();
    let mut response = Response::new(request.into_body().map_err(io::Error::other).boxed_unsync());
    for (name, value) in &headers {
        match name.as_str().strip_prefix("answer-") {
            Some("status") => {
                *response.status_mut() =
                    http::StatusCode::from_bytes(value.as_bytes()).expect("a test's status");
            }
            Some(name) => {
                let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a test's header");
                response.headers_mut().append(name, value.clone());
            }
            None => {}
        }
    }
    response
}

fn websocket(request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get("sec-websocket-key") else {
        return with_status(426, "no WebSocket handshake");
    };
    let accept = derive_accept_key(key.as_bytes());
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if !(message.is_text() || message.is_binary()) {
                continue;
            }
            if socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let switching =
        Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
    switching.header("sec-websocket-accept", accept).body(whole("")).expect("a fixed response")
}
