//! Several routers over one table in its worst week: the real rule, views and assignments, over a
//! datastore whose calls are late, lost, or carried out without an answer, which is cut off from some
//! routers, loses its history and goes back to an earlier state, while servers come, go, leave and fail
//! and the routers' clocks differ.
//!
//! Once all is well for a moment, no two routers may send a client to two servers, no client may have
//! moved that need not, and pins hold. Everything that happens follows from a seed: a seed that fails is
//! named, and `AGREEMENT_SEED=N` runs it alone.

mod link;
mod world;

use std::time::Duration;

use world::World;

/// Each is another week.
const SEEDS: std::ops::Range<u64> = 0..16;
/// Days in a week that is bad enough.
const STEPS: usize = 24;

#[test]
fn routers_agree_in_their_worst_week() {
    let only = std::env::var("AGREEMENT_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = only.map_or(SEEDS, |seed| seed..seed + 1);
    let mut failed = Vec::new();
    for seed in seeds {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime with a clock alone");
        let told = runtime.block_on(async {
            let mut world = World::new(seed).await;
            for _ in 0..STEPS {
                world.step().await;
                if let Err(wrong) = world.check().await {
                    return Err(format!("{wrong}\n{}", world.story()));
                }
            }
            Ok(())
        });
        runtime.shutdown_timeout(Duration::ZERO);
        failed.extend(told.err().map(|wrong| format!("AGREEMENT_SEED={seed}: {wrong}")));
    }
    assert!(failed.is_empty(), "{} weeks went wrong, the first: {}", failed.len(), failed[0]);
}
