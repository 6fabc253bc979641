//! Which compiled files are kept: all that are in use, and of the others the latest.
//!
//! A directory of a thousand plugins has a thousand files in use, and a restart that compiled some of them
//! again would be slow for nothing. So what is in use has no bound here (that is the plugins directory
//! itself); what only was in use has one, as authors build all day.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use parking_lot::Mutex;

/// So many files are kept beside those in use,
const FILES: usize = 128;

/// of so many bytes together.
const BYTES: u64 = 1 << 30;

/// Keeps a compiled file where it is, for as long as this or a copy of it lives.
#[derive(Clone)]
pub(in crate::plugin) struct Held {
    _alive: Arc<()>,
}

/// Which files are in use.
#[derive(Default)]
pub(super) struct Kept {
    in_use: Mutex<HashMap<PathBuf, Weak<()>>>,
    /// Something was stored since there was last a look at what is here.
    grew: AtomicBool,
}

/// A file that is not in use.
struct Unused {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

impl Kept {
    /// This file is in use from now on.
    pub(super) fn hold(&self, path: &Path) -> Held {
        let mut in_use = self.in_use.lock();
        if let Some(alive) = in_use.get(path).and_then(Weak::upgrade) {
            return Held { _alive: alive };
        }
        let alive = Arc::new(());
        in_use.insert(path.to_owned(), Arc::downgrade(&alive));
        Held { _alive: alive }
    }

    /// A file more is here.
    pub(super) fn stored(&self) {
        self.grew.store(true, Ordering::Relaxed);
    }

    /// Deletes what is too much of what is not in use, the ones used longest ago first.
    pub(super) fn prune(&self, directory: &Path) -> io::Result<()> {
        if !self.grew.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let mut unused = self.unused(directory)?;
        unused.sort_by_key(|file| std::cmp::Reverse(file.used));
        let mut bytes = 0;
        for (place, file) in unused.iter().enumerate() {
            bytes += file.bytes;
            if place >= FILES || bytes > BYTES {
                fs::remove_file(&file.path)?;
            }
        }
        Ok(())
    }

    fn unused(&self, directory: &Path) -> io::Result<Vec<Unused>> {
        let mut in_use = self.in_use.lock();
        in_use.retain(|_, held| held.strong_count() > 0);
        let mut unused = Vec::new();
        for entry in fs::read_dir(directory)? {
            let (path, metadata) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            if !in_use.contains_key(&path) {
                unused.push(Unused { used: metadata.modified()?, bytes: metadata.len(), path });
            }
        }
        Ok(unused)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Directory(tempfile::TempDir);

    impl Directory {
        /// A file that was used so many seconds after the epoch.
        fn file(&self, name: &str, used: u64, bytes: u64) -> PathBuf {
            let path = self.0.path().join(name);
            let file = fs::File::create(&path).unwrap();
            file.set_len(bytes).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(used)).unwrap();
            path
        }

        fn prune(&self, kept: &Kept) -> usize {
            kept.stored();
            kept.prune(self.0.path()).unwrap();
            fs::read_dir(self.0.path()).unwrap().count()
        }
    }

    #[test]
    fn what_is_in_use_stays_however_much_it_is() {
        let (directory, kept) = (Directory(tempfile::tempdir().unwrap()), Kept::default());
        let files: Vec<_> = (0..500).map(|at| directory.file(&format!("{at}"), at, 10)).collect();
        let mut held: Vec<_> = files.iter().map(|path| kept.hold(path)).collect();
        assert_eq!(directory.prune(&kept), 500);
        // Ten are used no more, and neither are those that nobody here ever used.
        held.truncate(490);
        let old: Vec<_> = (0..FILES).map(|at| directory.file(&format!("old {at}"), at as u64, 10)).collect();
        assert_eq!(directory.prune(&kept), 490 + FILES);
        let there = |paths: &[PathBuf]| paths.iter().filter(|path| path.exists()).count();
        assert_eq!(there(&files), 500, "the ones used last stay");
        assert_eq!(there(&old[..10]), 0, "the ones used longest ago went");
        drop(held);
        assert_eq!(directory.prune(&kept), FILES);
        assert_eq!(there(&files[500 - FILES..]), FILES);
    }

    #[test]
    fn what_is_not_in_use_takes_no_more_than_so_many_bytes() {
        let (directory, kept) = (Directory(tempfile::tempdir().unwrap()), Kept::default());
        let [large, old, new] = [("large", 1), ("old", 2), ("new", 3)]
            .map(|(name, used)| directory.file(name, used, BYTES / 2 + 1));
        let held = kept.hold(&large);
        assert_eq!(directory.prune(&kept), 2);
        assert!(large.exists() && new.exists() && !old.exists());
        drop(held);
        assert_eq!(directory.prune(&kept), 1);
        assert!(new.exists());
    }

    #[test]
    fn who_loads_the_same_holds_the_same() {
        let (directory, kept) = (Directory(tempfile::tempdir().unwrap()), Kept::default());
        let path = directory.file("a", 1, BYTES + 1);
        let (first, second) = (kept.hold(&path), kept.hold(&path));
        drop(first);
        assert_eq!(directory.prune(&kept), 1);
        drop(second);
        assert_eq!(directory.prune(&kept), 0);
    }
}
