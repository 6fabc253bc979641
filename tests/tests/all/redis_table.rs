//! The adapter for Redis, as somebody else would write one: held to what every adapter promises, over
//! a real Redis, with no more than a granted TCP connection.

use std::net::TcpListener;

use message_flow_tests::{Gateway, Upstream, eventually, guests};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A Redis of its own; killed on drop.
struct Redis {
    port: u16,
    _process: Child,
    _directory: TempDir,
}

impl Redis {
    async fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
        command.arg(directory.path()).kill_on_drop(true).stdout(std::process::Stdio::null());
        let process = command.spawn().expect("redis-server is installed by .ci/install");
        let redis = Self { port, _process: process, _directory: directory };
        eventually(|| async { std::net::TcpStream::connect(("127.0.0.1", port)).map(drop) }).await;
        redis
    }

    fn config(&self) -> String {
        let port = self.port;
        format!(
            "[table]\nadapter = \"redis\"\n[plugin.redis]\nconfig = {{ address = \"127.0.0.1:{port}\" }}\n\
             grant = [\"tcp:127.0.0.1:{port}\"]\n"
        )
    }
}

#[tokio::test]
async fn it_keeps_what_every_adapter_promises() {
    let redis = Redis::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("redis.wasm");
    std::fs::copy(guests::example("redis-table"), &file).unwrap();
    let setup = Gateway::setup().config(redis.config()).argument("test").argument(file.display().to_string());
    let (status, said) = setup.argument("--conformance").run("plugin").await;
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("13 passed, 0 failed"), "{said}");
}

#[tokio::test]
async fn routers_that_share_it_agree() {
    let redis = Redis::start().await;
    let upstreams = [Upstream::start("a").await, Upstream::start("b").await];
    let start =
        || Gateway::setup().config(redis.config()).plugin("redis", guests::example("redis-table")).start();
    let (one, two) = (start().await, start().await);
    let servers: Vec<Value> = upstreams.iter().map(|upstream| json!({ "uri": upstream.uri() })).collect();
    one.put("chat", json!({ "servers": servers })).await;
    two.until(two.get("/chat/").header("message-flow-client", "first"), 200).await;
    for number in 0..10 {
        let client = format!("c{number}");
        let there = one.get("/chat/").header("message-flow-client", &client).send().await.expect(200).text();
        let here = two.get("/chat/").header("message-flow-client", &client).send().await.expect(200).text();
        assert_eq!(there, here, "{client}");
    }
}

#[tokio::test]
async fn it_reaches_nothing_that_is_not_granted() {
    let plugin = guests::example("redis-table");
    let gateway = Gateway::setup().plugin("redis", plugin.clone()).start().await;
    let entry = gateway.plugin("redis", |entry| entry["error"].is_string()).await;
    let error = entry["error"].as_str().unwrap_or_default();
    assert!(
        error.contains("wasi:sockets/") && error.contains("`grant = [\"tcp:IP:PORT\"]` under [plugin.redis]"),
        "{error}"
    );

    let redis = Redis::start().await;
    let elsewhere = redis.config().replace("grant = [\"tcp:127.0.0.1:", "grant = [\"tcp:127.0.0.2:");
    let gateway = Gateway::setup().config(elsewhere).plugin("redis", plugin).start().await;
    let call = gateway.ask("PUT", "/v1/services/chat").json(&json!({ "server": "http://a:1" }));
    call.send().await.problem(503);
    let ready = gateway.ask("GET", "/ready").send().await.problem(503).to_string();
    assert!(ready.contains("is not granted"), "{ready}");
}
