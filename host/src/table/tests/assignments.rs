//! What is remembered of assignments, and what it takes for routers to agree.

use super::{
    adapter::{Assignment, Condition},
    *,
};
use crate::table::assignments::{Kept, Wait};

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
    let now = table.time().now();
    let number = table.assignments().cached(service, "alice", now)?;
    table.assignments().text(number).map(|text| text.to_string())
}

/// Longer than anything takes.
fn long() -> Wait {
    Wait::new(Duration::from_secs(60))
}

fn asked(far: &TestTable) -> u32 {
    far.asked.swap(0, SeqCst)
}

#[tokio::test(start_paused = true)]
async fn routers_that_claim_at_once_agree() {
    let (far, here, service) = world().await;
    let there = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, options("there")).await;
    let wait = long();
    let (one, two) = tokio::join!(
        here.assignments().claim(&service, "alice", "a", Condition::Absent, &wait),
        there.assignments().claim(&service, "alice", "b", Condition::Absent, &wait),
    );
    assert_eq!(one, two);
    let Some(Assignment { server, expires, .. }) = one.unwrap() else { panic!("nothing stored") };
    assert_eq!(expires, Some(here.time().now() + 60_000));
    assert_eq!(cached(&here, &service), Some(server));
    let lost = [&here, &there].map(|table| table.stats().assignment_claims_lost.get());
    assert_eq!(lost.iter().sum::<u64>(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_assignment_is_asked_for_once_and_renewed_by_use() {
    let (far, table, service) = world().await;
    let assignments = table.assignments();
    assert_eq!(assignments.lookup(&service, "alice", &long()).await, Ok(None));
    assignments.claim(&service, "alice", "a", Condition::Absent, &long()).await.unwrap();
    assert_eq!(asked(&far), 2);
    pass(Duration::from_secs(19)).await;
    let used = || assignments.cached(&service, "alice", table.time().now());
    assert!(used().is_some());
    pass(MOMENT).await;
    assert_eq!((asked(&far), far.assignment("alice", "chat").unwrap().stamp), (0, 1));
    pass(Duration::from_secs(2)).await;
    assert!(used().is_some() && used().is_some());
    pass(MOMENT).await;
    assert_eq!((asked(&far), far.assignment("alice", "chat").unwrap().stamp), (1, 2));
    assert_eq!(table.stats().assignment_renewals.get(), 1);
    pass(Duration::from_secs(19)).await;
    assert!(used().is_some() && used().is_some());
    pass(Duration::from_secs(39)).await;
    assert!(used().is_some(), "it lasts for 40 s after its last use, which renewed nothing");
    pass(MOMENT).await;
    pass(Duration::from_secs(61)).await;
    assert!(used().is_none(), "unused it expires");
    pass(Duration::from_secs(60)).await;
    assert!(assignments.lookup(&service, "alice", &long()).await.unwrap().is_none(), "and is swept");
    assert!(table.stats().assignments_swept.get() == 1 && assignments.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_does_not_bring_back_what_was_forgotten() {
    let (far, table, service) = world().await;
    let there = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, options("there")).await;
    table.assignments().claim(&service, "alice", "a", Condition::Absent, &long()).await.unwrap();
    there.assignments().forget(&service.id, "alice").await.unwrap();
    let claim = Condition::Unchanged(1);
    assert_eq!(table.assignments().claim(&service, "alice", "a", claim, &long()).await, Ok(None));
    pass(MOMENT).await;
    assert_eq!((cached(&table, &service), far.assignment("alice", "chat")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn pins_and_forgetting_reach_every_router() {
    let (far, here, service) = world().await;
    let there = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, options("there")).await;
    for table in [&here, &there] {
        table.assignments().claim(&service, "alice", "a", Condition::Absent, &long()).await.unwrap();
        assert_eq!(cached(table, &service).as_deref(), Some("a"));
    }
    let pin = here.assignments().pin(&service.id, "alice", "b").await.unwrap();
    assert_eq!((pin.server.as_str(), pin.expires), ("b", None));
    pass(MOMENT).await;
    assert_eq!((cached(&here, &service), cached(&there, &service)), (None, None));
    there.assignments().lookup(&service, "alice", &long()).await.unwrap();
    assert_eq!(cached(&there, &service).as_deref(), Some("b"));
    there.assignments().forget(&service.id, "alice").await.unwrap();
    pass(MOMENT).await;
    assert_eq!(here.assignments().lookup(&service, "alice", &long()).await, Ok(None));
    assert_eq!((cached(&here, &service), cached(&there, &service)), (None, None));
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_the_table_is_hardly_asked() {
    let (far, table, service) = world().await;
    let assignments = table.assignments();
    far.down.store(true, SeqCst);
    for _ in 0..1000 {
        assert!(assignments.lookup(&service, "alice", &long()).await.is_err());
    }
    assert_eq!(asked(&far), 3);
    assignments.hold(&service, "alice", "b", &TableError::Unavailable(String::new()));
    let held = || assignments.held(&service, "alice", table.time().now());
    assert_eq!(held().and_then(|number| assignments.text(number)).as_deref(), Some("b"));
    assert_eq!(cached(&table, &service), None, "nobody follows what is held without asking");
    far.down.store(false, SeqCst);
    pass(Duration::from_secs(1)).await;
    assert_eq!(assignments.lookup(&service, "alice", &long()).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_is_read_again() {
    let (far, table, service) = world().await;
    far.lost.store(1, SeqCst);
    let claimed = table.assignments().claim(&service, "alice", "a", Condition::Absent, &long()).await;
    assert_eq!(claimed.unwrap().map(|stored| stored.server).as_deref(), Some("a"));
    assert_eq!((asked(&far), cached(&table, &service).as_deref()), (2, Some("a")));
    // It was carried out, and then something else was stored.
    let there = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, options("there")).await;
    there.assignments().pin(&service.id, "alice", "b").await.unwrap();
    far.lost.store(1, SeqCst);
    let stamp = Condition::Unchanged(1);
    let claimed = table.assignments().claim(&service, "alice", "a", stamp, &long()).await;
    assert_eq!(claimed.unwrap().map(|stored| stored.server).as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn a_message_waits_for_the_table_within_one_bound() {
    let (far, table, service) = world().await;
    let (assignments, wait) = (table.assignments(), Wait::new(Duration::from_secs(1)));
    far.takes.store(400, SeqCst);
    let began = tokio::time::Instant::now();
    assert_eq!(assignments.lookup(&service, "alice", &wait).await, Ok(None));
    assignments.claim(&service, "alice", "a", Condition::Absent, &wait).await.unwrap();
    let late = assignments.look(&service, "alice", &wait).await;
    assert_eq!(late, Err(TableError::Unavailable("no answer within 1s".into())));
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert!(assignments.claim(&service, "bob", "a", Condition::Absent, &wait).await.is_err());
    assert_eq!(began.elapsed(), Duration::from_secs(1), "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn what_another_router_replaces_is_forgotten_here() {
    let (far, here, service) = world().await;
    let there = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, options("there")).await;
    here.assignments().claim(&service, "alice", "a", Condition::Absent, &long()).await.unwrap();
    there.assignments().lookup(&service, "alice", &long()).await.unwrap();
    let stamp = far.assignment("alice", "chat").unwrap().stamp;
    far.change(&[delete("server", "chat/a")]);
    there.assignments().claim(&service, "alice", "b", Condition::Unchanged(stamp), &long()).await.unwrap();
    far.change(&[server("chat", "a")]);
    pass(MOMENT).await;
    assert_eq!(cached(&here, &service), None, "it was told before the server came back");
    here.assignments().lookup(&service, "alice", &long()).await.unwrap();
    assert_eq!(cached(&here, &service).as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_went_back_is_asked_again_and_proposed_what_was_known() {
    let (far, table, service) = world().await;
    pass(MOMENT).await;
    let saved = far.save();
    table.assignments().claim(&service, "alice", "b", Condition::Absent, &long()).await.unwrap();
    far.change(&[put("release", "other", "{}")]);
    pass(MOMENT).await;
    assert_eq!(cached(&table, &service).as_deref(), Some("b"));
    far.restore(saved);
    pass(Duration::from_secs(2)).await;
    assert_eq!(cached(&table, &service), None);
    let held = table.assignments().held(&service, "alice", table.time().now());
    assert_eq!(held.and_then(|number| table.assignments().text(number)).as_deref(), Some("b"));
    table.assignments().claim(&service, "alice", "b", Condition::Absent, &long()).await.unwrap();
    assert_eq!(table.assignments().held(&service, "alice", table.time().now()), None, "it is stored again");
}

#[tokio::test(start_paused = true)]
async fn use_that_cannot_be_told_to_the_table_is_held() {
    let (far, table, service) = world().await;
    table.assignments().claim(&service, "alice", "a", Condition::Absent, &long()).await.unwrap();
    pass(Duration::from_secs(21)).await;
    far.down.store(true, SeqCst);
    assert_eq!(cached(&table, &service).as_deref(), Some("a"));
    pass(MOMENT).await;
    assert!(table.assignments().held(&service, "alice", table.time().now()).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_can_be_kept_over_a_restart() {
    let (far, table, service) = world().await;
    let all = |table: &Table| {
        let assignments = table.assignments();
        let mut kept: Vec<_> = (0..assignments.parts()).flat_map(|part| assignments.part(part)).collect();
        kept.sort_by(|one, two| one.client.cmp(&two.client));
        kept
    };
    table.assignments().claim(&service, "alice", "a", Condition::Absent, &long()).await.unwrap();
    table.assignments().pin(&service.id, "bob", "b").await.unwrap();
    pass(MOMENT).await;
    table.assignments().lookup(&service, "bob", &long()).await.unwrap();
    table.assignments().hold(&service, "carol", "a", &TableError::Unavailable(String::new()));
    let kept = all(&table);
    let told: Vec<_> = kept.iter().map(|kept| (&*kept.client, &*kept.server, kept.held)).collect();
    assert_eq!(told, [("alice", "a", false), ("bob", "b", false), ("carol", "a", true)]);
    assert_eq!((kept[0].service.as_str(), kept[1].expires), ("chat", None));

    far.down.store(true, SeqCst);
    let next = start(&far).await;
    let expired = Kept { client: "dave".into(), expires: Some(1), ..kept[0].clone() };
    kept.iter().chain([&expired]).for_each(|kept| next.assignments().put_back(kept));
    assert_eq!(all(&next), kept);
    far.down.store(false, SeqCst);
    wait_for(&next, |status| *status == Status::Current).await;
    let left: Vec<_> = all(&next).into_iter().map(|kept| kept.client).collect();
    assert_eq!(left, ["carol"], "the table is asked again for what it may know better");
}

#[test]
fn client_ids_in_keys_are_decoded() {
    for (text, client) in
        [("alice", "alice"), ("a%2Fb%20%C3%B6", "a/b ö"), ("50%", "50%"), ("%zz%4", "%zz%4")]
    {
        assert_eq!(crate::table::assignments::percent_decoded(text), client);
    }
}
