//! What is found out about servers, and whose it is; and what the gateway keeps for itself.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use message_flow_tests::{Gateway, Upstream, eventually};
use serde_json::{Value, json};
use tokio::net::TcpStream;

async fn checks(gateway: &Gateway, service: &str) -> Value {
    let shown = gateway.ask("GET", format!("/v1/services/{service}")).send().await.expect(200).json();
    shown["servers"][0]["checks"].clone()
}

async fn until_checks(gateway: &Gateway, service: &str, wanted: &str) {
    eventually(|| async {
        let checks = checks(gateway, service).await;
        if checks == wanted { Ok(()) } else { Err(format!("{service}: {checks}")) }
    })
    .await;
}

#[tokio::test]
async fn what_one_service_finds_out_by_checks_is_its_own() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    let put = async |service: &str, path: &str, interval: &str| {
        let health = json!({ "path": path, "interval": interval, "unhealthy_after": 2 });
        gateway.put(service, json!({ "servers": [upstream.uri()], "health": health })).await;
    };
    put("one", "/status/500", "1s").await;
    put("two", "/status/200", "1s").await;
    put("three", "/status/500", "1s").await;
    until_checks(&gateway, "one", "failing").await;
    until_checks(&gateway, "three", "failing").await;
    gateway.get("/one/").send().await.problem(503);
    gateway.get("/two/").send().await.expect(200);
    assert_eq!(checks(&gateway, "two").await, "passing");

    // Neither a service that goes nor another interval makes the server well.
    for service in ["two", "three"] {
        gateway.ask("DELETE", format!("/v1/services/{service}")).send().await;
    }
    assert_eq!(checks(&gateway, "one").await, "failing");
    put("one", "/status/500", "30s").await;
    assert_eq!(checks(&gateway, "one").await, "failing");
    gateway.get("/one/").send().await.problem(503);
    put("one", "/status/200", "1s").await;
    until_checks(&gateway, "one", "passing").await;
    gateway.get("/one/").send().await.expect(200);
}

#[tokio::test]
async fn services_share_a_question_to_one_server() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    let begun = std::time::Instant::now();
    for service in 0..20 {
        let health = json!({ "path": "/health", "interval": "10ms" });
        gateway.put(&format!("s{service}"), json!({ "servers": [upstream.uri()], "health": health })).await;
    }
    let asked = || upstream.seen().iter().filter(|seen| seen.target == "/health").count();
    eventually(|| async { if asked() >= 4 { Ok(()) } else { Err(asked()) } }).await;
    let most = begun.elapsed().as_secs() as usize + 1;
    assert!(asked() <= most, "{} questions in {:?}", asked(), begun.elapsed());
}

/// The gateway's binary under these limits of open files.
fn limited(limits: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("limited");
    let binary = message_flow_tests::gateway::binary().display();
    std::fs::write(&path, format!("#!/bin/sh\nulimit {limits}\nexec {binary} \"$@\"\n")).expect("write it");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("make it executable");
    (directory, path)
}

async fn idle(address: std::net::SocketAddr, connections: usize) -> Vec<TcpStream> {
    let mut idle = Vec::new();
    for _ in 0..connections {
        idle.push(TcpStream::connect(address).await.expect("the backlog takes it"));
    }
    idle
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised() {
    let upstream = Upstream::start("a").await;
    let (_directory, binary) = limited("-Sn 128");
    let gateway = Gateway::setup().binary(&binary).start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    let held = idle(gateway.proxy(), 200).await;
    gateway.get("/chat/").send().await.expect(200);
    gateway.ask("GET", "/ready").send().await.expect(200);
    drop(held);
}

#[tokio::test]
async fn clients_leave_descriptors_for_servers_and_the_api() {
    let upstream = Upstream::start("a").await;
    let (_directory, binary) = limited("-n 256");
    let gateway = Gateway::setup().binary(&binary).start().await;
    gateway.logged("[proxy.limits] connections is lowered").await;
    gateway.put("chat", json!({ "servers": [upstream.uri()], "sticky": false })).await;
    let held = idle(gateway.proxy(), 400).await;
    gateway.ask("GET", "/live").send().await.expect(200);
    gateway.put("other", json!({ "servers": [upstream.uri()] })).await;
    drop(held);
    eventually(|| async {
        // While the last of them are being closed there may be no place.
        match tokio::time::timeout(std::time::Duration::from_secs(2), gateway.get("/chat/").try_send()).await
        {
            Ok(Ok(reply)) if reply.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let lines = gateway.log().lines().filter(|line| line.contains("cannot accept connections")).count();
    assert!(lines < 30, "{lines} lines:\n{}", gateway.log());
}

#[tokio::test]
async fn health_checks_and_operators_have_places_of_their_own() {
    let (admin, reader) = ("a-token-for-everything", "a-token-for-reading");
    let rule = |token: &str, action: &str| {
        let hash = message_flow::auth::TokenHash::of(token);
        format!("[[access]]\nlabel = \"{action}\"\ntoken_sha256 = \"{hash}\"\nactions = [\"{action}\"]\n")
    };
    let config = format!("[api.limits]\nconnections = 4\n{}{}", rule(admin, "admin"), rule(reader, "read"));
    let gateway = Gateway::setup().config(config).start().await;
    let _held = idle(gateway.api(), 60).await;
    let bearer = |token: &str| format!("Bearer {token}");
    for _ in 0..20 {
        gateway.ask("GET", "/live").send().await.expect(200);
        gateway.ask("GET", "/ready").send().await.expect(200);
        let list = || gateway.ask("GET", "/v1/services");
        list().header("authorization", bearer(admin)).send().await.expect(200);
        list().header("authorization", bearer(reader)).send().await.problem(429);
        list().send().await.problem(401);
    }
}
