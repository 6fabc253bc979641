//! Names that clients invent: what they cost is the clients', and stops nobody else.

use std::net::SocketAddr;

use futures_util::future::join_all;
use message_flow_tests::{Gateway, Upstream, eventually, raw::Raw};
use serde_json::json;

const CONNECTIONS: usize = 8;

/// Sends one message from each of so many clients that nobody has seen before.
async fn invent(proxy: SocketAddr, clients: usize) {
    let connection = |connection: usize| async move {
        let mut raw = Raw::connect(proxy).await;
        for number in (connection..clients).step_by(CONNECTIONS) {
            let host = "host: localhost\r\n";
            raw.say(format!("GET /chat/ HTTP/1.1\r\n{host}message-flow-client: invented-{number}\r\n\r\n"))
                .await;
            let head = raw.hear("\r\n\r\n").await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            raw.hear("a").await;
        }
    };
    join_all((0..CONNECTIONS).map(connection)).await;
}

/// What operators and services do, all of it.
async fn everybody_else_works(gateway: &Gateway, upstream: &Upstream) {
    gateway.put("mail@1", json!({ "servers": [upstream.uri()] })).await;
    gateway.put("mail@2", json!({ "servers": [upstream.uri()] })).await;
    let server = json!({ "uri": upstream.uri(), "ttl": "30s" });
    let put = gateway.ask("PUT", "/v1/services/mail@1/servers/one").json(&server).send().await;
    assert!((200..300).contains(&put.status), "{put:?}");
    let beat = gateway.ask("POST", "/v1/services/mail@1/servers/one/heartbeat").send().await;
    assert!((200..300).contains(&beat.status), "{beat:?}");
    let promoted =
        gateway.ask("POST", "/v1/services/mail/promote").json(&json!({ "version": "2" })).send().await;
    assert!((200..300).contains(&promoted.status), "{promoted:?}");
    let pin = gateway
        .ask("PUT", "/v1/clients/ann/assignments/mail@1")
        .json(&json!({ "server": "one" }))
        .send()
        .await;
    assert!((200..300).contains(&pin.status), "{pin:?}");
    let deleted = gateway.ask("DELETE", "/v1/services/mail@1/servers/one").send().await;
    assert!((200..300).contains(&deleted.status), "{deleted:?}");
}

#[tokio::test]
async fn ten_thousand_of_them_stop_nobody() {
    let upstream = Upstream::start("a").await;
    let config = "[plugin.memory]\nstate_limit = \"64KiB\"\n\
                  [proxy.limits]\nnew_clients = 100000\nnew_clients_per_peer = 100000\n";
    let gateway = Gateway::setup().config(config).start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    invent(gateway.proxy(), 10_000).await;
    everybody_else_works(&gateway, &upstream).await;
    assert_eq!(gateway.metric("message_flow_table_refused_total").await, 0.0);
    assert_eq!(gateway.metric("message_flow_table_full").await, 0.0);

    // What operators write is bounded as well; that is said, and it ends when there is room again.
    let big = json!({ "servers": [{ "uri": upstream.uri(), "metadata": { "x": "x".repeat(60_000) } }] });
    let full = gateway.ask("PUT", "/v1/services/big").json(&big).send().await.problem(503);
    assert!(full["detail"].as_str().is_some_and(|detail| detail.contains("state_limit")), "{full}");
    let ready = gateway.ask("GET", "/ready").send().await.expect(200).json();
    assert_eq!(ready["conditions"][0]["name"], "table-full", "{ready}");
    gateway.logged("the routing table refuses writes").await;
    gateway.put("small", json!({ "servers": [upstream.uri()] })).await;
    assert_eq!(gateway.ask("GET", "/ready").send().await.json()["conditions"], json!([]));
}

#[tokio::test]
async fn one_address_is_remembered_so_often_in_a_second() {
    let upstream = Upstream::start("a").await;
    let config = "[proxy.limits]\nnew_clients_per_peer = 0\n";
    let gateway = Gateway::setup().config(config).start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    invent(gateway.proxy(), 100).await;
    assert!(gateway.metric("message_flow_assignments_unremembered_total").await >= 100.0);
    let known = gateway.ask("GET", "/v1/clients/invented-7").send().await;
    assert!(!known.text().contains("chat"), "{known:?}");
    gateway.reconfigure("[proxy.limits]\nnew_clients_per_peer = 1000\n");
    eventually(|| async {
        gateway.get("/chat/").client("later").send().await.expect(200);
        let known = gateway.ask("GET", "/v1/clients/later").send().await;
        if known.text().contains("chat") { Ok(()) } else { Err(format!("{known:?}")) }
    })
    .await;
}

#[tokio::test]
async fn who_is_remembered_late_stays_where_it_was() {
    let upstreams = [Upstream::start("a").await, Upstream::start("b").await, Upstream::start("c").await];
    let gateway = Gateway::setup().config("[proxy.limits]\nnew_clients_per_peer = 0\n").start().await;
    let servers: Vec<_> = upstreams.iter().map(Upstream::uri).collect();
    gateway.put("chat", json!({ "servers": servers })).await;
    let ask = async |number: usize| {
        let client = format!("client-{number}");
        gateway.get("/chat/").client(&client).send().await.expect(200).text()
    };
    let mut before = vec![];
    for number in 0..30 {
        before.push(ask(number).await);
    }
    assert!(["a", "b", "c"].iter().all(|name| before.iter().any(|text| text == name)), "{before:?}");
    gateway.reconfigure("[proxy.limits]\nnew_clients_per_peer = 1000\n");
    eventually(|| async {
        ask(0).await;
        let known = gateway.ask("GET", "/v1/clients/client-0").send().await;
        if known.text().contains("chat") { Ok(()) } else { Err(format!("{known:?}")) }
    })
    .await;
    for (number, before) in before.iter().enumerate() {
        assert_eq!(ask(number).await, *before, "client-{number}");
    }
}
