//! The data directory: one process at a time, and what makes this router itself again after a
//! restart.

use std::{
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::files;

/// What lies in it, written by this module and by those that know the rest: `table`, `discovery`, `plugin`.
const OURS: [&str; 7] = ["lock", "router-id", "view.json", "told.json", "compiled", "replaced", "state"];

/// The directory, held as long as this is.
pub(super) struct Data {
    directory: PathBuf,
    _lock: File,
}

impl Data {
    pub(super) fn open(directory: &Path) -> anyhow::Result<Self> {
        let shown = directory.display();
        files::make_directory(directory)
            .with_context(|| format!("cannot make the data directory {shown}"))?;
        let path = directory.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("cannot write to the data directory {shown}"))?;
        match file.try_lock() {
            Ok(()) => {
                keep_to_ourselves(directory)
                    .with_context(|| format!("cannot look into the data directory {shown}"))?;
                Ok(Self { directory: directory.to_owned(), _lock: file })
            }
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
        files::replace(&path, id.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(id)
    }
}

/// Takes what is ours from everybody else, and the directory too unless something else lies in it, which others may
/// want to reach.
fn keep_to_ourselves(directory: &Path) -> std::io::Result<()> {
    files::sweep(directory)?;
    let mut alone = true;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !OURS.iter().any(|ours| entry.file_name() == *ours) {
            alone = false;
        } else if let Err(error) = files::make_private(&entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "others may read this");
        }
    }
    if !files::is_shared(directory)? {
        return Ok(());
    }
    let made = if alone { files::make_private(directory) } else { Ok(()) };
    if !alone || made.is_err() {
        tracing::warn!(
            directory = %directory.display(),
            "others may look into the data directory: chmod 700, or name one of its own with `[data] dir`"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn nobody_else_reads_what_is_in_it() {
        let scratch = tempfile::tempdir().unwrap();
        let loose = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let made = scratch.path().join("made");
        let data = Data::open(&made).unwrap();
        data.router_id().unwrap();
        assert_eq!(mode(&made), 0o700);
        drop(data);
        // As an earlier version left it.
        loose(&made, 0o755);
        fs::create_dir(made.join("state")).unwrap();
        loose(&made.join("state"), 0o755);
        fs::write(made.join("view.json"), "{}").unwrap();
        for file in ["router-id", "lock", "view.json"] {
            loose(&made.join(file), 0o644);
        }
        drop(Data::open(&made).unwrap());
        let modes = ["", "lock", "router-id", "view.json", "state"].map(|name| mode(&made.join(name)));
        assert_eq!(modes, [0o700, 0o600, 0o600, 0o600, 0o700]);
        // A directory with something else in it stays as it is, but for what is ours.
        loose(&made, 0o755);
        fs::write(made.join("letter.txt"), "").unwrap();
        drop(Data::open(&made).unwrap());
        assert_eq!(mode(&made), 0o755);
    }
}
