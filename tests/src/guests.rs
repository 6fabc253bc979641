//! Plugins built from source for tests: `guests/examples/NAME.rs`, each a core module for
//! `wasm32-unknown-unknown` with its `component-type` section, as an author's cargo leaves it.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

const TARGET: &str = "wasm32-unknown-unknown";
/// In every guest's data; [`marked`] writes over it.
const MARK: &[u8] = b"mark:00000000";

static BUILT: LazyLock<PathBuf> = LazyLock::new(build);

/// The file of a guest.
pub fn wasm(name: &str) -> PathBuf {
    let file = BUILT.join(format!("{name}.wasm"));
    assert!(file.exists(), "there is no guest {name}: {} is missing", file.display());
    file
}

/// A guest as it was built.
pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(wasm(name)).expect("read a guest")
}

/// A build of its own of a guest that marks messages: it writes `mark` (at most 8 digits or
/// letters) in place of zeros.
pub fn marked(name: &str, mark: &str) -> Vec<u8> {
    let mut bytes = bytes(name);
    let text = format!("mark:{mark:0>8}");
    assert_eq!(text.len(), MARK.len(), "a mark has at most 8 characters");
    let places: Vec<_> = (0..bytes.len() - MARK.len()).filter(|&at| bytes[at..].starts_with(MARK)).collect();
    assert!(!places.is_empty(), "guest {name} has no mark");
    for at in places {
        bytes[at..at + MARK.len()].copy_from_slice(text.as_bytes());
    }
    bytes
}

/// The plugin of an example, as its README has it built.
pub fn example(package: &str) -> PathBuf {
    let built = cargo_build("..", &["--package", package]);
    built.join(format!("{}.wasm", package.replace('-', "_")))
}

fn build() -> PathBuf {
    cargo_build("guests", &["--examples"]).join("examples")
}

fn cargo_build(directory: &str, selection: &[&str]) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = tests.join("../target/guests");
    let mut cargo = crate::gateway::cargo();
    cargo.args(["build", "--quiet", "--release", "--target", TARGET]).args(selection);
    cargo.current_dir(tests.join(directory)).env("CARGO_TARGET_DIR", &target);
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("run cargo");
    assert!(status.success(), "the guests do not build; is the target there? rustup target add {TARGET}");
    target.join(TARGET).join("release")
}
