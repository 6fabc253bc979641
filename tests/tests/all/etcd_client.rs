//! The client behind the `etcd` capability, against a real etcd.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use message_flow::plugin::etcd::{
    Batch, Comparison, EtcdClient, EtcdError, EtcdSettings, KeyRange, Operation, Outcome, Revision,
    Transaction,
};
use message_flow_tests::{Etcd, Relay, eventually, within};
use tokio::runtime::Handle;

const DEADLINE: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(5);

fn client(settings: &[(&str, &str)]) -> EtcdClient {
    let get = |key: &str| settings.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    EtcdClient::new(EtcdSettings::new(get).unwrap(), DEADLINE, Handle::current())
}

fn client_of(endpoints: &str) -> EtcdClient {
    client(&[("endpoints", endpoints)])
}

fn all() -> KeyRange {
    KeyRange { start: "/t/".into(), end: Some("/t0".into()) }
}

fn one(key: &str) -> KeyRange {
    KeyRange { start: key.into(), end: None }
}

fn put(key: &str, value: &str) -> Operation {
    Operation::Put { key: key.into(), value: value.into(), leased: false }
}

async fn write(client: &EtcdClient, then: Vec<Operation>) -> Result<Revision, EtcdError> {
    let transaction = Transaction { then, ..Transaction::default() };
    client.transact(transaction).await.map(|outcome| outcome.revision)
}

async fn value(client: &EtcdClient, key: &str) -> Result<Option<String>, EtcdError> {
    let page = client.get(&one(key), 1, None).await?;
    Ok(page.entries.into_iter().next().map(|entry| String::from_utf8(entry.value).unwrap()))
}

fn keys(batch: &Batch) -> Vec<(&str, bool)> {
    batch.events.iter().map(|event| (event.key.as_str(), event.value.is_some())).collect()
}

/// What a caller does that goes on asking: all events up to a revision, through whatever happens.
async fn follow(client: &EtcdClient, mut after: Revision, until: Revision) -> Vec<(String, Revision)> {
    let mut seen = Vec::new();
    let following = async {
        while after < until {
            match client.next(&all(), after, Duration::from_secs(1)).await {
                Ok(batch) => {
                    seen.extend(batch.events.into_iter().map(|event| (event.key, event.revision)));
                    after = batch.revision;
                }
                Err(EtcdError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    within(Duration::from_secs(20), format!("revision {until}"), following).await;
    seen
}

#[tokio::test]
async fn reads_pages_at_one_revision() {
    let etcd = Etcd::start().await;
    let client = client_of(&etcd.endpoint());
    let revision = write(&client, (0..5).map(|n| put(&format!("/t/{n}"), "x")).collect()).await.unwrap();
    write(&client, vec![put("/t/9", "later"), put("/t/0", "changed")]).await.unwrap();

    let page = client.get(&all(), 3, Some(revision)).await.unwrap();
    assert!(page.more);
    assert_eq!(
        page.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(),
        ["/t/0", "/t/1", "/t/2"]
    );
    assert_eq!((page.entries[0].value.as_slice(), page.entries[0].modified), (b"x".as_slice(), revision));
    let rest = KeyRange { start: "/t/2\0".into(), ..all() };
    let page = client.get(&rest, 3, Some(revision)).await.unwrap();
    assert!(!page.more);
    assert_eq!(page.entries.len(), 2);

    etcd.must(&["compaction", &(revision + 1).to_string()]).await;
    let compacted = client.get(&all(), 3, Some(revision)).await;
    assert!(matches!(compacted, Err(EtcdError::Compacted(_))), "{compacted:?}");
}

#[tokio::test]
async fn carries_out_what_its_comparisons_allow() {
    let etcd = Etcd::start().await;
    let client = client_of(&etcd.endpoint());
    let create = Transaction {
        when: vec![Comparison::Modified("/t/a".into(), 0)],
        then: vec![put("/t/a", "first"), Operation::Get("/t/a".into())],
        otherwise: vec![Operation::Get("/t/a".into()), Operation::Get("/t/b".into())],
    };
    let found = |outcome: &Outcome| {
        outcome.found.iter().map(|found| found.as_ref().map(|kv| kv.value.clone())).collect::<Vec<_>>()
    };
    let first = client.transact(create.clone()).await.unwrap();
    assert_eq!((first.succeeded, found(&first)), (true, vec![Some(b"first".to_vec())]));
    let second = client.transact(create).await.unwrap();
    assert_eq!((second.succeeded, found(&second)), (false, vec![Some(b"first".to_vec()), None]));

    let unchanged_since = |revision| Transaction {
        when: vec![Comparison::NoneModifiedAfter(all(), revision)],
        then: vec![Operation::Delete(one("/t/a"))],
        ..Transaction::default()
    };
    assert!(!client.transact(unchanged_since(first.revision - 1)).await.unwrap().succeeded);
    assert!(client.transact(unchanged_since(first.revision)).await.unwrap().succeeded);
    assert!(client.transact(unchanged_since(0)).await.unwrap().succeeded, "nothing is left to be too new");

    let too_large = write(&client, vec![put("/t/a", &"x".repeat(2 << 20))]).await;
    assert!(matches!(&too_large, Err(EtcdError::Invalid(why)) if why.contains("at most")), "{too_large:?}");
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_after_a_restart() {
    let mut etcd = Etcd::start().await;
    let client = client_of(&etcd.endpoint());
    let start = write(&client, vec![put("/t/0", "")]).await.unwrap();
    let first = write(&client, vec![put("/t/1", ""), put("/other", "")]).await.unwrap();
    let batch = client.next(&all(), start, SOON).await.unwrap();
    assert_eq!((keys(&batch), batch.revision), (vec![("/t/1", true)], first));
    assert_eq!(client.next(&all(), start, SOON).await.unwrap(), batch, "nobody showed that it arrived");

    etcd.down().await;
    let down = Instant::now();
    let error = client.next(&all(), first, Duration::from_secs(30)).await.unwrap_err();
    assert!(matches!(error, EtcdError::Unavailable(_)) && down.elapsed() < SOON, "{error}");
    etcd.up().await;
    etcd.must(&["del", "/t/1"]).await;
    etcd.must(&["put", "/t/2", "x"]).await;

    let seen = follow(&client, first, first + 2).await;
    assert_eq!(seen, [("/t/1".to_owned(), first + 1), ("/t/2".to_owned(), first + 2)]);
    assert!(client.metrics().watch_starts.get() >= 2);
}

#[tokio::test]
async fn a_watch_misses_nothing_over_many_cuts() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.endpoint().trim_start_matches("http://")).await;
    let (client, writer) = (Arc::new(client_of(&relay.uri())), client_of(&etcd.endpoint()));
    let start = write(&writer, vec![put("/t/0", "")]).await.unwrap();
    let following = tokio::spawn({
        let client = Arc::clone(&client);
        async move { follow(&client, start, start + 200).await }
    });
    for number in 1..=200_u32 {
        write(&writer, vec![put(&format!("/t/{number}"), "")]).await.unwrap();
        match number % 50 {
            10 => relay.cut(),
            20 => relay.mend(),
            _ => {}
        }
    }
    let seen = following.await.unwrap();
    assert_eq!(seen, (1..=200).map(|n| (format!("/t/{n}"), start + n)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_compaction_while_disconnected_is_reported() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.endpoint().trim_start_matches("http://")).await;
    let (client, writer) = (client_of(&relay.uri()), client_of(&etcd.endpoint()));
    let start = write(&writer, vec![put("/t/0", "")]).await.unwrap();
    assert_eq!(client.next(&all(), start, Duration::ZERO).await.unwrap().events, []);
    write(&writer, vec![put("/t/1", "")]).await.unwrap();
    let connected = client.next(&all(), start, SOON).await.unwrap().revision;

    relay.cut();
    write(&writer, vec![put("/t/2", "")]).await.unwrap();
    let last = write(&writer, vec![put("/t/3", "")]).await.unwrap();
    etcd.must(&["compaction", &last.to_string()]).await;
    relay.mend();
    let compacted = eventually(|| async {
        match client.next(&all(), connected, SOON).await {
            Err(EtcdError::Compacted(oldest)) => Ok(oldest),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(compacted.await, last);

    let snapshot = client.get(&all(), 10, None).await.unwrap();
    assert_eq!(snapshot.entries.len(), 4);
    write(&writer, vec![put("/t/4", "")]).await.unwrap();
    let batch = client.next(&all(), snapshot.revision, SOON).await.unwrap();
    assert_eq!(keys(&batch), [("/t/4", true)]);
}

#[tokio::test]
async fn authenticates_again_when_its_token_expired() {
    let etcd = Etcd::start_with(&["--auth-token-ttl", "1"]).await;
    for step in [
        &["user", "add", "root:root"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "table"],
        &["role", "grant-permission", "table", "readwrite", "/t/", "/t0"],
        &["user", "add", "mf:secret"],
        &["user", "grant-role", "mf", "table"],
        &["auth", "enable"],
    ] {
        etcd.must(step).await;
    }
    let relay = Relay::to(etcd.endpoint().trim_start_matches("http://")).await;
    let endpoint = relay.uri();
    let client = client(&[("endpoints", &endpoint), ("user", "mf"), ("password", "secret")]);
    let start = write(&client, vec![put("/t/0", "")]).await.unwrap();
    assert_eq!(client.next(&all(), start, Duration::ZERO).await.unwrap().events, []);
    let denied = value(&client, "/secret").await.unwrap_err();
    assert!(matches!(denied, EtcdError::Denied(_)), "{denied}");

    // Long enough for the token; there is nothing to wait for.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let first = write(&client, vec![put("/t/1", "")]).await.unwrap();
    assert_eq!(keys(&client.next(&all(), start, SOON).await.unwrap()), [("/t/1", true)]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    relay.cut();
    relay.mend();
    etcd.must(&["--user", "root:root", "put", "/t/2", "x"]).await;
    assert_eq!(follow(&client, first, first + 1).await, [("/t/2".to_owned(), first + 1)]);
}

#[tokio::test]
async fn says_that_credentials_are_wrong() {
    let etcd = Etcd::start().await;
    etcd.must(&["user", "add", "root:root"]).await;
    etcd.must(&["user", "grant-role", "root", "root"]).await;
    etcd.must(&["auth", "enable"]).await;
    let endpoint = etcd.endpoint();
    let client = client(&[("endpoints", &endpoint), ("user", "root"), ("password", "guess")]);
    let error = value(&client, "/t/0").await.unwrap_err();
    assert!(matches!(error, EtcdError::Denied(_)), "{error:?}");
    assert!(!error.to_string().contains("guess"));
    assert_eq!(client.trouble(), Some(error));
}

#[tokio::test]
async fn what_is_leased_lives_as_long_as_the_router() {
    let etcd = Etcd::start().await;
    let client = client_of(&etcd.endpoint());
    let leased = Operation::Put { key: "/t/router".into(), value: b"me".into(), leased: true };
    write(&client, vec![leased.clone()]).await.unwrap();
    assert_eq!(value(&client, "/t/router").await.unwrap().as_deref(), Some("me"));

    let leases = etcd.must(&["lease", "list"]).await;
    etcd.must(&["lease", "revoke", leases.lines().last().unwrap()]).await;
    assert_eq!(value(&client, "/t/router").await.unwrap(), None);
    eventually(|| async {
        match value(&client, "/t/router").await {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(client.metrics().leases.get(), 2);

    let leases = etcd.must(&["lease", "list"]).await;
    etcd.must(&["lease", "revoke", leases.lines().last().unwrap()]).await;
    write(&client, vec![leased]).await.unwrap();
    assert_eq!(value(&client, "/t/router").await.unwrap().as_deref(), Some("me"));
    client.drain().await;
    assert_eq!(value(&client, "/t/router").await.unwrap(), None);
}

#[tokio::test]
async fn takes_another_endpoint_when_one_is_down() {
    let etcd = Etcd::start().await;
    let down = Etcd::stopped(&[]);
    let client = client_of(&format!("{},{}", down.endpoint(), etcd.endpoint()));
    write(&client, vec![put("/t/0", "x")]).await.unwrap();
    assert_eq!(value(&client, "/t/0").await.unwrap().as_deref(), Some("x"));
    assert_eq!(client.trouble(), None);
}

#[tokio::test]
async fn nobody_queues_for_an_etcd_that_is_down() {
    let mut etcd = Etcd::stopped(&[]);
    let client = client_of(&etcd.endpoint());
    let error = value(&client, "/t/0").await.unwrap_err();
    assert!(error.to_string().contains(&etcd.endpoint()), "{error}");
    let many = Instant::now();
    for _ in 0..1000 {
        assert!(matches!(value(&client, "/t/0").await, Err(EtcdError::Unavailable(_))));
    }
    assert!(many.elapsed() < SOON, "{:?}", many.elapsed());
    etcd.up().await;
    eventually(|| async { value(&client, "/t/0").await }).await;
    assert_eq!(client.trouble(), None);
}

#[tokio::test]
async fn a_silent_etcd_costs_a_deadline_and_then_nothing() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.endpoint().trim_start_matches("http://")).await;
    let client = client_of(&relay.uri());
    value(&client, "/t/0").await.unwrap();
    relay.silence();
    let silent = Instant::now();
    let calls = (0..50).map(|_| value(&client, "/t/0"));
    for answer in futures_util::future::join_all(calls).await {
        assert!(matches!(answer, Err(EtcdError::Unavailable(_))), "{answer:?}");
    }
    assert!(silent.elapsed() < DEADLINE + SOON, "{:?}", silent.elapsed());
    eventually(|| async { client.trouble().ok_or("no trouble known") }).await;
    // One attempt to connect, which everybody waits for, and then a pause.
    value(&client, "/t/0").await.unwrap_err();
    let refused = Instant::now();
    value(&client, "/t/0").await.unwrap_err();
    assert!(refused.elapsed() < Duration::from_millis(500), "{:?}", refused.elapsed());
    relay.cut();
    relay.mend();
    eventually(|| async { value(&client, "/t/0").await }).await;
}

#[tokio::test]
async fn a_restored_snapshot_is_noticed() {
    for more in [0, 40] {
        let mut etcd = Etcd::start().await;
        let client = client_of(&etcd.endpoint());
        let start = write(&client, vec![put("/t/0", "")]).await.unwrap();
        let saved = etcd.save().await;
        for number in 1..=10 {
            write(&client, vec![put(&format!("/t/{number}"), "")]).await.unwrap();
        }
        follow(&client, start, start + 10).await;
        etcd.down().await;
        etcd.restore(&saved).await;
        // Whether its revision is behind what was seen, or beyond it already.
        for number in 0..more {
            etcd.must(&["put", &format!("/t/other-{number}"), "x"]).await;
        }
        eventually(|| async {
            match client.next(&all(), start + 10, SOON).await {
                Err(EtcdError::Compacted(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let page = client.get(&all(), 100, None).await.unwrap();
        assert_eq!(page.entries.len(), 1 + more);
        let next = write(&client, vec![put("/t/later", "")]).await.unwrap();
        assert_eq!(follow(&client, page.revision, next).await, [("/t/later".to_owned(), next)]);
    }
}

#[tokio::test]
async fn who_is_back_hears_of_it_at_once() {
    let mut etcd = Etcd::start().await;
    let client = client_of(&etcd.endpoint());
    let last = write(&client, vec![put("/t/0", "")]).await.unwrap();
    assert_eq!(client.next(&all(), last, Duration::ZERO).await.unwrap().events, []);
    etcd.down().await;
    // Long enough for the longest pause between attempts.
    let down = Instant::now();
    while down.elapsed() < Duration::from_secs(4) {
        assert!(client.next(&all(), last, SOON).await.is_err());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    etcd.up().await;
    let up = Instant::now();
    eventually(|| async { client.next(&all(), last, Duration::from_secs(30)).await }).await;
    assert!(up.elapsed() < Duration::from_secs(2), "{:?}", up.elapsed());
}

#[tokio::test]
async fn history_is_compacted_and_watches_go_on() {
    let etcd = Etcd::start().await;
    let endpoint = etcd.endpoint();
    let keeping = |keep| client(&[("endpoints", &endpoint), ("compact", keep)]);
    let (one, two, reader) = (keeping("1s"), keeping("1s"), keeping("off"));
    let start = write(&reader, vec![put("/t/0", "")]).await.unwrap();
    let mut after = start;
    eventually(|| {
        let (one, two, reader) = (&one, &two, &reader);
        let before = after;
        after += 1;
        async move {
            write(reader, vec![put("/t/0", "")]).await.unwrap();
            for following in [one, two] {
                let batch = following.next(&all(), before, SOON).await.unwrap();
                assert_eq!((keys(&batch), batch.revision), (vec![("/t/0", true)], before + 1));
            }
            match reader.get(&all(), 10, Some(start)).await {
                Err(EtcdError::Compacted(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
    })
    .await;
    let metrics = [&one, &two].map(EtcdClient::metrics);
    assert!(metrics.iter().map(|metrics| metrics.compacted.get()).sum::<u64>() > 0);
    assert!(metrics.iter().all(|metrics| metrics.compactions.get() == 0), "no watch missed anything");
    assert_eq!(reader.metrics().compacted.get(), 0);
}

#[tokio::test]
async fn a_change_that_may_have_happened_is_not_said_to_have_failed() {
    let etcd = Etcd::start().await;
    let relay = Relay::to(etcd.endpoint().trim_start_matches("http://")).await;
    let client = client_of(&relay.uri());
    write(&client, vec![put("/t/0", "x")]).await.unwrap();
    relay.silence();
    let unknown = write(&client, vec![put("/t/0", "y")]).await.unwrap_err().to_string();
    assert!(unknown.contains("it may have been carried out"), "{unknown}");
    relay.cut();
    eventually(|| async {
        let refused = write(&client, vec![put("/t/0", "z")]).await.unwrap_err().to_string();
        // Until the loss is noticed something may still be sent.
        if refused.contains("carried out") { Err(refused) } else { Ok(()) }
    })
    .await;
}
