//! The table's own time, whatever the clocks of its routers say.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A router whose wall clock is so many milliseconds fast.
async fn router(far: &Arc<TestTable>, name: &str, fast: u64) -> Arc<Table> {
    let options = Options { clock: Clock::tokio(UNIX + fast), ..Options::new(name, "test") };
    Table::start(Arc::clone(far) as Arc<dyn Adapter>, options).await
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn routers_whose_clocks_differ_have_one_time() {
    let far = TestTable::new();
    let one = router(&far, "one", 0).await;
    let two = router(&far, "two", 3_600_000).await;
    for minutes in 1..10 {
        pass(MINUTE).await;
        let (here, there) = (one.time().now(), two.time().now());
        assert!(here.abs_diff(there) < 50, "{here} and {there}");
        assert!(here.abs_diff(UNIX + millis(MINUTE * minutes)) < 500, "after {minutes} minutes: {here}");
    }
    let written = far.change(&[]) - 101;
    assert!((70..=110).contains(&written), "a value every five seconds or so, whoever writes it: {written}");
}

#[tokio::test(start_paused = true)]
async fn it_stands_still_while_no_router_reaches_the_table() {
    let far = TestTable::new();
    let table = router(&far, "one", 0).await;
    far.down.store(true, SeqCst);
    let before = table.time().now();
    pass(MINUTE * 60).await;
    let lost = table.time().now();
    assert!(lost - before <= 15_000, "{}", lost - before);
    far.down.store(false, SeqCst);
    pass(MINUTE).await;
    let after = table.time().now() - lost;
    assert!((50_000..=60_000).contains(&after), "it goes on where it was: {after}");

    let last = table.time().now();
    table.stop().await;
    drop(table);
    pass(MINUTE * 60).await;
    let next = router(&far, "two", 7_200_000).await;
    assert!(next.time().now().abs_diff(last) < 10_000, "{} after {last}", next.time().now());
}

#[tokio::test(start_paused = true)]
async fn it_goes_back_with_the_table_alone() {
    let far = TestTable::new();
    far.change(&[server("chat", "a")]);
    let table = router(&far, "one", 0).await;
    pass(MINUTE).await;
    let (saved, then) = (far.save(), table.time().now());
    pass(MINUTE * 10).await;
    far.restore(saved);
    pass(MOMENT * 100).await;
    assert!(table.time().now().abs_diff(then) < 10_000, "{} and {then}", table.time().now());
    far.wipe();
    let before = table.time().now();
    pass(MINUTE).await;
    assert!(table.time().now() > before, "a table that lost it gets the time of its routers");
}

#[tokio::test(start_paused = true)]
async fn its_passing_is_news_to_nobody() {
    let far = TestTable::new();
    far.change(&[server("chat", "a")]);
    let table = router(&far, "one", 0).await;
    pass(MINUTE).await;
    let (mut views, mut watch) = (table.subscribe(), table.watch(None));
    views.mark_unchanged();
    let (revision, service) = (table.view().revision, chat(&table));
    pass(MINUTE).await;
    assert!(table.view().revision > revision, "time went on");
    assert!(!views.has_changed().unwrap(), "who follows views is not woken");
    assert!(Arc::ptr_eq(&service, &chat(&table)));
    assert!(timeout(MINUTE, watch.next()).await.is_err(), "and it is no change of the registry");
    let changed = far.change(&[server("chat", "b")]);
    assert_eq!(seen(&table, changed).await.counts().servers, 2);
}

fn chat(table: &Table) -> Arc<Service> {
    Arc::clone(table.view().service(&"chat".parse().unwrap()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn its_values_come_often_enough_for_the_shortest_assignments() {
    let far = TestTable::new();
    far.change(&[put("service", "chat", r#"{"sticky":{"ttl":"4s"}}"#)]);
    let table = router(&far, "one", 0).await;
    pass(MINUTE).await;
    let revision = table.view().revision;
    pass(MINUTE).await;
    assert!((40..=60).contains(&(table.view().revision - revision)));
}
