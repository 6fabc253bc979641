//! Services that announce themselves, need others, and are told.

use message_flow_tests::{Gateway, Service, Upstream, eventually, websocket::WebSocket};
use serde_json::json;

/// A gateway that gives up a service one second after its connection ended.
async fn hasty() -> Gateway {
    Gateway::setup().config("[discovery]\ngrace = \"1s\"\nping = \"1s\"\ndeadline = \"3s\"\n").start().await
}

/// The transcript of the README.
#[tokio::test]
async fn three_services_find_each_other() {
    let gateway = Gateway::start().await;
    let mut carchase = WebSocket::open(gateway.api(), "/").await.expect("a handshake");
    carchase.say(r#"{"name":"carchase-service","requires":["explosion-service"],"port":9877}"#).await;

    let mut explosion = Service::open(gateway.api()).await;
    explosion
        .say(json!({ "type": "identification", "payload": {
            "name": "explosion-service", "port": 8003, "host": "10.9.8.10", "requires": [],
        }}))
        .await;
    let told = carchase.hear().await.expect("a notification");
    let start =
        r#"{"type":"required-service","payload":{"name":"explosion-service","port":8003,"host":"10.9.8.10""#;
    assert!(told.starts_with(start), "{told}");

    let definition = json!({ "name": "killer-robot", "requires": ["explosion-service"], "port": 1234 });
    let mut robot = Service::connect(gateway.api(), definition).await;
    let found = robot.required("explosion-service").await;
    assert_eq!((&found["host"], &found["port"]), (&json!("10.9.8.10"), &json!(8003)));
    explosion.hears_nothing().await;
}

#[tokio::test]
async fn a_connected_service_gets_its_messages_until_it_has_been_gone_for_the_grace() {
    let upstream = Upstream::start("a").await;
    let port = upstream.address().port();
    let gateway = hasty().await;
    let mut needs = Service::connect(gateway.api(), json!({ "name": "web", "requires": ["chat"] })).await;
    needs.settled().await;
    let chat = Service::connect(gateway.api(), json!({ "name": "chat", "port": port })).await;
    let found = needs.required("chat").await;
    assert_eq!((&found["host"], &found["port"]), (&json!("127.0.0.1"), &json!(port)));
    gateway.until(gateway.get("/chat/"), 200).await;

    // Gone and back within the grace is no news.
    chat.close().await;
    eventually(|| async {
        let shown = gateway.ask("GET", "/v1/services/chat").send().await.expect(200).json();
        if shown["servers"][0]["health"] == "suspect" { Ok(()) } else { Err(shown) }
    })
    .await;
    gateway.get("/chat/").send().await.expect(200);
    let chat = Service::connect(gateway.api(), json!({ "name": "chat", "port": port })).await;
    eventually(|| async {
        let shown = gateway.ask("GET", "/v1/services/chat").send().await.expect(200).json();
        if shown["servers"][0]["health"] == "healthy" { Ok(()) } else { Err(shown) }
    })
    .await;
    needs.hears_nothing().await;

    chat.close().await;
    needs.lost("chat").await;
    gateway.until(gateway.get("/chat/"), 404).await;
}

#[tokio::test]
async fn a_connection_changes_its_mind() {
    let gateway = Gateway::start().await;
    let mut needs = Service::connect(gateway.api(), json!({ "name": "web", "requires": ["a"] })).await;
    needs.settled().await;
    let mut a = Service::connect(gateway.api(), json!({ "name": "a", "port": 1 })).await;
    assert_eq!(needs.required("a").await["port"], 1);
    a.say(json!({ "name": "a", "version": "2", "port": 2, "metadata": { "zone": "x" } })).await;
    let found = needs.required("a").await;
    assert_eq!(
        (&found["port"], &found["version"], &found["metadata"]["zone"]),
        (&json!(2), &json!("2"), &json!("x"))
    );
    needs.say(json!({ "type": "drop", "payload": { "requires": ["a"] } })).await;
    needs.settled().await;
    a.say(json!({ "type": "deregister" })).await;
    needs.hears_nothing().await;
    needs.say(json!({ "type": "require", "payload": { "requires": ["a@3"] } })).await;
    a.say(json!({ "name": "a@3", "port": 3 })).await;
    assert_eq!(needs.required("a").await["requirement"], "a@3");
    a.say(json!({ "type": "deregister" })).await;
    needs.lost("a").await;
}
