//! The host's side of every import, one file for each group of interfaces.
//!
//! There are two linkers. A component whose imports all answer at once runs on the sync lane:
//! plain calls. One that imports something that waits runs on the async lane, where every call
//! has a fiber. A linker with any waiting import refuses plain calls, hence two.

mod ambient;
mod body;
mod capability;
mod etcd;
mod script;

use wasmtime::component::{Linker, LinkerInstance};

use super::guest::Guest;

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
    linker.instance(&format!("message-flow:plugin/{name}@{VERSION}"))
}
