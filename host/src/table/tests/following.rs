//! How the view follows the table through all that can happen to it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_view_follows_the_table() {
    for waits in [false, true] {
        let far = TestTable::new();
        far.waits.store(waits, SeqCst);
        far.change(&[server("chat", "a"), put("service", "chat", r#"{"registrar":"geo"}"#)]);
        let table = start(&far).await;
        assert_eq!(*table.status().borrow(), Status::Current);
        let first = table.view();
        assert_eq!(servers(&first, "chat").as_deref(), Some("a"));
        let view = seen(&table, far.change(&[server("mail", "m")])).await;
        assert_eq!(servers(&view, "mail").as_deref(), Some("m"));
        let chat = "chat".parse().unwrap();
        assert!(
            Arc::ptr_eq(first.service(&chat).unwrap(), view.service(&chat).unwrap()),
            "unchanged is shared"
        );
        let view = seen(&table, far.change(&[delete("server", "mail/m")])).await;
        assert_eq!(servers(&view, "mail"), None);
        assert_eq!(far.snapshots.load(SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_is_in_the_view_when_it_returns() {
    for waits in [false, true] {
        let far = TestTable::new();
        far.waits.store(waits, SeqCst);
        let table = start(&far).await;
        let many = (0..150).map(|number| server("chat", &format!("s{number}"))).collect();
        let revision = table.write(many, None).await.unwrap();
        assert_eq!(table.view().revision, revision);
        assert_eq!(table.view().service(&"chat".parse().unwrap()).unwrap().servers.len(), 150);
        let delete = async |id: &str| table.write(vec![delete("server", id)], Some(revision - 1)).await;
        assert_eq!(delete("chat/s149").await, Err(TableError::Conflict(revision)));
        assert!(delete("chat/s1").await.is_ok(), "what changed since is nothing to it");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_lived_through_and_said() {
    let far = TestTable::new();
    far.change(&[server("chat", "a")]);
    let table = start(&far).await;
    pass(MOMENT).await;
    far.down.store(true, SeqCst);
    wait_for(&table, |status| matches!(status, Status::Stale { .. })).await;
    assert_eq!(servers(&table.view(), "chat").as_deref(), Some("a"));
    let written = table.write(vec![server("chat", "b")], None).await;
    assert!(matches!(written, Err(TableError::Unavailable(_))), "{written:?}");
    let revision = far.change(&[server("chat", "c")]);
    far.down.store(false, SeqCst);
    assert_eq!(servers(&*seen(&table, revision).await, "chat").as_deref(), Some("a c"));
    wait_for(&table, |status| *status == Status::Current).await;
    assert_eq!((far.snapshots.load(SeqCst), table.stats().table_current.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_compaction_nothing_is_missed() {
    let far = TestTable::new();
    far.change(&[server("chat", "a"), server("mail", "m")]);
    let table = start(&far).await;
    pass(MOMENT).await;
    let mail = Arc::clone(table.view().service(&"mail".parse().unwrap()).unwrap());
    far.down.store(true, SeqCst);
    far.change(&[delete("server", "chat/a"), server("chat", "b")]);
    far.compact();
    let revision = far.change(&[put("release", "chat", r#"{"weights":{"1":1}}"#)]);
    far.down.store(false, SeqCst);
    let view = seen(&table, revision).await;
    assert_eq!(servers(&view, "chat").as_deref(), Some("b"));
    assert!(view.release("chat").is_some());
    assert!(Arc::ptr_eq(&mail, view.service(&"mail".parse().unwrap()).unwrap()), "unchanged is shared");
    assert_eq!(far.snapshots.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_a_problem_and_changes_nothing() {
    let far = TestTable::new();
    far.change(&[server("chat", "a")]);
    let table = start(&far).await;
    let bad = [put("server", "chat/a", "{"), put("service", "no@thing@", "{}"), put("future", "x", "?")];
    let view = seen(&table, far.change(&bad)).await;
    assert_eq!(servers(&view, "chat").as_deref(), Some("a"));
    let problems: Vec<_> = view.problems().keys().map(String::as_str).collect();
    assert_eq!(problems, ["server chat/a", "service no@thing@"]);
    let raised = table.tasks().conditions().raised();
    assert!(
        raised.iter().any(|it| it.name == Name::TableRecords && it.detail.starts_with("2 ")),
        "{raised:?}"
    );
    let view = seen(&table, far.change(&[server("chat", "a"), delete("service", "no@thing@")])).await;
    assert!(view.problems().is_empty());
    assert!(table.tasks().conditions().raised().is_empty());
}

#[tokio::test(start_paused = true)]
async fn records_of_other_versions_are_read() {
    let far = TestTable::new();
    let table = start(&far).await;
    let service = r#"{"health":{"path":"/up","newer":1},"sticky":{"ttl":"9m","newer":1},"newer":[]}"#;
    let server = r#"{"uri":"http://127.0.0.1:1","check":{"newer":true},"newer":{}}"#;
    let release = r#"{"number":1,"weights":{"1":1},"rollback":{"errors":5,"newer":1},
        "canary":{"version":"1","header":{"name":"x","newer":1},"newer":1},"newer":1}"#;
    let changes = [
        put("service", "chat@1", service),
        put("server", "chat@1/a", server),
        put("release", "chat", release),
    ];
    let view = seen(&table, far.change(&changes)).await;
    assert!(view.problems().is_empty(), "{:?}", view.problems());
    assert_eq!(servers(&view, "chat@1").as_deref(), Some("a"));
    let record = &view.service(&"chat@1".parse().unwrap()).unwrap().record;
    assert_eq!(record.health.as_ref().unwrap().path.as_deref(), Some("/up"));
}

#[tokio::test(start_paused = true)]
async fn without_table_and_saved_view_it_is_not_ready_and_goes_on_trying() {
    let far = TestTable::new();
    far.down.store(true, SeqCst);
    let table = start(&far).await;
    assert!(matches!(&*table.status().borrow(), Status::Starting(Some(why)) if why.contains("it is down")));
    pass(Duration::from_secs(60)).await;
    far.down.store(false, SeqCst);
    far.change(&[server("chat", "a")]);
    wait_for(&table, Status::is_ready).await;
    assert_eq!(servers(&table.view(), "chat").as_deref(), Some("a"));
}

#[tokio::test]
async fn the_last_known_view_is_a_start_while_the_table_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let saving = || Options { dir: Some(dir.path().join("data")), ..options("here") };
    let far = TestTable::new();
    let record = put("service", "chat@2", r#"{"registrar":"geo","sticky":false}"#);
    far.change(&[server("chat@2", "a"), record, put("release", "chat", r#"{"weights":{"2":1}}"#)]);
    let table = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, saving()).await;
    let known = table.view();
    table.stop().await;
    assert!(!far.has("router", "here"), "its record is removed");
    drop(table);
    far.down.store(true, SeqCst);
    let table = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, saving()).await;
    assert!(matches!(&*table.status().borrow(), Status::Stale { error, .. } if error.contains("it is down")));
    assert_eq!((table.view().entries(), known.entries().len()), (known.entries(), 3));
    let foreign = Options { adapter: "other".into(), ..saving() };
    let other = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, foreign).await;
    assert!(!other.status().borrow().is_ready());
    far.down.store(false, SeqCst);
    let revision = far.change(&[server("chat@2", "b")]);
    assert_eq!(servers(&*seen(&table, revision).await, "chat@2").as_deref(), Some("a b"));
    std::fs::write(dir.path().join("data/view.json"), "{torn").unwrap();
    far.down.store(true, SeqCst);
    let torn = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, saving()).await;
    assert!(!torn.status().borrow().is_ready());
}

#[tokio::test(start_paused = true)]
async fn this_routers_record_is_written_again_when_it_disappears() {
    let far = TestTable::new();
    let table = start(&far).await;
    pass(Duration::from_secs(1)).await;
    assert!(far.has("router", "here"));
    far.change(&[delete("router", "here")]);
    pass(Duration::from_secs(3)).await;
    assert!(far.has("router", "here"));
    assert!(table.view().routers().contains_key("here"));
    far.wipe();
    pass(Duration::from_secs(15)).await;
    assert!(far.has("router", "here"));
}

#[tokio::test(start_paused = true)]
async fn the_configuration_hides_what_the_table_says() {
    let far = TestTable::new();
    far.change(&[server("chat", "stored"), server("mail", "m")]);
    let table = start(&far).await;
    let server_at = |uri: &str| record::ServerRecord::new(uri.parse().unwrap());
    let listed = |id: &str| record::ServerSpec { id: id.into(), record: server_at(&format!("http://{id}")) };
    let spec = record::ServiceSpec { servers: vec![listed("b:80"), listed("a:80")], ..Default::default() };
    table.set_overlay(Overlay::from([("chat".parse().unwrap(), spec)]));
    let first = table.view();
    assert_eq!(servers(&first, "chat").as_deref(), Some("a:80 b:80"));
    let chat = "chat".parse().unwrap();
    assert_eq!(first.service(&chat).unwrap().origin, view::Origin::Configuration);
    let view = seen(&table, far.change(&[server("chat", "more")])).await;
    assert!(Arc::ptr_eq(first.service(&chat).unwrap(), view.service(&chat).unwrap()), "unchanged is shared");
    assert_eq!(view.stored(&chat).unwrap().servers.len(), 2);
    assert!(
        !view.entries().iter().any(|entry| entry.value.contains("//b")),
        "it is not saved as the table's"
    );
    table.set_overlay(Overlay::new());
    assert_eq!(servers(&table.view(), "chat").as_deref(), Some("more stored"));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_entry_is_shown_until_it_is_gone() {
    let far = TestTable::new();
    far.change(&[put("stray", "/x/service/chat", "no such folder"), server("chat", "a")]);
    let table = start(&far).await;
    let problem = table.view().problems()["stray /x/service/chat"].to_string();
    assert_eq!(problem, "stray `/x/service/chat` in the routing table is not valid: no such folder");
    let raised = table.tasks().conditions().raised();
    assert!(
        raised.iter().any(|it| it.name == Name::TableRecords && it.detail.contains(&problem)),
        "{raised:?}"
    );
    far.compact();
    let view = seen(&table, far.change(&[delete("stray", "/x/service/chat")])).await;
    assert!(view.problems().is_empty() && servers(&view, "chat").is_some());
    let many: Vec<_> = (0..400).map(|n| put("stray", &n.to_string(), "no")).collect();
    let view = seen(&table, far.change(&many)).await;
    assert_eq!(view.problems().len(), 256, "as many as are remembered");
}
