//! What filters read of bodies, and what is sent on of them.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::plugin::message::ResponseHead;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A response with this body.
fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Message {
    let mut head = ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new() };
    for (name, value) in headers {
        head.headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let body = Some(Body::of_response(whole(body.into()), &head));
    Message { response: Some(Box::new(head)), body, ..Message::default() }
}

fn headers(message: &mut Message) -> &mut HeaderMap {
    &mut message.response.as_mut().unwrap().headers
}

fn header<'a>(message: &'a mut Message, name: &str) -> &'a str {
    headers(message).get(name).map_or("", |value| value.to_str().unwrap())
}

async fn read(message: &mut Message, limit: u64) -> Result<Bytes, BodyError> {
    message.body.as_mut().unwrap().read(limit).await
}

async fn sent(message: &mut Message) -> Bytes {
    message.take_body().unwrap().collect().await.unwrap().to_bytes()
}

const DESCRIBED: [(&str, &str); 9] = [
    ("content-encoding", "gzip"),
    ("etag", "\"one\""),
    ("content-md5", "x"),
    ("digest", "x"),
    ("content-digest", "x"),
    ("repr-digest", "x"),
    ("accept-ranges", "bytes"),
    ("content-length", "999"),
    ("last-modified", "Sat, 28 Nov 2026 06:00:00 GMT"),
];

#[tokio::test]
async fn what_was_read_is_what_is_sent_on() {
    let mut message = response(200, &DESCRIBED, gzip("plain"));
    assert_eq!(read(&mut message, 100).await.ok().unwrap(), "plain");
    assert_eq!(read(&mut message, 100).await.ok().unwrap(), "plain");
    assert!(!message.body.as_ref().unwrap().is_replaced());
    assert_eq!(sent(&mut message).await, "plain");
    assert_eq!(header(&mut message, "etag"), "W/\"one\"");
    assert_eq!(header(&mut message, "content-length"), "5");
    let mut names: Vec<_> = headers(&mut message).keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "etag", "last-modified"]);
}

#[tokio::test]
async fn what_is_not_coded_stays_as_it_is() {
    let mut message = response(200, &DESCRIBED[1..], "plain");
    assert_eq!(read(&mut message, 100).await.ok().unwrap(), "plain");
    assert_eq!(sent(&mut message).await, "plain");
    assert_eq!(header(&mut message, "etag"), "\"one\"");
    assert_eq!(headers(&mut message).len(), DESCRIBED.len() - 1);
}

#[tokio::test]
async fn what_is_not_read_keeps_its_coding() {
    let coded = gzip("plain");
    let mut message = response(200, &DESCRIBED, coded.clone());
    assert_eq!(sent(&mut message).await, coded);
    assert_eq!(headers(&mut message).len(), DESCRIBED.len());
}

#[tokio::test]
async fn what_replaces_a_body_has_nothing_of_its_description() {
    let mut message = response(200, &DESCRIBED, gzip("plain"));
    message.body.as_mut().unwrap().replace("other bytes".into());
    assert_eq!(read(&mut message, 100).await.ok().unwrap(), "other bytes");
    assert_eq!(sent(&mut message).await, "other bytes");
    let mut names: Vec<_> = headers(&mut message).keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "last-modified"]);
    assert_eq!(header(&mut message, "content-length"), "11");
}

#[tokio::test]
async fn what_the_plugin_says_of_its_own_bytes_stays() {
    let mut message = response(200, &DESCRIBED, gzip("plain"));
    let body = message.body.as_mut().unwrap();
    body.describe(&header::CONTENT_ENCODING);
    body.describe(&header::ETAG);
    headers(&mut message).insert(header::CONTENT_ENCODING, HeaderValue::from_static("own"));
    assert_eq!(read(&mut message, 100).await.ok().unwrap(), "plain", "by what the server said");
    message.body.as_mut().unwrap().replace(gzip("plain").into());
    sent(&mut message).await;
    assert_eq!(header(&mut message, "content-encoding"), "own");
    assert_eq!(header(&mut message, "etag"), "\"one\"");
    assert_eq!(header(&mut message, "digest"), "");
}

#[tokio::test]
async fn what_cannot_be_read_is_noted_until_it_is_replaced() {
    for (status, coding, body, why) in [
        (
            200,
            "zstd",
            &b"?"[..],
            "its content-encoding `zstd` cannot be decoded; what can be is gzip, deflate, br",
        ),
        (200, "gzip", b"plain", "it is not whole and valid gzip, which its content-encoding says it is"),
        (206, "identity", b"art", "the server sent a part of it (206), which nobody asked for"),
    ] {
        let mut message = response(status, &[("content-encoding", coding)], body);
        assert!(matches!(read(&mut message, 100).await, Err(BodyError::Other(said)) if said == why));
        assert_eq!(message.unread().map(ToString::to_string).as_deref(), Some(why));
        assert_eq!(message.take_body_unchanged().unwrap().collect().await.unwrap().to_bytes(), body);

        let mut message = response(status, &[("content-encoding", coding)], body);
        read(&mut message, 100).await.unwrap_err();
        message.body.as_mut().unwrap().replace("own".into());
        assert!(message.unread().is_none());
        assert_eq!(sent(&mut message).await, "own");
        assert_eq!(message.response.unwrap().status, 200);
    }
}

#[tokio::test]
async fn what_is_too_large_goes_on_as_it_came() {
    let coded = gzip(&"x".repeat(2000));
    let mut message = response(200, &DESCRIBED, coded.clone());
    assert!(matches!(read(&mut message, 1999).await, Err(BodyError::TooLarge(1999))));
    assert!(message.unread().is_none(), "the plugin decides about that");
    assert_eq!(sent(&mut message).await, coded);
    assert_eq!(header(&mut message, "content-encoding"), "gzip");
}

#[tokio::test]
async fn an_answer_without_a_body_stays_one() {
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        for replace in [false, true] {
            let mut message = response(status, &DESCRIBED, "");
            message.method = method.parse().unwrap();
            assert_eq!(read(&mut message, 100).await.ok().unwrap(), "");
            if replace {
                message.body.as_mut().unwrap().replace("more".into());
            }
            assert_eq!(sent(&mut message).await, "", "{method} {status}");
            assert_eq!(header(&mut message, "content-length"), "", "it would be that of other bytes");
            assert_eq!(header(&mut message, "content-encoding"), "");
        }
    }
}

#[tokio::test]
async fn trailers_follow_what_was_read() {
    let trailers = HeaderMap::from_iter([
        (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0")),
        (HeaderName::from_static("content-digest"), HeaderValue::from_static("x")),
    ]);
    let mut message = response(200, &[("content-encoding", "gzip")], "");
    let stream = frames(gzip("plain").into(), Some(trailers));
    message.body = Some(Body::of_response(stream, message.response.as_ref().unwrap()));
    read(&mut message, 100).await.ok().unwrap();
    message.body.as_mut().unwrap().replace("other".into());
    let sent = message.take_body().unwrap().collect().await.unwrap();
    let trailers = sent.trailers().unwrap();
    assert_eq!((trailers.len(), &trailers["grpc-status"]), (1, &HeaderValue::from_static("0")));
    assert_eq!(sent.to_bytes(), "other");
    assert_eq!(header(&mut message, "content-length"), "", "it would leave no place for them");
}

#[tokio::test]
async fn a_request_keeps_where_its_body_belongs() {
    let mut message = Message::default();
    for (name, value) in [("content-encoding", "gzip"), ("content-range", "bytes 0-4/9"), ("digest", "x")] {
        message.headers.insert(name, value.parse().unwrap());
    }
    message.body = Some(Body::of_request(whole(gzip("plain").into()), &message.headers));
    read(&mut message, 100).await.ok().unwrap();
    assert_eq!(sent(&mut message).await, "plain");
    let mut names: Vec<_> = message.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "content-range"]);
}
