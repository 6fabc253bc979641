//! Plugins that were built for other versions of the interfaces than the host's own.

use std::{fs, path::Path};

use message_flow_tests::{Gateway, Upstream, guests};
use serde_json::json;

/// A guest as if it had been built for another version of the same length.
fn built_for(guest: &str, version: &str) -> Vec<u8> {
    let own = b"0.1.0";
    assert_eq!(version.len(), own.len());
    let mut bytes = guests::bytes(guest);
    for at in 0..bytes.len() - own.len() {
        if bytes[at..].starts_with(own) {
            bytes[at..at + own.len()].copy_from_slice(version.as_bytes());
        }
    }
    bytes
}

async fn decides(gateway: &Gateway) {
    let upstream = Upstream::start("a").await;
    gateway.active("old").await;
    let servers = json!([{ "uri": upstream.uri(), "id": "one" }]);
    gateway.put("chat", json!({ "servers": servers, "registrar": "old", "sticky": false })).await;
    assert_eq!(gateway.get("/chat/").header("to", "one").send().await.expect(200).text(), "a");
    let reply = gateway.get("/chat/").header("message-flow-client", "ann").send().await.expect(404);
    assert!(reply.text().contains("ann"), "{}", reply.text());
}

#[tokio::test]
async fn a_build_from_the_first_wit_serves() {
    decides(&Gateway::setup().plugin("old", guests::wasm("frozen")).start().await).await;
}

#[tokio::test]
async fn a_build_for_a_later_compatible_version_serves() {
    for version in ["0.1.1", "0.1.9"] {
        let gateway = Gateway::setup().file("plugins/old.wasm", built_for("frozen", version)).start().await;
        decides(&gateway).await;
    }
}

#[tokio::test]
async fn a_build_for_another_major_version_is_refused_with_what_the_host_speaks() {
    for version in ["0.2.0", "1.0.0", "0.0.9"] {
        let gateway = Gateway::setup().file("plugins/old.wasm", built_for("frozen", version)).start().await;
        let entry = gateway.plugin("old", |entry| entry["error"].is_string()).await;
        let error = entry["error"].as_str().unwrap_or_default();
        let built = format!("it was built for message-flow:plugin {version}");
        assert!(error.contains(&built) && error.contains("this host speaks 0.1.0"), "{error}");
        assert_eq!(entry["state"], "refused");
    }
}

/// What was once promised is still there, word for word; only more may come.
#[test]
fn what_version_0_1_0_promised_still_stands() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is below the top");
    let said = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        lines.filter(|line| !line.is_empty() && !line.starts_with("package ")).map(str::to_owned).collect()
    };
    for entry in fs::read_dir(top.join("tests/golden/wit-0.1.0")).expect("the frozen WIT") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a file has a name");
        let now = said(&fs::read_to_string(top.join("wit").join(name)).expect("an interface stays"));
        for line in said(&fs::read_to_string(&path).expect("read")) {
            assert!(now.contains(&line), "{}: `{line}` is gone: a plugin may use it", name.display());
        }
    }
}
