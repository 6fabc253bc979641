//! The thin line through everything.

use message_flow_tests::{Gateway, Upstream};
use serde_json::json;

#[tokio::test]
async fn a_registered_service_gets_its_messages() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [{ "uri": upstream.uri() }] })).await;

    let reply = gateway.get("/chat/hello?x=1").client("alice").send().await.expect(200);

    assert_eq!(reply.text(), "a");
    assert_eq!(upstream.last().target, "/hello?x=1");
}
