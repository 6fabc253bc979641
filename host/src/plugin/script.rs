//! Scripts: files with JavaScript in them, each a plugin of its own, all run by one component that
//! has the engine in it (`plugins/script`).
//!
//! The engine is compiled once ([`engine`]) and instantiated for each script; an instance asks for
//! its text through `message-flow:script/source`. What a script is cannot be read off the component,
//! so it is asked: it exports what it has functions for, and `readsBody` if it reads bodies.

pub(super) mod engine;

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, Instance as Exports, TypedFunc};

use super::{
    Kind,
    bounds::{Cut, NAME},
    guest::Guest,
    types::Said,
};

/// What only the engine may import.
pub(super) const IMPORTS: &str = "message-flow:script/";

/// A script, as its instances get it.
pub(super) struct Script {
    /// The file's name, such as `geo.js`.
    pub(super) file: Arc<str>,
    /// What is in it.
    pub(super) text: Arc<str>,
}

/// What a script exports that reads bodies.
const READS_BODY: &str = "readsBody";

/// Reads the script in an instance of the engine, and says what it exports.
pub(super) type LoadFunction = TypedFunc<(), (Result<Vec<Cut<NAME>>, Said>,)>;

/// The engine's own function; none in other components.
pub(super) fn find(
    store: &mut Store<Guest>,
    exports: Exports,
) -> Result<Option<LoadFunction>, wasmtime::Error> {
    let engine: Option<ComponentExportIndex> =
        exports.get_export_index(&mut *store, None, "message-flow:script/engine@0.1.0");
    let Some(engine) = engine else { return Ok(None) };
    let load = exports.get_export_index(&mut *store, Some(&engine), "load");
    load.map(|load| exports.get_typed_func(store, load)).transpose()
}

/// Whether a script that exports this reads bodies.
pub(super) fn reads_body(exports: &[String]) -> bool {
    exports.iter().any(|name| name == READS_BODY)
}

/// What a script is by the names of its functions.
pub(super) fn kinds(functions: &[String]) -> Vec<Kind> {
    let kind = |name: &String| match name.as_str() {
        "resolve" => Some(Kind::Registrar),
        "onRequest" => Some(Kind::RequestFilter),
        "onResponse" => Some(Kind::ResponseFilter),
        "onEvent" => Some(Kind::EventFilter),
        _ => None,
    };
    functions.iter().filter_map(kind).collect()
}
