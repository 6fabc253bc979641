//! Routers that were started with one id, as from copies of one data directory.

use std::time::Duration;

use message_flow_tests::{Etcd, Gateway, Service, eventually, gateway::Setup};
use serde_json::{Value, json};

/// As a first start makes it.
const ID: &str = "router-00000000000c104e";

/// With this id in its data directory.
fn cloned(etcd: &Etcd) -> Setup {
    setup(etcd, "").file("data/router-id", ID)
}

fn setup(etcd: &Etcd, more: &str) -> Setup {
    let endpoint = etcd.endpoint();
    Gateway::setup().config(format!(
        "{more}[table]\nadapter = \"etcd\"\n[plugin.etcd]\nconfig = {{ endpoints = \"{endpoint}\", prefix = \"/test\" }}\n\
         [discovery]\ngrace = \"3s\"\n"
    ))
}

/// The routers that one shows, in the order of their ids.
async fn routers(gateway: &Gateway, count: usize) -> Vec<Value> {
    eventually(|| async {
        let shown = gateway.ask("GET", "/v1/routers").send().await.expect(200).json();
        let shown = shown.as_array().cloned().unwrap_or_default();
        if shown.len() == count { Ok(shown) } else { Err(format!("{shown:?}")) }
    })
    .await
}

/// What `/ready` says of ids.
async fn condition(gateway: &Gateway) -> Option<String> {
    let ready = gateway.ask("GET", "/ready").send().await.expect(200).json();
    let conditions = ready["conditions"].as_array().cloned().unwrap_or_default();
    let condition = conditions.into_iter().find(|condition| condition["name"] == "router-id")?;
    condition["detail"].as_str().map(str::to_owned)
}

async fn healthy(gateway: &Gateway, service: &str) {
    eventually(|| async {
        let shown = gateway.ask("GET", format!("/v1/services/{service}")).send().await.json();
        if shown["servers"][0]["health"] == "healthy" { Ok(()) } else { Err(shown) }
    })
    .await;
}

#[tokio::test]
async fn of_two_copies_of_a_data_directory_the_second_takes_a_new_id() {
    let etcd = Etcd::start().await;
    let first = cloned(&etcd).start().await;
    let mut chat = Service::connect(first.api(), json!({ "name": "chat", "port": 1 })).await;
    chat.settled().await;
    let second = cloned(&etcd).start().await;
    let mut mail = Service::connect(second.api(), json!({ "name": "mail", "port": 2 })).await;
    mail.settled().await;
    for gateway in [&first, &second] {
        let shown = routers(gateway, 2).await;
        let (old, new) = (&shown[1], &shown[0]);
        let (old, new) = if old["id"] == ID { (old, new) } else { (new, old) };
        assert_eq!((&old["id"], &old["instead_of"]), (&json!(ID), &Value::Null));
        assert_eq!(new["instead_of"], ID);
        eventually(|| async { condition(gateway).await.ok_or("it says nothing") }).await;
        gateway.logged("goes by").await;
        healthy(gateway, "chat").await;
        healthy(gateway, "mail").await;
    }
    chat.hears_nothing().await;
    mail.hears_nothing().await;

    // The new id is kept, and after a crash nobody waits.
    let began = std::time::Instant::now();
    let second = second.kill().await.start().await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    for gateway in [&first, &second] {
        let shown = routers(gateway, 2).await;
        assert!(shown.iter().all(|router| router["instead_of"].is_null()), "{shown:?}");
        eventually(|| async { condition(gateway).await.map_or(Ok(()), Err) }).await;
    }
}

#[tokio::test]
async fn an_id_of_the_configuration_is_one_routers_alone() {
    let etcd = Etcd::start().await;
    let edge = || setup(&etcd, "[router]\nid = \"edge\"\n");
    let first = edge().start().await;
    let said = edge().try_start().await.err().expect("the second does not start");
    assert!(said.contains("the router id `edge` is in use by the router at http://"), "{said}");
    let uri = routers(&first, 1).await[0]["uri"].clone();
    // On another machine, it waits for the lease of the one that died.
    drop(first.kill().await);
    let second = edge().start().await;
    let shown = routers(&second, 1).await;
    assert!(shown[0]["id"] == "edge" && shown[0]["uri"] != uri, "{shown:?}");
}
