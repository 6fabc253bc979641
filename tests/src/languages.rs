//! The examples in each language, built as their READMEs say, and the guests that fail in each.
//!
//! The first `sh` block of an example's README is its build. Toolchains are where
//! `.ci/languages` puts them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use crate::readme;

/// What is built, so that tests of one language build it once; and one at a time.
static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The example in a language, built by its README's first command: where `region.wasm` and
/// `stamp.wasm` are.
pub fn example(language: &str) -> PathBuf {
    let directory = repository().join("examples").join(language);
    once(language, || {
        let text = fs::read_to_string(directory.join("README.md")).expect("the example has a README");
        let build = readme::blocks(&text).into_iter().find(|block| block.language == "sh");
        run(language, &repository(), &build.expect("its README says how to build it").text);
    });
    directory.join("build")
}

/// A guest of `tests/guests/languages`, built with the toolchain of the example.
pub fn guest(language: &str, name: &str) -> PathBuf {
    let sources = repository().join("tests/guests/languages").join(language);
    example(language);
    once(&format!("guests in {language}"), || {
        let script = fs::read_to_string(sources.join("build.sh")).expect("the guest says how to build it");
        run(language, &sources, &script);
    });
    sources.join(format!("build/{name}.wasm"))
}

fn once(what: &str, build: impl FnOnce()) {
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !built.contains(what) {
        build();
        built.insert(what.to_owned());
    }
}

/// Runs a script of an author, who has the toolchains; it must succeed.
pub fn run(language: &str, directory: &Path, script: &str) {
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", script]).current_dir(directory).stdin(Stdio::null());
    shell.env("TOOLS", repository().join("target/tools"));
    // What tells cargo how these tests were built is nothing to what it builds for an author.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        shell.env_remove(name);
    }
    let output = shell.output().expect("start bash");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success(),
        "{language}: this does not build; are the toolchains there? .ci/languages installs them\n{script}\n{said}"
    );
}

fn repository() -> PathBuf {
    readme::repository()
}
