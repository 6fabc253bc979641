//! Clients: shown, pinned, forgotten.

use message_flow_tests::{Gateway, Upstream};
use serde_json::json;

#[tokio::test]
async fn a_client_is_shown_with_its_assignments() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat@2", json!({ "servers": [upstream.uri()] })).await;
    gateway.get("/chat@2/").client("alice").send().await.expect(200);

    let client = gateway.ask("GET", "/v1/clients/alice").send().await.expect(200).json();

    assert_eq!(client["assignments"]["chat@2"]["server"], upstream.id(), "{client}");
    assert!(!client["assignments"]["chat@2"]["expires"].is_null(), "{client}");
}

#[tokio::test]
async fn a_pin_moves_a_client_and_holds() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [a.uri(), b.uri()], "sticky": { "ttl": "200ms" } })).await;
    for upstream in [&a, &b] {
        let pin = gateway
            .ask("PUT", "/v1/clients/alice/assignments/chat")
            .json(&json!({ "server": upstream.id() }));
        let reply = pin.send().await;
        assert!((200..300).contains(&reply.status), "{reply:?}");
        let name = gateway.get("/chat/").client("alice").send().await.expect(200);
        assert_eq!(name.header("upstream"), if upstream.id() == a.id() { "a" } else { "b" });
    }

    // Longer than the TTL: a pinned assignment does not expire.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;

    for _ in 0..10 {
        assert_eq!(gateway.get("/chat/").client("alice").send().await.expect(200).text(), "b");
    }
    let client = gateway.ask("GET", "/v1/clients/alice").send().await.expect(200).json();
    assert!(client["assignments"]["chat"]["expires"].is_null(), "{client}");
}

#[tokio::test]
async fn a_forgotten_client_is_decided_anew() {
    let upstreams = [Upstream::start("a").await, Upstream::start("b").await, Upstream::start("c").await];
    let servers: Vec<_> = upstreams.iter().map(Upstream::uri).collect();
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [servers[0]] })).await;
    let goes = async |client: &str| gateway.get("/chat/").client(client).send().await.expect(200).text();
    let clients: Vec<_> = (0..40).map(|number| format!("client-{number}")).collect();
    for client in &clients {
        assert_eq!(goes(client).await, "a");
    }
    gateway.put("chat", json!({ "servers": servers })).await;

    let mut seen = std::collections::BTreeSet::new();
    for client in &clients {
        assert_eq!(goes(client).await, "a", "a server more moves nobody");
        let reply = gateway.ask("DELETE", format!("/v1/clients/{client}/assignments/chat")).send().await;
        assert!((200..300).contains(&reply.status), "{reply:?}");
        let anew = goes(client).await;
        assert_eq!(goes(client).await, anew);
        seen.insert(anew);
    }

    assert_eq!(seen.len(), 3, "by the list as it is now");
}

#[tokio::test]
async fn a_pin_to_nowhere_is_refused() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;

    let pin = |service: &str| gateway.ask("PUT", format!("/v1/clients/alice/assignments/{service}"));
    let reply = pin("chat").json(&json!({ "server": "nonsense" })).send().await;
    assert!([400, 404, 409, 422].contains(&reply.status), "{reply:?}");
    pin("nobody").json(&json!({ "server": upstream.id() })).send().await.problem(404);
    let reply = pin("chat").json(&json!({ "srever": upstream.id() })).send().await;
    assert!([400, 422].contains(&reply.status), "{reply:?}");
}

#[tokio::test]
async fn odd_client_ids_work() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    for (client, escaped) in [("a/b", "a%2Fb"), ("a b", "a%20b"), ("a%2Fb", "a%252Fb"), ("..", "%2E%2E")] {
        let reply = gateway.get("/chat/").client(client).send().await;
        assert_eq!(reply.status, 200, "{client}: {}", reply.text());
        let shown = gateway.ask("GET", format!("/v1/clients/{escaped}")).send().await.expect(200).json();
        assert_eq!(shown["assignments"]["chat"]["server"], upstream.id(), "{client}: {shown}");
    }
}

#[tokio::test]
async fn unusable_client_ids_are_refused() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    for client in ["", "ä", &"x".repeat(1000)] {
        gateway.get("/chat/").client(client).send().await.problem(400);
    }
    assert!(upstream.seen().is_empty());
}
