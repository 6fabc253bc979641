//! What plugins remember: the host's side of the `state` capability (`wit/state.wit`).
//!
//! Guests come and go; a [`StateStore`] stays for as long as the process, one for each plugin,
//! shared by its instances and generations. Calls are short and never wait: the map in memory is
//! the truth. A durable store writes changes behind and lets the caller of a guest wait for them
//! ([`StateStore::wait_durable`]), so that many calls share one sync to disk.
//!
//! It knows nothing of guests and wasmtime.

mod clock;
mod disk;
mod entries;
mod former;
pub(super) mod imagined;
mod journal;
pub mod repair;
mod store;
mod stores;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use entries::Value;
pub use store::{Cell, StateStore};
pub use stores::{StateOptions, StateStores};

/// The most bytes of a key.
pub const MAX_KEY: usize = 64 << 10;

/// Why a change was refused. Nothing was changed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StateError {
    /// It would exceed the limit, in bytes.
    #[error("the plugin's state is full: its `state_limit` is {} (what keys and values take in memory counts)", crate::units::Size(*.0))]
    Full(u64),
    /// A key is longer than [`MAX_KEY`].
    #[error("a key has at most {MAX_KEY} bytes")]
    Key,
    /// `add`: what is there is not a number.
    #[error("what is stored there is not a number")]
    NotANumber,
    /// `add`: the sum does not fit.
    #[error("the sum does not fit in 64 bits")]
    Overflow,
    /// The store is durable and its disk does not take changes.
    #[error("{0}")]
    Disk(Arc<str>),
}
