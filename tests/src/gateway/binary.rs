//! Where the binary under test is. It is built once a run, by the cargo that built the tests, so
//! that it is never older than the sources; `MESSAGE_FLOW_BINARY` names another one.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use serde_json::Value;

// The whole workspace is selected, tests included, so that features and with them every dependency
// are those that `cargo test --workspace` has built already.
const DEV: &[&str] = &["--workspace", "--bin", "message-flow", "--test", "all"];
// As `cargo run --release` would build it.
const RELEASE: &[&str] = &["--release", "--package", "message-flow", "--bin", "message-flow"];

static BINARY: LazyLock<PathBuf> = LazyLock::new(|| named().unwrap_or_else(|| build(DEV)));

/// The binary, in the dev profile.
pub fn path() -> &'static Path {
    &BINARY
}

/// The binary as users run it; built on each call.
pub fn release() -> PathBuf {
    named().unwrap_or_else(|| build(RELEASE))
}

fn named() -> Option<PathBuf> {
    std::env::var_os("MESSAGE_FLOW_BINARY").map(PathBuf::from)
}

/// The cargo that built this, without what it says of this crate: some build scripts watch these
/// variables (that of ring does), and would have half of the tree built anew.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|start| name.starts_with(start)) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn build(selection: &[&str]) -> PathBuf {
    let mut cargo = cargo();
    cargo.args(["build", "--quiet", "--message-format=json"]).args(selection);
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).stderr(Stdio::inherit());
    let output = cargo.output().expect("run cargo");
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let rendered = messages.iter().filter_map(|message| message["message"]["rendered"].as_str());
    assert!(output.status.success(), "the gateway does not build:\n{}", rendered.collect::<String>());
    let mut binaries = messages.iter().filter(|message| message["target"]["name"] == "message-flow");
    let found = binaries.find_map(|message| message["executable"].as_str());
    found.map(PathBuf::from).expect("cargo names the binary that it built")
}
