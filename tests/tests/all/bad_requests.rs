//! Requests that no well-behaved client sends.

use std::time::{Duration, Instant};

use message_flow_tests::{
    Gateway, Upstream,
    raw::{Raw, exchange, statuses},
};
use serde_json::json;

async fn plain(config: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup().config(config).start().await;
    gateway.put("chat", json!({ "server": upstream.uri() })).await;
    (gateway, upstream)
}

/// Each must be answered with this status, or by closing the connection, and must never reach the
/// server as more than one request.
const REFUSED: &[(&str, &str)] = &[
    ("garbage", "hello\r\n\r\n"),
    ("no version", "GET /chat/\r\n\r\n"),
    ("wrong version", "GET /chat/ HTTP/3.7\r\nhost: a\r\n\r\n"),
    ("no host", "GET /chat/ HTTP/1.1\r\n\r\n"),
    ("two hosts", "GET /chat/ HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    ("space before colon", "GET /chat/ HTTP/1.1\r\nhost : a\r\n\r\n"),
    ("folded header", "GET /chat/ HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n"),
    ("NUL in a value", "GET /chat/ HTTP/1.1\r\nhost: a\r\nx: 1\x002\r\n\r\n"),
    ("bare CR in a value", "GET /chat/ HTTP/1.1\r\nhost: a\r\nx: 1\r2\r\n\r\n"),
    ("bad method", "G\"T /chat/ HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("negative length", "POST /chat/ HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n"),
    ("signed length", "POST /chat/ HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc"),
    ("hex length", "POST /chat/ HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc"),
    ("endless length", "POST /chat/ HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\nabc"),
    ("two lengths", "POST /chat/ HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde"),
    ("list of lengths", "POST /chat/ HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 5\r\n\r\nabcde"),
    (
        "length and chunks",
        "POST /chat/ HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /chat/smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "chunks and length",
        "POST /chat/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nGET /chat/smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "obfuscated chunks",
        "POST /chat/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nGET /chat/smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    ("unknown coding", "POST /chat/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\nabc"),
    (
        "chunked not last",
        "POST /chat/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    ("chunks in HTTP/1.0", "POST /chat/ HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    (
        "upgrade with a body",
        "GET /chat/websocket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\nabc",
    ),
    ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n"),
];

#[tokio::test]
async fn what_is_malformed_is_refused_and_not_passed_on() {
    let (gateway, upstream) = plain("").await;
    for (what, bytes) in REFUSED {
        let heard = exchange(gateway.proxy(), bytes).await;
        let statuses = statuses(&heard);
        let refused = statuses.iter().all(|status| (400..600).contains(status) && *status != 503);
        assert!(refused && statuses.len() <= 1, "{what}: {statuses:?}\n{heard}");
        assert!(!heard.contains("smuggled"), "{what}: {heard}");
    }
    let smuggled = upstream.seen().into_iter().filter(|seen| seen.target.contains("smuggled")).count();
    assert_eq!(smuggled, 0);
    gateway.get("/chat/").send().await.expect(200);
}

#[tokio::test]
async fn a_bad_chunk_does_not_end_as_a_good_request() {
    let (gateway, upstream) = plain("").await;
    for (what, body) in [
        ("size is no number", "zz\r\nabc\r\n0\r\n\r\n"),
        ("size is endless", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("no line end after the data", "3\r\nabcX0\r\n\r\n"),
        ("negative", "-3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let head = "POST /chat/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        let heard =
            exchange(gateway.proxy(), format!("{head}{body}GET /chat/smuggled HTTP/1.1\r\nhost: a\r\n\r\n"))
                .await;
        assert!(statuses(&heard).len() <= 1, "{what}: {heard}");
    }
    assert!(upstream.seen().iter().all(|seen| !seen.target.contains("smuggled")));
    gateway.get("/chat/").send().await.expect(200);
}

#[tokio::test]
async fn what_belongs_to_a_connection_stays_there() {
    let (gateway, upstream) = plain("").await;
    let call = gateway
        .get("/chat/hop")
        .header("connection", "x-secret, x-forwarded-for, close")
        .header("x-secret", "1");
    let call = call
        .header("keep-alive", "1")
        .header("proxy-connection", "1")
        .header("te", "gzip")
        .header("x-open", "1");
    let reply = call.send().await.expect(200);

    let seen = upstream.last();
    for name in ["x-secret", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(seen.header(name), "", "{name} reached the server");
    }
    assert_eq!(seen.header("x-open"), "1");
    assert!(
        !seen.header("x-forwarded-for").is_empty() || !seen.header("forwarded").is_empty(),
        "ours are not deletable: {seen:?}"
    );
    for name in ["x-secret", "keep-alive"] {
        assert_eq!(reply.header(name), "", "{name} reached the client");
    }
    assert_eq!(reply.header("x-open"), "1");
}

#[tokio::test]
async fn an_untrusted_peer_cannot_say_whom_it_forwards_for() {
    let (gateway, upstream) = plain("").await;
    let forged =
        gateway.get("/chat/").header("x-forwarded-for", "6.6.6.6").header("forwarded", "for=6.6.6.6");
    forged.header("x-forwarded-proto", "https").header("x-real-ip", "6.6.6.6").send().await.expect(200);
    let seen = upstream.last();
    for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
        assert!(!seen.header(name).contains("6.6.6.6"), "{name}: {seen:?}");
    }
    assert_ne!(seen.header("x-forwarded-proto"), "https");

    let (gateway, upstream) = plain("[proxy]\ntrusted = [\"127.0.0.0/8\"]\n").await;
    gateway.get("/chat/").header("x-forwarded-for", "6.6.6.6").send().await.expect(200);
    assert!(upstream.last().header("x-forwarded-for").starts_with("6.6.6.6"), "{:?}", upstream.last());
}

#[tokio::test]
async fn oversized_heads_are_refused() {
    let (gateway, upstream) = plain("").await;
    let long = format!("GET /chat/ HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(200 << 10));
    assert_eq!(statuses(&exchange(gateway.proxy(), long).await), [431]);
    let many: String = (0..500).map(|at| format!("x{at}: 1\r\n")).collect();
    assert_eq!(
        statuses(&exchange(gateway.proxy(), format!("GET /chat/ HTTP/1.1\r\nhost: a\r\n{many}\r\n")).await),
        [431]
    );
    let target = format!("GET /chat/{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(200 << 10));
    let answered = statuses(&exchange(gateway.proxy(), target).await);
    assert!(answered == [414] || answered == [431], "{answered:?}");
    assert_eq!(upstream.seen().len(), 0);
    gateway.get("/chat/").send().await.expect(200);
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused() {
    let (gateway, _upstream) = plain("[proxy.limits]\nbody = \"1KiB\"\n").await;
    gateway.call("POST", "/chat/echo").body("x".repeat(1000)).send().await.expect(200);
    gateway.call("POST", "/chat/echo").body("x".repeat(2000)).send().await.expect(413);
    let chunk = format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000));
    let head = "POST /chat/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let heard = exchange(gateway.proxy(), format!("{head}{chunk}")).await;
    assert_ne!(statuses(&heard), [200], "{heard}");
}

#[tokio::test]
async fn slow_senders_are_cut_off() {
    let limits = "[proxy.timeouts]\nfirst_byte = \"300ms\"\nhead = \"300ms\"\nkeep_alive = \"300ms\"\nbody = \"300ms\"\n";
    let (gateway, _upstream) = plain(limits).await;
    let begin = Instant::now();
    let limit = Duration::from_secs(5);

    let mut silent = Raw::connect(gateway.proxy()).await;
    silent.until_closed(limit).await;

    let mut dripping = Raw::connect(gateway.proxy()).await;
    for byte in "GET /chat/ HTTP/1.1\r\n".chars() {
        dripping.say(byte.to_string()).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let heard = dripping.until_closed(limit).await;
    assert!(statuses(&heard).iter().all(|status| *status == 408), "{heard}");

    let mut idle = Raw::connect(gateway.proxy()).await;
    idle.say("GET /chat/ HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(statuses(&idle.until_closed(limit).await), [200]);

    let mut stalled = Raw::connect(gateway.proxy()).await;
    stalled.say("POST /chat/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").await;
    stalled.until_closed(limit).await;
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn connections_are_bounded() {
    a_flood_passes_by("connections = 8").await;
}

#[tokio::test]
async fn connections_of_one_peer_are_bounded() {
    a_flood_passes_by("connections_per_peer = 8").await;
}

async fn a_flood_passes_by(limit: &str) {
    let (gateway, _upstream) = plain(&format!("[proxy.limits]\n{limit}\n")).await;
    let mut held = vec![];
    for _ in 0..40 {
        held.push(Raw::connect(gateway.proxy()).await);
    }
    let call = gateway.get("/chat/");
    let refused = call.clone().try_send().await;
    assert!(refused.is_err(), "{refused:?}");
    drop(held);
    message_flow_tests::eventually(|| async {
        match call.clone().try_send().await {
            Ok(reply) if reply.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_loop_through_the_proxy_ends() {
    let gateway = Gateway::start().await;
    gateway.put("loop", json!({ "server": format!("http://{}/loop", gateway.proxy()) })).await;
    let reply = gateway.get("/loop/").send().await;
    assert!([502, 503, 508].contains(&reply.status), "{reply:?}");
}

#[tokio::test]
async fn metadata_addresses_are_never_dialled() {
    let gateway = Gateway::start().await;
    let spec = json!({ "server": "http://169.254.169.254" });
    let reply = gateway.ask("PUT", "/v1/services/meta").json(&spec).send().await;
    if (200..300).contains(&reply.status) {
        let begin = Instant::now();
        let reply = gateway.get("/meta/latest").send().await;
        assert!([403, 502, 503].contains(&reply.status), "{reply:?}");
        assert!(begin.elapsed() < Duration::from_millis(1500), "it was dialled: {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn api_garbage_is_refused() {
    let gateway = Gateway::start().await;
    for (what, bytes) in REFUSED.iter().filter(|(what, _)| !what.contains("upgrade")) {
        let heard = exchange(gateway.api(), bytes).await;
        assert!(statuses(&heard).iter().all(|status| *status >= 400), "{what}: {heard}");
    }
    gateway.ask("GET", "/live").send().await.expect(200);
}
