//! Files of the data directory: written whole, and nobody else's to read. A leaf.
//!
//! What a router keeps says where its clients go and what its plugins remember, so directories are made for their
//! owner alone (0700), and files too (0600).

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

/// Of a directory that is its owner's alone.
const DIRECTORY: u32 = 0o700;
/// Of a file that is its owner's alone.
const FILE: u32 = 0o600;
/// Of a file that others may read, as far as the process's mask allows.
const SHOWN: u32 = 0o666;
/// How the name of a file ends that is being written.
const PARTIAL: &str = ".partial";

/// Makes a directory, and those above it, for its owner alone. One that is there stays as it is.
pub fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY).create(path)
}

/// Takes a file or directory from everybody but its owner.
pub fn make_private(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let mode = if metadata.is_dir() { DIRECTORY } else { FILE };
    if metadata.is_symlink() || metadata.permissions().mode() & 0o777 & !mode == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Whether others than its owner may look into a directory.
pub fn is_shared(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

/// Replaces a file of the owner's alone: a crash at any moment leaves the old one or the new one. Blocks until the
/// new one is on disk.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, FILE)
}

/// As [`replace`], a file that others may read.
pub fn replace_shown(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, SHOWN)
}

/// As [`replace`], without waiting for the disk: for what can be made again, and whose reader finds out by a
/// checksum when a power failure tore it.
pub fn replace_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    place(path, |partial| fill(partial, bytes, FILE).map(drop))
}

/// Removes what a crash left of files that were being written.
pub fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(PARTIAL) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The name of a file that is being written and then put in the place of another; [`sweep`] removes what is left of it.
/// Two that write the same file at once do not write into each other's.
pub fn partial(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{:08x}{PARTIAL}", rand::random::<u32>()))
}

/// A directory that is one process's, by a lock on the file `lock` in it, for as long as this or a copy of it is.
#[derive(Clone, Debug)]
pub struct Hold {
    path: Arc<Path>,
    file: Arc<Mutex<File>>,
    made_again: Arc<AtomicU64>,
}

impl Hold {
    /// Takes a directory, which is made if it is not there; none: another process has it.
    pub fn take(directory: &Path) -> io::Result<Option<Self>> {
        make_directory(directory)?;
        let path = directory.join("lock");
        let file = lock(&path)?;
        Ok(file.map(|file| Self {
            path: path.into(),
            file: Arc::new(Mutex::new(file)),
            made_again: Arc::default(),
        }))
    }

    /// Takes a directory by a lock that another process handed over.
    pub fn inherit(directory: &Path, lock: File) -> Self {
        let (path, file) = (directory.join("lock").into(), Arc::new(Mutex::new(lock)));
        Self { path, file, made_again: Arc::default() }
    }

    /// The lock once more, for another process to go on with.
    pub fn lock(&self) -> io::Result<File> {
        self.file.lock().try_clone()
    }

    /// Another process has it now: from here nothing keeps others out any more, whoever holds a copy of this.
    pub fn let_go(&self) {
        if let Ok(nothing) = File::open("/dev/null") {
            *self.file.lock() = nothing;
        }
    }

    /// Whether the directory is in its place. One that was deleted or renamed is another process's to take.
    pub fn holds(&self) -> bool {
        let identity = |file: Metadata| (file.dev(), file.ino());
        let mine = self.file.lock().metadata().map(identity);
        matches!((mine, fs::symlink_metadata(&self.path).map(identity)), (Ok(mine), Ok(there)) if mine == there)
    }

    /// Makes a directory that was deleted again, and takes it. Fails if another process has it by now.
    pub fn secure(&self) -> io::Result<()> {
        if self.holds() {
            return Ok(());
        }
        make_directory(self.path.parent().unwrap_or(Path::new(".")))?;
        let taken = lock(&self.path)?;
        let taken =
            taken.ok_or_else(|| io::Error::other("the data directory was made again by another process"))?;
        *self.file.lock() = taken;
        self.made_again.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How often it was made again: what was in it before is gone.
    pub fn made_again(&self) -> u64 {
        self.made_again.load(Ordering::Relaxed)
    }
}

fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).mode(FILE).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    place(path, |partial| fill(partial, bytes, mode)?.sync_all())?;
    // A rename is there after a power failure only once its directory was synced.
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Puts a file that `fill` makes elsewhere in its place.
fn place(path: &Path, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let partial = partial(path);
    let written = fill(&partial).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // What is wrong is said by the error at hand.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn fill(path: &Path, bytes: &[u8], mode: u32) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_whole_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("a/data");
        make_directory(&data).unwrap();
        let file = data.join("view.json");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        replace(&file, b"new").unwrap();
        assert_eq!((mode(&data), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read(&file).unwrap(), b"new");
        replace_unsynced(&file, b"newer").unwrap();
        assert_eq!((mode(&file), fs::read(&file).unwrap()), (0o600, b"newer".to_vec()));
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "nothing is left over");
        assert!(replace(&data.join("no/such"), b"").is_err());
        let taken = data.join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(replace(&taken, b"").is_err());
        assert_eq!(fs::read_dir(&data).unwrap().count(), 2, "nothing is left over");
    }

    #[test]
    fn what_others_may_read_is_taken_from_them() {
        let directory = tempfile::tempdir().unwrap();
        let (file, place) = (directory.path().join("file"), directory.path().join("place"));
        fs::write(&file, "").unwrap();
        fs::create_dir(&place).unwrap();
        for (path, before, after) in
            [(&file, 0o644, 0o600), (&file, 0o400, 0o400), (&place, 0o755, 0o700), (&place, 0o500, 0o500)]
        {
            fs::set_permissions(path, Permissions::from_mode(before)).unwrap();
            make_private(path).unwrap();
            assert_eq!(mode(path), after, "{before:o}");
        }
        fs::write(directory.path().join(".x.1.partial"), "").unwrap();
        fs::write(directory.path().join("y.partial"), "").unwrap();
        sweep(directory.path()).unwrap();
        let left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }
}
