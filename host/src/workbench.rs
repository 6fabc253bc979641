//! The plugin author's workbench: `message-flow plugin new`, `check`, `test` and `bench`.
//!
//! It loads one file with the real plugin host ([`crate::plugin::Solo`]) and knows no gateway:
//! [`scenario`] is what a test file says, [`tests`] holds a plugin against such files, [`check`] says
//! what a file is and asks for, [`mod@bench`] what its calls cost, and [`conformance`] what every
//! routing-table adapter must do.

pub mod bench;
pub mod check;
pub mod conformance;
mod find;
pub mod new;
pub mod scenario;
mod stage;
pub mod tests;

use std::path::PathBuf;

pub use find::Target;

use crate::plugin::SoloError;

/// Why nothing can be said of a plugin.
#[derive(Debug, thiserror::Error)]
pub enum WorkbenchError {
    /// The plugin does not load.
    #[error(transparent)]
    Plugin(#[from] SoloError),
    /// A scenario is not one.
    #[error("{0}: {1}")]
    Scenario(PathBuf, String),
    /// There is no plugin in a directory.
    #[error(
        "{0}: there is no plugin to test: build it first, so that one NAME.wasm is here, in target/wasm32-unknown-unknown/release, \
         build or dist, or name the file"
    )]
    NoPlugin(PathBuf),
    /// There are several plugins in a directory.
    #[error("{0}: there are several plugins: {1}; name the one that is meant")]
    Several(PathBuf, String),
    /// There is nothing to test.
    #[error("{0}: there are no scenarios: write scenarios/NAME.json beside the plugin")]
    NoScenarios(PathBuf),
    /// The file system says no.
    #[error("{0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// The plugin is something else.
    #[error("plugin {0} is no routing-table adapter: the conformance suite is for those")]
    NoTable(String),
}
