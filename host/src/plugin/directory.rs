//! The plugins directory, looked at: which plugins are in it, and whether their files are whole.
//!
//! Only looks; what follows from it is [`super::reconcile`]'s business. Events of the file system
//! are hints that it is worth looking, never what is believed.

pub(super) mod passed_over;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{component::MAX_FILE, load::sha256};

/// What is remembered of a file between looks.
#[derive(Clone)]
pub(super) struct File {
    stamp: Stamp,
    /// What is in it, or why that cannot be said.
    pub(super) content: Result<Content, Arc<str>>,
}

/// The bytes of a file and their hash.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) bytes: Arc<[u8]>,
    pub(super) sha256: Arc<str>,
    pub(super) format: Format,
}

/// What is in a plugin's file, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `.wasm`
    Wasm,
    /// `.js`
    Script,
}

impl Format {
    /// Each, the one that goes before others first.
    pub(super) const ALL: [Self; 2] = [Self::Wasm, Self::Script];

    /// With the dot.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Wasm => ".wasm",
            Self::Script => ".js",
        }
    }
}

/// By which a file is seen to have changed without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A stamp is trusted only when the file has rested for so long: clocks of file systems are coarse.
const RESTED: Duration = Duration::from_secs(2);

/// What a look found: the files by plugin name.
pub(super) type Files = BTreeMap<Arc<str>, File>;

/// Lists the directory and reads what changed since `before`.
pub(super) fn look(directory: &Path, before: &Files) -> io::Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let Some((name, format)) = plugin_name(&path) else { continue };
        let Some(mut file) = read(&path, format, before.get(&name)) else { continue };
        if files.contains_key(&name) {
            let reason = format!("there are both {name}.wasm and {name}.js: remove one of them");
            file.content = Err(reason.into());
        }
        files.insert(name, file);
    }
    Ok(files)
}

/// The stem of a `.wasm` or `.js` file. Dotfiles and editors' temporary files are none.
pub(super) fn plugin_name(path: &Path) -> Option<(Arc<str>, Format)> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let file = path.file_name()?.to_str()?;
    let mut formats = Format::ALL.into_iter();
    let (stem, format) = formats.find_map(|format| Some((file.strip_suffix(format.extension())?, format)))?;
    let valid = (1..=128).contains(&stem.len()) && stem.bytes().all(is_word);
    valid.then(|| (stem.into(), format))
}

/// One file, wherever it is. None: there is none, or its name is not that of a plugin.
pub(super) fn look_at(path: &PathBuf, before: Option<&File>) -> Option<File> {
    let (_, format) = plugin_name(path)?;
    read(path, format, before)
}

/// None: there is no such file, or a link that leads nowhere.
fn read(path: &PathBuf, format: Format, before: Option<&File>) -> Option<File> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let stamp = Stamp::of(&metadata);
    if let Some(before) = before.filter(|before| before.stamp == stamp && has_rested(&metadata)) {
        return Some(before.clone());
    }
    if metadata.len() > MAX_FILE {
        let reason = super::component::Refusal::TooLarge(metadata.len()).to_string();
        return Some(File { stamp, content: Err(reason.into()) });
    }
    let content = fs::read(path).map(|bytes| {
        let sha256 = sha256(&bytes);
        let known = before
            .and_then(|before| before.content.as_ref().ok())
            .filter(|known| known.sha256 == sha256 && known.format == format);
        known.cloned().unwrap_or_else(|| Content { bytes: bytes.into(), sha256, format })
    });
    Some(File { stamp, content: content.map_err(|error| format!("it cannot be read: {error}").into()) })
}

#[cfg(test)]
impl File {
    /// One of which nothing is known.
    pub(super) fn unreadable(reason: &str) -> Self {
        let stamp = Stamp { device: 0, inode: 0, length: 0, modified: (0, 0), changed: (0, 0) };
        Self { stamp, content: Err(reason.into()) }
    }
}

fn has_rested(metadata: &fs::Metadata) -> bool {
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(metadata.ctime().unsigned_abs());
    changed.elapsed().is_ok_and(|since| since > RESTED)
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finished_files_name_plugins() {
        for (file, name, format) in [
            ("geo.wasm", "geo", Format::Wasm),
            ("a-b_2.wasm", "a-b_2", Format::Wasm),
            ("geo.js", "geo", Format::Script),
        ] {
            assert_eq!(plugin_name(Path::new(file)), Some((name.into(), format)));
        }
        for file in [
            ".geo.wasm",
            "geo.wasm~",
            ".geo.wasm.swp",
            "geo.wasm.tmp",
            "#geo.wasm#",
            "geo",
            ".wasm",
            "4913",
            "geo.1.wasm",
            "geo.wasm.partial",
            "..data",
            "geo.d.ts",
            "geo.min.js",
            "geo.js~",
            "geo.json",
        ] {
            assert_eq!(plugin_name(Path::new(file)), None, "{file}");
        }
    }
}
