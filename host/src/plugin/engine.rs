//! The WebAssembly engine: how guests are compiled, allocated and interrupted.
//!
//! One engine serves both lanes. The ticker that drives deadlines is an OS thread, because a
//! guest that spins would starve a timer of the runtime that it spins on.

use std::{thread, time::Duration};

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

/// How often the engine's epoch advances: deadlines are exact to this, and never shorter.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// The most instances of all plugins together.
const INSTANCES: u32 = 1000;

/// The most linear memory that any plugin can be configured to have.
pub const MAX_MEMORY: u64 = 4 << 30;

/// Makes the engine and starts its ticker, which ends with the engine.
pub(super) fn new() -> Result<wasmtime::Engine, wasmtime::Error> {
    let engine = wasmtime::Engine::new(&config())?;
    let weak = engine.weak();
    thread::Builder::new().name("plugin-deadlines".into()).spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    })?;
    Ok(engine)
}

fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(4 * INSTANCES)
        .total_memories(INSTANCES)
        .total_tables(4 * INSTANCES)
        .total_stacks(INSTANCES)
        .max_core_instances_per_component(60)
        .max_tables_per_component(60)
        .max_memories_per_component(4)
        .table_elements(40_000)
        .max_memory_size(MAX_MEMORY as usize)
        .max_unused_warm_slots(100)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .memory_init_cow(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}
