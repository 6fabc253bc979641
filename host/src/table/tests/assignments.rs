//! What is remembered of assignments, and what it takes for routers to agree.

use super::{
    adapter::{Assignment, Condition},
    *,
};

/// A table with servers `a` and `b` of the sticky service `chat`.
async fn world() -> (Arc<TestTable>, Arc<Table>, Arc<Service>) {
    let far = TestTable::new();
    far.change(&[
        server("chat", "a"),
        server("chat", "b"),
        put("service", "chat", r#"{"sticky":{"ttl":"40s"}}"#),
    ]);
    let table = start(&far).await;
    let service = Arc::clone(table.view().service(&"chat".parse().unwrap()).unwrap());
    (far, table, service)
}

/// The id of the server remembered for alice.
fn cached(table: &Table, service: &Service) -> Option<String> {
    let now = table.shared.options.clock.now();
    let number = table.assignments().cached(service, "alice", now)?;
    table.assignments().text(number).map(|text| text.to_string())
}

fn asked(far: &TestTable) -> u32 {
    far.asked.swap(0, SeqCst)
}

#[tokio::test(start_paused = true)]
async fn routers_that_claim_at_once_agree() {
    let (far, here, service) = world().await;
    let there = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, options("there")).await;
    let (one, two) = tokio::join!(
        here.assignments().claim(&service, "alice", "a", Condition::Absent),
        there.assignments().claim(&service, "alice", "b", Condition::Absent),
    );
    assert_eq!(one, two);
    let Some(Assignment { server, expires, .. }) = one.unwrap() else { panic!("nothing stored") };
    assert_eq!(expires, Some(here.shared.options.clock.now() + 40_000));
    assert_eq!(cached(&here, &service), Some(server));
    let lost = [&here, &there].map(|table| table.stats().assignment_claims_lost.get());
    assert_eq!(lost.iter().sum::<u64>(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_assignment_is_asked_for_once_and_renewed_by_use() {
    let (far, table, service) = world().await;
    let assignments = table.assignments();
    assert_eq!(assignments.lookup(&service, "alice").await, Ok(None));
    assignments.claim(&service, "alice", "a", Condition::Absent).await.unwrap();
    assert_eq!(asked(&far), 2);
    pass(Duration::from_secs(9)).await;
    let used = || assignments.cached(&service, "alice", table.shared.options.clock.now());
    assert!(used().is_some());
    pass(MOMENT).await;
    assert_eq!((asked(&far), far.assignment("alice", "chat").unwrap().stamp), (0, 1));
    pass(Duration::from_secs(2)).await;
    assert!(used().is_some() && used().is_some());
    pass(MOMENT).await;
    assert_eq!((asked(&far), far.assignment("alice", "chat").unwrap().stamp), (1, 2));
    assert_eq!(table.stats().assignment_renewals.get(), 1);
    pass(Duration::from_secs(35)).await;
    assert!(used().is_some(), "renewed after 11 s, it lasts until 51 s");
    pass(MOMENT).await;
    pass(Duration::from_secs(41)).await;
    assert!(used().is_none(), "unused it expires");
    pass(Duration::from_secs(60)).await;
    assert!(assignments.lookup(&service, "alice").await.unwrap().is_none(), "and is swept");
    assert!(table.stats().assignments_swept.get() == 1 && assignments.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_does_not_bring_back_what_was_forgotten() {
    let (far, table, service) = world().await;
    let there = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, options("there")).await;
    table.assignments().claim(&service, "alice", "a", Condition::Absent).await.unwrap();
    there.assignments().forget(&service.id, "alice").await.unwrap();
    let claim = Condition::Unchanged(1);
    assert_eq!(table.assignments().claim(&service, "alice", "a", claim).await, Ok(None));
    pass(MOMENT).await;
    assert_eq!((cached(&table, &service), far.assignment("alice", "chat")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn pins_and_forgetting_reach_every_router() {
    let (far, here, service) = world().await;
    let there = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, options("there")).await;
    for table in [&here, &there] {
        table.assignments().claim(&service, "alice", "a", Condition::Absent).await.unwrap();
        assert_eq!(cached(table, &service).as_deref(), Some("a"));
    }
    let pin = here.assignments().pin(&service.id, "alice", "b").await.unwrap();
    assert_eq!((pin.server.as_str(), pin.expires), ("b", None));
    pass(MOMENT).await;
    assert_eq!((cached(&here, &service), cached(&there, &service)), (None, None));
    there.assignments().lookup(&service, "alice").await.unwrap();
    assert_eq!(cached(&there, &service).as_deref(), Some("b"));
    there.assignments().forget(&service.id, "alice").await.unwrap();
    pass(MOMENT).await;
    assert_eq!(here.assignments().lookup(&service, "alice").await, Ok(None));
    assert_eq!((cached(&here, &service), cached(&there, &service)), (None, None));
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_the_table_is_hardly_asked() {
    let (far, table, service) = world().await;
    let assignments = table.assignments();
    far.down.store(true, SeqCst);
    for _ in 0..1000 {
        assert!(assignments.lookup(&service, "alice").await.is_err());
    }
    assert_eq!(asked(&far), 3);
    assignments.hold(&service, "alice", "b");
    assert_eq!(cached(&table, &service).as_deref(), Some("b"));
    far.down.store(false, SeqCst);
    pass(Duration::from_secs(3)).await;
    assert_eq!(cached(&table, &service), None, "what was held is forgotten soon");
    assert_eq!(assignments.lookup(&service, "alice").await, Ok(None));
}

#[test]
fn client_ids_in_keys_are_decoded() {
    for (text, client) in
        [("alice", "alice"), ("a%2Fb%20%C3%B6", "a/b ö"), ("50%", "50%"), ("%zz%4", "%zz%4")]
    {
        assert_eq!(crate::table::assignments::percent_decoded(text), client);
    }
}
