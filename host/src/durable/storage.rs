//! The disk under a log, behind a seam: tests put one there that is full, breaks, tears writes or loses files.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Where logs are kept.
pub trait Disk: Send + Sync {
    /// Makes a file, with its directory, that is its owner's alone and was not there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Storage>>;
    /// Opens a file that is there.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Storage>>;
    /// Puts a file in the place of another, durably.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// One open file.
pub trait Storage: Send {
    /// Fills `into` as far as the file goes; returns how far.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of it.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Returns once everything that was written is on disk.
    fn sync(&self) -> io::Result<()>;
    /// Cuts it off.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// How long it is.
    fn len(&self) -> io::Result<u64>;
    /// Whether there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Another handle to the same file, to sync it on another thread.
    fn again(&self) -> io::Result<Box<dyn Storage>>;
    /// Fails unless this very file lies at `path` and is `len` long.
    fn stays_at(&self, path: &Path, len: u64) -> io::Result<()>;
}

/// The disk that there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Storage>> {
        crate::files::make_directory(path.parent().unwrap_or(Path::new(".")))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        alone(options.open(path)?)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Storage>> {
        alone(OpenOptions::new().read(true).write(true).open(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        // A rename is there after a power failure only once its directory was synced.
        File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// Two processes that write one log would each have a half of it.
fn alone(file: File) -> io::Result<Box<dyn Storage>> {
    match file.try_lock() {
        Ok(()) => Ok(Box::new(file)),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::other("in use by another process; give each router its own data directory"))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Storage for File {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < into.len() {
            match FileExt::read_at(self, &mut into[read..], at + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn again(&self) -> io::Result<Box<dyn Storage>> {
        Ok(Box::new(self.try_clone()?))
    }

    fn stays_at(&self, path: &Path, len: u64) -> io::Result<()> {
        let there = match fs::symlink_metadata(path) {
            Ok(there) => there,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(io::Error::new(ErrorKind::NotFound, "it was deleted while it was in use"));
            }
            Err(error) => return Err(error),
        };
        let mine = self.metadata()?;
        if (there.dev(), there.ino()) != (mine.dev(), mine.ino()) {
            return Err(io::Error::other("another file was put in its place while it was in use"));
        }
        match mine.len() == len {
            true => Ok(()),
            false => Err(io::Error::other("something else changed it while it was in use")),
        }
    }
}
