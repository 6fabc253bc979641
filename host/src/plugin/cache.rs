//! Compiled code on disk, so that a restart does not compile again.
//!
//! Loading compiled code is trusting it like the program itself. So the directory and its files
//! must be ours alone (owner and mode are checked at every load), a file's name is the hash of the
//! plugin's bytes together with that of the engine's version and settings, and files appear by
//! rename only. Where that does not hold, the code is compiled anew.

#![allow(unsafe_code, reason = "loading compiled code is unsafe by nature; the module says why it is sound")]

use std::{
    fs,
    hash::{Hash, Hasher},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use wasmtime::{Engine, Module, component::Component};

use super::component::Refusal;

/// What a file is compiled to.
pub(super) trait Compiled: Sized {
    /// Of its files.
    const EXTENSION: &str;

    fn compile(engine: &Engine, bytes: &[u8]) -> Result<Self, wasmtime::Error>;

    /// As [`Self::load`] finds it.
    fn serialized(&self) -> Result<Vec<u8>, wasmtime::Error>;

    /// # Safety
    ///
    /// The file is what [`Self::serialized`] gave, and nobody changes it.
    unsafe fn load(engine: &Engine, path: &Path) -> Result<Self, wasmtime::Error>;
}

macro_rules! compiled {
    ($type:ty, $extension:literal) => {
        impl Compiled for $type {
            const EXTENSION: &str = $extension;

            fn compile(engine: &Engine, bytes: &[u8]) -> Result<Self, wasmtime::Error> {
                Self::from_binary(engine, bytes)
            }

            fn serialized(&self) -> Result<Vec<u8>, wasmtime::Error> {
                self.serialize()
            }

            unsafe fn load(engine: &Engine, path: &Path) -> Result<Self, wasmtime::Error> {
                // SAFETY: the caller says so.
                unsafe { Self::deserialize_file(engine, path) }
            }
        }
    };
}

compiled!(Component, ".cwasm");
compiled!(Module, ".module.cwasm");

/// How many compiled files are kept; the ones used longest ago go first.
const KEPT: usize = 128;

/// The directory of compiled components.
pub(super) struct Cache {
    directory: PathBuf,
    engine: String,
}

impl Cache {
    /// `{data}/compiled`, made when the first component is stored.
    pub(super) fn new(data: &Path, engine: &Engine) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self { directory: data.join("compiled"), engine: format!("{:016x}", hasher.finish()) }
    }

    /// The code of a plugin file with this hash: loaded if it is here, else compiled from what
    /// `bytes` gives and stored. Blocks, for seconds on large components.
    pub(super) fn load<'a, C: Compiled>(
        &self,
        engine: &Engine,
        sha256: &str,
        bytes: impl FnOnce() -> Result<std::borrow::Cow<'a, [u8]>, Refusal>,
    ) -> Result<C, Refusal> {
        let path = self.directory.join(format!("{sha256}-{}{}", self.engine, C::EXTENSION));
        if let Some(code) = self.read(engine, &path) {
            return Ok(code);
        }
        let code =
            C::compile(engine, &bytes()?).map_err(|error| Refusal::NotCompiled(format!("{error:#}")))?;
        if let Err(error) = self.write(&path, &code) {
            tracing::warn!(path = %path.display(), %error, "compiled plugin not stored; the next start compiles it again");
        }
        Ok(code)
    }

    fn read<C: Compiled>(&self, engine: &Engine, path: &Path) -> Option<C> {
        let file = fs::symlink_metadata(path).ok()?;
        let directory = fs::symlink_metadata(&self.directory).ok()?;
        if !(directory.is_dir() && is_ours(&directory) && file.is_file() && is_ours(&file)) {
            tracing::warn!(path = %path.display(), "compiled plugin ignored: it, or its directory, is not this user's alone");
            return None;
        }
        // SAFETY: only this user could write the file (checked above), and this module writes it
        // whole, by rename, from `Compiled::serialized` of an engine with the hash in its name, and
        // under the extension of this kind of code.
        let loaded = unsafe { C::load(engine, path) };
        let code = loaded.map_err(|error| {
            tracing::warn!(path = %path.display(), error = format!("{error:#}"), "compiled plugin ignored");
        });
        let code = code.ok()?;
        let _ = fs::File::open(path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        Some(code)
    }

    fn write(&self, path: &Path, code: &impl Compiled) -> io::Result<()> {
        let compiled = code.serialized().map_err(io::Error::other)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        if !is_ours(&fs::symlink_metadata(&self.directory)?) {
            return Err(io::Error::other("the directory is not this user's alone"));
        }
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let _ = fs::remove_file(&partial);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(&compiled).and_then(|()| file.sync_all())?;
        fs::rename(&partial, path)?;
        self.prune()
    }

    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort();
        let surplus = files.len().saturating_sub(KEPT);
        files.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// Owned by the user of this process, and writable by nobody else.
fn is_ours(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}
