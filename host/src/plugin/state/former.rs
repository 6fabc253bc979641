//! The file in which an earlier version kept a store: an embedded database with one table, key to value, whose values
//! begin with their expiry (eight bytes, little-endian, 0 for none). It is read once and written anew; the only place
//! that names the database.

use std::{fs, io::ErrorKind, path::Path};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    disk::DiskError,
    entries::{Entries, Entry, Stored},
};

const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");

/// What such a file holds; none: there is none.
pub(super) fn load(path: &Path) -> Result<Option<Entries>, DiskError> {
    match fs::metadata(path) {
        Ok(file) if file.len() == 0 => {
            return Err(DiskError::Damaged { why: format!("{} is empty", path.display()) });
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DiskError::Io { path: path.to_owned(), source }),
    }
    let damaged = |error: redb::Error| DiskError::Damaged { why: format!("{}: {error}", path.display()) };
    Ok(Some(read(path).map_err(damaged)?))
}

fn read(path: &Path) -> Result<Entries, redb::Error> {
    let mut database = Database::open(path)?;
    // Its checksums are not looked at otherwise.
    if !database.check_integrity()? {
        return Err(redb::Error::Corrupted("a checksum in it is another".to_owned()));
    }
    let mut entries = Entries::default();
    let reading = database.begin_read()?;
    let table = match reading.open_table(TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(entries),
        Err(error) => return Err(error.into()),
    };
    for row in table.iter()? {
        let (key, value) = row?;
        let (expires, value) = value.value().split_first_chunk().ok_or_else(|| {
            redb::Error::Corrupted(format!("the value of `{}` has no expiry", key.value().escape_debug()))
        })?;
        let expires = Some(u64::from_le_bytes(*expires)).filter(|expires| *expires > 0);
        let entry = Entry { stored: Stored::Bytes(value.into()), expires };
        let _ = entries.put(key.value(), entry, u64::MAX);
    }
    Ok(entries)
}

/// Renames such a file to `NAME.redb.former`, once what it holds was written anew.
pub(super) fn set_aside(path: &Path) {
    let aside = path.with_extension("redb.former");
    match fs::rename(path, &aside) {
        Ok(()) => {
            let (path, aside) = (path.display(), aside.display());
            tracing::info!(%path, %aside, "state was written anew in the format of this version; the former file may be deleted");
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "the former file cannot be renamed"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As the version before wrote it.
    pub(in super::super) fn write(path: &Path, rows: &[(&str, u64, &str)]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let database = Database::create(path).unwrap();
        let writing = database.begin_write().unwrap();
        {
            let mut table = writing.open_table(TABLE).unwrap();
            for (key, expires, value) in rows {
                let value: Vec<u8> = expires.to_le_bytes().into_iter().chain(value.bytes()).collect();
                table.insert(key, value.as_slice()).unwrap();
            }
        }
        writing.commit().unwrap();
    }

    #[test]
    fn what_the_version_before_wrote_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/memory.redb");
        assert!(load(&path).unwrap().is_none());
        write(&path, &[("a", 0, "1"), ("b", 7, "")]);
        let entries = load(&path).unwrap().unwrap();
        let found: Vec<_> = entries.iter().map(|(key, entry)| (&**key, entry.expires)).collect();
        assert_eq!(found, [("a", None), ("b", Some(7))]);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(9).position(|bytes| bytes == b"\0\0\0\0\0\0\0\x001").unwrap();
        bytes[at + 8] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = load(&path).err().unwrap().to_string();
        assert!(error.contains("memory.redb") && error.contains("data repair"), "{error}");
        fs::write(&path, "").unwrap();
        assert!(load(&path).err().unwrap().to_string().contains("is empty"));
    }
}
