//! Webhooks: what happens is told, signed, once, and a target that is down slows nothing.

use std::time::{Duration, Instant};

use message_flow_tests::{Etcd, Gateway, Upstream, eventually, guests};
use serde_json::{Value, json};

use crate::receiver::Receiver;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn to(receiver: &Receiver, more: &str) -> String {
    format!("[[webhook]]\nname = \"ops\"\nurl = \"{}\"\nsecret = \"{SECRET}\"\n{more}\n", receiver.url())
}

async fn promote(gateway: &Gateway, what: Value) {
    gateway.ask("POST", "/v1/services/chat/promote").json(&what).send().await.expect(200);
}

#[tokio::test]
async fn what_happens_is_told_and_signed() {
    let (receiver, upstream) = (Receiver::start().await, Upstream::start("a").await);
    let gateway = Gateway::setup().config(to(&receiver, "")).start().await;
    // One after the other: what happens at once is told in no particular order.
    gateway.put("chat@1", json!({ "servers": [upstream.uri()] })).await;
    receiver.told(2).await;
    promote(&gateway, json!({ "version": "1" })).await;
    receiver.told(3).await;
    gateway.put("chat@2", json!({ "servers": [upstream.uri()] })).await;
    receiver.told(5).await;
    promote(&gateway, json!({ "version": "2", "why": "spring" })).await;
    receiver.told(6).await;
    gateway.ask("POST", "/v1/services/chat/rollback").send().await.expect(200);
    receiver.told(7).await;
    gateway.ask("DELETE", "/v1/services/chat@2").send().await.expect(204);
    let told = receiver.told(8).await;

    let id = upstream.id();
    let texts: Vec<_> = told.iter().map(|told| told.body["text"].as_str().unwrap_or_default()).collect();
    assert_eq!(
        texts,
        [
            "chat@1 is there for the first time",
            &format!("chat@1: server {id} is up"),
            "chat was promoted to 1 by anyone",
            "chat@2 is there for the first time",
            &format!("chat@2: server {id} is up"),
            "chat was promoted to 2 by anyone: spring",
            "chat was rolled back to 1 by anyone",
            &format!("chat@2: server {id} is down"),
        ]
    );
    for told in &told {
        told.must_be_signed_with(SECRET);
        assert!(told.body["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{}", told.body);
    }
    let first = &told[1].body;
    assert_eq!((&first["type"], &first["data"]["uri"]), (&json!("server.up"), &json!(upstream.uri())));
    assert!(!gateway.log().contains("MfKQ9r8"));
    assert_eq!(
        gateway.metric("message_flow_notifications_total{outcome=\"delivered\",webhook=\"ops\"}").await,
        8.0
    );
}

#[tokio::test]
async fn a_target_is_told_what_it_asked_for_and_again_until_it_listens() {
    let receiver = Receiver::start().await;
    receiver.answer(500);
    let gateway = Gateway::setup().config(to(&receiver, "events = [\"server.down\"]")).start().await;
    gateway.put("chat", json!({ "servers": ["http://127.0.0.1:1"] })).await;
    gateway.ask("DELETE", "/v1/services/chat").send().await.expect(204);
    let first = receiver.told(1).await.remove(0);
    receiver.answer(204);
    let again = receiver.told(2).await.remove(1);
    assert_eq!((&again.id, &again.body), (&first.id, &first.body));
    again.must_be_signed_with(SECRET);
    assert_eq!(first.body["type"], "server.down");
    eventually(|| async {
        match gateway.metric("message_flow_notifications_total{outcome=\"delivered\"").await {
            1.0 => Ok(()),
            count => Err(count),
        }
    })
    .await;
}

#[tokio::test]
async fn a_target_that_is_down_slows_nothing() {
    // It accepts and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let receiver = Receiver::start().await;
    let dead = format!("http://{}/", silent.local_addr().expect("bound"));
    let config = format!("[[webhook]]\nname = \"dead\"\nurl = \"{dead}\"\nqueue = 2\n{}", to(&receiver, ""));
    let gateway = Gateway::setup().config(config).start().await;
    let began = Instant::now();
    for service in 0..50 {
        gateway.put(&format!("s{service}"), json!({ "servers": ["http://127.0.0.1:1"] })).await;
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    receiver.told(100).await;
    let dropped =
        gateway.metric("message_flow_notifications_total{outcome=\"dropped\",webhook=\"dead\"}").await;
    assert!(dropped >= 90.0, "{dropped}");
}

#[tokio::test]
async fn plugins_are_told_of() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::setup().config(to(&receiver, "")).start().await;
    gateway.drop_plugin("stamp.wasm", std::fs::read(guests::wasm("stamp")).expect("a guest"));
    gateway.active("stamp").await;
    gateway.drop_plugin("needy.wasm", std::fs::read(guests::wasm("needy")).expect("a guest"));
    let told = receiver.told(2).await;
    assert_eq!(
        (&told[0].body["type"], &told[0].body["data"]["plugin"]),
        (&json!("plugin.swapped"), &json!("stamp"))
    );
    assert_eq!(
        (&told[1].body["type"], &told[1].body["data"]["plugin"]),
        (&json!("plugin.refused"), &json!("needy"))
    );
    assert!(told[1].body["text"].as_str().unwrap_or_default().contains("grant"), "{}", told[1].body);
}

#[tokio::test]
async fn of_several_routers_one_tells() {
    let (etcd, receiver) = (Etcd::start().await, Receiver::start().await);
    let on = |router: &str| {
        let etcd = format!(
            "[router]\nid = \"{router}\"\n[table]\nadapter = \"etcd\"\n[plugin.etcd]\nconfig = {{ endpoints = \"{}\", prefix = \"/test\" }}\n",
            etcd.endpoint()
        );
        Gateway::setup().config(etcd + &to(&receiver, "events = [\"server.up\", \"server.down\"]"))
    };
    let (mut one, two) = (on("router-1").start().await, on("router-2").start().await);
    let sees = |gateway: &Gateway, count: usize| {
        let call = gateway.ask("GET", "/v1/routers");
        async move {
            eventually(|| async {
                let routers = call.clone().send().await.json();
                if routers.as_array().is_some_and(|list| list.len() == count) { Ok(()) } else { Err(routers) }
            })
            .await;
        }
    };
    sees(&one, 2).await;
    sees(&two, 2).await;
    two.put("chat", json!({ "servers": ["http://127.0.0.1:1"] })).await;
    receiver.told(1).await;
    one.signal("TERM").await;
    one.ended(Duration::from_secs(20)).await;
    sees(&two, 1).await;
    two.put("chat", json!({ "servers": ["http://127.0.0.1:2"] })).await;
    let told = receiver.told(3).await;
    let types: Vec<_> = told.iter().map(|told| told.body["type"].clone()).collect();
    assert_eq!(types, ["server.up", "server.up", "server.down"]);
}

#[tokio::test]
async fn a_target_may_be_reached_by_https() {
    let (receiver, pem) = Receiver::start_tls().await;
    let url = receiver.url().replace("http://127.0.0.1", "https://localhost");
    let config = |more: &str| format!("[[webhook]]\nurl = \"{url}\"\nattempts = 1\n{more}");
    let gateway =
        Gateway::setup().file("ca.pem", pem).config(config("ca = \"{dir}/ca.pem\"\n")).start().await;
    gateway.put("chat", json!({ "servers": ["http://127.0.0.1:1"] })).await;
    let told = receiver.told(2).await;
    assert_eq!(told[1].body["type"], "server.up");

    // A certificate that nobody vouches for is not believed.
    gateway.reconfigure(config(""));
    gateway.signal("HUP").await;
    let failed = "message_flow_notifications_total{outcome=\"failed\",webhook=\"localhost\"}";
    let services = std::sync::atomic::AtomicU32::new(0);
    eventually(|| async {
        let number = services.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        gateway.put(&format!("s{number}"), json!({ "servers": ["http://127.0.0.1:1"] })).await;
        let failed = gateway.metric(failed).await;
        if failed > 0.0 { Ok(()) } else { Err("nothing has failed") }
    })
    .await;
}
