//! What `wit-bindgen` makes of `wit/`: the imports once, and one set of exports for each kind.
//!
//! Each kind's export macro carries the description of its world, and the componentizer merges
//! those that a plugin uses; imports that it never calls are left out of the component.

#![allow(missing_docs, unreachable_pub, unsafe_code, reason = "generated; the manual is wit/*.wit")]
#![allow(clippy::all, reason = "generated")]

pub mod imports {
    wit_bindgen::generate!({ path: "../wit", world: "capabilities", generate_all, runtime_path: "message_flow_sdk::wit_bindgen::rt" });
}

macro_rules! kind {
    ($module:ident, $world:literal, $macro:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "../wit",
                world: $world,
                pub_export_macro: true,
                export_macro_name: $macro,
                runtime_path: "message_flow_sdk::wit_bindgen::rt",
                with: {
                    "message-flow:plugin/types@0.1.0": crate::bindings::imports::message_flow::plugin::types,
                    "message-flow:plugin/request@0.1.0": crate::bindings::imports::message_flow::plugin::request,
                    "message-flow:plugin/response@0.1.0": crate::bindings::imports::message_flow::plugin::response,
                    "message-flow:plugin/event@0.1.0": crate::bindings::imports::message_flow::plugin::event,
                    "message-flow:plugin/candidates@0.1.0": crate::bindings::imports::message_flow::plugin::candidates,
                    "message-flow:plugin/log@0.1.0": crate::bindings::imports::message_flow::plugin::log,
                    "message-flow:plugin/config@0.1.0": crate::bindings::imports::message_flow::plugin::config,
                    "message-flow:plugin/state@0.1.0": crate::bindings::imports::message_flow::plugin::state,
                    "message-flow:plugin/clock@0.1.0": crate::bindings::imports::message_flow::plugin::clock,
                    "message-flow:plugin/random@0.1.0": crate::bindings::imports::message_flow::plugin::random,
                },
            });
        }
    };
}

kind!(registrar, "registrar-plugin", "export_registrar");
kind!(request_filter, "request-filter-plugin", "export_request_filter");
kind!(response_filter, "response-filter-plugin", "export_response_filter");
kind!(event_filter, "event-filter-plugin", "export_event_filter");
kind!(routing_table, "routing-table-plugin", "export_routing_table");
kind!(lifecycle, "lifecycle-plugin", "export_lifecycle");
