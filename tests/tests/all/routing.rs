//! The routing rule, step by step.

use std::collections::{BTreeMap, BTreeSet};

use message_flow_tests::{Gateway, Upstream, eventually, guests};
use serde_json::json;

/// Three upstreams `a`, `b`, `c`, and their entries in a server list.
async fn three() -> (Vec<Upstream>, serde_json::Value) {
    let upstreams = vec![Upstream::start("a").await, Upstream::start("b").await, Upstream::start("c").await];
    let servers = upstreams.iter().map(|upstream| json!({ "uri": upstream.uri() })).collect();
    (upstreams, servers)
}

#[tokio::test]
async fn step_1_a_set_server_gets_everything() {
    let (upstreams, servers) = three().await;
    let fixed = Upstream::start("fixed").await;
    let gateway = Gateway::setup().plugin("chooser", guests::wasm("chooser")).start().await;
    gateway.active("chooser").await;
    let first = json!({ "servers": servers });
    gateway.put("chat", first).await;
    gateway.get("/chat/").client("alice").send().await.expect(200);

    let spec = json!({ "server": fixed.uri(), "registrar": "chooser", "servers": servers });
    gateway.put("chat", spec).await;

    for client in ["alice", "bob"] {
        let call =
            gateway.get("/chat/").client(client).header("choose", format!("server {}", upstreams[0].id()));
        assert_eq!(call.send().await.expect(200).text(), "fixed", "{client}");
    }
}

#[tokio::test]
async fn step_2_a_client_stays_where_it_is() {
    let (_upstreams, servers) = three().await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": servers })).await;

    for client in 0..20 {
        let mut answers = BTreeSet::new();
        for _ in 0..5 {
            answers
                .insert(gateway.get("/chat/").client(&format!("c{client}")).send().await.expect(200).text());
        }
        assert_eq!(answers.len(), 1, "client c{client} went to {answers:?}");
    }
}

#[tokio::test]
async fn step_2_adding_servers_moves_nobody() {
    let (_upstreams, servers) = three().await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [servers[0].clone()] })).await;
    let clients: Vec<_> = (0..30).map(|at| format!("c{at}")).collect();
    for client in &clients {
        gateway.get("/chat/").client(client).send().await.expect(200);
    }

    gateway.put("chat", json!({ "servers": servers })).await;

    for client in &clients {
        assert_eq!(gateway.get("/chat/").client(client).send().await.expect(200).text(), "a");
    }
}

#[tokio::test]
async fn step_2_a_removed_server_voids_its_assignments() {
    let (_upstreams, servers) = three().await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [servers[0].clone()] })).await;
    gateway.get("/chat/").client("alice").send().await.expect(200);

    gateway.put("chat", json!({ "servers": [servers[1].clone()] })).await;

    assert_eq!(gateway.get("/chat/").client("alice").send().await.expect(200).text(), "b");
}

#[tokio::test]
async fn step_2_an_assignment_expires() {
    let (_upstreams, servers) = three().await;
    let gateway = Gateway::setup().plugin("chooser", guests::wasm("chooser")).start().await;
    gateway.active("chooser").await;
    let spec = json!({ "registrar": "chooser", "servers": servers, "sticky": { "ttl": "200ms" } });
    gateway.put("chat", spec).await;
    let choose = |id: &str| gateway.get("/chat/").client("alice").header("choose", format!("server {id}"));
    let (a, b) = (&_upstreams[0].id(), &_upstreams[1].id());
    assert_eq!(choose(a).send().await.expect(200).text(), "a");
    assert_eq!(choose(b).send().await.expect(200).text(), "a", "it has not expired yet");

    // Its second use may have renewed it, a little later: once and a half the time to live, and room for that.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;

    assert_eq!(choose(b).send().await.expect(200).text(), "b");
}

#[tokio::test]
async fn step_2_use_renews_an_assignment() {
    let (upstreams, servers) = three().await;
    let gateway = Gateway::setup().plugin("chooser", guests::wasm("chooser")).start().await;
    gateway.active("chooser").await;
    let spec = json!({ "registrar": "chooser", "servers": servers, "sticky": { "ttl": "1s" } });
    gateway.put("chat", spec).await;
    let choose = |at: usize| {
        gateway.get("/chat/").client("alice").header("choose", format!("server {}", upstreams[at].id()))
    };
    choose(0).send().await.expect(200);

    for _ in 0..25 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(choose(1).send().await.expect(200).text(), "a");
    }
}

#[tokio::test]
async fn step_3_the_registrar_decides() {
    let (upstreams, servers) = three().await;
    let elsewhere = Upstream::start("elsewhere").await;
    let gateway = Gateway::setup().plugin("chooser", guests::wasm("chooser")).start().await;
    gateway.active("chooser").await;
    gateway.put("chat", json!({ "registrar": "chooser", "servers": servers })).await;
    let ask = |client: &str, choice: String| gateway.get("/chat/").client(client).header("choose", choice);

    let by_id = ask("alice", format!("server {}", upstreams[2].id())).send().await.expect(200);
    assert_eq!(by_id.text(), "c");
    let again = ask("alice", format!("server {}", upstreams[0].id())).send().await.expect(200);
    assert_eq!(again.text(), "c", "the answer became the assignment");
    let by_uri = ask("bob", format!("server {}", elsewhere.uri())).send().await.expect(200);
    assert_eq!(by_uri.text(), "elsewhere");
    let again = ask("bob", "pass".to_owned()).send().await.expect(200);
    assert_eq!(again.text(), "elsewhere", "also where it is a URI that is in no list");

    let problem = ask("carol", "reject 429 come back later".to_owned()).send().await.problem(429);
    assert_eq!(problem["detail"], "come back later");
    let served = ask("carol", format!("server {}", upstreams[1].id())).send().await.expect(200);
    assert_eq!(served.text(), "b", "a rejection is not remembered");

    let passed = ask("dave", "pass".to_owned()).send().await.expect(200);
    assert!(["a", "b", "c"].contains(&passed.text().as_str()));
}

#[tokio::test]
async fn step_3_a_registrar_that_errs_closes_by_default() {
    let (_upstreams, servers) = three().await;
    let config = "[plugin.lenient]\non_error = \"open\"\n";
    let setup = Gateway::setup().config(config).plugin("strict", guests::wasm("chooser"));
    let gateway = setup.plugin("lenient", guests::wasm("chooser")).start().await;
    gateway.active("strict").await;
    gateway.active("lenient").await;
    gateway.put("strict", json!({ "registrar": "strict", "servers": servers })).await;
    gateway.put("lenient", json!({ "registrar": "lenient", "servers": servers })).await;

    for fault in ["error because", "trap", "server nonsense"] {
        let problem = gateway.get("/strict/").client(fault).header("choose", fault).send().await.problem(503);
        let text = problem.to_string();
        assert!(text.contains("strict"), "the answer names the plugin or service: {text}");
        gateway.get("/lenient/").client(fault).header("choose", fault).send().await.expect(200);
    }
}

#[tokio::test]
async fn step_3_a_missing_registrar_is_named() {
    let (_upstreams, servers) = three().await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "registrar": "nobody", "servers": servers })).await;

    let problem = gateway.get("/chat/").client("alice").send().await.problem(503);

    assert!(problem.to_string().contains("nobody"), "{problem}");
}

#[tokio::test]
async fn step_4_clients_are_spread_over_the_list() {
    let (_upstreams, servers) = three().await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": servers })).await;

    let mut counts = BTreeMap::new();
    for client in 0..300 {
        let text = gateway.get("/chat/").client(&format!("c{client}")).send().await.expect(200).text();
        *counts.entry(text).or_insert(0) += 1;
    }

    // Each gets 100 of 300 on average; below 60 or above 140 happens less than once in a million runs.
    assert!(counts.len() == 3 && counts.values().all(|count| (60..=140).contains(count)), "{counts:?}");
}

#[tokio::test]
async fn step_4_weights_bias_the_choice() {
    let (upstreams, _) = three().await;
    let gateway = Gateway::start().await;
    let server = |at: usize, weight: u32| json!({ "uri": upstreams[at].uri(), "weight": weight });
    let servers = json!([server(0, 8), server(1, 2), server(2, 0)]);
    gateway.put("chat", json!({ "servers": servers, "sticky": false })).await;

    let mut counts = BTreeMap::new();
    for _ in 0..300 {
        let text = gateway.get("/chat/").client("alice").send().await.expect(200).text();
        *counts.entry(text).or_insert(0) += 1;
    }

    assert!((200..280).contains(&counts["a"]), "{counts:?}");
    assert_eq!(counts.get("c"), None, "{counts:?}");
}

#[tokio::test]
async fn without_stickiness_nothing_is_stored() {
    let (_upstreams, servers) = three().await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": servers, "sticky": false })).await;

    let mut answers = BTreeSet::new();
    for _ in 0..60 {
        answers.insert(gateway.get("/chat/").client("alice").send().await.expect(200).text());
    }

    assert_eq!(answers.len(), 3);
    let client = gateway.ask("GET", "/v1/clients/alice").send().await;
    if client.status == 200 {
        assert_eq!(client.json()["assignments"], json!({}));
    }
}

#[tokio::test]
async fn step_5_says_which_step_had_nothing() {
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [] })).await;

    let problem = gateway.get("/chat/").client("alice").send().await.problem(503);

    let text = problem["detail"].as_str().expect("a detail").to_lowercase();
    for step in ["server", "assignment", "registrar", "list"] {
        assert!(text.contains(step), "the detail does not speak of {step}: {text}");
    }
}

#[tokio::test]
async fn an_unknown_service_is_404() {
    let gateway = Gateway::start().await;
    let problem = gateway.get("/nobody/x").client("alice").send().await.problem(404);
    assert!(problem.to_string().contains("nobody"), "{problem}");
    gateway.get("/").client("alice").send().await.problem(404);
}

#[tokio::test]
async fn versions_are_separate_services() {
    let (upstreams, _) = three().await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": upstreams[0].uri() })).await;
    gateway.put("chat@2", json!({ "server": upstreams[1].uri() })).await;

    assert_eq!(gateway.get("/chat/x").send().await.expect(200).text(), "a");
    assert_eq!(gateway.get("/chat@2/x").send().await.expect(200).text(), "b");
    gateway.get("/chat@3/x").send().await.problem(404);
    assert_eq!(upstreams[1].last().target, "/x");

    let by_header = gateway.get("/whole/path").header("message-flow-service", "chat");
    assert_eq!(by_header.clone().send().await.expect(200).text(), "a");
    assert_eq!(upstreams[0].last().target, "/whole/path", "a header strips nothing");
    let versioned = by_header.header("message-flow-version", "2").send().await.expect(200);
    assert_eq!(versioned.text(), "b");
}

#[tokio::test]
async fn a_dead_server_is_left_for_another() {
    let (mut upstreams, servers) = three().await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": servers })).await;
    let first = gateway.get("/chat/").client("alice").send().await.expect(200).text();
    let at = ["a", "b", "c"].iter().position(|name| **name == first).expect("one of the three");

    upstreams.remove(at).stop().await;

    eventually(|| async {
        let reply = gateway.get("/chat/").client("alice").send().await;
        if reply.status == 200 && reply.text() != first { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
}

#[tokio::test]
async fn clients_are_told_apart_as_configured() {
    let (_upstreams, servers) = three().await;
    let config = "[proxy]\nclient_id = [\"header:x-user\", \"cookie:session\", \"peer\"]\n";
    let gateway = Gateway::setup().config(config).plugin("seen", guests::wasm("echo_config")).start().await;
    gateway.active("seen").await;
    gateway.put("chat", json!({ "servers": servers, "filters": ["seen"] })).await;
    let client = async |name: &str, value: &str| {
        let text =
            gateway.get("/chat/").header(name, value).send().await.expect(200).json()["detail"].clone();
        let text = text.as_str().unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("client=").map(str::to_owned)).expect("a client line")
    };

    assert_eq!(client("x-user", "alice").await, "alice");
    assert_eq!(client("cookie", "a=b; session=s1; c=d").await, "s1");
    assert_eq!(client("message-flow-client", "ignored").await, "127.0.0.1");
}
