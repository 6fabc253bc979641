//! When a file is whole: its bytes, size, time of change and inode are the same twice, [`SETTLE`]
//! apart. A file that is being written, or replaced, is looked at again.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a file must stay as it is.
const SETTLE: Duration = Duration::from_secs(1);
/// A file that changes all the time is looked at so often before that is said.
const LOOKS: usize = 10;
/// A configuration is not larger than this.
const LARGEST: u64 = 16 << 20;

/// What is known of a file that cannot be taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotWhole {
    /// It is not there.
    Gone,
    /// It is there and cannot be read.
    Unreadable,
    /// It changes all the time.
    Changing,
}

#[derive(PartialEq, Eq)]
struct Seen {
    inode: (u64, u64),
    changed: (i64, i64),
    bytes: Vec<u8>,
}

/// What a file holds, once it is whole. With `known`, the bytes that are known already are whole.
pub(super) async fn read(file: &Path, known: Option<&[u8]>) -> Result<Vec<u8>, NotWhole> {
    let mut last = look(file).await;
    for _ in 0..LOOKS {
        if let (Ok(seen), Some(known)) = (&last, known)
            && seen.bytes == known
        {
            return last.map(|seen| seen.bytes);
        }
        tokio::time::sleep(SETTLE).await;
        let now = look(file).await;
        if now == last {
            return now.map(|seen| seen.bytes);
        }
        last = now;
    }
    Err(NotWhole::Changing)
}

async fn look(file: &Path) -> Result<Seen, NotWhole> {
    let file = PathBuf::from(file);
    let looked = tokio::task::spawn_blocking(move || look_now(&file)).await;
    let looked = looked.unwrap_or_else(|error| Err(io::Error::other(error)));
    looked.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NotWhole::Gone,
        _ => NotWhole::Unreadable,
    })
}

fn look_now(file: &Path) -> io::Result<Seen> {
    // A pipe put in its place would be waited for.
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let file = File::open(file)?;
    let metadata: Metadata = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let inode = (metadata.dev(), metadata.ino());
    Ok(Seen { inode, changed: (metadata.mtime(), metadata.mtime_nsec()), bytes })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        time::Instant,
    };

    use super::*;

    #[tokio::test]
    async fn half_of_a_file_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        assert_eq!(read(&file, None).await, Err(NotWhole::Gone));
        std::fs::write(&file, "half").unwrap();
        let done = AtomicBool::new(false);
        let write = async {
            for _ in 0..4 {
                tokio::time::sleep(SETTLE / 3).await;
                let text = std::fs::read_to_string(&file).unwrap();
                std::fs::write(&file, text + "+").unwrap();
            }
            done.store(true, Relaxed);
        };
        let read = async {
            let began = Instant::now();
            let bytes = read(&file, None).await.unwrap();
            assert!(done.load(Relaxed) && began.elapsed() >= SETTLE);
            bytes
        };
        let ((), bytes) = tokio::join!(write, read);
        assert_eq!(bytes, b"half++++");
    }

    #[tokio::test]
    async fn what_is_known_is_whole_and_what_is_no_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        std::fs::write(&file, "x").unwrap();
        let began = Instant::now();
        assert_eq!(read(&file, Some(b"x")).await.as_deref(), Ok(b"x".as_slice()));
        assert!(began.elapsed() < SETTLE);
        assert_eq!(read(dir.path(), None).await, Err(NotWhole::Unreadable));
    }
}
