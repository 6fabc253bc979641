//! What promotions replaced, kept to go back to, and which builds were rolled back: files of the data directory.
//!
//! Each is read back long after it was written, and then serves, or decides what does. So each has a checksum:
//! what a disk changed is said, and not served. Files of before there were checksums are taken as they are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    files,
    plugin::{
        directory::{Content, Format},
        load::sha256,
    },
};

/// The file that stands for a default plugin that had no file.
const BUILTIN: &str = ".builtin";
const CHECKSUM: &str = ".sha256";
const REJECTED: &str = ".rolled-back";

/// The directory of these files.
pub(super) struct Replaced(PathBuf);

/// What the last promotion of a plugin replaced.
pub(super) struct Kept {
    path: PathBuf,
    /// None: it is a default plugin that had no file.
    pub(super) format: Option<Format>,
}

impl Replaced {
    pub(super) fn new(data: &Path) -> Self {
        Self(data.join("replaced"))
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.0.join(format!("{name}{extension}"))
    }

    /// Keeps what a plugin's file was, in place of what was kept before; none: it had no file.
    pub(super) fn keep(&self, name: &str, before: Option<&Content>) -> io::Result<()> {
        files::make_directory(&self.0)?;
        // First, so that a crash leaves no build with the checksum of another.
        remove(&self.file(name, CHECKSUM))?;
        if let Some(kept) = self.kept(name) {
            fs::remove_file(kept.path)?;
        }
        let Some(before) = before else { return files::replace(&self.file(name, BUILTIN), b"") };
        files::replace(&self.file(name, before.format.extension()), &before.bytes)?;
        files::replace(&self.file(name, CHECKSUM), before.sha256.as_bytes())
    }

    /// What was kept.
    pub(super) fn kept(&self, name: &str) -> Option<Kept> {
        let formats = Format::ALL.map(|format| (format.extension(), Some(format)));
        let kept = formats.into_iter().chain([(BUILTIN, None)]);
        let mut kept = kept.map(|(extension, format)| Kept { path: self.file(name, extension), format });
        kept.find(|kept| kept.path.exists())
    }

    /// The bytes of what was kept.
    pub(super) fn read(&self, name: &str, kept: &Kept) -> io::Result<Vec<u8>> {
        let bytes = fs::read(&kept.path)?;
        match fs::read_to_string(self.file(name, CHECKSUM)) {
            Ok(checksum) if *checksum == *sha256(&bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(bytes),
            Ok(_) => Err(damaged(&kept.path, "put the earlier build into the plugins directory yourself")),
            Err(error) => Err(error),
        }
    }

    /// What was kept serves again.
    pub(super) fn forget(&self, name: &str, kept: &Kept) -> io::Result<()> {
        fs::remove_file(&kept.path)?;
        remove(&self.file(name, CHECKSUM))
    }

    /// The build with this hash is not tried out any more.
    pub(super) fn reject(&self, name: &str, hash: &str) -> io::Result<()> {
        files::make_directory(&self.0)?;
        let text = format!("{hash}\n{}", sha256(hash.as_bytes()));
        files::replace(&self.file(name, REJECTED), text.as_bytes())
    }

    /// Whether the build with this hash was rolled back.
    pub(super) fn is_rejected(&self, name: &str, hash: &str) -> bool {
        let path = self.file(name, REJECTED);
        let Ok(text) = fs::read(&path) else { return false };
        let text = String::from_utf8_lossy(&text);
        match text.split_once('\n') {
            None => *text == *hash,
            Some((rejected, checksum)) if *checksum == *sha256(rejected.as_bytes()) => *rejected == *hash,
            Some(_) => {
                let error = damaged(&path, "which build was rolled back is not known any more");
                tracing::error!(plugin = name, %error, "deleted; the next build is tried out again");
                let _ = fs::remove_file(&path);
                false
            }
        }
    }
}

fn damaged(path: &Path, what_to_do: &str) -> io::Error {
    let path = path.display();
    let text = format!("{path} is damaged, its checksum is another: {what_to_do}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> Content {
        Content { bytes: text.as_bytes().into(), sha256: sha256(text.as_bytes()), format: Format::Script }
    }

    fn flip(path: &Path, at: usize) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_was_replaced_is_kept_until_it_serves_again() {
        let data = tempfile::tempdir().unwrap();
        let replaced = Replaced::new(data.path());
        assert!(replaced.kept("geo").is_none());
        for text in ["one", "two"] {
            replaced.keep("geo", Some(&content(text))).unwrap();
        }
        let kept = replaced.kept("geo").unwrap();
        assert_eq!(
            (replaced.read("geo", &kept).unwrap(), kept.format),
            (b"two".to_vec(), Some(Format::Script))
        );
        replaced.forget("geo", &kept).unwrap();
        assert_eq!(fs::read_dir(data.path().join("replaced")).unwrap().count(), 0);
        replaced.keep("memory", None).unwrap();
        assert!(replaced.kept("memory").unwrap().format.is_none());
    }

    #[test]
    fn what_the_disk_changed_is_named() {
        let data = tempfile::tempdir().unwrap();
        let replaced = Replaced::new(data.path());
        replaced.keep("geo", Some(&content("a build"))).unwrap();
        let kept = replaced.kept("geo").unwrap();
        for path in [kept.path.clone(), replaced.file("geo", CHECKSUM)] {
            for at in [0, 3, 6] {
                flip(&path, at);
                let error = replaced.read("geo", &kept).unwrap_err().to_string();
                assert!(error.contains("geo.js is damaged"), "{error}");
                flip(&path, at);
            }
        }
        assert_eq!(replaced.read("geo", &kept).unwrap(), b"a build");
        let hash = sha256(b"bad");
        for at in [0, 63, 64, 65, 128] {
            replaced.reject("geo", &hash).unwrap();
            assert!(replaced.is_rejected("geo", &hash) && !replaced.is_rejected("geo", "other"));
            flip(&replaced.file("geo", REJECTED), at);
            assert!(!replaced.is_rejected("geo", &hash), "byte {at}");
        }
        fs::write(replaced.file("geo", REJECTED), &*hash).unwrap();
        assert!(replaced.is_rejected("geo", &hash), "as it was written without a checksum");
    }
}
