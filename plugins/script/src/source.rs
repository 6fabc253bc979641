//! The script, as the host hands it over (`wit/script.wit`).

mod bindings {
    #![allow(missing_docs, unreachable_pub, unsafe_code, reason = "generated; the manual is wit/script.wit")]
    #![allow(clippy::all, reason = "generated")]
    wit_bindgen::generate!({ path: "wit", world: "script" });

    struct Engine;

    impl exports::message_flow::script::engine::Guest for Engine {
        fn load() -> Result<Vec<String>, String> {
            crate::engine::load()
        }
    }

    export!(Engine);
}

pub(crate) use bindings::message_flow::script::source::{deadline, name, overrun, text};

/// Microseconds since the Unix epoch, for QuickJS's `Date`: all that it asks of a machine.
#[allow(unsafe_code, reason = "QuickJS's C code finds it by this name")]
#[unsafe(no_mangle)]
extern "C" fn __rquickjs_host_now_us() -> f64 {
    message_flow_sdk::clock::now() as f64 * 1000.0
}
