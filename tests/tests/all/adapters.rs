//! What `wit/routing-table.wit` promises, held against each built-in adapter, as the component that it
//! is and over the real thing that it keeps its data in.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use message_flow::{
    plugin::{Grant, Options, Plugins, Settings, table::TablePlugin},
    table::adapter::{Adapter, Change, Revision, TableError},
    workbench::conformance,
};
use message_flow_tests::{Etcd, eventually, within};

pub(crate) fn adapter(name: &str, data: &Path, settings: Settings) -> Arc<dyn Adapter> {
    let options = Options {
        directory: data.join("plugins"),
        data: data.to_owned(),
        hold: None,
        interval: Duration::from_secs(60),
        settings: BTreeMap::from([(name.to_owned(), settings)]),
        runtime: tokio::runtime::Handle::current(),
        tasks: message_flow::supervise::Supervisor::default(),
    };
    std::fs::create_dir_all(&options.directory).unwrap();
    let plugins = Plugins::start(options, &prometheus::Registry::new()).unwrap();
    Arc::new(TablePlugin::new(Arc::new(plugins), name))
}

fn memory(data: &Path, durable_state: bool) -> Arc<dyn Adapter> {
    adapter("memory", data, Settings { durable_state, ..Settings::default() })
}

fn etcd(data: &Path, etcd: &Etcd) -> Arc<dyn Adapter> {
    let config = BTreeMap::from([("endpoints".into(), etcd.endpoint()), ("prefix".into(), "/test".into())]);
    adapter("etcd", data, Settings { config, grant: vec![Grant::Etcd], ..Settings::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_promises() {
    let data = tempfile::tempdir().unwrap();
    keeps_the_promises(memory(data.path(), false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_memory_keeps_them_and_what_it_holds() {
    let data = tempfile::tempdir().unwrap();
    let table = memory(data.path(), true);
    keeps_the_promises(Arc::clone(&table)).await;
    let before = table.snapshot().await.unwrap();
    let assigned = table.assigned("kept/client".into(), "chat".into()).await.unwrap();
    drop(table);

    let table = memory(data.path(), true);
    let after = table.snapshot().await.unwrap();
    assert_eq!((after.revision, after.entries.len()), (before.revision, before.entries.len()));
    assert_eq!(table.assigned("kept/client".into(), "chat".into()).await.unwrap(), assigned);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_promises() {
    let server = Etcd::start().await;
    let data = tempfile::tempdir().unwrap();
    keeps_the_promises(etcd(data.path(), &server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_that_is_down_is_named_and_comes_back() {
    let mut server = Etcd::start().await;
    let data = tempfile::tempdir().unwrap();
    let table = etcd(data.path(), &server);
    let revision = put(&table, "service", "a").await;
    server.down().await;
    for answer in [table.snapshot().await.map(drop), table.write(vec![], None).await.map(drop)] {
        assert!(matches!(answer, Err(TableError::Unavailable(_))), "{answer:?}");
    }
    let waiting = table.changes(revision).await;
    assert!(matches!(waiting, Err(TableError::Unavailable(_))), "{waiting:?}");
    server.up().await;
    eventually(|| async { table.snapshot().await.map(drop) }).await;
    let next = put(&table, "service", "b").await;
    // A router asks again after a moment.
    eventually(|| async { table.changes(revision).await.map(drop) }).await;
    assert_eq!(following(&table, revision, next).await, ["+service b"]);
}

async fn keeps_the_promises(table: Arc<dyn Adapter>) {
    let mut broken = Vec::new();
    conformance::run(table, |promise, held| {
        broken.extend(held.clone().err().map(|why| format!("{promise}: {why}")))
    })
    .await;
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What happened after a revision, until another.
async fn following(table: &Arc<dyn Adapter>, mut after: Revision, until: Revision) -> Vec<String> {
    let mut seen = Vec::new();
    let follow = async {
        while after < until {
            let set = table.changes(after).await.unwrap();
            // That a revision changed nothing else is said too, and not what is asked here.
            for change in set.changes.into_iter().filter(|change| change.kind != "revision") {
                let sign = if change.value.is_some() { '+' } else { '-' };
                seen.push(format!("{sign}{} {}", change.kind, change.key));
            }
            if set.revision == after {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            after = set.revision;
        }
    };
    within(Duration::from_secs(20), format!("revision {until}"), follow).await;
    seen
}

async fn put(table: &Arc<dyn Adapter>, kind: &str, key: &str) -> Revision {
    table.write(vec![change(kind, key)], None).await.unwrap()
}

fn change(kind: &str, key: &str) -> Change {
    Change { kind: kind.into(), key: key.into(), value: Some("{}".into()), ephemeral: false }
}
