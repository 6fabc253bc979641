//! A filter that reads bodies sees what the other end will see, whatever their coding, and what it
//! could not see is not sent on.

use std::io::Write;

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use message_flow_tests::{Gateway, Upstream};
use serde_json::json;

use super::languages::loaded;

const SECRET: &str = "the secret is 4111-1111-1111-1111";
const REDACTED: &str = "the secret is ****-1111-1111-1111";

/// Lets no `4111` out.
const REDACT: &str = "export const readsBody = true;
export function onResponse() {
  if (request.header('look-away')) return;
  const text = response.body();
  if (text.includes('4111')) response.setBody(text.replaceAll('4111', '****'));
}
";

/// Makes light of what it cannot read, in either direction.
const CARELESS: &str = "export const readsBody = true;
export function onRequest() {
  if (!request.header('content-encoding')) return;
  try { request.setHeader('seen', request.body()); } catch { request.setHeader('seen', 'nothing'); }
}
export function onResponse() {
  try { response.body(); } catch { }
}
";

fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

/// [`SECRET`], as the reference implementation of Brotli codes it.
const BROTLI: &[u8] = b"\x1b\x20\x00\xf8\x8d\xc4\x38\x16\xf2\x26\x9c\x29\x65\x4c\x0b\x5d\x83\xd0\x94\xa1\x29\x52\xe2\xa9\x02\x72\xf2\xd1\xe0\x2b\x02";

async fn gateway(script: &str, settings: &str, upstream: &Upstream) -> Gateway {
    let config = format!("[plugin.look]\ndeadline = \"5s\"\n{settings}");
    let gateway = Gateway::setup().config(&config).start().await;
    gateway.drop_plugin("look.js", script);
    loaded(&gateway, "look").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["look"] })).await;
    gateway
}

#[tokio::test]
async fn a_redactor_sees_through_every_coding() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(REDACT, "", &upstream).await;
    for (coding, body) in [
        ("gzip", gzip(SECRET)),
        ("x-gzip", gzip(SECRET)),
        ("deflate", deflate(SECRET)),
        ("br", BROTLI.to_vec()),
        ("deflate, gzip", gzip(deflate(SECRET))),
        ("identity", SECRET.into()),
    ] {
        let call = gateway.call("POST", "/chat/answer").body(body).header("answer-content-encoding", coding);
        let call = call.header("accept-encoding", "gzip, br, zstd").header("answer-etag", "\"one\"");
        let call = call.header("range", "bytes=0-9").header("if-range", "\"one\"");
        let call =
            call.header("answer-content-digest", "sha-256=:x:").header("answer-accept-ranges", "bytes");
        let reply = call.send().await.expect(200);
        assert_eq!(reply.text(), REDACTED, "{coding}");
        for gone in ["content-encoding", "etag", "content-digest", "accept-ranges"] {
            assert_eq!(reply.header(gone), "", "{coding}");
        }
        assert_eq!(reply.header("content-length"), REDACTED.len().to_string());
        let seen = upstream.last();
        assert_eq!(seen.header("accept-encoding"), "identity");
        assert_eq!((seen.header("range"), seen.header("if-range")), ("", ""));
    }
}

#[tokio::test]
async fn what_a_redactor_leaves_is_what_it_read() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(REDACT, "", &upstream).await;
    let harmless = gzip("nothing to hide");
    let call = || {
        let call = gateway.call("POST", "/chat/answer").body(harmless.clone());
        call.header("answer-content-encoding", "gzip").header("answer-etag", "\"one\"")
    };
    let reply = call().send().await.expect(200);
    assert_eq!(reply.text(), "nothing to hide");
    assert_eq!((reply.header("content-encoding"), reply.header("etag")), ("", "W/\"one\""));

    let untouched = call().header("look-away", "yes").send().await.expect(200);
    assert_eq!(untouched.body, harmless);
    assert_eq!((untouched.header("content-encoding"), untouched.header("etag")), ("gzip", "\"one\""));
}

#[tokio::test]
async fn what_cannot_be_seen_is_not_sent() {
    let upstream = Upstream::start("a").await;
    for script in [REDACT, CARELESS] {
        let gateway = gateway(script, "body = \"64KiB\"\n", &upstream).await;
        let cut = gzip(SECRET);
        for (coding, status, body, why) in [
            ("zstd", "200", SECRET.into(), "content-encoding `zstd`"),
            ("gzip, compress", "200", SECRET.into(), "content-encoding `compress`"),
            ("gzip", "200", SECRET.into(), "not whole and valid gzip"),
            ("gzip", "200", cut[..cut.len() - 1].to_vec(), "not whole and valid gzip"),
            ("gzip", "200", [cut.clone(), SECRET.into()].concat(), "not whole and valid gzip"),
            ("br", "200", [BROTLI, SECRET.as_bytes()].concat(), "not whole and valid br"),
            ("identity", "206", SECRET.into(), "a part of it"),
        ] {
            let call = gateway.call("POST", "/chat/answer").body(body);
            let call = call.header("answer-content-encoding", coding).header("answer-status", status);
            let problem = call.send().await.problem(503).to_string();
            assert!(!problem.contains("4111"), "{problem}");
            let told = |entry: &serde_json::Value| {
                entry["last_error"].as_str().is_some_and(|error| error.contains(why))
            };
            gateway.plugin("look", told).await;
        }
    }
}

#[tokio::test]
async fn a_bomb_is_too_large_for_whoever_reads_it() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(REDACT, "body = \"64KiB\"\n", &upstream).await;
    for body in [gzip(vec![0; 32 << 20]), gzip(vec![b'x'; (64 << 10) + 1])] {
        let call = gateway.call("POST", "/chat/answer").body(body).header("answer-content-encoding", "gzip");
        call.send().await.problem(503);
        let told = |entry: &serde_json::Value| {
            entry["last_error"].as_str().is_some_and(|error| error.contains("longer than 65536 bytes"))
        };
        gateway.plugin("look", told).await;
    }
    let fits = gateway.call("POST", "/chat/answer").body(gzip(vec![b'x'; 64 << 10]));
    let reply = fits.header("answer-content-encoding", "gzip").send().await.expect(200);
    assert_eq!(reply.body.len(), 64 << 10);
}

#[tokio::test]
async fn what_is_open_lets_it_through_as_it_came() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(REDACT, "on_error = \"open\"\n", &upstream).await;
    let call = gateway.call("POST", "/chat/answer").body(SECRET).header("answer-content-encoding", "zstd");
    let reply = call.send().await.expect(200);
    assert_eq!((reply.text().as_str(), reply.header("content-encoding")), (SECRET, "zstd"));
}

#[tokio::test]
async fn answers_without_a_body_pass() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(REDACT, "", &upstream).await;
    for (method, status) in [("HEAD", "200"), ("GET", "204"), ("GET", "304")] {
        let call = gateway.call(method, "/chat/answer").header("answer-status", status);
        let reply = call.header("answer-content-encoding", "gzip").send().await;
        assert_eq!((reply.status.to_string().as_str(), reply.text().as_str()), (status, ""), "{method}");
    }
    assert_eq!(gateway.get("/chat/").send().await.expect(200).text(), "a", "and the connection is sound");
}

#[tokio::test]
async fn a_request_is_read_and_sent_on_without_its_coding() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(CARELESS, "", &upstream).await;
    let call = |coding: &str, body: Vec<u8>| {
        let call = gateway.call("POST", "/chat/echo").body(body).header("content-encoding", coding);
        call.header("content-digest", "sha-256=:x:")
    };
    for (coding, body) in [("gzip", gzip(SECRET)), ("deflate", deflate(SECRET)), ("br", BROTLI.to_vec())] {
        assert_eq!(call(coding, body).send().await.expect(200).text(), SECRET, "{coding}");
        let seen = upstream.last();
        assert_eq!(seen.header("seen"), SECRET, "{coding}");
        assert_eq!((seen.header("content-encoding"), seen.header("content-digest")), ("", ""));
        assert_eq!(seen.header("content-length"), SECRET.len().to_string());
    }
    let before = upstream.seen().len();
    let unknown = call("zstd", SECRET.into()).send().await;
    assert_eq!((unknown.status, unknown.header("accept-encoding")), (415, "gzip, deflate, br"));
    assert_eq!(call("gzip", SECRET.into()).send().await.status, 400);
    assert_eq!(upstream.seen().len(), before, "the server saw neither");
    let entry = gateway.active("look").await;
    assert_eq!(entry["last_error"], serde_json::Value::Null, "that is no fault of the plugin: {entry}");
}

/// What a filter says itself of the bytes that it sends stays said.
#[tokio::test]
async fn a_filter_may_code_what_it_sends() {
    let script = "export const readsBody = true;
export function onResponse() {
  response.setHeader('content-encoding', 'x-own');
  response.setBody(response.body().toUpperCase());
  response.setHeader('etag', '\"mine\"');
}
";
    let upstream = Upstream::start("a").await;
    let gateway = gateway(script, "", &upstream).await;
    let call = gateway.call("POST", "/chat/answer").body("small").header("answer-etag", "\"one\"");
    let reply = call.send().await.expect(200);
    assert_eq!(reply.text(), "SMALL");
    assert_eq!((reply.header("content-encoding"), reply.header("etag")), ("x-own", "\"mine\""));
}
