//! Services that announce themselves, need others, and are told.

use std::time::Duration;

use message_flow_tests::{Gateway, Relay, Service, Upstream, eventually, websocket::WebSocket, within};
use serde_json::{Value, json};

/// A gateway that gives up a service one second after its connection ended.
async fn hasty() -> Gateway {
    Gateway::setup().config("[discovery]\ngrace = \"1s\"\nping = \"1s\"\ndeadline = \"3s\"\n").start().await
}

/// The transcript of the README.
#[tokio::test]
async fn three_services_find_each_other() {
    let gateway = Gateway::start().await;
    let mut carchase = WebSocket::open(gateway.api(), "/").await.expect("a handshake");
    carchase.say(r#"{"name":"carchase-service","requires":["explosion-service"],"port":9877}"#).await;

    let mut explosion = Service::open(gateway.api()).await;
    explosion
        .say(json!({ "type": "identification", "payload": {
            "name": "explosion-service", "port": 8003, "host": "10.9.8.10", "requires": [],
        }}))
        .await;
    let told = carchase.hear().await.expect("a notification");
    let start =
        r#"{"type":"required-service","payload":{"name":"explosion-service","port":8003,"host":"10.9.8.10""#;
    assert!(told.starts_with(start), "{told}");

    let definition = json!({ "name": "killer-robot", "requires": ["explosion-service"], "port": 1234 });
    let mut robot = Service::connect(gateway.api(), definition).await;
    let found = robot.required("explosion-service").await;
    assert_eq!((&found["host"], &found["port"]), (&json!("10.9.8.10"), &json!(8003)));
    explosion.hears_nothing().await;
}

#[tokio::test]
async fn a_connected_service_gets_its_messages_until_it_has_been_gone_for_the_grace() {
    let upstream = Upstream::start("a").await;
    let port = upstream.address().port();
    let gateway = hasty().await;
    let mut needs = Service::connect(gateway.api(), json!({ "name": "web", "requires": ["chat"] })).await;
    needs.settled().await;
    let chat = Service::connect(gateway.api(), json!({ "name": "chat", "port": port })).await;
    let found = needs.required("chat").await;
    assert_eq!((&found["host"], &found["port"]), (&json!("127.0.0.1"), &json!(port)));
    gateway.until(gateway.get("/chat/"), 200).await;

    // Gone and back within the grace is no news.
    chat.close().await;
    eventually(|| async {
        let shown = gateway.ask("GET", "/v1/services/chat").send().await.expect(200).json();
        if shown["servers"][0]["health"] == "suspect" { Ok(()) } else { Err(shown) }
    })
    .await;
    gateway.get("/chat/").send().await.expect(200);
    let chat = Service::connect(gateway.api(), json!({ "name": "chat", "port": port })).await;
    eventually(|| async {
        let shown = gateway.ask("GET", "/v1/services/chat").send().await.expect(200).json();
        if shown["servers"][0]["health"] == "healthy" { Ok(()) } else { Err(shown) }
    })
    .await;
    needs.hears_nothing().await;

    chat.close().await;
    needs.lost("chat").await;
    gateway.until(gateway.get("/chat/"), 404).await;
}

#[tokio::test]
async fn a_connection_changes_its_mind() {
    let gateway = Gateway::start().await;
    let mut needs = Service::connect(gateway.api(), json!({ "name": "web", "requires": ["a"] })).await;
    needs.settled().await;
    let mut a = Service::connect(gateway.api(), json!({ "name": "a", "port": 1 })).await;
    assert_eq!(needs.required("a").await["port"], 1);
    a.say(json!({ "name": "a", "version": "2", "port": 2, "metadata": { "zone": "x" } })).await;
    let found = needs.required("a").await;
    assert_eq!(
        (&found["port"], &found["version"], &found["metadata"]["zone"]),
        (&json!(2), &json!("2"), &json!("x"))
    );
    needs.say(json!({ "type": "drop", "payload": { "requires": ["a"] } })).await;
    needs.settled().await;
    a.say(json!({ "type": "deregister" })).await;
    needs.hears_nothing().await;
    needs.say(json!({ "type": "require", "payload": { "requires": ["a@3"] } })).await;
    a.say(json!({ "name": "a@3", "port": 3 })).await;
    assert_eq!(needs.required("a").await["requirement"], "a@3");
    a.say(json!({ "type": "deregister" })).await;
    needs.lost("a").await;
}

#[tokio::test]
async fn one_who_comes_back_is_told_what_it_missed() {
    let gateway = hasty().await;
    let a = Service::connect(gateway.api(), json!({ "name": "a", "port": 1 })).await;
    let needs = json!({ "name": "web", "requires": ["a", "b"] });
    let mut web = Service::connect(gateway.api(), needs.clone()).await;
    let revision = web.required("a").await["revision"].clone();
    web.close().await;
    let resumed = json!({ "name": "web", "requires": ["a", "b"], "since": revision });
    let mut web = Service::connect(gateway.api(), resumed.clone()).await;
    web.hears_nothing().await;
    web.close().await;
    let mut b = Service::connect(gateway.api(), json!({ "name": "b", "port": 2 })).await;
    b.settled().await;
    a.close().await;
    gateway.until(gateway.get("/a/"), 404).await;
    let mut web = Service::connect(gateway.api(), resumed).await;
    let told = [web.hear().await, web.hear().await];
    let kinds: Vec<_> =
        told.iter().map(|told| (told["type"].as_str(), told["payload"]["name"].as_str())).collect();
    assert!(kinds.contains(&(Some("required-service-lost"), Some("a"))), "{told:?}");
    assert!(kinds.contains(&(Some("required-service"), Some("b"))), "{told:?}");
    web.hears_nothing().await;
}

#[tokio::test]
async fn one_who_comes_back_after_a_restart_is_told_what_it_missed_and_only_that() {
    let durable = "[plugin.memory]\nstate = \"durable\"\n[discovery]\ngrace = \"2s\"\n";
    let gateway = Gateway::setup().config(durable).start().await;
    for name in ["same", "moves"] {
        gateway.put(name, json!({ "servers": ["http://127.0.0.1:1"] })).await;
    }
    let needs = json!({ "name": "web", "requires": ["same", "moves", "goes"] });
    let mut web = Service::connect(gateway.api(), needs.clone()).await;
    web.required("same").await;
    web.required("moves").await;
    gateway.put("goes", json!({ "servers": ["http://127.0.0.1:2"] })).await;
    let seen = web.required("goes").await["revision"].clone();
    gateway.put("moves", json!({ "servers": ["http://127.0.0.1:3"] })).await;
    gateway.ask("DELETE", "/v1/services/goes").send().await.expect(204);
    let latest = web.required("moves").await["revision"].clone();
    web.lost("goes").await;

    let mut gateway = gateway;
    gateway.signal("TERM").await;
    gateway.ended(Duration::from_secs(20)).await;
    let gateway = gateway.kill().await.start().await;
    let resumed = |since: &Value| {
        let mut definition = needs.clone();
        definition["since"] = since.clone();
        definition
    };
    let mut web = Service::connect(gateway.api(), resumed(&seen)).await;
    assert_eq!(web.required("moves").await["port"], 3);
    web.lost("goes").await;
    web.hears_nothing().await;
    let mut web = Service::connect(gateway.api(), resumed(&latest)).await;
    let told = web.hear().await;
    assert_eq!((&told["type"], &told["payload"]["name"]), (&json!("required-service-lost"), &json!("goes")));
    web.hears_nothing().await;
}

#[tokio::test]
async fn a_client_that_never_says_goodbye_is_gone_within_the_deadline() {
    let gateway = hasty().await;
    let mut web = Service::connect(gateway.api(), json!({ "name": "web", "requires": ["chat"] })).await;
    let relay = Relay::to(gateway.api().to_string()).await;
    let mut chat = Service::connect(relay.address(), json!({ "name": "chat", "port": 1 })).await;
    chat.settled().await;
    web.required("chat").await;
    relay.silence();
    web.lost("chat").await;
    assert!(gateway.metric("message_flow_discovery_dead_total").await > 0.5);
}

#[tokio::test]
async fn without_a_websocket_heartbeats_keep_a_server() {
    let gateway = Gateway::start().await;
    let mut web = Service::connect(gateway.api(), json!({ "name": "web", "requires": ["chat"] })).await;
    let at = "/v1/services/chat/servers/one";
    let put = gateway.ask("PUT", at).json(&json!({ "uri": "http://127.0.0.1:9", "ttl": "2s" }));
    put.send().await.expect(201);
    web.required("chat").await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        gateway.ask("POST", format!("{at}/heartbeat")).send().await.expect(204);
    }
    let shown = gateway.ask("GET", "/v1/services/chat").send().await.expect(200).json();
    assert_eq!(shown["servers"][0]["lease"]["ttl"], "2s");
    web.lost("chat").await;
    gateway.ask("POST", format!("{at}/heartbeat")).send().await.problem(404);
    gateway
        .ask("PUT", at)
        .json(&json!({ "uri": "http://127.0.0.1:9", "ttl": "soon" }))
        .send()
        .await
        .problem(422);
    gateway.ask("PUT", at).json(&json!({ "uri": "http://127.0.0.1:9" })).send().await.expect(201);
    gateway.ask("POST", format!("{at}/heartbeat")).send().await.problem(409);
}

#[tokio::test]
async fn a_service_that_leaves_keeps_its_clients_until_the_deadline() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::start().await;
    let define = |upstream: &Upstream| json!({ "name": "chat", "port": upstream.address().port() });
    let mut leaving = Service::connect(gateway.api(), define(&a)).await;
    gateway.until(gateway.get("/chat/").client("alice"), 200).await;
    let _stays = Service::connect(gateway.api(), define(&b)).await;
    eventually(|| async {
        let shown = gateway.ask("GET", "/v1/services/chat").send().await.expect(200).json();
        if shown["servers"].as_array().is_some_and(|servers| servers.len() == 2) {
            Ok(())
        } else {
            Err(shown)
        }
    })
    .await;
    leaving.say(json!({ "type": "drain", "payload": { "deadline": "2s" } })).await;
    eventually(|| async {
        let shown = gateway.ask("GET", "/v1/services/chat").send().await.expect(200).json();
        let draining = |server: &Value| server["draining"].is_object();
        if shown["servers"].as_array().is_some_and(|servers| servers.iter().any(draining)) {
            Ok(())
        } else {
            Err(shown)
        }
    })
    .await;
    for client in 0..20 {
        let reply = gateway.get("/chat/").client(&format!("new-{client}")).send().await.expect(200);
        assert_eq!(reply.text(), "b", "a new client");
    }
    assert_eq!(leaving.hear().await, json!({ "type": "drained" }));
    assert_eq!(gateway.get("/chat/").client("alice").send().await.expect(200).text(), "b");
    leaving.close().await;
    eventually(|| async {
        let shown = gateway.ask("GET", "/v1/services/chat").send().await.expect(200).json();
        if shown["servers"].as_array().is_some_and(|servers| servers.len() == 1) {
            Ok(())
        } else {
            Err(shown)
        }
    })
    .await;
}

#[tokio::test]
async fn an_operator_waits_for_a_drain_and_what_is_on_its_way() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "servers": [a.uri(), b.uri()], "sticky": false })).await;
    let slow = tokio::spawn(gateway.get("/chat/slow/3000").client("alice").send());
    let at = |upstream: &Upstream| upstream.seen().iter().any(|seen| seen.target == "/slow/3000");
    let busy = eventually(|| async {
        [&a, &b].into_iter().find(|upstream| at(upstream)).ok_or("the slow request is on its way")
    })
    .await;
    let drain =
        |query: &str| gateway.ask("POST", format!("/v1/services/chat/servers/{}/drain?{query}", busy.id()));
    let early = drain("wait=200ms").send().await.expect(202).json();
    assert_eq!(early["state"], "draining");
    let done = drain("wait=15s").send().await.expect(200).json();
    assert_eq!((&done["state"], &done["server"]), (&json!("drained"), &json!(busy.id())));
    assert!(slow.is_finished(), "nothing is on its way any more");
    slow.await.expect("no panic").expect(200);
    let other = if busy.id() == a.id() { "b" } else { "a" };
    for _ in 0..10 {
        assert_eq!(gateway.get("/chat/").send().await.expect(200).text(), other);
    }
    gateway.ask("POST", "/v1/services/chat/servers/none/drain").send().await.problem(404);
    gateway.ask("POST", "/v1/services/none/servers/none/drain").send().await.problem(404);
}

#[tokio::test]
async fn checks_are_asked_for_by_the_definition() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    let check = json!({ "path": "/status/500", "interval": "100ms", "unhealthy_after": 2 });
    let definition = json!({ "name": "chat", "port": upstream.address().port(), "check": check });
    let mut chat = Service::connect(gateway.api(), definition).await;
    let shows = async |health: &str, checks: &str| {
        eventually(|| async {
            let shown = gateway.ask("GET", "/v1/services/chat").send().await.json();
            let server = &shown["servers"][0];
            if server["health"] == health && server["checks"] == checks { Ok(()) } else { Err(shown) }
        })
        .await;
    };
    shows("unhealthy", "failing").await;
    chat.say(json!({ "name": "chat", "port": upstream.address().port(), "check": "tcp" })).await;
    shows("healthy", "passing").await;
}

#[tokio::test]
async fn a_service_whose_servers_all_fail_their_checks_is_lost_until_one_is_well() {
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = Gateway::start().await;
    let mut one = Service::connect(gateway.api(), json!({ "name": "one", "requires": ["chat"] })).await;
    let needs = json!({ "name": "all", "requires": ["chat"], "servers": "all" });
    let mut all = Service::connect(gateway.api(), needs).await;
    one.settled().await;
    all.settled().await;
    let often = json!({ "path": "/", "interval": "50ms", "timeout": "10s" });
    let servers = |found: &Value| found["servers"].as_array().map_or(0, Vec::len);
    gateway.put("chat", json!({ "servers": [a.uri(), b.uri()], "health": often })).await;
    let mut told = one.required("chat").await;
    assert_eq!(servers(&all.required("chat").await), 2);

    // The one that was told goes: another is told. Then that goes too, and comes back.
    let (first, second) = if told["uri"] == a.uri() { (&a, &b) } else { (&b, &a) };
    first.answer(503);
    told = one.required("chat").await;
    assert_eq!(told["uri"], second.uri());
    assert_eq!(servers(&all.required("chat").await), 1);
    second.answer(503);
    one.lost("chat").await;
    all.lost("chat").await;
    let seen = told["revision"].clone();
    second.answer(0);
    assert_eq!(one.required("chat").await["uri"], second.uri());
    assert_eq!(servers(&all.required("chat").await), 1);

    // A revision is one of the table, which knows nothing of checks: one who comes back is told again.
    let resumed = json!({ "name": "back", "requires": ["chat"], "since": seen });
    let mut back = Service::connect(gateway.api(), resumed).await;
    assert_eq!(back.required("chat").await["uri"], second.uri());
    one.hears_nothing().await;
    all.hears_nothing().await;
}

#[tokio::test]
async fn whatever_is_wrong_is_said_and_the_connection_stays() {
    let gateway = Gateway::setup().config("[service.fixed]\nserver = \"http://127.0.0.1:9\"\n").start().await;
    let mut service = Service::open(gateway.api()).await;
    for (text, code) in [
        ("{", "malformed"),
        ("[1]", "malformed"),
        (r#"{"type":"identification"}"#, "invalid"),
        (r#"{"type":"explode","payload":{}}"#, "unknown-type"),
        (r#"{"type":"drain"}"#, "undefined"),
        (r#"{"name":"a b","port":1}"#, "invalid"),
        (r#"{"name":"a","port":70000}"#, "invalid"),
        (r#"{"name":"a","port":"80"}"#, "invalid"),
        (r#"{"name":"fixed","port":80}"#, "configured"),
    ] {
        service.say_text(text).await;
        let reason = service.refused(code).await;
        assert!(!reason.is_empty(), "{text}");
    }
    let thousand: Vec<_> = (0..1000).map(|at| format!("s{at}")).collect();
    service.say(json!({ "name": "a", "port": 1, "requires": thousand })).await;
    assert!(service.refused("invalid").await.contains("at most 256"));
    service.say_text(&" ".repeat(40 << 10)).await;
    service.refused("too-large").await;
    service.say(json!({ "name": "a", "port": 1 })).await;
    service.settled().await;
    service.say_text(&" ".repeat(200 << 10)).await;
    service.refused("too-large").await;
    assert_eq!(service.closed().await, 1009);
    gateway.ask("GET", "/").send().await.problem(426);
}

#[tokio::test]
async fn a_flood_from_one_peer_holds_up_nobody_else() {
    let gateway = Gateway::start().await;
    let mut flood = Service::open(gateway.api()).await;
    for _ in 0..2000 {
        flood.say_text("{").await;
    }
    let mut web = Service::connect(gateway.api(), json!({ "name": "web", "requires": ["chat"] })).await;
    let chat = Service::connect(gateway.api(), json!({ "name": "chat", "port": 1 })).await;
    within(Duration::from_secs(5), "a notification", web.required("chat")).await;
    assert!(gateway.metric("message_flow_discovery_throttled_total").await > 0.5);
    drop((flood, chat));
}

#[tokio::test]
async fn tokens_decide_what_a_service_may_be() {
    const READER: &str = "3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30";
    let config =
        format!("[[access]]\ntoken_sha256 = \"{READER}\"\nactions = [\"register\"]\nnames = [\"chat\"]\n");
    let gateway = Gateway::setup().config(config).start().await;
    assert!(WebSocket::open(gateway.api(), "/v1/connect").await.is_err());
    let mut chat = Service::from(WebSocket::open_as(gateway.api(), "/v1/connect", "reader").await.unwrap());
    chat.say(json!({ "name": "mail", "port": 1 })).await;
    chat.refused("denied").await;
    chat.say(json!({ "name": "chat", "port": 1, "requires": ["mail"] })).await;
    chat.refused("denied").await;
    chat.say(json!({ "name": "chat@2", "port": 1, "requires": ["chat"] })).await;
    assert_eq!(chat.required("chat").await["version"], "2");
}

/// An access rule; the hash is that of the token `reader` or `other`.
fn rule(token: &str, actions: &str, names: &str) -> String {
    let hash = match token {
        "reader" => "3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30",
        _ => "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa",
    };
    format!("[[access]]\ntoken_sha256 = \"{hash}\"\nactions = [{actions}]\nnames = [{names}]\n")
}

/// As a browser does it, where no page can set a header.
#[tokio::test]
async fn a_token_comes_as_a_subprotocol() {
    let gateway = Gateway::setup().config(rule("reader", "\"register\"", "\"chat\"")).start().await;
    let handshake = |protocols: &str| {
        let call = gateway.ask("GET", "/v1/connect").header("origin", "https://page.example");
        let call = call.header("connection", "upgrade").header("upgrade", "websocket");
        let call = call.header("sec-websocket-version", "13").header("sec-websocket-protocol", protocols);
        call.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let answer = handshake("message-flow, message-flow.bearer.cmVhZGVy").open().await.expect("an answer");
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "message-flow");
    for refused in ["message-flow", "message-flow, message-flow.bearer.bm9ib2R5", "message-flow.bearer.%"] {
        handshake(refused).send().await.problem(401);
    }
    assert!(!gateway.log().contains("cmVhZGVy") && !gateway.log().contains("bm9ib2R5"));
}

#[tokio::test]
async fn open_connections_follow_the_access_rules() {
    let register = "\"register\"";
    let admin = rule("other", "\"admin\"", "\">\"");
    let config = |names: &str| format!("{admin}{}", rule("reader", register, names));
    let gateway = Gateway::setup().config(config(r#""chat", "mail", "web""#)).start().await;
    let connect = async |definition: Value| {
        let socket = WebSocket::open_as(gateway.api(), "/v1/connect", "reader").await.expect("a handshake");
        let mut service = Service::from(socket);
        service.say(definition).await;
        service
    };
    let mut chat = connect(json!({ "name": "chat", "port": 1 })).await;
    let mut mail = connect(json!({ "name": "mail", "port": 2 })).await;
    chat.settled().await;
    mail.settled().await;
    let mut web = connect(json!({ "name": "web", "port": 3, "requires": ["mail"] })).await;
    web.required("mail").await;

    // What is narrower now ends what it no longer allows, and nothing else.
    gateway.reconfigure(config(r#""chat", "web""#));
    assert_eq!(mail.closed().await, 1008);
    assert_eq!(web.closed().await, 1008);
    chat.settled().await;
    chat.say(json!({ "type": "require", "payload": { "requires": ["mail"] } })).await;
    chat.refused("denied").await;
    let call = |service: &str| {
        gateway.ask("GET", format!("/v1/services/{service}")).header("authorization", "Bearer other")
    };
    // Who may not be it any more is gone at once, not after a grace.
    gateway.until(call("mail"), 404).await;
    eventually(|| async {
        let shown = call("web").send().await.expect(200).json();
        if shown["servers"][0]["health"] == "suspect" { Ok(()) } else { Err(shown) }
    })
    .await;

    gateway.reconfigure(admin);
    assert_eq!(chat.closed().await, 1008);
    gateway.until(call("chat"), 404).await;
    gateway.logged("the token is not valid any more").await;
}

#[tokio::test]
async fn no_page_of_another_origin_connects() {
    let gateway = Gateway::start().await;
    let handshake = |origin: &str| {
        let call = gateway.ask("GET", "/v1/connect").header("origin", origin).header("connection", "upgrade");
        let call = call.header("upgrade", "websocket").header("sec-websocket-version", "13");
        call.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    handshake("https://evil.example").send().await.problem(403);
    handshake("http://localhost:3000").send().await.problem(403);
    let own = format!("http://{}", gateway.api());
    let answer = handshake(&own).open().await.expect("an answer");
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}
