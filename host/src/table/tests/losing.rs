//! When most servers go at once.

use super::*;

const GRACE: Duration = Duration::from_secs(10);

fn four() -> Vec<Change> {
    ["a", "b", "c", "d"].map(|id| server("chat", id)).into()
}

fn gone(ids: &[&str]) -> Vec<Change> {
    ids.iter().map(|id| delete("server", &format!("chat/{id}"))).collect()
}

#[tokio::test(start_paused = true)]
async fn most_servers_gone_at_once_are_suspect_until_the_grace_ends() {
    let far = TestTable::new();
    far.change(&four());
    let table = start(&far).await;
    let view = seen(&table, far.change(&gone(&["a", "b", "c"]))).await;
    assert_eq!(servers(&view, "chat").as_deref(), Some("[a] [b] [c] d"));
    assert_eq!(table.stats().view_suspects.get(), 3);
    let view = seen(&table, far.change(&[server("chat", "b")])).await;
    assert_eq!(servers(&view, "chat").as_deref(), Some("[a] b [c] d"));
    pass(GRACE - MOMENT).await;
    assert_eq!(servers(&table.view(), "chat").as_deref(), Some("[a] b [c] d"));
    pass(2 * MOMENT).await;
    assert_eq!(servers(&table.view(), "chat").as_deref(), Some("b d"));
}

#[tokio::test(start_paused = true)]
async fn few_servers_gone_are_gone() {
    for (there, lost) in [(four(), gone(&["a", "b"])), (four()[..2].to_vec(), gone(&["a", "b"]))] {
        let far = TestTable::new();
        far.change(&there);
        let table = start(&far).await;
        let view = seen(&table, far.change(&lost)).await;
        assert!(servers(&view, "chat").is_none_or(|servers| !servers.contains('[')));
    }
}

#[tokio::test(start_paused = true)]
async fn an_explicit_write_is_obeyed_at_once_by_every_router() {
    let far = TestTable::new();
    far.change(&four());
    let here = start(&far).await;
    let there = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, options("there")).await;
    let mut all = gone(&["a", "b", "c", "d"]);
    all.push(delete("service", "chat"));
    let revision = here.write(all, None).await.unwrap();
    assert_eq!(servers(&here.view(), "chat"), None);
    assert_eq!(servers(&*seen(&there, revision).await, "chat"), None);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_lost_everything_is_not_believed_at_once() {
    let far = TestTable::new();
    let record = put("service", "chat", r#"{"sticky":false}"#);
    far.change(&[four(), vec![record.clone(), put("release", "chat", r#"{"weights":{}}"#)]].concat());
    let table = start(&far).await;
    pass(Duration::from_secs(1)).await;
    far.wipe();
    pass(Duration::from_secs(5)).await;
    let view = table.view();
    assert_eq!(servers(&view, "chat").as_deref(), Some("[a] [b] [c] [d]"));
    let service = view.service(&"chat".parse().unwrap()).unwrap();
    assert!(
        service.declared && service.record.sticky == record::Sticky::Off && view.release("chat").is_some()
    );
    far.down.store(true, SeqCst);
    pass(GRACE).await;
    assert_eq!((servers(&table.view(), "chat"), table.view().release("chat")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn servers_that_come_back_after_a_restart_of_the_table_are_no_outage() {
    let far = TestTable::new();
    far.change(&four());
    let table = start(&far).await;
    let mut views = table.subscribe();
    far.change(&gone(&["a", "b", "c", "d"]));
    pass(MOMENT).await;
    let revision = far.change(&four());
    assert_eq!(servers(&*seen(&table, revision).await, "chat").as_deref(), Some("a b c d"));
    pass(2 * GRACE).await;
    assert_eq!(servers(&views.borrow_and_update(), "chat").as_deref(), Some("a b c d"));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_given_up_when_somebody_means_it() {
    let far = TestTable::new();
    far.change(&four());
    let here = start(&far).await;
    let there = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, options("there")).await;
    seen(&here, far.change(&gone(&["a", "b", "c"]))).await;
    let revision = here.write(gone(&["a", "b"]), None).await.unwrap();
    for table in [&here, &there] {
        assert_eq!(servers(&*seen(table, revision).await, "chat").as_deref(), Some("[c] d"));
    }
}
