//! The same registrar and the same filter in every language, built as their READMEs say.

use std::time::Duration;

use message_flow_tests::{Gateway, Upstream, eventually_within, languages};
use serde_json::json;

/// To compile a component of Python's for the first time, on a machine that is busy.
pub(crate) const COMPILED: Duration = Duration::from_secs(300);

const CONFIG: &str = "[plugin.faulty]\ndeadline = \"1s\"\n[plugin.stamp]\ndeadline = \"1s\"\n[plugin.region]\ndeadline = \"1s\"\n";

#[tokio::test]
async fn c() {
    serves("c").await;
}

#[tokio::test]
async fn go() {
    serves("go").await;
}

#[tokio::test]
async fn javascript() {
    serves("javascript").await;
}

#[tokio::test]
async fn python() {
    serves("python").await;
}

#[tokio::test]
async fn typescript() {
    serves("typescript").await;
}

async fn serves(language: &str) {
    let built = languages::example(language);
    let gateway = Gateway::setup().config(CONFIG).start().await;
    for name in ["region", "stamp"] {
        let file = format!("{name}.wasm");
        gateway.drop_plugin(&file, std::fs::read(built.join(&file)).unwrap());
    }
    let (eu, us) = (Upstream::start("eu").await, Upstream::start("us").await);
    gateway
        .put(
            "chat",
            json!({ "registrar": "region", "sticky": false, "filters": ["stamp"], "servers": [
                { "uri": eu.uri(), "metadata": { "region": "eu" } },
                { "uri": us.uri(), "metadata": { "region": "us" } },
            ] }),
        )
        .await;
    for name in ["region", "stamp"] {
        loaded(&gateway, name).await;
    }
    keeps_clients_in_their_region(&gateway).await;
    takes_the_least_loaded(&gateway, &eu).await;
    stamps(&gateway).await;
}

/// Waits until a plugin that was dropped is compiled and active.
pub(crate) async fn loaded(gateway: &Gateway, name: &str) {
    eventually_within(COMPILED, || async {
        let plugins = gateway.ask("GET", "/v1/plugins").send().await.expect(200).json();
        let mut entries = plugins.as_array().into_iter().flatten();
        let active = entries.any(|entry| entry["name"] == name && entry["state"] == "active");
        if active { Ok(()) } else { Err(format!("{name} is not active: {plugins}\n{}", gateway.log())) }
    })
    .await;
}

async fn keeps_clients_in_their_region(gateway: &Gateway) {
    for client in ["ann", "bob", "cem"] {
        for region in ["eu", "us"] {
            let call = gateway.get("/chat/").client(client).header("region", region);
            assert_eq!(call.send().await.expect(200).text(), region, "{client}");
        }
    }
    let anywhere =
        async |client: String| gateway.get("/chat/").client(&client).send().await.expect(200).text();
    let mut of_eu = 0;
    for client in 0..40 {
        let first = anywhere(client.to_string()).await;
        assert_eq!(anywhere(client.to_string()).await, first, "each client has its own favourite");
        of_eu += usize::from(first == "eu");
    }
    assert!((8..=32).contains(&of_eu), "idle servers share the clients: {of_eu} of 40");
}

async fn takes_the_least_loaded(gateway: &Gateway, eu: &Upstream) {
    let before = eu.seen().len();
    let busy = tokio::spawn(gateway.get("/chat/slow/3000").header("region", "eu").send());
    eventually_within(COMPILED, || async {
        if eu.seen().len() > before { Ok(()) } else { Err("not asked yet") }
    })
    .await;
    for region in ["", "moon"] {
        for client in 0..8 {
            let call = gateway.get("/chat/").client(&client.to_string()).header("region", region);
            assert_eq!(call.send().await.expect(200).text(), "us", "{client} in {region:?}");
        }
    }
    busy.await.expect("no panic").expect(200);
}

async fn stamps(gateway: &Gateway) {
    let brought = gateway.get("/chat/").header("x-request-id", "mine").send().await.expect(200);
    assert_eq!(brought.header("x-request-id"), "mine");
    for id in [None, Some("two words")] {
        let call = gateway.get("/chat/");
        let call = id.into_iter().fold(call, |call, id| call.header("x-request-id", id));
        let reply = call.send().await.expect(200);
        let given = reply.header("x-request-id");
        assert!(given.len() == 16 && given.bytes().all(|byte| byte.is_ascii_hexdigit()), "{given:?}");
    }
}
