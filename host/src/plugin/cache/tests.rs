//! What is compiled once, what is kept of it, and what becomes of it when the disk changed it.

use std::{borrow::Cow, cell::Cell, os::unix::fs::PermissionsExt};

use super::*;

/// An empty core module.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

struct Compiler {
    engine: Engine,
    cache: Cache,
    data: tempfile::TempDir,
    compiled: Cell<usize>,
}

impl Compiler {
    fn new() -> Self {
        let (engine, data) = (Engine::default(), tempfile::tempdir().unwrap());
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let cache = Cache::new(&data.path().join("data"), &engine, metrics);
        Self { engine, cache, data, compiled: Cell::new(0) }
    }

    /// Loads the module; how often it was compiled so far.
    fn load(&self) -> usize {
        let bytes = || {
            self.compiled.set(self.compiled.get() + 1);
            Ok(Cow::Borrowed(MODULE))
        };
        self.cache.load::<Module>(&self.engine, Source { plugin: "empty", key: "hash" }, bytes).unwrap();
        self.compiled.get()
    }

    fn file(&self) -> PathBuf {
        let mut files = fs::read_dir(&self.cache.directory).unwrap();
        files.next().unwrap().unwrap().path()
    }

    fn allow(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn what_was_compiled_is_found_again() {
    let compiler = Compiler::new();
    assert_eq!((compiler.load(), compiler.load(), compiler.load()), (1, 1, 1));
}

#[test]
fn what_is_damaged_is_deleted_and_compiled_again() {
    let compiler = Compiler::new();
    compiler.load();
    let good = fs::read(compiler.file()).unwrap();
    let mut expected = 1;
    for at in [0, 1, good.len() / 3, good.len() / 2, good.len() - CHECKSUM - 1, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(compiler.file(), bad).unwrap();
        expected += 1;
        assert_eq!((compiler.load(), compiler.load()), (expected, expected), "byte {at}");
    }
    for length in [0, CHECKSUM - 1, CHECKSUM, good.len() - 1] {
        fs::write(compiler.file(), &good[..length]).unwrap();
        expected += 1;
        assert_eq!((compiler.load(), compiler.load()), (expected, expected), "{length} bytes");
    }
}

#[test]
fn what_others_may_change_is_not_loaded() {
    let compiler = Compiler::new();
    compiler.load();
    let data = compiler.data.path().join("data");
    let mut expected = 1;
    for (path, open, closed) in [
        (compiler.file(), 0o622, 0o600),
        (data.join("compiled"), 0o770, 0o700),
        (data.clone(), 0o777, 0o755),
        (compiler.data.path().to_owned(), 0o720, 0o700),
    ] {
        compiler.allow(&path, open);
        expected += 1;
        assert_eq!(compiler.load(), expected, "{}", path.display());
        if path.exists() {
            compiler.allow(&path, closed);
        }
        assert_eq!(compiler.load(), expected, "{}", path.display());
    }
    compiler.allow(&data, 0o1777);
    assert_eq!(compiler.load(), expected, "nobody can replace what is ours in a sticky directory");
    let file = compiler.file();
    fs::rename(&file, data.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(data.join("elsewhere"), &file).unwrap();
    assert_eq!(compiler.load(), expected + 1, "a link is not followed");
}
