//! What lasts over a kill -9.

use message_flow_tests::{Gateway, Upstream};
use serde_json::json;

#[tokio::test]
async fn durable_memory_keeps_what_it_acknowledged() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let config = "[plugin.memory]\nstate = \"durable\"\n";
    let mut gateway = Gateway::setup().config(config).start().await;
    gateway.put("chat", json!({ "servers": [a.uri(), b.uri()], "sticky": { "ttl": "10m" } })).await;
    let mut homes = vec![];
    for at in 0..20 {
        homes.push(gateway.get("/chat/").client(&format!("c{at}")).send().await.expect(200).text());
    }
    for round in 0..3 {
        gateway.put(&format!("s{round}"), json!({ "server": a.uri() })).await;
        gateway = gateway.kill().await.start().await;

        for at in 0..=round {
            gateway.get(format!("/s{at}/")).send().await.expect(200);
        }
        for (at, home) in homes.iter().enumerate() {
            let text = gateway.get("/chat/").client(&format!("c{at}")).send().await.expect(200).text();
            assert_eq!(&text, home, "client c{at}, after kill {round}");
        }
    }
}

#[tokio::test]
async fn plain_memory_forgets() {
    let a = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": a.uri() })).await;
    let gateway = gateway.kill().await.start().await;
    gateway.get("/chat/").send().await.problem(404);
}

#[tokio::test]
async fn a_torn_data_directory_does_not_keep_it_from_starting() {
    let a = Upstream::start("a").await;
    let gateway =
        Gateway::setup().config(format!("[service.chat]\nserver = \"{}\"\n", a.uri())).start().await;
    gateway.get("/chat/").send().await.expect(200);
    let view = gateway.path("data/view.json");
    let compiled = gateway.path("data");
    let setup = gateway.kill().await;
    let _ = std::fs::write(&view, b"{\"half\":");
    scramble(&compiled);
    let gateway = setup.start().await;
    gateway.get("/chat/").send().await.expect(200);
}

/// Cuts every compiled plugin in half.
fn scramble(directory: &std::path::Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            scramble(&path);
        } else if path.extension().is_some_and(|extension| extension == "cwasm") {
            let bytes = std::fs::read(&path).expect("read");
            std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("write");
        }
    }
}
