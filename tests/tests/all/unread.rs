//! A router that has not read its table yet does not know what is there, and says so.

use message_flow_tests::{Etcd, Gateway, Upstream};
use serde_json::json;

const UNREAD: &str = "urn:message-flow:problem:table-unread";

#[tokio::test]
async fn nothing_is_denied_before_the_table_was_read() {
    let mut etcd = Etcd::stopped(&[]);
    let a = Upstream::start("a").await;
    let config = format!(
        "[table]\nadapter = \"etcd\"\n[plugin.etcd]\nconfig = {{ endpoints = \"{}\" }}\n\
         [service.fixed]\nserver = \"{}\"\n[service.inner]\nserver = \"{}\"\npublic = false\n",
        etcd.endpoint(),
        a.uri(),
        a.uri()
    );
    let gateway = Gateway::setup().config(config).start().await;
    gateway.ask("GET", "/ready").send().await.problem(503);

    // What the configuration says is there.
    gateway.get("/fixed/").send().await.expect(200);
    gateway.ask("GET", "/v1/services/fixed").send().await.expect(200);
    gateway.ask("GET", "/v1/explain?service=fixed&client=ann").send().await.expect(200);
    // What else there is nobody knows; one that is not for everybody is not told from those.
    for name in ["chat", "chat@2", "inner"] {
        let reply = gateway.get(format!("/{name}/")).send().await;
        assert_eq!(reply.header("retry-after"), "1", "{reply:?}");
        assert_eq!(reply.problem(503)["type"], UNREAD);
    }
    for (method, path) in [
        ("GET", "/v1/services"),
        ("GET", "/v1/services/chat"),
        ("GET", "/v1/services/chat/servers/one"),
        ("GET", "/v1/services/chat/releases"),
        ("GET", "/v1/explain?service=chat&client=ann"),
        ("GET", "/v1/routers"),
        ("POST", "/v1/services/chat/servers/one/heartbeat"),
        ("POST", "/v1/services/chat/servers/one/drain"),
        ("DELETE", "/v1/services/chat"),
    ] {
        let reply = gateway.ask(method, path).send().await;
        assert_eq!(reply.header("retry-after"), "1", "{method} {path}: {reply:?}");
        assert_eq!(reply.problem(503)["type"], UNREAD, "{method} {path}");
    }
    gateway.ask("GET", "/v1/clients/ann").send().await.problem(503);
    let put = gateway.ask("PUT", "/v1/services/chat").json(&json!({ "server": a.uri() }));
    put.send().await.problem(503);

    etcd.up().await;
    gateway.until(gateway.get("/chat/"), 404).await;
    gateway.until(gateway.ask("GET", "/ready"), 200).await;
    gateway.ask("GET", "/v1/services/chat").send().await.problem(404);
    let services = gateway.ask("GET", "/v1/services").send().await.expect(200).json();
    assert_eq!(services.as_array().map(Vec::len), Some(2), "{services}");
    gateway.put("chat", json!({ "server": a.uri() })).await;
    gateway.get("/chat/").send().await.expect(200);
}
