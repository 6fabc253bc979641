//! Housekeeping: expired assignments are removed from the table and from the cache, and numbers
//! that nobody uses are forgotten. Every router sweeps; jitter keeps them apart.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{TableError, shared::Shared};

/// So many assignments are removed in one call, which must end within the adapter's deadline.
const BATCH: u32 = 250;
/// So many calls are made in one sweep: a million assignments.
const BATCHES: u32 = 4000;
/// An assignment is removed only so many milliseconds after it has expired: a router that began by an
/// older time than this one's may follow it until then, and is told if it is replaced, not if it is removed.
const LATE: u64 = 10_000;
/// Between two of them, so that others get their turn.
const PAUSE: Duration = Duration::from_millis(10);

/// Sweeps until dropped.
pub(super) async fn sweep(shared: Arc<Shared>) {
    loop {
        sleep(shared.options.sweep.mul_f64(shared.options.jitter.within(0.5..1.5))).await;
        if let Err(error) = table(&shared).await {
            tracing::debug!(%error, "expired assignments were not removed");
        }
        shared.assignments.expire().await;
        shared.forget_numbers();
    }
}

async fn table(shared: &Shared) -> Result<(), TableError> {
    for _ in 0..BATCHES {
        let swept = shared.adapter.sweep(shared.time.now().saturating_sub(LATE), BATCH).await?;
        shared.stats.assignments_swept.inc_by(u64::from(swept));
        if swept < BATCH {
            break;
        }
        sleep(PAUSE).await;
    }
    Ok(())
}
