//! The routing table in a real etcd.

use std::time::{Duration, Instant};

use message_flow::plugin::etcd::{EtcdClient, EtcdSettings, KeyRange, Operation, Transaction};
use message_flow_tests::{Etcd, Gateway, Relay, Upstream, eventually, gateway::Setup};
use serde_json::{Value, json};

fn on(etcd: &Etcd) -> Setup {
    on_with(etcd, "")
}

fn on_with(etcd: &Etcd, further: &str) -> Setup {
    at(&etcd.endpoint(), further)
}

fn at(endpoint: &str, further: &str) -> Setup {
    Gateway::setup().config(format!(
        "[table]\nadapter = \"etcd\"\n[plugin.etcd]\nconfig = {{ endpoints = \"{endpoint}\", prefix = \"/test\"{further} }}\n"
    ))
}

/// Waits until a service is routed.
async fn routed(gateway: &Gateway, service: &str) {
    let call = gateway.get(format!("/{service}/"));
    gateway.until(call, 200).await;
}

#[tokio::test]
async fn what_one_router_writes_the_other_routes() {
    let etcd = Etcd::start().await;
    let a = Upstream::start("a").await;
    let (one, two) = (on(&etcd).start().await, on(&etcd).start().await);

    one.put("chat", json!({ "servers": [a.uri()] })).await;

    routed(&one, "chat").await;
    routed(&two, "chat").await;
    let keys = etcd.must(&["get", "--prefix", "--keys-only", "/test"]).await;
    for key in ["/test/services/chat", &format!("/test/servers/chat/{}", a.id())] {
        assert!(keys.lines().any(|line| line == key), "{key} is not in\n{keys}");
    }
    assert_eq!(keys.lines().filter(|line| line.starts_with("/test/routers/")).count(), 2, "{keys}");
    let value = etcd.must(&["get", "--print-value-only", &format!("/test/servers/chat/{}", a.id())]).await;
    let value: Value = serde_json::from_str(&value).expect("a JSON object");
    assert_eq!(value["uri"], a.uri());
}

/// Two routers over one etcd, and three servers of `chat` that both know.
async fn two_before_three() -> (Etcd, [Upstream; 3], [Gateway; 2]) {
    let etcd = Etcd::start().await;
    let upstreams = [Upstream::start("a").await, Upstream::start("b").await, Upstream::start("c").await];
    let servers: Vec<_> = upstreams.iter().map(Upstream::uri).collect();
    let routers = [on(&etcd).start().await, on(&etcd).start().await];
    routers[0].put("chat", json!({ "servers": servers })).await;
    routed(&routers[1], "chat").await;
    (etcd, upstreams, routers)
}

#[tokio::test]
async fn two_routers_that_meet_a_client_at_once_agree() {
    let (_etcd, _upstreams, [one, two]) = two_before_three().await;

    for at in 0..40 {
        let client = format!("c{at}");
        let calls = [&one, &two, &one, &two]
            .map(|gateway| tokio::spawn(gateway.get("/chat/").client(&client).send()));
        let mut answers = std::collections::BTreeSet::new();
        for call in calls {
            answers.insert(call.await.expect("no panic").expect(200).text());
        }
        assert_eq!(answers.len(), 1, "client {client} went to {answers:?}");
    }
    let shown = two.ask("GET", "/v1/clients/c0").send().await.expect(200).json();
    assert!(shown["assignments"]["chat"]["server"].is_string(), "{shown}");
}

/// Sends one message of each client; where they went.
async fn answers(gateway: &Gateway, clients: &[String]) -> Vec<String> {
    let mut answers = Vec::new();
    for client in clients {
        answers.push(gateway.get("/chat/").client(client).send().await.expect(200).text());
    }
    answers
}

#[tokio::test]
async fn after_a_rolling_restart_two_routers_send_each_client_to_the_same_server() {
    let (_etcd, upstreams, [one, two]) = two_before_three().await;
    let clients: Vec<_> = (0..60).map(|at| format!("c{at}")).collect();
    assert_eq!(answers(&one, &clients).await, answers(&two, &clients).await);

    for (at, upstream) in upstreams.iter().enumerate() {
        let server = format!("/v1/services/chat/servers/{}", upstream.id());
        one.ask("DELETE", &server).send().await.expect(204);
        // Some meet one router while it is away, and some nobody.
        let meanwhile: Vec<_> = clients.iter().skip(at).step_by(2).cloned().collect();
        answers([&one, &two][at % 2], &meanwhile).await;
        one.ask("PUT", &server).json(&json!({ "uri": upstream.uri() })).send().await.expect(201);
    }
    // What is told is told in order: who knows of this knows of everything before it.
    one.put("after", json!({ "server": upstreams[0].uri() })).await;
    routed(&two, "after").await;
    assert_eq!(answers(&one, &clients).await, answers(&two, &clients).await);
}

#[tokio::test]
async fn a_pin_at_one_router_holds_at_the_other() {
    let etcd = Etcd::start().await;
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let (one, two) = (on(&etcd).start().await, on(&etcd).start().await);
    one.put("chat", json!({ "servers": [a.uri(), b.uri()] })).await;
    routed(&two, "chat").await;
    let first = two.get("/chat/").client("alice").send().await.expect(200).text();
    let (other, name) = if first == "a" { (&b, "b") } else { (&a, "a") };

    let pin = one.ask("PUT", "/v1/clients/alice/assignments/chat").json(&json!({ "server": other.id() }));
    assert!((200..300).contains(&pin.send().await.status));

    eventually(|| async {
        let text = two.get("/chat/").client("alice").send().await.text();
        if text == name { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test]
async fn routing_goes_on_without_etcd_and_catches_up_with_it() {
    let mut etcd = Etcd::start().await;
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    let gateway = on(&etcd).start().await;
    gateway.put("chat", json!({ "servers": [a.uri()] })).await;
    gateway.get("/chat/").client("alice").send().await.expect(200);

    etcd.down().await;
    for client in ["alice", "bob"] {
        assert_eq!(gateway.get("/chat/").client(client).send().await.expect(200).text(), "a", "{client}");
    }
    let write = gateway.ask("PUT", "/v1/services/more").json(&json!({ "server": b.uri() })).send().await;
    let problem = write.problem(503);
    assert!(problem["detail"].as_str().unwrap_or_default().contains("unavailable"), "{problem}");
    eventually(|| async {
        let ready = gateway.ask("GET", "/ready").send().await;
        if ready.text().contains("etcd") || ready.text().contains("table") {
            Ok(())
        } else {
            Err(ready.text())
        }
    })
    .await;
    gateway.get("/more/").send().await.problem(404);

    etcd.up().await;
    eventually(|| async {
        let write = gateway.ask("PUT", "/v1/services/more").json(&json!({ "server": b.uri() })).send().await;
        if (200..300).contains(&write.status) { Ok(()) } else { Err(write.text()) }
    })
    .await;
    routed(&gateway, "more").await;
    etcd.must(&["put", "/test/services/third", &json!({ "server": a.uri() }).to_string()]).await;
    routed(&gateway, "third").await;
}

#[tokio::test]
async fn it_boots_from_the_last_known_view() {
    let mut etcd = Etcd::start().await;
    let a = Upstream::start("a").await;
    let gateway = on(&etcd).start().await;
    gateway.put("chat", json!({ "servers": [a.uri()] })).await;
    gateway.get("/chat/").client("alice").send().await.expect(200);
    let view = gateway.path("data/view.json");
    eventually(|| async {
        let text = std::fs::read_to_string(&view).unwrap_or_default();
        if text.contains("chat") { Ok(()) } else { Err(format!("not yet in the last known view: {text}")) }
    })
    .await;
    etcd.down().await;

    let gateway = gateway.kill().await.start().await;
    assert_eq!(gateway.get("/chat/").client("alice").send().await.expect(200).text(), "a");

    etcd.up().await;
    etcd.must(&["put", "/test/services/late", &json!({ "server": a.uri() }).to_string()]).await;
    routed(&gateway, "late").await;
}

/// Every client that was at home at `a` before there was another server, and one that is pinned to it.
async fn all_at_home(gateway: &Gateway) {
    for number in 0..30 {
        let client = format!("client-{number}");
        assert_eq!(gateway.get("/chat/").client(&client).send().await.expect(200).text(), "a", "{client}");
    }
    assert_eq!(gateway.get("/chat/").client("pia").send().await.expect(200).text(), "a", "the pin");
}

#[tokio::test]
async fn assignments_and_pins_survive_a_restart_while_it_is_away() {
    let mut etcd = Etcd::start().await;
    let upstreams = [Upstream::start("a").await, Upstream::start("b").await, Upstream::start("c").await];
    let server = |number: usize| json!({ "id": format!("server-{number}"), "uri": upstreams[number].uri() });
    let gateway = on(&etcd).start().await;
    gateway.put("chat", json!({ "servers": [server(0)] })).await;
    let pin = gateway.ask("PUT", "/v1/clients/pia/assignments/chat");
    pin.json(&json!({ "server": "server-0" })).send().await.expect(200);
    all_at_home(&gateway).await;
    gateway.put("chat", json!({ "servers": [server(0), server(1), server(2)] })).await;
    all_at_home(&gateway).await;
    let kept = gateway.path("data/assignments.json");
    eventually(|| async {
        let text = std::fs::read_to_string(&kept).unwrap_or_default();
        let all =
            (0..30).all(|number| text.contains(&format!("\"client-{number}\""))) && text.contains("pia");
        if all { Ok(()) } else { Err(format!("not all are kept: {text}")) }
    })
    .await;
    etcd.down().await;

    let gateway = gateway.kill().await.start().await;
    all_at_home(&gateway).await;
    // What was held meanwhile is kept as well, and what a clean end keeps is as good.
    gateway.signal("TERM").await;
    let mut gateway = gateway;
    gateway.ended(std::time::Duration::from_secs(20)).await;
    let gateway = gateway.kill().await.start().await;
    all_at_home(&gateway).await;
    etcd.up().await;
    routed(&gateway, "chat").await;
    all_at_home(&gateway).await;
}

#[tokio::test]
async fn nothing_is_missed_over_a_compaction() {
    let mut etcd = Etcd::start().await;
    let a = Upstream::start("a").await;
    let gateway = on(&etcd).start().await;
    gateway.put("gone", json!({ "server": a.uri() })).await;
    gateway.put("kept", json!({ "server": a.uri() })).await;
    // The router is stopped, as if cut off; what happens meanwhile is compacted away.
    gateway.signal("STOP").await;
    etcd.must(&["del", "/test/services/gone"]).await;
    etcd.must(&["put", "/test/services/new", &json!({ "server": a.uri() }).to_string()]).await;
    etcd.must(&["compaction", &etcd.revision().await.to_string()]).await;
    etcd.down().await;
    etcd.up().await;
    gateway.signal("CONT").await;

    routed(&gateway, "new").await;
    routed(&gateway, "kept").await;
    let call = gateway.get("/gone/");
    gateway.until(call, 404).await;
}

#[tokio::test]
async fn an_expired_token_is_renewed() {
    let etcd = Etcd::start_with(&["--auth-token", "simple", "--auth-token-ttl", "1"]).await;
    for arguments in [
        &["user", "add", "root:secret"][..],
        &["role", "add", "root"],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        etcd.must(arguments).await;
    }
    let a = Upstream::start("a").await;
    let gateway = on_with(&etcd, ", user = \"root\", password = \"secret\"").start().await;
    gateway.put("one", json!({ "server": a.uri() })).await;

    // Longer than a token lives.
    tokio::time::sleep(Duration::from_secs(3)).await;

    gateway.put("two", json!({ "server": a.uri() })).await;
    routed(&gateway, "two").await;
    let put = ["--user", "root:secret", "put", "/test/services/three"];
    etcd.must(&[&put[..], &[&json!({ "server": a.uri() }).to_string()]].concat()).await;
    routed(&gateway, "three").await;
    assert!(!gateway.log().contains("secret"));
}

#[tokio::test]
async fn a_mass_loss_is_not_obeyed_at_once() {
    let etcd = Etcd::start().await;
    let upstreams = [Upstream::start("a").await, Upstream::start("b").await, Upstream::start("c").await];
    let servers: Vec<_> = upstreams.iter().map(Upstream::uri).collect();
    let gateway = on(&etcd).start().await;
    gateway.put("chat", json!({ "servers": servers })).await;
    gateway.get("/chat/").send().await.expect(200);

    etcd.must(&["del", "--prefix", "/test/servers/"]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    gateway.get("/chat/").send().await.expect(200);
}

#[tokio::test]
async fn an_explicit_loss_is_obeyed_at_once() {
    let etcd = Etcd::start().await;
    let upstreams = [Upstream::start("a").await, Upstream::start("b").await, Upstream::start("c").await];
    let servers: Vec<_> = upstreams.iter().map(Upstream::uri).collect();
    let (gateway, other) = (on(&etcd).start().await, on(&etcd).start().await);
    gateway.put("chat", json!({ "servers": servers })).await;
    routed(&other, "chat").await;
    etcd.must(&["del", "--prefix", "/test/servers/"]).await;
    for gateway in [&gateway, &other] {
        eventually(|| async {
            let suspects = gateway.metric("message_flow_view_suspects").await;
            if suspects > 2.5 { Ok(()) } else { Err(format!("{suspects} suspects")) }
        })
        .await;
    }
    gateway.put("chat", json!({ "servers": [] })).await;
    gateway.get("/chat/").send().await.problem(503);
    let call = other.get("/chat/");
    other.until(call, 503).await;
}

#[tokio::test]
async fn writers_of_different_records_are_not_in_the_way_of_each_other() {
    const SERVERS: usize = 4;
    let etcd = Etcd::start().await;
    let gateways = [on(&etcd).start().await, on(&etcd).start().await];
    let mut writers = Vec::new();
    for writer in 0..16 {
        let gateway = &gateways[writer % 2];
        let (service, server) = (format!("/v1/services/s{writer}"), |n: usize| {
            format!("/v1/services/s{writer}/servers/{}", n % SERVERS)
        });
        let uri = |n: usize| json!({ "uri": format!("http://127.0.0.1:{}", 1000 + n), "ttl": "1m" });
        let mut calls = vec![gateway.ask("PUT", &service).json(&json!({}))];
        for n in 0..12 {
            calls.push(gateway.ask("PUT", server(n)).json(&uri(n)));
            calls.push(gateway.ask("POST", format!("{}/heartbeat", server(n))));
            if n >= SERVERS {
                calls.push(gateway.ask("DELETE", server(n)));
            }
            calls.push(gateway.ask("PUT", &service).json(&json!({ "filters": [format!("f{n}")] })));
        }
        writers.push(tokio::spawn(async move {
            let mut answers = Vec::new();
            for call in calls {
                let reply = call.send().await;
                answers.push((reply.status, reply.text()));
            }
            answers
        }));
    }
    for writer in writers {
        for (status, text) in writer.await.expect("no panic") {
            assert!((200..300).contains(&status), "{status} {text}");
        }
    }
}

#[tokio::test]
async fn writers_of_one_record_get_their_way_in_turn_and_conditions_hold() {
    let etcd = Etcd::start().await;
    let gateways = [on(&etcd).start().await, on(&etcd).start().await];
    let put = |writer: usize, body: Value| gateways[writer % 2].ask("PUT", "/v1/services/chat").json(&body);
    let weight =
        |server: &str, weight: usize| json!({ "id": server, "uri": "http://127.0.0.1:9", "weight": weight });
    let list = |a: usize, b: usize| json!({ "servers": [weight("a", a), weight("b", b)] });
    put(0, list(1, 1)).send().await.expect(201);
    gateways[1].until(gateways[1].ask("GET", "/v1/services/chat"), 200).await;
    let at_once = (0..16).map(|writer| tokio::spawn(put(writer, list(10 + writer, 1)).send()));
    for reply in at_once.collect::<Vec<_>>() {
        reply.await.expect("no panic").expect(200);
    }
    for round in 0..10 {
        let shown = gateways[0].ask("GET", "/v1/services/chat").send().await.expect(200);
        let tag = shown.header("etag").to_owned();
        // Each changes another server of the list that both have seen.
        let (a, b) = (
            shown.json()["servers"][0]["weight"].as_u64().unwrap(),
            shown.json()["servers"][1]["weight"].as_u64().unwrap(),
        );
        let (a, b) = (a as usize, b as usize);
        let calls = [put(0, list(a + 1, b)), put(1, list(a, b + 1))]
            .map(|call| tokio::spawn(call.header("if-match", &tag).send()));
        let mut statuses = Vec::new();
        for call in calls {
            statuses.push(call.await.expect("no panic").status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412], "round {round}");
        eventually(|| async {
            let seen =
                [&gateways[0], &gateways[1]].map(|gateway| gateway.ask("GET", "/v1/services/chat").send());
            let [here, there] = seen;
            let (here, there) = (here.await, there.await);
            let same = here.header("etag") == there.header("etag") && here.header("etag") != tag;
            if same { Ok(()) } else { Err(format!("{} {}", here.text(), there.text())) }
        })
        .await;
    }
}

#[tokio::test]
async fn routers_agree_after_a_snapshot_was_restored() {
    let mut etcd = Etcd::start().await;
    let upstreams = [Upstream::start("a").await, Upstream::start("b").await, Upstream::start("c").await];
    let servers: Vec<_> = upstreams.iter().map(Upstream::uri).collect();
    let (one, two) = (on(&etcd).start().await, on(&etcd).start().await);
    one.put("chat", json!({ "servers": servers })).await;
    routed(&two, "chat").await;
    let saved = etcd.save().await;
    let clients: Vec<_> = (0..40).map(|at| format!("c{at}")).collect();
    // What is remembered of these was never in the snapshot.
    answers(&one, &clients[..20]).await;
    answers(&two, &clients[20..]).await;
    one.put("later", json!({ "servers": servers })).await;
    routed(&two, "later").await;

    etcd.down().await;
    etcd.restore(&saved).await;
    for gateway in [&one, &two] {
        let call = gateway.get("/later/");
        gateway.until(call, 404).await;
    }
    assert_eq!(answers(&one, &clients).await, answers(&two, &clients).await);
    one.put("again", json!({ "servers": servers })).await;
    routed(&two, "again").await;
}

/// What `/ready` says of the table.
async fn standing(gateway: &Gateway) -> String {
    let ready = gateway.ask("GET", "/ready").send().await.expect(200).json();
    ready["table"]["state"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_router_is_current_as_soon_as_etcd_is_back() {
    let mut etcd = Etcd::start().await;
    let gateway = on(&etcd).start().await;
    etcd.down().await;
    let stood = async |expected: &str| {
        eventually(|| async {
            let standing = standing(&gateway).await;
            if standing == expected { Ok(()) } else { Err(standing) }
        })
        .await;
    };
    stood("stale").await;
    // Long enough for the longest pauses between attempts.
    tokio::time::sleep(Duration::from_secs(4)).await;
    etcd.up().await;
    let up = Instant::now();
    stood("current").await;
    assert!(up.elapsed() < Duration::from_secs(3), "{:?}", up.elapsed());
}

#[tokio::test]
async fn a_write_that_may_have_been_applied_is_answered_so() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.endpoint().trim_start_matches("http://")).await;
    let gateway = at(&relay.uri(), "").start().await;
    gateway.put("chat", json!({ "server": "http://127.0.0.1:9" })).await;
    relay.silence();
    let write = || gateway.ask("PUT", "/v1/services/chat").json(&json!({ "server": "http://127.0.0.1:10" }));
    let problem = write().send().await.problem(503);
    assert_eq!(problem["type"], "urn:message-flow:problem:table-unknown", "{problem}");
    assert!(
        problem["detail"].as_str().unwrap_or_default().contains("may have been carried out"),
        "{problem}"
    );
    relay.cut();
    eventually(|| async {
        let problem = write().send().await.problem(503);
        let refused = problem["type"] == "urn:message-flow:problem:table-unavailable";
        if refused { Ok(()) } else { Err(problem.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_bad_record_is_shown_and_hides_nothing() {
    const BAD: [(&str, &[u8]); 5] = [
        ("/test/services/bad", b"{\"registrar\":\"\xff\"}"),
        ("/test/servers/chat/odd", b"\xff\xfe"),
        ("/test/routers/ghost", b"7"),
        ("/test/releases/chat", b"\xff"),
        ("/test/service/typo", b"{}"),
    ];
    let etcd = Etcd::start().await;
    let a = Upstream::start("a").await;
    let one = on(&etcd).start().await;
    one.put("chat", json!({ "servers": [a.uri()] })).await;
    let endpoint = etcd.endpoint();
    let settings = EtcdSettings::new(|key| (key == "endpoints").then_some(endpoint.as_str())).unwrap();
    let client = EtcdClient::new(settings, Duration::from_secs(5), tokio::runtime::Handle::current());
    let write = async |then: Vec<Operation>| {
        client.transact(Transaction { then, ..Transaction::default() }).await.unwrap();
    };
    let put =
        |(key, value): (&str, &[u8])| Operation::Put { key: key.into(), value: value.into(), leased: false };
    let bad_assignment = put(("/test/assignments/zed/chat", b"\xff"));
    write(BAD.map(put).into_iter().chain([bad_assignment]).collect()).await;
    one.put("next", json!({ "servers": [a.uri()] })).await;
    // It reads all of them at first.
    let two = on(&etcd).start().await;
    for gateway in [&one, &two] {
        routed(gateway, "chat").await;
        routed(gateway, "next").await;
        assert_eq!(gateway.get("/chat/").client("zed").send().await.expect(200).text(), "a");
        // Once it has read its own record, with which they are shown.
        eventually(|| async {
            let shown = gateway.ask("GET", "/v1/routers").send().await.expect(200).json();
            let routers = shown.as_array().cloned().unwrap_or_default();
            let unreadable = routers.iter().filter_map(|router| router["unreadable"].as_array());
            let shown: Vec<_> =
                unreadable.flatten().map(|it| format!("{} {}", it["kind"], it["key"])).collect();
            let expected =
                ["\"service\" \"bad\"", "\"server\" \"chat/odd\"", "\"stray\" \"/test/service/typo\""];
            let all = expected.iter().all(|expected| shown.iter().any(|shown| shown == expected));
            if all && shown.len() == BAD.len() { Ok(()) } else { Err(format!("{shown:?}")) }
        })
        .await;
        let ready = gateway.ask("GET", "/ready").send().await.expect(200).text();
        assert!(ready.contains("table-records") && ready.contains("release `chat`"), "{ready}");
    }
    let delete = |(key, _): (&str, &[u8])| Operation::Delete(KeyRange { start: key.into(), end: None });
    write(BAD.map(delete).into()).await;
    for gateway in [&one, &two] {
        eventually(|| async {
            let ready = gateway.ask("GET", "/ready").send().await.expect(200).text();
            if ready.contains("table-records") { Err(ready) } else { Ok(()) }
        })
        .await;
    }
}
