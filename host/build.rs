//! Builds the default plugins to WebAssembly, to be embedded in the host.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "wasm32-unknown-unknown";
/// The adapters, and what `message-flow demo` shows.
const PLUGINS: [&str; 3] = ["message-flow-plugin-memory", "message-flow-plugin-etcd", "region-registrar"];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let host = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let workspace = host.parent().expect("the host is a folder of the workspace");
    for watched in ["plugins", "examples/region-registrar", "sdk", "wit", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    check_target();
    build(workspace, &out);
    for plugin in PLUGINS {
        let file = format!("{}.wasm", plugin.replace('-', "_"));
        let built = out.join("plugins").join(TARGET).join("guest").join(&file);
        std::fs::copy(&built, out.join(&file)).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    }
}

/// A target that `rust-toolchain.toml` names but that is not installed would fail later, in words
/// that do not say what to do.
fn check_target() {
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let directory = output.ok().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    if directory.is_none_or(|directory| !Path::new(&directory).is_dir()) {
        eprintln!(
            "The default plugins need the Rust target {TARGET}. Add it with:\n\n    rustup target add {TARGET}\n"
        );
        std::process::exit(1);
    }
}

fn build(workspace: &Path, out: &Path) {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo.current_dir(workspace).args(["build", "--locked", "--profile", "guest", "--target", TARGET]);
    for plugin in PLUGINS {
        cargo.args(["--package", plugin]);
    }
    // Flags meant for the host would leak into the guests, and a shared target directory deadlock.
    for variable in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(variable);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Clink-arg=-zstack-size=65536");
    cargo.env("CARGO_TARGET_DIR", out.join("plugins"));
    let status = cargo.status().expect("cargo can be run");
    assert!(status.success(), "the default plugins do not build: see above");
}
