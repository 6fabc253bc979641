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

use crate::plugin::{Grant, Settings, guest::Guest};

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

/// What a module wrote and how it ended, in one call.
#[derive(Default)]
pub(in crate::plugin) struct Output {
    /// The line that is not ended yet.
    line: Vec<u8>,
    /// The first that was written to standard error.
    first_error: Option<Box<str>>,
    /// It ended itself, with this status.
    pub(in crate::plugin) exit: Option<u32>,
}

/// The longest line that is kept.
const LINE: usize = 4096;

impl Output {
    /// What it said when it failed.
    pub(in crate::plugin) fn first_error(&self) -> Option<Box<str>> {
        if self.first_error.is_some() {
            return self.first_error.clone();
        }
        let unended = String::from_utf8_lossy(&self.line);
        Some(unended.trim()).filter(|said| !said.is_empty()).map(Into::into)
    }

    fn write(&mut self, byte: u8) -> Option<String> {
        if byte != b'\n' {
            if self.line.len() < LINE {
                self.line.push(byte);
            }
            return None;
        }
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        Some(line).filter(|line| !line.is_empty())
    }
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
        let text = text.as_le_slice(&store).to_vec();
        for byte in text {
            let Some(line) = store.data_mut().output.write(byte) else { continue };
            store.data_mut().print(stream, &line);
        }
        Ok(())
    })
}

impl Guest {
    fn print(&mut self, stream: u32, line: &str) {
        if stream == 2 {
            self.output.first_error.get_or_insert_with(|| line.into());
        }
        if !self.may_log() {
            return;
        }
        let (plugin, client) = (&*self.plugin.name, self.message.client.as_str());
        match stream {
            2 => tracing::warn!(plugin, client, "{line}"),
            _ => tracing::info!(plugin, client, "{line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_adapter_says_what_it_imports() {
        assert!(Adapter::Plain.module().is_ok());
    }

    #[test]
    fn output_is_cut_into_lines() {
        let mut output = Output::default();
        let lines: Vec<_> = b"one\n\n  two\r\nthree".iter().filter_map(|byte| output.write(*byte)).collect();
        assert_eq!(lines, ["one", "  two"]);
        assert_eq!(output.first_error().as_deref(), Some("three"));
    }
}
