//! A durable store's file: the only place that names the embedded database.
//!
//! One table, key to value; a value is its expiry (eight bytes, little-endian, 0 for none) and then
//! the plugin's bytes. A commit is atomic and on disk when it returns.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition,
};

use super::entries::{Entry, Stored};

const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
/// The map in memory answers reads; the database needs no cache of its own to speak of.
const CACHE_BYTES: usize = 4 << 20;

/// Changes to be committed together: the last of each key, none for a removed one.
pub(super) type Changes = BTreeMap<Arc<str>, Option<Entry>>;

/// Why the file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// There was no room. What the file held before is intact, and a later try may work.
    #[error("no space left for {path}")]
    NoSpace { path: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {cause}")]
    Database { path: PathBuf, cause: String },
}

/// An open file.
pub(super) struct Disk {
    path: PathBuf,
    database: Database,
}

impl Disk {
    /// Opens a file, or creates it with its directory.
    pub(super) fn open(path: &Path) -> Result<Self, DiskError> {
        let file = create(path).map_err(|source| DiskError::Io { path: path.to_owned(), source })?;
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_file(file);
        let database = database.map_err(|error| from_open(path, error))?;
        Ok(Self { path: path.to_owned(), database })
    }

    #[cfg(test)]
    pub(super) fn with_backend(path: &Path, backend: impl redb::StorageBackend) -> Result<Self, DiskError> {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        let database = database.map_err(|error| from_open(path, error))?;
        Ok(Self { path: path.to_owned(), database })
    }

    /// Everything that was committed.
    pub(super) fn load(&self) -> Result<Vec<(String, Entry)>, DiskError> {
        self.try_load().map_err(|error| self.failed(error))
    }

    /// Returns once these changes are on disk, all of them.
    pub(super) fn commit(&self, changes: &Changes) -> Result<(), DiskError> {
        self.try_commit(changes).map_err(|error| self.failed(error))
    }

    fn try_load(&self) -> Result<Vec<(String, Entry)>, redb::Error> {
        let reading = self.database.begin_read()?;
        let table = match reading.open_table(TABLE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut entries = Vec::new();
        for row in table.iter()? {
            let (key, value) = row?;
            let entry = decode(value.value()).ok_or_else(|| {
                redb::Error::Corrupted(format!("the value of `{}` has no expiry", key.value().escape_debug()))
            })?;
            entries.push((key.value().to_owned(), entry));
        }
        Ok(entries)
    }

    fn try_commit(&self, changes: &Changes) -> Result<(), redb::Error> {
        let mut writing = self.database.begin_write()?;
        writing.set_durability(Durability::Immediate)?;
        {
            let mut table = writing.open_table(TABLE)?;
            for (key, entry) in changes {
                match entry {
                    Some(entry) => table.insert(&**key, encode(entry).as_slice())?,
                    None => table.remove(&**key)?,
                };
            }
        }
        writing.commit()?;
        Ok(())
    }

    fn failed(&self, error: redb::Error) -> DiskError {
        let path = self.path.clone();
        match error {
            redb::Error::Io(error) if no_space(&error) => DiskError::NoSpace { path },
            redb::Error::Io(source) => DiskError::Io { path, source },
            error => DiskError::Database { path, cause: error.to_string() },
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    let directory = path.parent().unwrap_or(Path::new("."));
    crate::files::make_directory(directory)?;
    let mut options = OpenOptions::new();
    // What plugins remember is nobody else's business.
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    // A new file is there after a power failure only once its directory was synced too.
    File::open(directory)?.sync_all()?;
    Ok(file)
}

fn from_open(path: &Path, error: DatabaseError) -> DiskError {
    let path = path.to_owned();
    match error {
        DatabaseError::Storage(StorageError::Io(error)) if no_space(&error) => DiskError::NoSpace { path },
        DatabaseError::Storage(StorageError::Io(source)) => DiskError::Io { path, source },
        DatabaseError::DatabaseAlreadyOpen => DiskError::Database {
            path,
            cause: "in use by another process; give each router its own data directory".into(),
        },
        error => {
            DiskError::Database { path, cause: format!("{error}; move the file away to start with nothing") }
        }
    }
}

fn no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn encode(entry: &Entry) -> Vec<u8> {
    let value = entry.stored.value();
    let mut bytes = Vec::with_capacity(8 + value.len());
    bytes.extend_from_slice(&entry.expires.unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&value);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Entry> {
    let (expires, value) = bytes.split_first_chunk()?;
    let expires = Some(u64::from_le_bytes(*expires)).filter(|expires| *expires > 0);
    Some(Entry { stored: Stored::Bytes(value.into()), expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change<'a> = (&'a str, Option<(&'a str, Option<u64>)>);

    fn changes(of: &[Change<'_>]) -> Changes {
        let entry = |(text, expires): (&str, Option<u64>)| Entry {
            stored: Stored::Bytes(text.as_bytes().into()),
            expires,
        };
        of.iter().map(|(key, value)| (Arc::from(*key), value.map(entry))).collect()
    }

    #[test]
    fn what_was_committed_is_there_when_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/memory.redb");
        let disk = Disk::open(&path).unwrap();
        assert_eq!(disk.load().unwrap(), []);
        disk.commit(&changes(&[
            ("a", Some(("1", None))),
            ("b", Some(("", Some(7)))),
            ("c", Some(("", None))),
        ]))
        .unwrap();
        disk.commit(&changes(&[("c", None), ("absent", None)])).unwrap();
        assert!(Disk::open(&path).err().unwrap().to_string().contains("another process"));
        drop(disk);
        let loaded: Changes = Disk::open(&path)
            .unwrap()
            .load()
            .unwrap()
            .into_iter()
            .map(|(k, e)| (k.into(), Some(e)))
            .collect();
        assert_eq!(loaded, changes(&[("a", Some(("1", None))), ("b", Some(("", Some(7))))]));
    }

    #[test]
    fn a_file_of_something_else_is_named_in_the_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory.redb");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let error = Disk::open(&path).err().unwrap().to_string();
        assert!(error.contains("memory.redb"), "{error}");
    }
}
