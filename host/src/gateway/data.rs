//! The data directory: one process at a time, and what makes this router itself again after a
//! restart.

use std::{
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// The directory, held as long as this is.
pub(super) struct Data {
    directory: PathBuf,
    _lock: File,
}

impl Data {
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        let shown = directory.display();
        fs::create_dir_all(directory).with_context(|| format!("cannot make the data directory {shown}"))?;
        let path = directory.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("cannot write to the data directory {shown}"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { directory: directory.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "the data directory {shown} is in use by another process; name another with `[data] dir` or --data"
                )
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {shown}")),
        }
    }

    /// Made at the first start, the same from then on.
    pub(super) fn router_id(&self) -> anyhow::Result<String> {
        let path = self.directory.join("router-id");
        match fs::read_to_string(&path) {
            Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
            Ok(_) | Err(_) => {}
        }
        let id = format!("router-{:016x}", rand::random::<u64>());
        fs::write(&path, &id).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(id)
    }
}
