//! Builds the default plugins to WebAssembly, to be embedded in the host.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "wasm32-unknown-unknown";
/// The adapters, the HTTP registrar, and what `message-flow demo` shows.
const PLUGINS: [&str; 4] = [
    "message-flow-plugin-memory",
    "message-flow-plugin-etcd",
    "message-flow-plugin-http",
    "region-registrar",
];

/// The engine of scripts, whose C code needs a compiler of its own.
const SCRIPT: &str = "message-flow-plugin-script";
/// Bytes of a guest's stack; each instance has them in its memory.
const STACK: u32 = 64 << 10;
/// As deep as scripts may call (`plugins/script/src/engine.rs` stops them before).
const SCRIPT_STACK: u32 = 192 << 10;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let host = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let workspace = host.parent().expect("the host is a folder of the workspace");
    for watched in ["plugins", "examples/region-registrar", "sdk", "wit", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    adapter(&host, &out);
    check_target();
    build(workspace, &out, &PLUGINS, STACK);
    build(workspace, &out, &[SCRIPT], SCRIPT_STACK);
    for plugin in PLUGINS.into_iter().chain([SCRIPT]) {
        let file = format!("{}.wasm", plugin.replace('-', "_"));
        let built = out.join("plugins").join(TARGET).join("guest").join(&file);
        std::fs::copy(&built, out.join(&file)).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    }
}

/// What core modules get for an operating system, assembled.
fn adapter(host: &Path, out: &Path) {
    let source = host.join("src/plugin/wasi/preview1.wat");
    println!("cargo::rerun-if-changed={}", source.display());
    let module = wat::parse_file(&source).unwrap_or_else(|error| panic!("{error}"));
    std::fs::write(out.join("preview1.wasm"), module).expect("write to OUT_DIR");
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

/// A clang that can compile to WebAssembly, and the archiver that goes with it.
fn c_compiler() -> (String, String) {
    let named = |variable: &str| env::var(variable).ok();
    println!("cargo::rerun-if-env-changed=CC_wasm32_unknown_unknown");
    println!("cargo::rerun-if-env-changed=AR_wasm32_unknown_unknown");
    let versions = (14..30).rev().map(|version| format!("-{version}"));
    let found = std::iter::once(String::new())
        .chain(versions)
        .find(|version| speaks_wasm(&format!("clang{version}")) && runs(&format!("llvm-ar{version}")));
    let named = named("CC_wasm32_unknown_unknown").zip(named("AR_wasm32_unknown_unknown"));
    let found = named.or(found.map(|version| (format!("clang{version}"), format!("llvm-ar{version}"))));
    found.unwrap_or_else(|| {
        eprintln!(
            "The script plugin needs clang and llvm-ar, to compile QuickJS to WebAssembly (gcc cannot). Add them with:\n\n    \
             apt-get install clang llvm\n\nor name others with CC_wasm32_unknown_unknown and AR_wasm32_unknown_unknown.\n"
        );
        std::process::exit(1)
    })
}

fn speaks_wasm(clang: &str) -> bool {
    let targets = Command::new(clang).arg("--print-targets").output();
    targets.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("wasm32"))
}

fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn build(workspace: &Path, out: &Path, plugins: &[&str], stack: u32) {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo.current_dir(workspace).args(["build", "--locked", "--profile", "guest", "--target", TARGET]);
    for plugin in plugins {
        cargo.args(["--package", plugin]);
    }
    if plugins.contains(&SCRIPT) {
        let (compiler, archiver) = c_compiler();
        cargo.env("CC_wasm32_unknown_unknown", compiler).env("AR_wasm32_unknown_unknown", archiver);
        cargo.env_remove("CFLAGS").env_remove("CC").env_remove("AR");
    }
    // Flags meant for the host would leak into the guests, and a shared target directory deadlock.
    for variable in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(variable);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", format!("-Clink-arg=-zstack-size={stack}"));
    cargo.env("CARGO_TARGET_DIR", out.join("plugins"));
    let status = cargo.status().expect("cargo can be run");
    assert!(status.success(), "the default plugins do not build: see above");
}
