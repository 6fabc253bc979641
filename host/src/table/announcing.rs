//! This router's own record: written at the start, whenever what it says changes, and again
//! whenever it disappears.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Status, TableError, adapter::Change, record::RouterRecord, shared::Shared};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Keeps the record there until dropped.
pub(super) async fn announce(shared: Arc<Shared>) {
    let (mut views, mut status) = (shared.views.subscribe(), shared.status.subscribe());
    let mut drained = shared.drained.subscribe();
    let mut written = None;
    let mut pause = FIRST_PAUSE;
    loop {
        if status.wait_for(|status| *status == Status::Current).await.is_err() {
            return;
        }
        let there = shared.view().routers().contains_key(shared.options.router.as_str());
        let record =
            RouterRecord { drained: drained.borrow_and_update().clone(), ..shared.options.record.clone() };
        if there && written.as_ref() == Some(&record) {
            tokio::select! {
                changed = views.changed() => if changed.is_err() { return },
                changed = drained.changed() => if changed.is_err() { return },
            }
            continue;
        }
        match write(&shared, &record).await {
            Ok(()) => (written, pause) = (Some(record), FIRST_PAUSE),
            Err(error) => {
                tracing::debug!(%error, "this router's record was not written");
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        sleep(pause.mul_f64(shared.options.jitter.within(0.5..1.0))).await;
    }
}

async fn write(shared: &Shared, own: &RouterRecord) -> Result<(), TableError> {
    let value = serde_json::to_string(own).expect("a record of texts and numbers");
    shared.adapter.write(vec![record(shared, Some(value))], None).await?;
    shared.poke.notify_one();
    Ok(())
}

/// Removes the record: this router leaves.
pub(super) async fn leave(shared: &Shared) -> Result<(), TableError> {
    shared.adapter.write(vec![record(shared, None)], None).await.map(drop)
}

fn record(shared: &Shared, value: Option<String>) -> Change {
    Change { kind: "router".to_owned(), key: shared.options.router.clone(), value, ephemeral: true }
}
