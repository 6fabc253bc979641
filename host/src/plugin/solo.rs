//! One plugin file by itself, without a directory and without a gateway: for its author's tools.
//!
//! It is loaded, limited and called by the same code as in a gateway; only what decides when to
//! load is left out.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::{
    CallError, Generation, Kind, Settings,
    component::{Refusal, grant_line},
    directory::{self, Content},
    link::VERSION,
    load::{Build, LoadError, Loader, sha256},
};
use crate::text::one_line;

/// A plugin file, read and ready to be tried out.
pub struct Solo {
    loader: Loader,
    name: Arc<str>,
    content: Content,
}

/// Why a file cannot be tried out.
#[derive(Debug, thiserror::Error)]
pub enum SoloError {
    /// Its name is not that of a plugin.
    #[error("{0}: a plugin's file is called NAME.wasm or NAME.js, with letters, digits, `-` and `_`")]
    Name(PathBuf),
    /// It cannot be read.
    #[error("{0}: it cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// The plugin host does not start.
    #[error("the plugin host does not start: {0}")]
    Host(String),
    /// It is refused, in these words.
    #[error("plugin {0}: {1}")]
    Refused(Arc<str>, String),
    /// It was loaded and then failed, in these words.
    #[error("{0}")]
    Failed(String),
}

/// What can be said of a file without running it.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// What it exports; of a script only known once it runs.
    pub kinds: Vec<Kind>,
    /// Every interface that it imports.
    pub imports: Vec<String>,
    /// What must be granted to it, as in `grant`.
    pub needs: Vec<&'static str>,
    /// Of that, what is not granted.
    pub missing: Vec<&'static str>,
    /// The line of configuration that grants what is not granted yet.
    pub line: Option<String>,
    /// The versions of `message-flow:plugin` that it was built for.
    pub versions: Vec<String>,
    /// Of those, what this host speaks.
    pub speaks: &'static str,
    /// Of the file, in bytes.
    pub size: usize,
    /// Of its machine code, in bytes.
    pub code: usize,
    /// How long it took to compile, or to load if it was compiled before.
    pub compiled: Duration,
}

impl Solo {
    /// Reads a file. What is compiled or kept is put below `data`.
    pub fn open(file: &Path, data: &Path, runtime: Handle) -> Result<Self, SoloError> {
        let (name, format) = directory::plugin_name(file).ok_or_else(|| SoloError::Name(file.to_owned()))?;
        let bytes = std::fs::read(file).map_err(|error| SoloError::Read(file.to_owned(), error))?;
        let loader = Loader::new(data, None, &prometheus::Registry::new(), runtime);
        let loader = loader.map_err(|error| SoloError::Host(format!("{error:#}")))?;
        let sha256 = sha256(&bytes);
        Ok(Self { loader, name, content: Content { bytes: bytes.into(), sha256, format } })
    }

    /// The plugin's name: the file's stem.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Compiles it and says what it is and asks for. What is not granted is no error here.
    pub fn inspect(&self, settings: &Settings) -> Result<Inspection, SoloError> {
        let began = Instant::now();
        let refused = |refusal: Refusal| self.refused(refusal);
        let (shape, code) = self.loader.shape(&self.name, &self.content).map_err(refused)?;
        let compiled = began.elapsed();
        let needs = shape.needs().map_err(refused)?;
        let missing = shape.missing(settings).map_err(refused)?;
        Ok(Inspection {
            kinds: shape.kinds.clone(),
            versions: shape.versions().into_iter().map(str::to_owned).collect(),
            speaks: VERSION,
            size: self.content.bytes.len(),
            line: (!missing.is_empty()).then(|| grant_line(&self.name, settings, &missing)),
            imports: shape.imports,
            needs,
            missing,
            code,
            compiled,
        })
    }

    /// Loads it with these settings, and nothing in its state, as a gateway that starts would.
    pub async fn load(&self, settings: Settings) -> Result<Arc<Generation>, SoloError> {
        self.loader.forget_state(&self.name);
        let loaded = self.loader.load(self.build(settings)).await;
        loaded.map(Arc::new).map_err(|error| match error {
            // It says already which plugin it was.
            LoadError::Canary(error) => SoloError::Failed(error.to_string()),
            error => self.refused(error),
        })
    }

    /// How long it takes to make another instance of a build.
    pub async fn instantiate(&self, generation: &Generation) -> Result<Duration, CallError> {
        let began = Instant::now();
        generation.new_instance().await?;
        Ok(began.elapsed())
    }

    fn build(&self, settings: Settings) -> Build<'_> {
        Build { name: &self.name, content: &self.content, settings, number: 1 }
    }

    fn refused(&self, error: impl std::fmt::Display) -> SoloError {
        // It may be told in words out of the file, on somebody's terminal.
        SoloError::Refused(Arc::clone(&self.name), one_line(&error.to_string()).into_owned())
    }
}
