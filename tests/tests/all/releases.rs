//! Releases: a new version goes live and back again, and nobody is dropped.

use std::collections::BTreeSet;

use message_flow_tests::{Etcd, Gateway, Upstream, eventually};
use serde_json::{Value, json};

/// Two versions of `chat`.
struct Scene {
    gateway: Gateway,
    blue: Upstream,
    green: Upstream,
}

impl Scene {
    async fn start() -> Self {
        let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
        let gateway = Gateway::start().await;
        gateway.put("chat@1", json!({ "servers": [blue.uri()] })).await;
        gateway.put("chat@2", json!({ "servers": [green.uri()] })).await;
        Self { gateway, blue, green }
    }

    async fn promote(&self, what: Value) -> Value {
        promote(&self.gateway, what).await
    }

    async fn rollback(&self, what: Value) -> Value {
        self.gateway.ask("POST", "/v1/services/chat/rollback").json(&what).send().await.expect(200).json()
    }

    async fn to(&self, client: &str) -> String {
        to(&self.gateway, client).await
    }

    async fn releases(&self) -> Value {
        self.gateway.ask("GET", "/v1/services/chat/releases").send().await.expect(200).json()
    }

    async fn why(&self, client: &str, header: &str) -> String {
        let query = format!("/v1/explain?service=chat&client={client}{header}");
        let explained = self.gateway.ask("GET", query).send().await.expect(200).json();
        assert_eq!(explained["trace"][0]["step"], "version", "{explained}");
        format!("{} {}", explained["service"], explained["trace"][0]["outcome"])
    }
}

async fn promote(gateway: &Gateway, what: Value) -> Value {
    gateway.ask("POST", "/v1/services/chat/promote").json(&what).send().await.expect(200).json()
}

async fn to(gateway: &Gateway, client: &str) -> String {
    gateway.get("/chat/").client(client).send().await.expect(200).text()
}

#[tokio::test]
async fn a_promotion_drains_and_a_rollback_moves() {
    let scene = Scene::start().await;
    let promoted = scene.promote(json!({ "version": "1", "why": "first", "by": "olga" })).await;
    assert_eq!((&promoted["weights"], &promoted["number"]), (&json!({"1": 1}), &json!(2)), "{promoted}");
    assert_eq!(scene.to("ann").await, "blue");

    scene.promote(json!({ "version": "2" })).await;
    assert_eq!((scene.to("ann").await, scene.to("bea").await), ("blue".into(), "green".into()));
    assert!(scene.why("ann", "").await.contains("chat@1"), "{}", scene.why("ann", "").await);
    let forgotten = scene.gateway.ask("DELETE", "/v1/clients/ann/assignments/chat@1").send().await;
    forgotten.expect(204);
    assert_eq!(scene.to("ann").await, "green");

    scene.rollback(json!({ "why": "it was worse" })).await;
    assert_eq!((scene.to("ann").await, scene.to("bea").await), ("blue".into(), "blue".into()));
    let history = scene.releases().await["history"].clone();
    let actions: Vec<_> =
        history.as_array().expect("a list").iter().map(|change| &change["action"]).collect();
    assert_eq!(actions, ["rollback", "promote", "promote", "found"], "{history}");
    assert_eq!((&history[0]["why"], &history[2]["by"]), (&json!("it was worse"), &json!("olga (anyone)")));
    assert_eq!(scene.gateway.ask("GET", "/v1/services/chat/releases").send().await.header("etag"), "\"4\"");
}

#[tokio::test]
async fn a_new_version_takes_nothing_from_the_one_that_is_there() {
    let scene = Scene::start().await;
    assert_eq!(scene.to("ann").await, "blue");
    let releases = scene.releases().await;
    assert_eq!((&releases["versions"], &releases["weights"]), (&json!(["1", "2"]), &json!({ "1": 1 })));
    scene.promote(json!({ "version": "2" })).await;
    assert_eq!((scene.to("ann").await, scene.to("bea").await), ("blue".into(), "green".into()));
    scene.rollback(json!({})).await;
    assert_eq!(scene.to("bea").await, "blue");
}

#[tokio::test]
async fn clients_can_be_moved_now_or_within_a_time() {
    let scene = Scene::start().await;
    scene.promote(json!({ "version": "1" })).await;
    scene.to("ann").await;
    scene.promote(json!({ "version": "2", "move": "now" })).await;
    assert_eq!(scene.to("ann").await, "green");
    let shown = scene.promote(json!({ "version": "1", "move": "1s" })).await;
    assert_eq!(shown["stay"], json!(["2"]), "{shown}");
    assert_eq!(scene.to("ann").await, "green");
    eventually(|| async {
        let there = scene.to("ann").await;
        if there == "blue" { Ok(()) } else { Err(there) }
    })
    .await;
}

#[tokio::test]
async fn weights_are_shares_of_the_clients() {
    let scene = Scene::start().await;
    scene.promote(json!({ "weights": { "1": 90, "2": 10 } })).await;
    let mut green = 0;
    for client in 0..300 {
        let client = format!("c{client}");
        let first = scene.to(&client).await;
        assert_eq!(first, scene.to(&client).await);
        green += u32::from(first == "green");
    }
    assert!((10..60).contains(&green), "{green} of 300");
    let why = scene.why("fresh", "").await;
    assert!(why.contains("share of 90 in 100") || why.contains("share of 10 in 100"), "{why}");
}

#[tokio::test]
async fn a_canary_is_for_messages_with_its_header() {
    let scene = Scene::start().await;
    scene.promote(json!({ "version": "1" })).await;
    let canary = json!({ "version": "2", "header": { "name": "beta", "value": "1" } });
    scene.promote(json!({ "canary": canary })).await;
    let beta = |value: &str| scene.gateway.get("/chat/").client("ann").header("beta", value).send();
    assert_eq!(beta("1").await.text(), "green");
    assert_eq!(beta("2").await.text(), "blue");
    assert_eq!(scene.to("ann").await, "blue");
    assert!(scene.why("ann", "&header=beta:1").await.contains("canary"));
    scene.promote(json!({ "canary": false })).await;
    assert_eq!(beta("1").await.text(), "blue");
}

#[tokio::test]
async fn a_client_can_be_pinned_to_a_version() {
    let scene = Scene::start().await;
    let pin = |client: &str, version: &str| {
        let path = format!("/v1/clients/{client}/assignments/chat");
        scene.gateway.ask("PUT", path).json(&json!({ "version": version })).send()
    };
    assert_eq!(scene.to("ann").await, "blue");
    pin("ann", "2").await.expect(200);
    assert_eq!((scene.to("ann").await, scene.to("bea").await), ("green".into(), "blue".into()));
    let client = scene.gateway.ask("GET", "/v1/clients/ann").send().await.expect(200).json();
    assert_eq!(client["versions"], json!({"chat": {"version": "2", "expires": null, "pinned": true}}));
    assert!(scene.why("ann", "").await.contains("pinned"));
    scene.promote(json!({ "version": "1", "move": "now" })).await;
    assert_eq!(scene.to("ann").await, "green");
    scene.gateway.ask("DELETE", "/v1/clients/ann/assignments/chat").send().await.expect(204);
    assert_eq!(scene.to("ann").await, "blue");
    pin("ann", "9").await.problem(422);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let scene = Scene::start().await;
    let ask = |path: &str, body: Value| {
        scene.gateway.ask("POST", format!("/v1/services/{path}")).json(&body).send()
    };
    for (path, body, status, says) in [
        ("chat/promote", json!({ "version": "9" }), 422, "there is no version 9 of chat; there is 1, 2"),
        ("chat/promote", json!({}), 422, "weights"),
        ("chat/promote", json!({ "version": "1", "wieghts": {} }), 422, "did you mean `weights`"),
        ("chat/promote", json!({ "weights": { "1": 0 } }), 422, "above 0"),
        ("chat/promote", json!({ "version": "1", "move": "soon" }), 422, "move"),
        ("chat/promote", json!({ "version": "1", "rollback": {} }), 422, "errors"),
        ("chat@1/promote", json!({ "version": "1" }), 400, "chat"),
        ("chess/promote", json!({ "version": "1" }), 404, "chess"),
        ("chat/rollback", json!({}), 409, "nothing to go back to"),
    ] {
        let problem = ask(path, body).await.problem(status);
        assert!(problem["detail"].as_str().unwrap_or_default().contains(says), "{problem}");
    }
    assert_eq!(scene.releases().await["number"], 1);
}

#[tokio::test]
async fn two_operators_do_not_undo_each_other() {
    let scene = Scene::start().await;
    let number = scene.promote(json!({ "version": "1" })).await["number"].clone();
    let promote = |version: &str| {
        let call =
            scene.gateway.ask("POST", "/v1/services/chat/promote").json(&json!({ "version": version }));
        call.header("if-match", format!("\"{number}\"")).send()
    };
    promote("2").await.expect(200);
    let problem = promote("1").await.problem(412);
    assert!(problem["detail"].as_str().unwrap_or_default().contains("by anyone"), "{problem}");
    assert_eq!(scene.releases().await["weights"], json!({ "2": 1 }));
}

#[tokio::test]
async fn a_promotion_drops_nothing() {
    let scene = Scene::start().await;
    scene.promote(json!({ "version": "1" })).await;
    let (proxy, done) =
        (scene.gateway.proxy(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let clients = (0..8).map(|client| {
        let done = done.clone();
        tokio::spawn(async move {
            let mut seen = BTreeSet::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let call = message_flow_tests::Call::new(proxy, "GET", "/chat/");
                seen.insert(call.client(&format!("c{client}")).send().await.expect(200).text());
            }
            seen
        })
    });
    let clients: Vec<_> = clients.collect();
    for _ in 0..5 {
        scene.promote(json!({ "version": "2", "move": "now" })).await;
        scene.rollback(json!({})).await;
    }
    scene.promote(json!({ "version": "2", "move": "now" })).await;
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut seen = BTreeSet::new();
    for client in clients {
        seen.extend(client.await.expect("no message failed"));
    }
    assert!(seen.contains("blue"), "{seen:?}");
    assert!(!scene.blue.seen().is_empty() && !scene.green.seen().is_empty() || seen.len() == 1);
}

#[tokio::test]
async fn a_version_that_does_worse_is_rolled_back() {
    let scene = Scene::start().await;
    scene.promote(json!({ "version": "1" })).await;
    for _ in 0..20 {
        scene.to("ann").await;
    }
    let guard = json!({ "errors": 20, "messages": 10, "within": "1m" });
    scene.promote(json!({ "version": "2", "move": "now", "rollback": guard })).await;
    scene.green.answer(500);
    let release = eventually(|| async {
        let reply = scene.gateway.get("/chat/").client("ann").send().await;
        let release = scene.releases().await;
        if release["weights"] == json!({ "1": 1 }) {
            Ok(release)
        } else {
            Err(format!("{reply:?} {release}"))
        }
    })
    .await;
    assert_eq!(release["history"][0]["action"], "automatic-rollback", "{release}");
    assert_eq!(release["history"][0]["by"], "message-flow", "{release}");
    let why = release["history"][0]["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("chat@2 answered 100.0 % with errors, 0.0 % before"), "{why}");
    scene.gateway.logged("rolling back by itself").await;
    assert_eq!(scene.to("ann").await, "blue");
}

#[tokio::test]
async fn routers_on_one_etcd_agree_on_every_version() {
    let etcd = Etcd::start().await;
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let on = || {
        Gateway::setup().config(format!(
            "[table]\nadapter = \"etcd\"\n[plugin.etcd]\nconfig = {{ endpoints = \"{}\", prefix = \"/test\" }}\n",
            etcd.endpoint()
        ))
    };
    let (one, two) = (on().start().await, on().start().await);
    one.put("chat@1", json!({ "servers": [blue.uri()] })).await;
    one.put("chat@2", json!({ "servers": [green.uri()] })).await;
    promote(&one, json!({ "version": "1" })).await;
    two.until(two.get("/chat/").client("probe"), 200).await;
    for client in 0..20 {
        assert_eq!(to(&one, &format!("old{client}")).await, "blue");
    }
    promote(&two, json!({ "weights": { "1": 1, "2": 1 } })).await;
    promote(&two, json!({ "version": "2" })).await;
    let newest = std::sync::atomic::AtomicU32::new(0);
    eventually(|| async {
        let newest = newest.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let there = to(&one, &format!("newest{newest}")).await;
        if there == "green" { Ok(()) } else { Err(there) }
    })
    .await;
    for client in 0..20 {
        let client = format!("old{client}");
        assert_eq!(
            (to(&two, &client).await, to(&one, &client).await),
            ("blue".into(), "blue".into()),
            "{client}"
        );
    }
    for client in 0..20 {
        let client = format!("new{client}");
        let calls = [&one, &two].map(|gateway| tokio::spawn(gateway.get("/chat/").client(&client).send()));
        for call in calls {
            assert_eq!(call.await.expect("no panic").expect(200).text(), "green", "{client}");
        }
    }
    // Two operators at once, each at a router of its own: each change is in the history.
    let calls = [(&one, "1"), (&two, "2"), (&one, "2"), (&two, "1")].map(|(gateway, version)| {
        let body = json!({ "version": version, "by": version });
        tokio::spawn(gateway.ask("POST", "/v1/services/chat/promote").json(&body).send())
    });
    for call in calls {
        call.await.expect("no panic").expect(200);
    }
    eventually(|| async {
        let shown = [&one, &two].map(|gateway| gateway.ask("GET", "/v1/services/chat/releases").send());
        let [here, there] = shown;
        let (here, there) = (here.await.json(), there.await.json());
        if here == there && here["number"] == 8 { Ok(()) } else { Err(format!("{here} {there}")) }
    })
    .await;
}
