//! The memory adapter as the component that it is, asked by many at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use message_flow::{
    plugin::Settings,
    table::{
        Options, Table,
        adapter::{Adapter, Change, Condition, Proposal, Revision, TableError},
    },
};

use crate::adapters::adapter;

const ROUTERS: u64 = 8;
const ROUNDS: u64 = 150;

fn start(data: &tempfile::TempDir, durable_state: bool) -> Arc<dyn Adapter> {
    let settings = Settings { durable_state, state_limit: 1 << 30, ..Settings::default() };
    adapter("memory", data.path(), settings)
}

fn proposal(client: u64, server: u64) -> Proposal {
    Proposal {
        client: format!("client-{client}"),
        service: "chat".into(),
        server: format!("server-{server}"),
        expires: Some(client % 100),
        router: "here".into(),
    }
}

fn counted(number: u64) -> Change {
    Change { kind: "service".into(), key: "count".into(), value: Some(number.to_string()), ephemeral: false }
}

/// Counts up by reading, adding one and writing if nothing changed meanwhile.
async fn count_up(table: &Arc<dyn Adapter>) {
    loop {
        let snapshot = table.snapshot().await.unwrap();
        let now = snapshot.entries.iter().find(|entry| entry.key == "count");
        let next = now.map_or(0, |entry| entry.value.parse::<u64>().unwrap()) + 1;
        match table.write(vec![counted(next)], Some(snapshot.revision)).await {
            Ok(_) => return,
            Err(TableError::Conflict(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn router(table: Arc<dyn Adapter>, router: u64) -> BTreeMap<u64, String> {
    let mut winners = BTreeMap::new();
    for round in 0..ROUNDS {
        let winner = table.assign(proposal(round, router), Condition::Absent).await.unwrap().unwrap();
        winners.insert(round, winner.server);
        match round % 10 {
            0 => count_up(&table).await,
            5 => drop(table.assign(proposal(1000 + router, router), Condition::Always).await.unwrap()),
            7 => table.forget(format!("client-{}", 1000 + router), "chat".into()).await.unwrap(),
            _ => {}
        }
    }
    winners
}

async fn replay(table: &Arc<dyn Adapter>, mut at: Revision) -> (BTreeMap<String, String>, usize) {
    let (mut entries, mut told) = (BTreeMap::new(), 0);
    loop {
        let set = table.changes(at).await.unwrap();
        if set.revision == at {
            return (entries, told);
        }
        at = set.revision;
        for change in set.changes {
            match (change.kind.as_str(), change.value) {
                ("assignment", _) => told += 1,
                (_, Some(value)) => drop(entries.insert(change.key, value)),
                (_, None) => drop(entries.remove(&change.key)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_lose_nothing_and_agree() {
    for durable in [false, true] {
        let data = tempfile::tempdir().unwrap();
        let table = start(&data, durable);
        let began = table.snapshot().await.unwrap().revision;
        let routers = (0..ROUTERS).map(|number| tokio::spawn(router(Arc::clone(&table), number)));
        let mut views = Vec::new();
        for router in routers.collect::<Vec<_>>() {
            views.push(router.await.unwrap());
        }
        assert!(views.iter().all(|view| *view == views[0]), "every router was told the same winners");
        let winners: BTreeSet<_> = views[0].values().collect();
        assert!(winners.iter().all(|winner| winner.starts_with("server-")));

        let counted = ROUTERS * ROUNDS / 10;
        let (entries, told) = replay(&table, began).await;
        assert_eq!(entries, BTreeMap::from([("count".to_owned(), counted.to_string())]));
        assert_eq!(told as u64, 2 * counted, "every pin and every forgotten one is told once");
        let snapshot = table.snapshot().await.unwrap();
        assert_eq!(snapshot.revision, began + 3 * counted);

        let mut swept = 0;
        while let more @ 1.. = table.sweep(50, 40).await.unwrap() {
            swept += u64::from(more);
        }
        assert_eq!(swept, ROUNDS - 50, "those of 0 to 49 and 100 to 149 expire before 50");
    }
}

/// How long things take; printed by `cargo test -p message-flow-tests --release -- --ignored --nocapture costs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn costs_of_many_clients() {
    const CLIENTS: u64 = 300_000;
    let data = tempfile::tempdir().unwrap();
    let adapter = start(&data, false);
    let table = Table::start(Arc::clone(&adapter), Options::new("here", "memory")).await;
    let record = |key: &str, value: &str| Change {
        kind: key.split('/').nth(1).map_or("service", |_| "server").into(),
        key: key.into(),
        value: Some(value.into()),
        ephemeral: false,
    };
    table.write(vec![record("chat", "{}"), record("chat/a", r#"{"uri":"http://a"}"#)], None).await.unwrap();
    let service = Arc::clone(table.view().service(&"chat".parse().unwrap()).unwrap());
    let assignments = table.assignments();
    let clients: Vec<_> = (0..CLIENTS).map(|client| format!("client-{client:029}")).collect();
    let began = Instant::now();
    for client in &clients {
        assignments.claim(&service, client, "a", Condition::Absent, &assignments.wait()).await.unwrap();
    }
    print("claim", began.elapsed(), CLIENTS);
    let began = Instant::now();
    for client in &clients {
        assignments.lookup(&service, client, &assignments.wait()).await.unwrap();
    }
    print("lookup", began.elapsed(), CLIENTS);
    for among in [1000, CLIENTS] {
        let place = |step: u64| usize::try_from(step.wrapping_mul(0x9E37_79B9_7F4A_7C15) % among).unwrap();
        let began = Instant::now();
        let hits =
            (0..CLIENTS).filter(|step| assignments.cached(&service, &clients[place(*step)], 0).is_some());
        assert_eq!(hits.count() as u64, CLIENTS);
        print(&format!("cached among {among}"), began.elapsed(), CLIENTS);
    }
    let began = Instant::now();
    let swept = adapter.sweep(u64::MAX, 1000).await.unwrap();
    print("sweep", began.elapsed(), u64::from(swept));
}

fn print(what: &str, took: Duration, times: u64) {
    println!("{what}: {:.2} µs", took.as_secs_f64() * 1e6 / times as f64);
}
