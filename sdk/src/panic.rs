//! Says in the router's log why a plugin panicked; the trap that follows cannot.

use crate::log::{self, Level};

/// Called once by the component, before any other function.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the component's initializer is found by its name")]
extern "C" fn _initialize() {
    std::panic::set_hook(Box::new(|panic| log::log(Level::Error, &panic.to_string())));
}
