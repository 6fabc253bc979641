//! Who a router is when a record is there already under its id.

use super::*;
use crate::table::{identity::Source, record::RouterRecord};

const OTHER: &str = r#"{"uri":"http://other","incarnation":"other-1","directory":"boot/1/2"}"#;

async fn start(far: &Arc<TestTable>, directory: &str, source: Source) -> Arc<Table> {
    let directory = Some(directory.to_owned());
    let record = RouterRecord { incarnation: "here-1".into(), directory, ..RouterRecord::default() };
    let options = Options { record, source, ..options("here") };
    Table::start(Arc::clone(far) as Arc<dyn Adapter>, options).await
}

fn occupied() -> Arc<TestTable> {
    let far = TestTable::new();
    far.change(&[put("router", "here", OTHER)]);
    far
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_on_the_same_machine_it_goes_on_at_once() {
    let far = occupied();
    let table = start(&far, "boot/1/2", Source::Configuration).await;
    let began = tokio::time::Instant::now();
    assert_eq!(&*table.claim().await.unwrap(), "here");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(table.view().routers()["here"].incarnation, "here-1");
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_elsewhere_it_waits_for_the_lease_to_end() {
    let far = occupied();
    let table = start(&far, "boot/1/3", Source::Configuration).await;
    let claiming = tokio::spawn({
        let table = Arc::clone(&table);
        async move { table.claim().await }
    });
    pass(Duration::from_secs(9)).await;
    assert!(!claiming.is_finished());
    far.change(&[delete("router", "here")]);
    assert_eq!(&*claiming.await.unwrap().unwrap(), "here");
}

#[tokio::test(start_paused = true)]
async fn an_id_of_the_configuration_that_is_taken_is_refused() {
    let far = occupied();
    let table = start(&far, "boot/1/3", Source::Configuration).await;
    let refused = table.claim().await.unwrap_err();
    assert!(refused.contains("`here` is in use by the router at http://other"), "{refused}");
    assert_eq!(table.view().routers()["here"].incarnation, "other-1", "it is left alone");
    table.stop().await;
    assert!(far.has("router", "here"));
}

#[tokio::test(start_paused = true)]
async fn an_id_of_the_data_directory_that_is_taken_becomes_another() {
    let (far, directory) = (occupied(), tempfile::tempdir().unwrap());
    let file = directory.path().join("router-id");
    let table = start(&far, "boot/1/3", Source::File(file.clone())).await;
    let id = table.claim().await.unwrap();
    assert_eq!(crate::durable::whole::load_or_set_aside::<String>(&file).unwrap(), *id);
    let view = table.view();
    assert_eq!(view.routers()["here"].incarnation, "other-1");
    assert_eq!(view.routers()[&*id].instead_of.as_deref(), Some("here"));
}

#[tokio::test(start_paused = true)]
async fn a_table_of_its_own_is_no_question() {
    let far = occupied();
    let options = Options { alone: true, ..options("here") };
    let table = Table::start(Arc::clone(&far) as Arc<dyn Adapter>, options).await;
    assert_eq!(&*table.claim().await.unwrap(), "here");
}

#[tokio::test(start_paused = true)]
async fn while_the_table_is_away_nobody_waits_for_it() {
    let far = TestTable::new();
    far.down.store(true, SeqCst);
    let table = start(&far, "boot/1/3", Source::Configuration).await;
    assert_eq!(&*table.claim().await.unwrap(), "here");
    // It serves by then, so it does not go when it finds out.
    far.change(&[put("router", "here", OTHER)]);
    far.down.store(false, SeqCst);
    pass(Duration::from_secs(30)).await;
    assert_eq!(table.view().routers()["here-here-1"].instead_of.as_deref(), Some("here"));
}
