//! Who may use the API.

use message_flow_tests::{Gateway, gateway::Setup};
use serde_json::json;

/// A token and its hash, made by the binary.
async fn token() -> (String, String) {
    let (status, said) = Gateway::setup().run("token").await;
    assert!(status.success(), "{said}");
    let value = |name: &str| {
        let line = said.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or_else(|| panic!("no {name}: {said}"))
            .to_owned()
    };
    (value("token"), value("token_sha256"))
}

fn rule(hash: &str, actions: &str, names: &str) -> String {
    format!("[[access]]\ntoken_sha256 = \"{hash}\"\nactions = {actions}\nnames = {names}\n")
}

#[tokio::test]
async fn rules_decide() {
    let (admin, admin_hash) = token().await;
    let (limited, limited_hash) = token().await;
    let config =
        rule(&admin_hash, "[\"admin\"]", "[\"*\"]") + &rule(&limited_hash, "[\"register\"]", "[\"chat\"]");
    let gateway = Gateway::setup().config(config).start().await;
    let put = |service: &str, token: Option<&str>| {
        let call = gateway
            .ask("PUT", format!("/v1/services/{service}"))
            .json(&json!({ "server": "http://127.0.0.1:9001" }));
        match token {
            Some(token) => call.header("authorization", format!("Bearer {token}")),
            None => call,
        }
    };

    let problem = put("chat", None).send().await;
    assert_eq!(problem.header("www-authenticate").split(' ').next(), Some("Bearer"), "{problem:?}");
    problem.problem(401);
    put("chat", Some("wrong")).send().await.problem(401);
    let reply = put("chat", Some(&limited)).send().await;
    assert!((200..300).contains(&reply.status), "{reply:?}");
    put("other", Some(&limited)).send().await.problem(403);
    let reply = put("other", Some(&admin)).send().await;
    assert!((200..300).contains(&reply.status), "{reply:?}");
    gateway.ask("GET", "/v1/plugins").send().await.problem(401);
    gateway.ask("GET", "/live").send().await.expect(200);

    gateway.logged("denied").await;
    assert!(!gateway.log().contains(&limited), "a token is not logged");
}

#[tokio::test]
async fn the_proxy_needs_no_token() {
    let (_, hash) = token().await;
    let upstream = message_flow_tests::Upstream::start("a").await;
    let service = format!("[service.chat]\nservers = [\"{}\"]\n", upstream.uri());
    let gateway = Gateway::setup().config(rule(&hash, "[\"admin\"]", "[\"*\"]") + &service).start().await;
    gateway.get("/chat/").send().await.expect(200);
}

#[tokio::test]
async fn without_rules_other_addresses_are_refused() {
    let on_all = |setup: Setup| setup.api_at("0.0.0.0:0");
    let said = on_all(Gateway::setup()).try_start().await.err().expect("it is refused");
    assert!(said.contains("open = true") && said.contains("access"), "it says how to allow it: {said}");

    on_all(Gateway::setup().config("[api]\nopen = true\n")).start().await;
    let (_, hash) = token().await;
    on_all(Gateway::setup().config(rule(&hash, "[\"admin\"]", "[\"*\"]"))).start().await;
}

#[tokio::test]
async fn without_rules_no_page_of_another_origin_changes_anything() {
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": "http://127.0.0.1:9001" })).await;
    // A page may send this without asking first, and without being allowed to read the answer.
    let post = |origin: &str, kind: &str| {
        let call = gateway.ask("POST", "/v1/services/chat/rollback").header("origin", origin);
        call.header("content-type", kind)
    };
    let problem = post("https://evil.example", "text/plain").send().await.problem(403);
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("another origin")), "{problem}");
    post("http://localhost:3000", "text/plain").send().await.problem(403);
    let own = format!("http://{}", gateway.api());
    post(&own, "text/plain").send().await.problem(415);
    assert_ne!(post(&own, "application/json").send().await.status, 403);
    let read = gateway.ask("GET", "/v1/services").header("origin", "https://evil.example");
    let read = read.send().await.expect(200);
    assert_eq!(read.header("access-control-allow-origin"), "", "the browser keeps it from the page");
}
