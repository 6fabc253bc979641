//! Keeps the table's [time] going: whichever router has seen no new value for an interval
//! writes the next one, on the condition that nobody else did meanwhile.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    Status, TableError, View,
    record::Sticky,
    shared::Shared,
    time::{self, LONGEST, SHORTEST},
};

/// The first value of a table is waited for no longer.
const BEGIN: Duration = Duration::from_secs(1);

/// Keeps it going until dropped.
pub(super) async fn tick(shared: Arc<Shared>) {
    let (mut revisions, mut status) = (shared.revisions.subscribe(), shared.status.subscribe());
    loop {
        if status.wait_for(|status| *status == Status::Current).await.is_err() {
            return;
        }
        let seen = shared.view().time;
        let pause = interval(&shared.view()).mul_f64(shared.options.jitter.within(1.0..1.5));
        let newer = async { while revisions.changed().await.is_ok() && shared.view().time == seen {} };
        if seen.is_some() && timeout(pause, newer).await.is_ok() {
            continue;
        }
        match write(&shared).await {
            Ok(()) => {}
            // Somebody else was first, or the table is away.
            Err(TableError::Conflict(_) | TableError::Unavailable(_)) => sleep(pause / 4).await,
            Err(error) => {
                tracing::debug!(%error, "the time of the table was not written");
                shared.time.go_on();
                sleep(pause).await;
            }
        }
    }
}

/// Sets the time of a table that has none, so that nothing is stored by this router's own guess.
pub(super) async fn begin(shared: &Shared) {
    if shared.view().time.is_none() {
        let _ = timeout(BEGIN, write(shared)).await;
    }
}

async fn write(shared: &Shared) -> Result<(), TableError> {
    let view = shared.view();
    let now = shared.time.now().max(view.time.map_or(0, |time| time + 1));
    shared.adapter.write(vec![time::entry(now)], Some(view.revision)).await?;
    shared.time.reach(now);
    shared.poke.notify_one();
    Ok(())
}

/// From one value to the next: short enough that a router that begins by the last one is not far behind,
/// as the service sees it whose assignments are the shortest.
fn interval(view: &View) -> Duration {
    let ttls = view.services().filter_map(|service| match service.record.sticky {
        Sticky::For(ttl) => Some(ttl / 4),
        Sticky::Off => None,
    });
    ttls.min().unwrap_or(LONGEST).clamp(SHORTEST, LONGEST)
}
