//! Services that are connected to several routers on the same etcd.

use futures_util::future::join_all;
use std::time::Duration;

use message_flow_tests::{Etcd, Gateway, Relay, Service, Upstream, eventually, eventually_within};
use serde_json::{Value, json};

async fn router(etcd: &Etcd) -> Gateway {
    router_at(&etcd.endpoint()).await
}

/// That reaches etcd there.
async fn router_at(endpoint: &str) -> Gateway {
    let config = format!(
        "[table]\nadapter = \"etcd\"\n[plugin.etcd]\nconfig = {{ endpoints = \"{endpoint}\", prefix = \"/test\" }}\n\
         [discovery]\ngrace = \"3s\"\nping = \"1m\"\ndeadline = \"2m\"\n"
    );
    Gateway::setup().config(config).start().await
}

/// Waits until a router shows the one server of a service like this.
async fn shows(gateway: &Gateway, service: &str, wanted: impl Fn(&Value) -> bool) {
    eventually(|| async {
        let reply = gateway.ask("GET", format!("/v1/services/{service}")).send().await;
        let shown = reply.json();
        if wanted(&shown["servers"][0]) { Ok(()) } else { Err(shown) }
    })
    .await;
}

#[tokio::test]
async fn services_find_each_other_across_routers() {
    let etcd = Etcd::start().await;
    let (one, two) = (router(&etcd).await, router(&etcd).await);
    let mut web = Service::connect(one.api(), json!({ "name": "web", "requires": ["chat"] })).await;
    web.settled().await;
    let chat = Service::connect(two.api(), json!({ "name": "chat", "port": 7 })).await;
    let found = web.required("chat").await;
    assert_eq!(found["port"], 7);
    // Gone from one router and back at the other within the grace is no news.
    chat.close().await;
    shows(&one, "chat", |server| server["health"] == "suspect").await;
    let chat = Service::connect(one.api(), json!({ "name": "chat", "port": 7 })).await;
    shows(&two, "chat", |server| server["health"] == "healthy").await;
    web.hears_nothing().await;
    chat.close().await;
    web.lost("chat").await;
}

#[tokio::test]
async fn what_a_dead_router_held_is_suspect_and_lost_only_if_it_stays_away() {
    let etcd = Etcd::start().await;
    let (stays, dies) = (router(&etcd).await, router(&etcd).await);
    let back = json!({ "name": "back", "port": 1 });
    let gone = json!({ "name": "gone", "port": 2 });
    let needs = json!({ "name": "web", "requires": ["back", "gone"] });
    let mut web = Service::connect(stays.api(), needs.clone()).await;
    let _first = Service::connect(dies.api(), back.clone()).await;
    web.required("back").await;
    let _second = Service::connect(dies.api(), gone).await;
    let seen = web.required("gone").await["revision"].clone();
    let mut moved = Service::connect(dies.api(), needs.clone()).await;
    moved.hear().await;

    drop(dies.kill().await);
    // Whoever was connected there comes here, and has missed nothing.
    let _first = Service::connect(stays.api(), back).await;
    let resumed = json!({ "name": "web", "requires": ["back", "gone"], "since": seen });
    let mut moved = Service::connect(stays.api(), resumed).await;
    shows(&stays, "back", |server| server["health"] == "healthy").await;
    shows(&stays, "gone", |server| server["health"] == "suspect").await;

    // The first and only news is about the one that did not come back.
    web.lost("gone").await;
    moved.lost("gone").await;
    web.hears_nothing().await;
}

#[tokio::test]
async fn a_drain_is_over_when_every_router_says_so() {
    let etcd = Etcd::start().await;
    let (one, two) = (router(&etcd).await, router(&etcd).await);
    let (a, b) = (Upstream::start("a").await, Upstream::start("b").await);
    one.put("chat", json!({ "servers": [a.uri(), b.uri()], "sticky": false })).await;
    two.until(two.get("/chat/"), 200).await;
    let slow = tokio::spawn(two.get("/chat/slow/2500").send());
    let at = |upstream: &Upstream| upstream.seen().iter().any(|seen| seen.target == "/slow/2500");
    let busy = eventually(|| async {
        [&a, &b].into_iter().find(|upstream| at(upstream)).ok_or("the slow request is not on its way")
    })
    .await;
    let drain = one.ask("POST", format!("/v1/services/chat/servers/{}/drain?wait=15s", busy.id()));
    assert_eq!(drain.send().await.expect(200).json()["state"], "drained");
    assert!(slow.is_finished(), "the other router had something on its way");
}

#[tokio::test]
async fn a_registry_that_was_lost_is_vouched_for_by_those_who_are_connected() {
    let etcd = Etcd::start().await;
    let gateway = router(&etcd).await;
    let mut web = Service::connect(gateway.api(), json!({ "name": "web", "requires": ["a"] })).await;
    let mut services = Vec::new();
    for (at, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let mut service = Service::connect(gateway.api(), json!({ "name": name, "port": at + 1 })).await;
        service.settled().await;
        services.push(service);
    }
    web.required("a").await;
    shows(&gateway, "d", |server| server["health"] == "healthy").await;
    etcd.must(&["del", "--prefix", "/test/servers/"]).await;
    eventually(|| async {
        let keys = etcd.must(&["get", "--prefix", "--keys-only", "/test/servers/"]).await;
        if keys.lines().filter(|line| !line.is_empty()).count() == 4 { Ok(()) } else { Err(keys) }
    })
    .await;
    shows(&gateway, "a", |server| server["health"] == "healthy").await;
    web.hears_nothing().await;
}

/// Each needs its neighbour; all are connected to a router that is killed, and go to another.
#[tokio::test]
async fn a_router_killed_under_a_thousand_services_is_no_loss_to_any() {
    const SERVICES: usize = 1000;
    let etcd = Etcd::start().await;
    let (stays, dies) = (router(&etcd).await, router(&etcd).await);
    let define = |at: usize| {
        let neighbour = format!("s{}", (at + 1) % SERVICES);
        json!({ "name": format!("s{at}"), "port": at + 1, "requires": [neighbour] })
    };
    let mut services = join_all((0..SERVICES).map(|at| Service::connect(dies.api(), define(at)))).await;
    let mut seen = Vec::new();
    for (at, service) in services.iter_mut().enumerate() {
        seen.push(service.required(&format!("s{}", (at + 1) % SERVICES)).await["revision"].clone());
    }

    drop(dies.kill().await);
    drop(services);
    let back = seen.into_iter().enumerate().map(|(at, seen)| {
        let mut definition = define(at);
        definition["since"] = seen;
        Service::connect(stays.api(), definition)
    });
    let _services = join_all(back).await;
    // The dead router's lease ends, and then the grace of whatever it still held.
    eventually(|| async {
        let routers = stays.ask("GET", "/v1/routers").send().await.expect(200).json();
        if routers.as_array().is_some_and(|routers| routers.len() == 1) { Ok(()) } else { Err(routers) }
    })
    .await;
    eventually(|| async {
        let suspects = stays.metric("message_flow_view_suspects ").await;
        if suspects < 0.5 { Ok(()) } else { Err(format!("{suspects} suspects")) }
    })
    .await;
    let shown = stays.ask("GET", "/v1/services").send().await.expect(200).json();
    assert_eq!(shown.as_array().map(Vec::len), Some(SERVICES));
    assert!(
        stays.metric("message_flow_discovery_losses_total").await < 0.5,
        "something was falsely reported lost"
    );
}

/// The routers that one shows.
async fn routers(gateway: &Gateway) -> usize {
    let shown = gateway.ask("GET", "/v1/routers").send().await.expect(200).json();
    shown.as_array().map_or(0, Vec::len)
}

async fn servers(gateway: &Gateway, service: &str) -> usize {
    let shown = gateway.ask("GET", format!("/v1/services/{service}")).send().await;
    if shown.status == 404 { 0 } else { shown.json()["servers"].as_array().map_or(0, Vec::len) }
}

/// Longer than its lease and the grace: the other router takes it for dead and removes what it held.
#[tokio::test]
async fn a_router_that_was_cut_off_loses_none_of_its_connected_services() {
    const SERVICES: usize = 60;
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.endpoint().replace("http://", "")).await;
    let (cut, stays) = (router_at(&relay.uri()).await, router(&etcd).await);
    let define = |at: usize| json!({ "name": "chat", "port": at + 1 });
    let mut services = join_all((0..SERVICES).map(|at| Service::connect(cut.api(), define(at)))).await;
    for service in &mut services {
        service.settled().await;
    }
    eventually(|| async {
        let there = servers(&stays, "chat").await;
        if there == SERVICES { Ok(()) } else { Err(there) }
    })
    .await;

    relay.cut();
    // Its record goes with its lease, and what it held with the grace; both take their time.
    eventually_within(Duration::from_secs(60), || async {
        let there = servers(&stays, "chat").await;
        if there == 0 { Ok(()) } else { Err(format!("{there} were not taken for dead")) }
    })
    .await;
    relay.mend();
    for gateway in [&stays, &cut] {
        eventually(|| async {
            let there = (servers(gateway, "chat").await, routers(gateway).await);
            if there == (SERVICES, 2) { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    }
    eventually(|| async {
        let suspects = stays.metric("message_flow_view_suspects ").await;
        if suspects < 0.5 { Ok(()) } else { Err(format!("{suspects} suspects")) }
    })
    .await;
    join_all(services.iter_mut().map(Service::hears_nothing)).await;
    // What is meant is not undone: removed over the API of either router it stays removed.
    let id = |at: usize| format!("/v1/services/chat/servers/127.0.0.1:{}", at + 1);
    for (gateway, at) in [(&stays, 0), (&cut, 1)] {
        gateway.ask("DELETE", id(at)).send().await.expect(204);
        services[at].refused("deregistered").await;
    }
    for gateway in [&stays, &cut] {
        eventually(|| async {
            let there = servers(gateway, "chat").await;
            if there == SERVICES - 2 { Ok(()) } else { Err(there) }
        })
        .await;
    }
    eventually(|| async {
        let left = etcd.must(&["get", "--prefix", "--keys-only", "/test/others/removed/"]).await;
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    services[0].say(define(0)).await;
    services[0].settled().await;
    eventually(|| async {
        let there = servers(&stays, "chat").await;
        if there == SERVICES - 1 { Ok(()) } else { Err(there) }
    })
    .await;
}
