//! The component that runs all scripts: compiled once, and best before the first script comes.

use std::{
    io,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use wasmtime::{Engine, component::Component};

use crate::plugin::{
    cache::{Cache, Held, Source},
    component::{Refusal, componentize},
    load::sha256,
    wasi::preview1::Adapter,
};

/// The engine's WebAssembly.
const WASM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/message_flow_plugin_script.wasm"));

/// For so long after it is told to, nothing is prepared: what just started has other things to do.
const REST: Duration = Duration::from_secs(1);

/// What the thread that prepares adds to its niceness: others go first.
const GIVE_WAY: i32 = 10;

/// The engine of all scripts of a process.
pub(in crate::plugin) struct ScriptEngine {
    engine: Engine,
    cache: Arc<Cache>,
    compiled: Mutex<Option<(Component, Held)>>,
}

impl ScriptEngine {
    pub(in crate::plugin) fn new(engine: Engine, cache: Arc<Cache>) -> Self {
        Self { engine, cache, compiled: Mutex::default() }
    }

    /// Compiled, or found compiled, by who asks first; who asks meanwhile waits for that.
    pub(in crate::plugin) fn component(&self) -> Result<(Component, Held), Refusal> {
        let mut compiled = self.compiled.lock();
        if let Some(compiled) = &*compiled {
            return Ok(compiled.clone());
        }
        let source = Source { plugin: "the engine of scripts", key: &sha256(WASM) };
        let loaded = self.cache.load(&self.engine, source, || componentize(WASM, Adapter::Plain))?;
        Ok(compiled.insert(loaded).clone())
    }

    /// Has it compiled a little later, beside everything else and after it: the first script
    /// does not wait for that then.
    pub(in crate::plugin) fn prepare(self: &Arc<Self>) -> io::Result<()> {
        let engine = Arc::downgrade(self);
        let prepare = move || {
            thread::sleep(REST);
            if let Err(error) = prepare(&engine) {
                tracing::warn!(%error, "the script engine is not prepared; the first script waits for it");
            }
        };
        thread::Builder::new().name("script-engine".into()).spawn(prepare).map(drop)
    }
}

/// On one thread of low priority, where the compiler would otherwise take every core.
fn prepare(engine: &Weak<ScriptEngine>) -> Result<(), Box<dyn std::error::Error>> {
    let Some(engine) = engine.upgrade() else { return Ok(()) };
    let give_way = |_| {
        let _ = rustix::process::setpriority_process(None, GIVE_WAY);
    };
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).start_handler(give_way).build()?;
    alone.install(|| engine.component())?;
    Ok(())
}
