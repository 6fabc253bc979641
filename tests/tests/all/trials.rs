//! The next build of a plugin, tried out as a shadow and for some of the clients, promoted and
//! rolled back.

use message_flow_tests::{Gateway, Upstream, eventually, guests};
use serde_json::{Value, json};

/// A gateway whose filter `stamp` is build 1, with build 2 as the next one.
async fn gateway(upstream: &Upstream, canary: u8) -> Gateway {
    let config = format!("[plugin.stamp]\nshadow = \"{{dir}}/plugins/stamp-next.wasm\"\ncanary = {canary}\n");
    let gateway = Gateway::setup()
        .config(config)
        .file("plugins/stamp.wasm", guests::marked("stamp", "1"))
        .file("plugins/stamp-next.wasm", guests::marked("stamp", "2"))
        .start()
        .await;
    gateway.active("stamp").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["stamp"] })).await;
    gateway
}

/// Which build stamped a client's request and response.
async fn stamped(gateway: &Gateway, upstream: &Upstream, client: &str) -> String {
    let reply = gateway.get("/chat/").header("message-flow-client", client).send().await.expect(200);
    assert_eq!(upstream.last().header("stamp"), reply.header("stamped"), "one build for the whole message");
    reply.header("stamped").to_owned()
}

async fn counted(gateway: &Gateway, wanted: impl Fn(&Value) -> bool) -> Value {
    gateway.plugin("stamp", |entry| entry["state"] == "active" && wanted(&entry["next"])).await
}

#[tokio::test]
async fn a_shadow_decides_nothing_and_its_differences_are_counted() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(&upstream, 0).await;
    for client in ["ann", "bob", "cem"] {
        assert_eq!(stamped(&gateway, &upstream, client).await, "1");
    }
    let entry = counted(&gateway, |next| next["different"] == 6).await;
    assert_eq!((&entry["next"]["same"], &entry["next"]["decided"]), (&json!(0), &json!(0)), "{entry}");
    let difference = entry["next"]["last_difference"].as_str().unwrap_or_default();
    assert!(difference.contains("the header stamp"), "{difference}");
    gateway.logged("the shadow differs").await;
    let metric = "message_flow_plugin_next_total{outcome=\"different\",plugin=\"stamp\"}";
    assert!(gateway.metric(metric).await >= 6.0);
    let trial = gateway.plugin("stamp@next", |entry| entry["state"] == "trial").await;
    assert_eq!(trial["crashes"], 0, "{trial}");

    // The same build again, under another name and with other bytes that mean the same: no difference.
    gateway.drop_plugin("stamp-next.wasm", guests::marked("stamp", "1"));
    gateway.plugin("stamp", |entry| entry["state"] == "active" && entry["next"].is_null()).await;
}

#[tokio::test]
async fn a_canary_decides_for_its_share_of_the_clients_always_the_same() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(&upstream, 50).await;
    let mut by_next = 0;
    for number in 0..40 {
        let client = format!("c{number}");
        let first = stamped(&gateway, &upstream, &client).await;
        assert_eq!(stamped(&gateway, &upstream, &client).await, first, "a client stays with its build");
        by_next += usize::from(first == "2");
    }
    assert!((5..36).contains(&by_next), "{by_next} of 40");
    let entry = counted(&gateway, |next| next["different"].as_u64().is_some_and(|count| count > 0)).await;
    assert_eq!(entry["next"]["decided"], json!(by_next * 4), "{entry}");
}

#[tokio::test]
async fn a_next_build_is_promoted_and_rolled_back() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(&upstream, 0).await;
    counted(&gateway, |next| !next.is_null()).await;
    let builds = gateway.ask("POST", "/v1/plugins/stamp/promote").send().await.expect(200).json();
    assert!(builds.as_array().is_some_and(|builds| builds.iter().any(|build| build["state"] == "active")));
    eventually(|| async {
        let mark = stamped(&gateway, &upstream, "ann").await;
        if mark == "2" { Ok(()) } else { Err(mark) }
    })
    .await;
    assert_eq!(std::fs::read(gateway.path("plugins/stamp.wasm")).unwrap(), guests::marked("stamp", "2"));
    gateway.ask("POST", "/v1/plugins/stamp/promote").send().await.expect(409);

    gateway.ask("POST", "/v1/plugins/stamp/rollback").send().await.expect(200);
    eventually(|| async {
        let mark = stamped(&gateway, &upstream, "ann").await;
        if mark == "1" { Ok(()) } else { Err(mark) }
    })
    .await;
    let entry = gateway.active("stamp").await;
    assert!(entry["next"].is_null(), "what was rolled back is not tried out again: {entry}");
    gateway.ask("POST", "/v1/plugins/stamp/rollback").send().await.expect(409);
    gateway.ask("POST", "/v1/plugins/nobody/promote").send().await.expect(404);
}

#[tokio::test]
async fn a_trial_is_ended_over_the_api_and_begins_again_with_another_build() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(&upstream, 100).await;
    assert_eq!(stamped(&gateway, &upstream, "ann").await, "2");
    gateway.ask("POST", "/v1/plugins/stamp/rollback").send().await.expect(200);
    eventually(|| async {
        let mark = stamped(&gateway, &upstream, "ann").await;
        if mark == "1" { Ok(()) } else { Err(mark) }
    })
    .await;
    gateway.drop_plugin("stamp-next.wasm", guests::marked("stamp", "3"));
    eventually(|| async {
        let mark = stamped(&gateway, &upstream, "ann").await;
        if mark == "3" { Ok(()) } else { Err(mark) }
    })
    .await;
}

#[tokio::test]
async fn a_next_build_that_asks_for_more_or_crashes_harms_nobody() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(&upstream, 0).await;
    for (bytes, why) in [
        (guests::bytes("needy"), "message-flow:plugin/etcd"),
        (guests::bytes("chooser"), "RequestFilter, ResponseFilter"),
        (b"garbage".to_vec(), "neither a WebAssembly component"),
    ] {
        gateway.drop_plugin("stamp-next.wasm", bytes);
        let refused = |entry: &Value| entry["error"].as_str().is_some_and(|error| error.contains(why));
        gateway.plugin("stamp@next", refused).await;
        assert_eq!(stamped(&gateway, &upstream, "ann").await, "1");
    }
}
