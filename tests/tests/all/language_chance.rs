//! The time, chance and output in every language: real, and of each instance its own.

use message_flow_tests::{Gateway, Upstream, eventually, languages};
use serde_json::json;

use super::languages::loaded;

#[tokio::test]
async fn c() {
    own_chance("c", guest("c")).await;
}

#[tokio::test]
async fn go() {
    own_chance("go", guest("go")).await;
}

#[tokio::test]
async fn javascript() {
    own_chance("javascript", guest("javascript")).await;
}

#[tokio::test]
async fn python() {
    own_chance("python", guest("python")).await;
}

#[tokio::test]
async fn scripts() {
    let script = "export function onRequest() {
        request.addHeader('chance', String(Math.random()));
        request.addHeader('token', crypto.randomUUID());
        request.setHeader('time', String(Date.now()));
        console.log('it printed true');
        console.error('it complained');
    }";
    own_chance("script", ("js", script.as_bytes().to_vec())).await;
}

fn guest(language: &str) -> (&'static str, Vec<u8>) {
    ("wasm", std::fs::read(languages::guest(language, "chance")).unwrap())
}

/// The same file twice, so that there are two instances, each of which is called for the first time.
pub(crate) async fn own_chance(language: &str, (extension, plugin): (&str, Vec<u8>)) {
    let config = "[plugin.one]\ndeadline = \"5s\"\n[plugin.two]\ndeadline = \"5s\"\n";
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup().config(config).start().await;
    for name in ["one", "two"] {
        gateway.drop_plugin(&format!("{name}.{extension}"), plugin.clone());
        loaded(&gateway, name).await;
        assert_eq!(gateway.active(name).await["lane"], "sync", "{language}: nothing waits");
    }
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["one", "two"] })).await;
    let mut drawn = std::collections::BTreeSet::new();
    for _ in 0..2 {
        gateway.get("/chat/").send().await.expect(200);
        let seen = upstream.last();
        for name in ["chance", "token"] {
            let values: Vec<_> = seen.headers.get_all(name).iter().cloned().collect();
            assert_eq!(values.len(), 2, "{language}: {name}");
            drawn.extend(values.into_iter().map(|value| value.to_str().unwrap().to_owned()));
        }
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let told: u128 = seen.header("time").parse().unwrap();
        assert!(told <= now && now - told < 60_000, "{language}: {told} at {now}");
    }
    assert_eq!(
        drawn.len(),
        8,
        "{language}: of two calls in each of two instances, something was the same: {drawn:?}"
    );
    eventually(|| async {
        let log = gateway.log();
        let says = |name: &str, what: &str| {
            log.lines().any(|line| line.contains(what) && line.contains(name) && line.contains("127.0.0.1"))
        };
        let missing =
            ["one", "two"].map(|name| ["it printed true", "it complained"].map(|what| says(name, what)));
        if missing.concat().iter().all(|says| *says) { Ok(()) } else { Err(log) }
    })
    .await;
}
