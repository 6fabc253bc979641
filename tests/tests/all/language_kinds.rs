//! What C and Go have no example for: adapters of the routing table, etcd, whole changes of the state,
//! and event filters. The guests answer so that it shows whether everything crosses as it is.

use std::{collections::BTreeMap, path::Path, process::Command};

use message_flow::{
    plugin::{Settings, Solo, table::TablePlugin},
    table::adapter::{Adapter, Assignment, Change, Condition, Entry, Proposal, TableError},
};
use message_flow_tests::{Etcd, Gateway, Upstream, gateway::binary, languages};
use serde_json::json;
use tokio::runtime::Handle;

use super::languages::loaded;

const LANGUAGES: [&str; 2] = ["c", "go"];

fn change(key: &str, value: Option<&str>, ephemeral: bool) -> Change {
    Change { kind: "service".into(), key: key.into(), value: value.map(str::to_owned), ephemeral }
}

fn proposal(expires: Option<u64>) -> Proposal {
    let text = str::to_owned;
    Proposal { client: text("ann"), service: text("chat"), server: text("a:1"), expires, router: text("r2") }
}

fn stored(expires: Option<u64>, stamp: u64) -> Assignment {
    Assignment { server: "a:1".into(), expires, router: "r2".into(), stamp }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_cross_as_they_are() {
    for language in LANGUAGES {
        let data = tempfile::tempdir().unwrap();
        let file = languages::guest(language, "table");
        let solo = Solo::open(&file, data.path(), Handle::current()).unwrap();
        let table = TablePlugin::of(solo.load(Settings::default()).await.unwrap());
        holds_entries(&table).await;
        holds_assignments(&table).await;
    }
}

async fn holds_entries(table: &TablePlugin) {
    let entry = |kind: &str, key: &str, value: &str| Entry {
        kind: kind.into(),
        key: key.into(),
        value: value.into(),
    };
    let snapshot = table.snapshot().await.unwrap();
    let entries = [entry("service", "chat", "{}"), entry("router", "r1", r#"{"a":1}"#)];
    assert_eq!((snapshot.revision, &*snapshot.entries), (7, &entries[..]));
    let both = [change("chat", Some("{}"), true), change("gone", None, false)];
    let set = table.changes(7).await.unwrap();
    assert_eq!((set.revision, &*set.changes), (9, &both[..]));
    assert_eq!(table.changes(1).await.unwrap_err(), TableError::Compacted);
    assert_eq!(table.write(both.to_vec(), None).await.unwrap(), 4 + 100 + 1000 + 4);
    assert_eq!(table.write(both.to_vec(), Some(41)).await.unwrap_err(), TableError::Conflict(42));
}

async fn holds_assignments(table: &TablePlugin) {
    let known = Assignment { server: "ann".into(), expires: Some(1000), router: "r1".into(), stamp: 5 };
    assert_eq!(table.assigned("ann".into(), "chat".into()).await.unwrap(), Some(known.clone()));
    assert_eq!(table.assigned("ann".into(), "mail".into()).await.unwrap(), None);
    for (expires, condition, stamp) in
        [(Some(9), Condition::Absent, 0), (None, Condition::Unchanged(77), 77), (None, Condition::Always, 0)]
    {
        let made = table.assign(proposal(expires), condition).await.unwrap();
        assert_eq!(made, Some(stored(expires, stamp)), "{condition:?}");
    }
    table.forget("ann".into(), "chat".into()).await.unwrap();
    let refused = table.forget("annabel".into(), "chat".into()).await.unwrap_err();
    assert_eq!(refused, TableError::Refused("told to refuse".into()));
    let record = table.client("ann".into()).await.unwrap();
    assert_eq!((record.router.as_deref(), record.assignments), (Some("r1"), vec![("chat".into(), known)]));
    table.locate("ann".into(), None).await.unwrap();
    for (router, said) in [("ann", "same"), ("r9", "r9")] {
        let error = table.locate("ann".into(), Some(router.into())).await.unwrap_err();
        assert_eq!(error, TableError::Invalid(said.into()));
    }
    assert_eq!(table.sweep(1000, 23).await.unwrap(), 1023);
}

#[tokio::test]
async fn filters_keep_things_in_etcd_and_in_their_state() {
    let etcd = Etcd::start().await;
    for language in LANGUAGES {
        let upstream = Upstream::start("a").await;
        let endpoint = etcd.endpoint();
        let config = format!(
            "[plugin.keeper]\ngrant = [\"etcd\"]\nconfig = {{ endpoints = \"{endpoint}\" }}\ndeadline = \"10s\"\n"
        );
        let gateway = Gateway::setup().config(config).start().await;
        gateway.drop_plugin("keeper.wasm", std::fs::read(languages::guest(language, "keeper")).unwrap());
        loaded(&gateway, "keeper").await;
        gateway.put("a", json!({ "server": upstream.uri(), "filters": ["keeper"] })).await;
        let reply = gateway.get("/a/").header("keep", language).send().await;
        assert_eq!(reply.status, 200, "{language}: {}\n{}", reply.text(), gateway.log());
        let last = upstream.last();
        for header in ["found", "listed", "told", "applied"] {
            assert_eq!(last.header(header), language, "{header}");
        }
    }
}

const ORDERS: &str = r#"[
    { "name": "an order is marked", "call": "on-event", "request": { "client": "ann" },
      "event": { "topic": "orders", "payload": "tea" },
      "expect": { "verdict": "accept", "payload": "marked", "attributes": { "seen-by": "ann" } } },
    { "name": "a raw one is not", "call": "on-event",
      "event": { "topic": "orders", "payload": "tea", "attributes": { "raw": "" } },
      "expect": { "verdict": "accept", "payload": "tea" } },
    { "name": "an empty one is dropped", "call": "on-event", "event": { "topic": "orders" },
      "expect": { "verdict": "drop" } },
    { "name": "a large one goes elsewhere", "call": "on-event",
      "event": { "topic": "orders", "payload": "tea and jam and bread" },
      "expect": { "verdict": "redirect", "topic": "orders.large" } },
    { "name": "what is no order is refused", "call": "on-event", "event": { "topic": "chat", "payload": "tea" },
      "expect": { "verdict": "reject", "reason": "orders only" } }
]"#;

/// Exit code and output of `message-flow plugin test`, however long a compiler takes.
fn tested(project: &Path) -> (Option<i32>, String) {
    let output =
        Command::new(binary()).args(["plugin", "test"]).arg(project).current_dir(project).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn event_filters_pass_their_scenarios() {
    const SCRIPT: &str = "export function onEvent() {\n\
        const size = event.payload().length;\n\
        if (event.topic() !== 'orders') return { reject: 'orders only' };\n\
        if (size === 0) return { drop: true };\n\
        if (size > 10) return { redirect: 'orders.large' };\n\
        event.setAttribute('seen-by', event.client());\n\
        if (event.attribute('raw') === undefined) event.setPayload('marked');\n\
    }\n";
    let guest = |language| std::fs::read(languages::guest(language, "orders")).unwrap();
    let filters = BTreeMap::from([
        ("c.wasm", guest("c")),
        ("go.wasm", guest("go")),
        ("script.js", SCRIPT.as_bytes().to_vec()),
    ]);
    for (file, bytes) in filters {
        let project = tempfile::tempdir().unwrap();
        std::fs::create_dir(project.path().join("scenarios")).unwrap();
        std::fs::write(project.path().join(file), bytes).unwrap();
        std::fs::write(project.path().join("scenarios/orders.json"), ORDERS).unwrap();
        let (code, said) = tested(project.path());
        assert!(code == Some(0) && said.contains("5 passed, 0 failed"), "{file}: {said}");
        std::fs::write(
            project.path().join("scenarios/orders.json"),
            ORDERS.replace("\"marked\"", "\"kept\""),
        )
        .unwrap();
        let (code, said) = tested(project.path());
        assert!(
            code == Some(1) && said.contains("expected the payload \"kept\", got \"marked\""),
            "{file}: {said}"
        );
    }
}
