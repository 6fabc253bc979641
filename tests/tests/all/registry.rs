//! The registry API.

use message_flow_tests::{Gateway, Upstream};
use serde_json::{Value, json};

#[tokio::test]
async fn a_service_is_written_read_listed_and_deleted() {
    let gateway = Gateway::start().await;
    let spec = json!({
        "servers": [{ "uri": "http://127.0.0.1:9001" }, { "uri": "http://127.0.0.1:9002", "weight": 3, "metadata": { "region": "eu" } }],
        "sticky": { "ttl": "5m" },
    });
    gateway.put("chat@2", spec).await;

    let read = gateway.ask("GET", "/v1/services/chat@2").send().await.expect(200).json();
    assert_eq!(read["sticky"], json!({ "ttl": "5m" }));
    assert_eq!(read["servers"][0]["id"], "127.0.0.1:9001");
    assert_eq!(read["servers"][0]["uri"], "http://127.0.0.1:9001");
    assert_eq!(read["servers"][1]["weight"], 3);
    assert_eq!(read["servers"][1]["metadata"], json!({ "region": "eu" }));
    let list = gateway.ask("GET", "/v1/services").send().await.expect(200).json();
    assert!(list.to_string().contains("chat@2"), "{list}");

    let deleted = gateway.ask("DELETE", "/v1/services/chat@2").send().await;
    assert!((200..300).contains(&deleted.status), "{deleted:?}");
    gateway.ask("GET", "/v1/services/chat@2").send().await.problem(404);
    gateway.get("/chat@2/").send().await.problem(404);
    gateway.ask("DELETE", "/v1/services/chat@2").send().await.problem(404);
}

#[tokio::test]
async fn a_write_is_read_at_once() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    for at in 0..50 {
        gateway.put(&format!("s{at}"), json!({ "server": upstream.uri() })).await;
        gateway.get(format!("/s{at}/")).send().await.expect(200);
        gateway.ask("GET", format!("/v1/services/s{at}")).send().await.expect(200);
    }
}

#[tokio::test]
async fn nonsense_is_refused_with_its_reason() {
    let gateway = Gateway::start().await;
    let cases: &[(&str, &str, &str)] = &[
        ("chat", "{", "JSON"),
        ("chat", "[]", ""),
        ("chat", "null", ""),
        ("chat", r#"{"servres":[]}"#, "servres"),
        ("chat", r#"{"servers":[{"url":"http://127.0.0.1:1"}]}"#, "uri"),
        ("chat", r#"{"servers":[{"uri":"http://127.0.0.1:1","wieght":2}]}"#, "wieght"),
        ("chat", r#"{"servers":[{"uri":"ftp://127.0.0.1:1"}]}"#, "ftp://127.0.0.1:1"),
        ("chat", r#"{"servers":["http://127.0.0.1:1","http://127.0.0.1:1"]}"#, "127.0.0.1:1"),
        ("chat", r#"{"server":"127.0.0.1:1"}"#, "http://"),
        ("chat", r#"{"server":"http://127.0.0.1:99999"}"#, "http://127.0.0.1:99999"),
        ("chat", r#"{"server":"http://127.0.0.1:"}"#, "http://127.0.0.1:"),
        ("chat", r#"{"servers":["http://127.0.0.1:0"]}"#, "http://127.0.0.1:0"),
        ("chat", r#"{"servers":[{"uri":"h2c://a:+80/base"}]}"#, "h2c://a:+80/base"),
        ("chat", r#"{"servers":["http://[::1]:65536"]}"#, "http://[::1]:65536"),
        ("chat", r#"{"load_balancer":"a:99999"}"#, "a:99999"),
        ("chat", r#"{"sticky":{"ttl":"soon"}}"#, "soon"),
        ("chat", r#"{"sticky":{"ttl":30}}"#, "sticky"),
        ("chat", r#"{"server":5}"#, ""),
        ("ch%20at", "{}", "ch at"),
        ("chat@", "{}", "chat@"),
        ("%FF", "{}", ""),
    ];
    for (service, body, named) in cases {
        let call =
            gateway.ask("PUT", format!("/v1/services/{service}")).header("content-type", "application/json");
        let reply = call.body(body.to_owned()).send().await;
        assert!([400, 422].contains(&reply.status), "{service} {body}: {} {}", reply.status, reply.text());
        let status = reply.status;
        let problem = reply.problem(status);
        assert!(
            problem["detail"].as_str().unwrap_or_default().contains(named),
            "{service} {body}: {problem}"
        );
    }
    let services = gateway.ask("GET", "/v1/services").send().await.expect(200).json();
    assert!(!services.to_string().contains("chat"), "nothing was stored: {services}");
}

#[tokio::test]
async fn an_oversized_document_is_refused() {
    let gateway = Gateway::start().await;
    let long = format!("{{\"registrar\":\"{}\"}}", "x".repeat(3 << 20));
    let reply = gateway
        .ask("PUT", "/v1/services/chat")
        .header("content-type", "application/json")
        .body(long)
        .send()
        .await;
    assert_eq!(reply.status, 413, "{}", reply.text());
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_document() {
    let gateway = Gateway::start().await;
    gateway.ask("GET", "/v1/nothing").send().await.problem(404);
    gateway.ask("GET", "/v1/services/none").send().await.problem(404);
    gateway.ask("PATCH", "/v1/services").send().await.problem(405);
    gateway.ask("GET", "/v1/explain").send().await.problem(400);
}

#[tokio::test]
async fn health_metrics_and_openapi_are_there() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": upstream.uri() })).await;
    gateway.get("/chat/").send().await.expect(200);

    gateway.ask("GET", "/live").send().await.expect(200);
    gateway.ask("GET", "/ready").send().await.expect(200);
    let metrics = gateway.ask("GET", "/metrics").send().await.expect(200).text();
    assert!(metrics.contains("# TYPE message_flow_"), "{metrics}");
    let openapi = gateway.ask("GET", "/v1/openapi.json").send().await.expect(200).json();
    assert!(openapi["openapi"].as_str().is_some_and(|version| version.starts_with('3')));
    for path in [
        "/v1/services",
        "/v1/services/{service}",
        "/v1/clients/{id}",
        "/v1/clients/{id}/assignments/{service}",
        "/v1/plugins",
        "/v1/explain",
        "/v1/watch",
    ] {
        assert!(openapi["paths"][path].is_object(), "{path} is missing: {:?}", keys(&openapi["paths"]));
    }
}

#[tokio::test]
async fn services_of_the_configuration_cannot_be_written() {
    let upstream = Upstream::start("a").await;
    let config = format!("[service.chat]\nservers = [\"{}\"]\n", upstream.uri());
    let gateway = Gateway::setup().config(config).start().await;

    assert_eq!(gateway.get("/chat/").send().await.expect(200).text(), "a");
    let read = gateway.ask("GET", "/v1/services/chat").send().await.expect(200).json();
    assert_eq!(read["servers"][0]["uri"], upstream.uri());
    let call = gateway.ask("PUT", "/v1/services/chat").json(&json!({ "servers": [] }));
    let problem = call.send().await.problem(409);
    assert!(problem["detail"].as_str().unwrap_or_default().contains("configuration"), "{problem}");
    gateway.ask("DELETE", "/v1/services/chat").send().await.problem(409);
}

#[tokio::test]
async fn nothing_of_the_api_is_reachable_through_the_proxy() {
    let gateway = Gateway::start().await;
    for path in ["/v1/services", "/v1/plugins", "/metrics", "/live", "/ready"] {
        gateway.get(path).send().await.problem(404);
    }
}

fn keys(object: &Value) -> Vec<&String> {
    object.as_object().map(|object| object.keys().collect()).unwrap_or_default()
}
