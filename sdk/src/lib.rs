//! Write Message Flow plugins in Rust.
//!
//! A plugin is a type that implements the trait of each kind that it is, and one [`export!`] line.
//! The message at hand is ambient: read and change it with the functions of [`request`],
//! [`response`] and [`candidates`]. What each function and type means is said in the WIT files,
//! which are the reference manual; this crate gives them Rust names.
//!
//! ```
//! use message_flow_sdk::{Decision, Registrar, candidates, request};
//!
//! struct ByRegion;
//!
//! impl Registrar for ByRegion {
//!     fn resolve() -> Result<Decision, String> {
//!         let Some(region) = request::header("region") else { return Ok(Decision::Pass) };
//!         let near = candidates::least_loaded(&[("region", &region)]);
//!         Ok(near.map_or(Decision::Pass, Decision::Server))
//!     }
//! }
//!
//! message_flow_sdk::export!(ByRegion: Registrar);
//! # fn main() {
//! # use message_flow_sdk::testing::Scene;
//! let mut scene = Scene::new().header("region", "eu").server("a", &[("region", "us")]).server("b", &[("region", "eu")]);
//! assert_eq!(scene.resolve::<ByRegion>(), Ok(Decision::Server("b".into())));
//! # }
//! ```
//!
//! Build with `cargo build --release --target wasm32-unknown-unknown` (the crate's type is
//! `cdylib`) and drop the `.wasm` file into the plugins directory. The same code runs natively
//! under [`testing`], without a router.

extern crate self as message_flow_sdk;

/// The registrar in the README is a test too.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

#[doc(hidden)]
pub mod bindings;
#[cfg(target_arch = "wasm32")]
pub mod candidates;
pub mod keys;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
mod panic;
pub mod testing;

#[doc(hidden)]
pub use wit_bindgen;

pub use bindings::imports::message_flow::plugin::body::BodyError;
pub use bindings::imports::message_flow::plugin::types::{Rejection, Server, ServiceId};
#[cfg(target_arch = "wasm32")]
pub use bindings::imports::message_flow::plugin::{
    clock, config, etcd, event, log, random, request, request_body, response, response_body, state,
};
#[cfg(not(target_arch = "wasm32"))]
pub use testing::host::{
    candidates, clock, config, etcd, event, log, random, request, request_body, response, response_body,
    state,
};

pub use bindings::event_filter::exports::message_flow::plugin::event_filter::{
    Guest as EventFilter, Verdict as EventVerdict,
};
pub use bindings::lifecycle::exports::message_flow::plugin::lifecycle::Guest as Lifecycle;
pub use bindings::registrar::exports::message_flow::plugin::registrar::{Decision, Guest as Registrar};
pub use bindings::request_filter::exports::message_flow::plugin::request_filter::{
    Guest as RequestFilter, Verdict,
};
pub use bindings::response_filter::exports::message_flow::plugin::response_filter::Guest as ResponseFilter;
pub use bindings::routing_table::exports::message_flow::plugin::routing_table;
pub use bindings::routing_table::exports::message_flow::plugin::routing_table::Guest as RoutingTable;

impl Decision {
    /// The client gets this answer in place of a server's.
    pub fn reject(status: u16, reason: impl Into<String>) -> Self {
        Self::Reject(Rejection { status, reason: reason.into() })
    }
}

impl Verdict {
    /// The client gets this answer in place of a server's.
    pub fn respond(status: u16, reason: impl Into<String>) -> Self {
        Self::Respond(Rejection { status, reason: reason.into() })
    }
}

impl PartialEq for Rejection {
    fn eq(&self, other: &Self) -> bool {
        (self.status, &self.reason) == (other.status, &other.reason)
    }
}

impl PartialEq for Decision {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Server(one), Self::Server(two)) | (Self::Other(one), Self::Other(two)) => one == two,
            (Self::Pass, Self::Pass) => true,
            (Self::Reject(one), Self::Reject(two)) => one == two,
            _ => false,
        }
    }
}

impl PartialEq for Verdict {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Forward, Self::Forward) => true,
            (Self::Respond(one), Self::Respond(two)) => one == two,
            (Self::Other(one), Self::Other(two)) => one == two,
            _ => false,
        }
    }
}

/// Makes a type the plugin: `export!(MyPlugin: Registrar + RequestFilter + Lifecycle);`.
///
/// The kinds are `Registrar`, `RequestFilter`, `ResponseFilter`, `EventFilter`, `RoutingTable` and
/// the optional `Lifecycle`; the type implements the trait of the same name for each.
#[macro_export]
macro_rules! export {
    ($plugin:ident: $first:ident $(+ $kind:ident)*) => {
        #[cfg(target_arch = "wasm32")]
        $crate::export_kind!($first $plugin);
        $(
            #[cfg(target_arch = "wasm32")]
            $crate::export_kind!($kind $plugin);
        )*
        // Native linkers refuse the names of a component's exports; a native build is for tests.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($plugin) = |_| {
            fn is<P: $crate::$first $(+ $crate::$kind)*>() {}
            is::<$plugin>();
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_kind {
    (Registrar $plugin:ident) => {
        $crate::bindings::registrar::export_registrar!($plugin with_types_in $crate::bindings::registrar);
    };
    (RequestFilter $plugin:ident) => {
        $crate::bindings::request_filter::export_request_filter!($plugin with_types_in $crate::bindings::request_filter);
    };
    (ResponseFilter $plugin:ident) => {
        $crate::bindings::response_filter::export_response_filter!($plugin with_types_in $crate::bindings::response_filter);
    };
    (EventFilter $plugin:ident) => {
        $crate::bindings::event_filter::export_event_filter!($plugin with_types_in $crate::bindings::event_filter);
    };
    (RoutingTable $plugin:ident) => {
        $crate::bindings::routing_table::export_routing_table!($plugin with_types_in $crate::bindings::routing_table);
    };
    (Lifecycle $plugin:ident) => {
        $crate::bindings::lifecycle::export_lifecycle!($plugin with_types_in $crate::bindings::lifecycle);
    };
}
