//! The data directory: files that are not what was written, that are cut off, gone, or deleted while they are in use.

use std::{fs, path::Path};

use message_flow_tests::{Gateway, Upstream, eventually, gateway::Setup};
use serde_json::json;

const DURABLE: &str = "[plugin.memory]\nstate = \"durable\"\n";

/// A gateway that was stopped, with one service and one assignment in its table.
async fn stopped(upstream: &Upstream) -> (Setup, std::path::PathBuf) {
    let gateway = Gateway::setup().config(DURABLE).start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    gateway.get("/chat/").client("ann").send().await.expect(200);
    eventually(|| async {
        match gateway.path("data/view.json").exists() {
            true => Ok(()),
            false => Err("no view was saved".to_owned()),
        }
    })
    .await;
    let data = gateway.path("data");
    (gateway.kill().await, data)
}

fn state(data: &Path) -> std::path::PathBuf {
    data.join("state/memory.state")
}

fn flip(path: &Path, byte: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[byte] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_wrong_table_does_not_start_and_is_repaired() {
    let upstream = Upstream::start("a").await;
    let (setup, data) = stopped(&upstream).await;
    // In the record after the first, which every log begins with.
    flip(&state(&data), 100);
    let said = setup.again().try_start().await.err().expect("it does not start");
    for part in ["memory.state", "record 1 at offset", "message-flow data repair"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let (status, said) = setup.again().run("data check").await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("record 1 at offset") && said.contains("lost: "), "{said}");
    let (status, said) = setup.again().run("data repair").await;
    assert_eq!(status.code(), Some(1), "nothing is changed without a word: {said}");
    let (status, said) = setup.again().run("data repair --yes").await;
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(state(&data).with_extension("state.damaged").exists(), "{said}");
    let (status, said) = setup.again().run("data check").await;
    assert_eq!(status.code(), Some(0), "{said}");
    let gateway = setup.start().await;
    gateway.put("other", json!({ "servers": [upstream.uri()] })).await;
    gateway.get("/other/").send().await.expect(200);
}

#[tokio::test]
async fn a_table_that_is_empty_or_gone_does_not_start_empty() {
    let upstream = Upstream::start("a").await;
    let (setup, data) = stopped(&upstream).await;
    let whole = fs::read(state(&data)).unwrap();
    fs::write(state(&data), b"").unwrap();
    let said = setup.again().try_start().await.err().expect("it does not start");
    assert!(said.contains("memory.state") && said.contains("empty"), "{said}");
    fs::remove_file(state(&data)).unwrap();
    let said = setup.again().try_start().await.err().expect("it does not start");
    assert!(said.contains("memory.state is gone"), "{said}");
    fs::write(state(&data), whole).unwrap();
    let gateway = setup.start().await;
    gateway.get("/chat/").client("ann").send().await.expect(200);
}

#[tokio::test]
async fn what_can_be_made_again_is_set_aside() {
    let upstream = Upstream::start("a").await;
    let (setup, data) = stopped(&upstream).await;
    for name in ["view.json", "router-id"] {
        flip(&data.join(name), 30);
    }
    let gateway = setup.start().await;
    gateway.get("/chat/").send().await.expect(200);
    gateway.logged("router-id is not what was written").await;
    assert!(data.join("router-id.damaged").exists());
}

#[tokio::test]
async fn a_directory_deleted_while_it_is_in_use_is_noticed() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup().config(DURABLE).start().await;
    gateway.put("chat", json!({ "servers": [upstream.uri()] })).await;
    let data = gateway.path("data");
    fs::remove_dir_all(&data).unwrap();
    let spec = json!({ "servers": [upstream.uri()] });
    eventually(|| {
        let put = gateway.ask("PUT", "/v1/services/late").json(&spec).send();
        async {
            let put = put.await;
            match put.status {
                200 | 201 => Ok(()),
                _ => Err(format!("{put:?}")),
            }
        }
    })
    .await;
    gateway.logged("the data directory was deleted or renamed").await;
    gateway.logged("deleted while it was in use").await;
    // What was acknowledged before and after is there.
    let gateway = gateway.kill().await.start().await;
    gateway.get("/chat/").send().await.expect(200);
    gateway.get("/late/").send().await.expect(200);
}
