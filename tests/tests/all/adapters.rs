//! What `wit/routing-table.wit` promises, held against each built-in adapter, as the component that it
//! is and over the real thing that it keeps its data in.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use message_flow::{
    plugin::{Options, Plugins, Settings, table::TablePlugin},
    table::adapter::{Adapter, Change, Condition, Proposal, Revision, TableError},
};
use message_flow_tests::{Etcd, eventually, within};

pub(crate) fn adapter(name: &str, data: &Path, settings: Settings) -> Arc<dyn Adapter> {
    let options = Options {
        directory: data.join("plugins"),
        data: data.to_owned(),
        interval: Duration::from_secs(60),
        settings: BTreeMap::from([(name.to_owned(), settings)]),
        runtime: tokio::runtime::Handle::current(),
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
    adapter("etcd", data, Settings { config, grant: vec!["etcd".into()], ..Settings::default() })
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
    entries_are_read_and_followed(&table).await;
    writes_hold_together(&table).await;
    assignments_are_created_once(&table).await;
    pins_are_told_and_clients_known(&table).await;
    sweeping_spares_what_has_not_expired(&table).await;
}

async fn entries_are_read_and_followed(table: &Arc<dyn Adapter>) {
    let start = table.snapshot().await.unwrap();
    assert_eq!(start.entries, []);
    put(table, "service", "chat@2").await;
    put(table, "server", "chat@2/a:1").await;
    put(table, "kind of tomorrow", "x/y").await;
    let revision =
        table.write(vec![delete("service", "chat@2"), delete("service", "absent")], None).await.unwrap();
    let expected = ["+service chat@2", "+server chat@2/a:1", "+kind of tomorrow x/y", "-service chat@2"];
    let mut seen = following(table, start.revision, revision).await;
    // Whether the deletion of what is not there is told does not matter.
    seen.retain(|change| change != "-service absent");
    assert_eq!(seen, expected);
    let snapshot = table.snapshot().await.unwrap();
    let mut entries: Vec<_> =
        snapshot.entries.iter().map(|entry| format!("{} {}", entry.kind, entry.key)).collect();
    entries.sort();
    assert_eq!(entries, ["kind of tomorrow x/y", "server chat@2/a:1"]);
    assert!(snapshot.revision >= revision);

    let waiting = tokio::spawn({
        let table = Arc::clone(table);
        async move { following(&table, revision, revision + 1).await }
    });
    let revision = put(table, "release", "chat").await;
    assert_eq!(within(Duration::from_secs(10), "the change", waiting).await.unwrap(), ["+release chat"]);
    assert!(revision > snapshot.revision);
}

async fn writes_hold_together(table: &Arc<dyn Adapter>) {
    let revision = put(table, "service", "one").await;
    let expecting = async |revision| table.write(vec![change("service", "two")], Some(revision)).await;
    let next = expecting(revision).await.unwrap();
    let late = expecting(revision).await;
    assert!(matches!(late, Err(TableError::Conflict(at)) if at >= next), "{late:?}");
    table.write(vec![delete("service", "one")], None).await.unwrap();
    assert!(matches!(expecting(next).await, Err(TableError::Conflict(_))), "a deletion is a change");
    let entries = table.snapshot().await.unwrap().entries;
    assert_eq!(entries.iter().filter(|entry| entry.kind == "service").count(), 1);

    let many: Vec<_> = (0..64).map(|n| change("server", &format!("many/{n}"))).collect();
    table.write(many, None).await.unwrap();
    let many: Vec<_> = (0..64).map(|n| delete("server", &format!("many/{n}"))).collect();
    table.write(many, None).await.unwrap();
}

async fn assignments_are_created_once(table: &Arc<dyn Adapter>) {
    let race = (0..8).map(|number| {
        let table = Arc::clone(table);
        tokio::spawn(
            async move { table.assign(proposal("ann", &format!("s{number}")), Condition::Absent).await },
        )
    });
    let mut winners = std::collections::BTreeSet::new();
    for racer in race.collect::<Vec<_>>() {
        winners.insert(racer.await.unwrap().unwrap().unwrap().server);
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    let first = table.assigned("ann".into(), "chat".into()).await.unwrap().unwrap();
    assert_eq!((first.expires, first.router.as_str()), (Some(1000), "r1"));

    let renew =
        async |stamp| table.assign(proposal("ann", "renewed"), Condition::Unchanged(stamp)).await.unwrap();
    let renewed = renew(first.stamp).await.unwrap();
    assert!(renewed.server == "renewed" && renewed.stamp != first.stamp);
    assert_eq!(renew(first.stamp).await.unwrap(), renewed, "somebody else was faster");
    assert_eq!(table.assigned("ann".into(), "chat@2".into()).await.unwrap(), None);
    table.forget("ann".into(), "chat".into()).await.unwrap();
    assert_eq!(renew(renewed.stamp).await, None);
}

async fn pins_are_told_and_clients_known(table: &Arc<dyn Adapter>) {
    let revision = put(table, "service", "before pins").await;
    table.assign(proposal("kept/client", "s1"), Condition::Absent).await.unwrap();
    let pin = Proposal { expires: None, ..proposal("kept/client", "s2") };
    let pinned = table.assign(pin, Condition::Always).await.unwrap().unwrap();
    assert_eq!((pinned.server.as_str(), pinned.expires), ("s2", None));
    table.forget("nobody".into(), "chat@2".into()).await.unwrap();
    let last = put(table, "service", "after pins").await;
    let told = following(table, revision, last).await;
    assert_eq!(told, ["-assignment kept%2Fclient/chat", "-assignment nobody/chat@2", "+service after pins"]);

    table.locate("kept/client".into(), Some("r7".into())).await.unwrap();
    let client = table.client("kept/client".into()).await.unwrap();
    assert_eq!(
        (client.router.as_deref(), client.assignments),
        (Some("r7"), vec![("chat".to_owned(), pinned)])
    );
    table.locate("kept/client".into(), None).await.unwrap();
    assert_eq!(table.client("kept/client".into()).await.unwrap().router, None);
    assert_eq!(table.client("kept".into()).await.unwrap().assignments, []);
}

async fn sweeping_spares_what_has_not_expired(table: &Arc<dyn Adapter>) {
    for number in 0..30_u64 {
        let proposal = Proposal { expires: Some(2000 + number), ..proposal(&format!("c{number}"), "s1") };
        table.assign(proposal, Condition::Absent).await.unwrap();
    }
    assert_eq!(table.sweep(2000, 100).await.unwrap(), 0);
    assert_eq!(table.sweep(2020, 5).await.unwrap(), 5);
    assert_eq!(table.sweep(2020, 100).await.unwrap() + table.sweep(2020, 100).await.unwrap(), 15);
    assert!(table.assigned("c20".into(), "chat".into()).await.unwrap().is_some());
    assert_eq!(table.assigned("c19".into(), "chat".into()).await.unwrap(), None);
    assert!(table.assigned("kept/client".into(), "chat".into()).await.unwrap().is_some(), "a pin stays");
}

/// What happened after a revision, until another.
async fn following(table: &Arc<dyn Adapter>, mut after: Revision, until: Revision) -> Vec<String> {
    let mut seen = Vec::new();
    let follow = async {
        while after < until {
            let set = table.changes(after).await.unwrap();
            for change in set.changes {
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

fn delete(kind: &str, key: &str) -> Change {
    Change { value: None, ..change(kind, key) }
}

fn proposal(client: &str, server: &str) -> Proposal {
    let (client, service, server) = (client.into(), "chat".into(), server.into());
    Proposal { client, service, server, expires: Some(1000), router: "r1".into() }
}
