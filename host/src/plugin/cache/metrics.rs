//! What is counted of compiled code: whether a start compiles again what was compiled before.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// The counters, one for each way in which code came.
pub(in crate::plugin) struct Metrics {
    /// Compiled code that was found.
    pub(super) found: IntCounter,
    /// Code that had to be compiled.
    pub(super) compiled: IntCounter,
    /// Compiled code that was damaged, and deleted.
    pub(super) damaged: IntCounter,
}

impl Metrics {
    pub(in crate::plugin) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let code = IntCounterVec::new(
            Opts::new(
                "message_flow_plugin_code_total",
                "Machine code of plugins: found compiled, compiled, or found damaged (and then compiled).",
            ),
            &["code"],
        )?;
        registry.register(Box::new(code.clone()))?;
        let count = |how: &str| code.with_label_values(&[how]);
        Ok(Self { found: count("found"), compiled: count("compiled"), damaged: count("damaged") })
    }
}
