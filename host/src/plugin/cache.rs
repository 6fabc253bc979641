//! Compiled code on disk, so that a restart does not compile again.
//!
//! Loading compiled code is trusting it like the program itself. So the directory and its files
//! must be ours alone and nobody else may put others in their place (owners and modes are checked at every
//! load, up to the root), a file's name is the hash of the plugin's bytes together with that of the
//! engine's version and settings, a file ends with the hash of what is in it, and files appear by rename
//! only. A file is opened once: what is checked is what is loaded. Where any of that does not hold,
//! the code is compiled anew; what is damaged is deleted before.

#![allow(unsafe_code, reason = "loading compiled code is unsafe by nature; the module says why it is sound")]

mod kept;
mod metrics;

use std::{
    fs::{self, File},
    hash::{Hash, Hasher},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wasmtime::{Engine, Module, component::Component};

use super::component::Refusal;
use crate::files;
pub(super) use kept::Held;
use kept::Kept;
pub(super) use metrics::Metrics;

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

/// What code is of.
pub(super) struct Source<'a> {
    /// For people.
    pub(super) plugin: &'a str,
    /// The hash of the plugin's file, and whatever else its code depends on.
    pub(super) key: &'a str,
}

/// The directory of compiled components.
pub(super) struct Cache {
    directory: PathBuf,
    engine: String,
    kept: Kept,
    metrics: Metrics,
}

impl Cache {
    /// `{data}/compiled`, made when the first component is stored.
    pub(super) fn new(data: &Path, engine: &Engine, metrics: Metrics) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let (directory, engine) = (data.join("compiled"), format!("{:016x}", hasher.finish()));
        Self { directory, engine, kept: Kept::default(), metrics }
    }

    /// The code of a plugin's file, by its hash: loaded if it is here, else compiled from what
    /// `bytes` gives and stored; it stays here while what comes with it is held. Blocks, for seconds on
    /// large components.
    pub(super) fn load<'a, C: Compiled>(
        &self,
        engine: &Engine,
        source: Source<'_>,
        bytes: impl FnOnce() -> Result<std::borrow::Cow<'a, [u8]>, Refusal>,
    ) -> Result<(C, Held), Refusal> {
        let Source { plugin, key } = source;
        let path = self.directory.join(format!("{key}-{}{}", self.engine, C::EXTENSION));
        let held = self.kept.hold(&path);
        if let Some(code) = self.read(engine, plugin, &path) {
            self.metrics.found.inc();
            return Ok((code, held));
        }
        self.metrics.compiled.inc();
        let code =
            C::compile(engine, &bytes()?).map_err(|error| Refusal::NotCompiled(format!("{error:#}")))?;
        if let Err(error) = self.write(&path, &code) {
            tracing::warn!(plugin, path = %path.display(), %error, "compiled plugin not stored; the next start compiles it again");
        }
        Ok((code, held))
    }

    /// Deletes what nobody has used for longest, if more is here than is worth keeping. Called once
    /// everything that is in use was loaded: before that, nobody can say what is.
    pub(super) fn prune(&self) {
        if let Err(error) = self.kept.prune(&self.directory) {
            tracing::warn!(path = %self.directory.display(), %error, "compiled plugins that are not used any more stay");
        }
    }

    fn read<C: Compiled>(&self, engine: &Engine, plugin: &str, path: &Path) -> Option<C> {
        let nofollow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let mut file = fs::OpenOptions::new().read(true).custom_flags(nofollow).open(path).ok()?;
        if let Err(exposed) = self.check(&file, path) {
            tracing::warn!(plugin, path = %path.display(), "compiled plugin ignored: {exposed}");
            return None;
        }
        let code = is_whole(&mut file).map_err(Unusable::Read).and_then(|whole| match whole {
            // SAFETY: only this user could write the file (checked above, of the file that is open), and this
            // module writes it whole, by rename, from `Compiled::serialized` of an engine with the hash in its
            // name, and under the extension of this kind of code; what is in it is what was written.
            true => unsafe { C::load(engine, &descriptor(&file)) }.map_err(Unusable::Load),
            false => Err(Unusable::Damaged),
        });
        match code {
            Ok(code) => {
                let _ = file.set_modified(std::time::SystemTime::now());
                Some(code)
            }
            Err(error) => {
                tracing::warn!(plugin, path = %path.display(), %error, "compiled plugin deleted; it is compiled again");
                self.metrics.damaged.inc();
                let _ = fs::remove_file(path);
                None
            }
        }
    }

    /// Whether nobody else can have written a file, or can put another in its place.
    fn check(&self, file: &File, path: &Path) -> Result<(), Exposed> {
        let metadata = file.metadata().ok().filter(|metadata| metadata.is_file() && is_ours(metadata));
        metadata.map(drop).ok_or_else(|| Exposed(path.to_owned()))?;
        self.check_directory()
    }

    fn check_directory(&self) -> Result<(), Exposed> {
        let exposed = |path: &Path| Exposed(path.to_owned());
        let directory = self.directory.canonicalize().map_err(|_| exposed(&self.directory))?;
        for (depth, part) in directory.ancestors().enumerate() {
            let metadata = fs::symlink_metadata(part).map_err(|_| exposed(part))?;
            let safe = if depth == 0 { is_ours(&metadata) } else { is_safe(&metadata) };
            if !safe {
                return Err(exposed(part));
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path, code: &impl Compiled) -> io::Result<()> {
        let mut compiled = code.serialized().map_err(io::Error::other)?;
        files::make_directory(&self.directory)?;
        self.check_directory().map_err(io::Error::other)?;
        compiled.extend_from_slice(&Sha256::digest(&compiled));
        // A sync costs as much as to compile a small plugin, and what a power failure tears is compiled again.
        files::replace_unsynced(path, &compiled)?;
        self.kept.stored();
        Ok(())
    }
}

/// Something on the way to a file that others may change.
#[derive(Debug, thiserror::Error)]
#[error("{} is not this user's alone: chown it, or `chmod go-w` it", .0.display())]
struct Exposed(PathBuf);

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it is damaged: its checksum is another")]
    Damaged,
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    #[error("it cannot be loaded: {0:#}")]
    Load(wasmtime::Error),
}

const CHECKSUM: usize = 32;

/// So much of a file is read at once.
const PIECE: usize = 64 << 10;

/// Whether a file ends with the hash of what comes before.
fn is_whole(file: &mut File) -> io::Result<bool> {
    let Some(mut left) = file.metadata()?.len().checked_sub(CHECKSUM as u64) else { return Ok(false) };
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE]);
    while left > 0 {
        let piece = &mut piece[..PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        file.read_exact(piece)?;
        hasher.update(&piece);
        left -= piece.len() as u64;
    }
    let mut checksum = [0; CHECKSUM];
    file.read_exact(&mut checksum)?;
    Ok(hasher.finalize()[..] == checksum[..])
}

/// A path to a file that is open, and to no other that takes its place.
fn descriptor(file: &File) -> PathBuf {
    let descriptors = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    Path::new(descriptors).join(file.as_raw_fd().to_string())
}

/// Owned by the user of this process, and writable by nobody else.
fn is_ours(metadata: &fs::Metadata) -> bool {
    is_owned(metadata, &[rustix::process::geteuid().as_raw()]) && metadata.mode() & WRITABLE == 0
}

/// A directory in which nobody else can replace what is ours.
fn is_safe(metadata: &fs::Metadata) -> bool {
    const STICKY: u32 = 0o1000;
    let replaceable = metadata.mode() & WRITABLE != 0 && metadata.mode() & STICKY == 0;
    is_owned(metadata, &[rustix::process::geteuid().as_raw(), 0]) && !replaceable
}

/// By the group or by others.
const WRITABLE: u32 = 0o022;

fn is_owned(metadata: &fs::Metadata, owners: &[u32]) -> bool {
    owners.contains(&metadata.uid())
}

#[cfg(test)]
mod tests;
