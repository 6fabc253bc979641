//! The WebAssembly engine: how guests are compiled, allocated and interrupted.
//!
//! One engine serves all lanes.

use std::sync::Arc;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::ticker::Ticker;

/// The most instances of all plugins together: every worker has its own of each plugin that it calls, so
/// hundreds of plugins have thousands. What is not used costs address space alone.
const INSTANCES: u32 = 4000;

/// The most linear memory that any plugin can be configured to have.
pub const MAX_MEMORY: u64 = 4 << 30;

/// Makes the engine and starts its ticker, which ends with the engine.
pub(super) fn new() -> Result<(wasmtime::Engine, Arc<Ticker>), wasmtime::Error> {
    let engine = wasmtime::Engine::new(&config())?;
    let ticker = Ticker::start(&engine)?;
    Ok((engine, ticker))
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
