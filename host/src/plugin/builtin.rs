//! The default plugins, built to WebAssembly with the host and embedded in it. A file in the
//! plugins directory with the name of one takes its place.

use super::Grant;

/// A default plugin.
pub(super) struct Builtin {
    pub(super) name: &'static str,
    pub(super) bytes: &'static [u8],
    /// What it is granted without being told.
    pub(super) grant: &'static [Grant],
    /// What its configuration says where the operator's does not.
    pub(super) config: &'static [(&'static str, &'static str)],
    /// Whether it is loaded only where `[plugin.NAME]` mentions it.
    pub(super) on_mention: bool,
}

/// Every default plugin.
pub(super) static ALL: [Builtin; 3] = [
    Builtin {
        name: "memory",
        bytes: include_bytes!(concat!(env!("OUT_DIR"), "/message_flow_plugin_memory.wasm")),
        grant: &[],
        config: &[],
        on_mention: false,
    },
    Builtin {
        name: "etcd",
        bytes: include_bytes!(concat!(env!("OUT_DIR"), "/message_flow_plugin_etcd.wasm")),
        grant: &[Grant::Etcd],
        config: &[("endpoints", "http://127.0.0.1:2379"), ("prefix", "/message-flow")],
        on_mention: false,
    },
    Builtin {
        name: "http",
        bytes: include_bytes!(concat!(env!("OUT_DIR"), "/message_flow_plugin_http.wasm")),
        grant: &[],
        config: &[],
        on_mention: true,
    },
];

/// What a plugin of this name is granted without being told.
pub(super) fn grants(name: &str) -> &'static [Grant] {
    ALL.iter().find(|builtin| builtin.name == name).map_or(&[], |builtin| builtin.grant)
}

/// The WebAssembly of a default plugin.
pub fn bytes(name: &str) -> Option<&'static [u8]> {
    ALL.iter().find(|builtin| builtin.name == name).map(|builtin| builtin.bytes)
}
