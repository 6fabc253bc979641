//! A small JSON document in a file of its own, which is replaced as a whole: with a checksum in front of it, and still
//! JSON, so that people and their tools can read it.
//!
//! ```text
//! {"format":1,"sha256":"…64 digits…","content":{…}}
//! ```
//!
//! Each byte of the file is either in the content, which the checksum covers, or one that has to be there.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{DAMAGED, sha256};
use crate::files;
use serde::{Serialize, de::DeserializeOwned};

const BEGIN: &str = "{\"format\":1,\"sha256\":\"";
const CONTENT: &str = "\",\"content\":";
const END: &str = "}\n";
const DIGITS: usize = 64;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// There is none.
    #[error("there is no {0}")]
    Absent(PathBuf),
    /// The disk or its owner refuses.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{path} is not what was written: {why}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Replaces a document; a crash leaves the old one or the new one. Blocks until the new one is on disk.
///
/// # Errors
/// If the disk refuses.
pub fn save(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let content = serde_json::to_vec(content)?;
    files::replace(path, &frame(&content))
}

/// The document that was saved. One of a version before, without a checksum, is read as well.
///
/// # Errors
/// As [`Unreadable`] says.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, Unreadable> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Unreadable::Absent(path.to_owned())),
        Err(source) => return Err(Unreadable::Io { path: path.to_owned(), source }),
    };
    let damaged = |why: String| Unreadable::Damaged { path: path.to_owned(), why };
    let content = content(&bytes).map_err(|why| damaged(why.to_owned()))?;
    serde_json::from_slice(content).map_err(|error| damaged(error.to_string()))
}

/// As [`load`], for what can be made again: what is wrong is set aside as `NAME.damaged`, and said to be.
pub fn load_or_set_aside<T: DeserializeOwned>(path: &Path) -> Result<T, Unreadable> {
    load(path).inspect_err(|error| {
        if let Unreadable::Damaged { why, .. } = error {
            let moved = set_aside(path);
            let path = path.display();
            match moved {
                Ok(aside) => {
                    let aside = aside.display();
                    tracing::warn!(%path, %aside, "{path} is not what was written and is not used: {why}; it was set aside and is made again");
                }
                Err(error) => {
                    tracing::warn!(%path, %error, "{path} is not what was written and is not used: {why}; delete it");
                }
            }
        }
    })
}

/// Renames a file to `NAME.damaged`; an earlier one of that name goes.
///
/// # Errors
/// If the disk refuses.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(DAMAGED);
    fs::rename(path, &aside)?;
    Ok(aside.into())
}

fn frame(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BEGIN.len() + DIGITS + CONTENT.len() + content.len() + END.len());
    bytes.extend_from_slice(BEGIN.as_bytes());
    bytes.extend_from_slice(sha256(content).as_bytes());
    bytes.extend_from_slice(CONTENT.as_bytes());
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(END.as_bytes());
    bytes
}

/// What is in the frame; without a frame, all of it.
fn content(bytes: &[u8]) -> Result<&[u8], &'static str> {
    if bytes.is_empty() {
        return Err("it is empty");
    }
    if !bytes.starts_with(BEGIN.as_bytes()) {
        return Ok(bytes);
    }
    let head = BEGIN.len() + DIGITS + CONTENT.len();
    let framed = bytes.get(head..).and_then(|rest| rest.strip_suffix(END.as_bytes()));
    let content = framed.ok_or("it was cut off")?;
    match frame(content) == bytes {
        true => Ok(content),
        false => Err("its checksum is another"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Document = BTreeMap<String, u64>;

    #[test]
    fn every_flipped_bit_and_every_cut_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("view.json");
        let document = Document::from([("revision".to_owned(), 7), ("entries".to_owned(), 1)]);
        assert!(matches!(load::<Document>(&path), Err(Unreadable::Absent(_))));
        save(&path, &document).unwrap();
        let whole = fs::read(&path).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(json["content"]["revision"], 7);
        assert_eq!(load::<Document>(&path).unwrap(), document);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            let error = load::<Document>(&path).unwrap_err();
            assert!(error.to_string().contains("view.json is not what was written"), "bit {bit}: {error}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(load::<Document>(&path), Err(Unreadable::Damaged { .. })), "cut to {length}");
        }
    }

    #[test]
    fn what_is_wrong_is_set_aside_and_what_was_before_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("told.json");
        fs::write(&path, "{\"old\":3}").unwrap();
        assert_eq!(load_or_set_aside::<Document>(&path).unwrap()["old"], 3);
        fs::write(&path, "{\"half\":").unwrap();
        load_or_set_aside::<Document>(&path).unwrap_err();
        assert!(matches!(load::<Document>(&path), Err(Unreadable::Absent(_))));
        assert_eq!(fs::read(directory.path().join("told.json.damaged")).unwrap(), b"{\"half\":");
    }
}
