//! The host's side of every import, one file for each group of interfaces.
//!
//! There are three linkers. A component whose imports all answer at once runs on the sync lane:
//! plain calls. One that imports something that waits runs on the async lane, where every call
//! has a fiber; a linker with any waiting import refuses plain calls. A core module that imports
//! little enough is called directly, also by plain calls. What all three have is defined once
//! ([`lane`]).

mod ambient;
mod body;
mod capability;
mod etcd;
mod lane;
mod script;

use std::collections::BTreeSet;

use wasmtime::component::{Linker, LinkerInstance};

use super::{component::OURS, direct, guest::Guest};

/// The version of `message-flow:plugin` that this host speaks.
pub(super) const VERSION: &str = "0.1.0";

/// Everything that answers at once.
pub(super) fn sync(engine: &wasmtime::Engine) -> Result<Linker<Guest>, wasmtime::Error> {
    let mut linker = Linker::new(engine);
    common(&mut linker)?;
    body::link_without(&mut linker)?;
    super::wasi::link_sync(&mut linker)?;
    Ok(linker)
}

/// Everything, also what waits.
pub(super) fn waiting(engine: &wasmtime::Engine) -> Result<Linker<Guest>, wasmtime::Error> {
    let mut linker = Linker::new(engine);
    common(&mut linker)?;
    body::link(&mut linker)?;
    etcd::link(&mut linker)?;
    super::wasi::link_waiting(&mut linker)?;
    Ok(linker)
}

/// What may be imported without the component model.
pub(super) fn direct(engine: &wasmtime::Engine) -> Result<direct::Host, wasmtime::Error> {
    let mut host = direct::Host { linker: wasmtime::Linker::new(engine), functions: BTreeSet::new() };
    ambient::link_simple(&mut host)?;
    capability::link_simple(&mut host)?;
    Ok(host)
}

fn common(linker: &mut Linker<Guest>) -> Result<(), wasmtime::Error> {
    interface(linker, "types")?;
    interface(linker, "body")?;
    ambient::link(linker)?;
    script::link(linker)?;
    super::wasi::preview1::link(linker)?;
    capability::link(linker)
}

fn interface<'a>(
    linker: &'a mut Linker<Guest>,
    name: &str,
) -> Result<LinkerInstance<'a, Guest>, wasmtime::Error> {
    linker.instance(&full_name(name))
}

fn full_name(interface: &str) -> String {
    format!("{OURS}{interface}@{VERSION}")
}
