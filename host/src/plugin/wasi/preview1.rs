//! WASI preview 1, on which Go, and C with its library, build core modules.
//!
//! Such a module is made a component with an adapter. The plain one gives it the time, chance and
//! standard output, through an interface that only adapters use, and nothing in it waits: so the
//! module decides on the sync lane. A plugin with a grant `env:NAME` gets WASI's own adapter, which
//! knows an environment and puts the plugin on the async lane.

use std::{
    borrow::Cow,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;
use wasmtime::{
    StoreContextMut,
    component::{Linker, WasmList},
};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::plugin::{Grant, Settings, bounds::OUTPUT, guest::Guest};

/// The module that a core module names for WASI preview 1.
pub(in crate::plugin) const NAME: &str =
    wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME;

/// The interface of the plain adapter.
pub(in crate::plugin) const IMPORT: &str = "message-flow:host/process";

/// What makes WASI preview 1 of what the host provides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Adapter {
    /// Ours.
    Plain,
    /// WASI's.
    Environment,
}

impl Adapter {
    /// The one for a plugin with these settings.
    pub(in crate::plugin) fn of(settings: &Settings) -> Self {
        let environment = settings.grant.iter().any(|grant| matches!(grant, Grant::Env(_)));
        if environment { Self::Environment } else { Self::Plain }
    }

    /// Part of the name under which what is made with it is kept.
    pub(in crate::plugin) fn mark(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Environment => "-environment",
        }
    }

    /// The adapter itself, a core module.
    pub(in crate::plugin) fn module(self) -> anyhow::Result<Cow<'static, [u8]>> {
        match self {
            Self::Plain => plain().map(Into::into),
            Self::Environment => Ok(WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER.into()),
        }
    }
}

fn plain() -> anyhow::Result<Vec<u8>> {
    let mut module = include_bytes!(concat!(env!("OUT_DIR"), "/preview1.wasm")).to_vec();
    let mut resolve = Resolve::default();
    let package = resolve.push_source("process.wit", include_str!("process.wit"))?;
    let world = resolve.select_world(&[package], Some("adapter"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

pub(in crate::plugin) fn link(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    type Store<'a> = StoreContextMut<'a, Guest>;
    let mut process = linker.instance(IMPORT)?;
    let started = Instant::now();
    process.func_wrap("now", |_: Store<'_>, ()| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((u64::try_from(now.as_millis()).unwrap_or(u64::MAX),))
    })?;
    process.func_wrap("monotonic", move |_: Store<'_>, ()| {
        Ok((u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),))
    })?;
    process.func_wrap("random", |_: Store<'_>, ()| Ok((rand::random::<u64>(),)))?;
    process.func_wrap("exit", |mut store: Store<'_>, (status,): (u32,)| {
        store.data_mut().output.exit = Some(status);
        Ok(())
    })?;
    process.func_wrap("write", |mut store: Store<'_>, (stream, text): (u32, WasmList<u8>)| {
        let text = text.as_le_slice(&store);
        let text = text[..text.len().min(OUTPUT)].to_vec();
        store.data_mut().write(stream, &text);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_adapter_says_what_it_imports() {
        assert!(Adapter::Plain.module().is_ok());
    }
}
