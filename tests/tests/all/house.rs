//! The house rules that a machine can hold: what every module says of itself, what it may import,
//! how long it may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// No file is longer than this.
const LINES: usize = 600;

/// What may not be named where: a part of the path, what it must not contain, and except where.
const FORBIDDEN: &[(&str, &str, &[&str])] = &[
    ("host/src", "wasmtime::", &["host/src/plugin"]),
    ("host/src", "etcd_client", &["host/src/plugin/etcd"]),
    ("host/src", "redb::", &["host/src/plugin/state"]),
    ("host/src/resolve", "crate::proxy", &[]),
    ("host/src/resolve", "crate::api", &[]),
    ("host/src/resolve", "crate::plugin", &[]),
    ("host/src/resolve", "crate::upstream", &[]),
    ("host/src/resolve", "hyper::", &[]),
    ("host/src/durable", "crate::plugin", &[]),
    ("host/src/durable", "crate::table", &[]),
    ("host/src/discovery", "crate::proxy", &[]),
    ("host/src/discovery", "crate::api", &[]),
    ("host/src/discovery", "crate::plugin", &[]),
    ("host/src/discovery", "crate::upstream", &[]),
    ("host/src/discovery", "crate::config", &[]),
    ("host/src/table", "crate::discovery", &[]),
    ("host/src/proxy", "crate::discovery", &[]),
    ("host/src/table", "crate::proxy", &[]),
    ("host/src/table", "crate::api", &[]),
    ("host/src/table", "crate::plugin", &[]),
    ("host/src/table", "crate::resolve", &[]),
    ("host/src/release", "crate::proxy", &[]),
    ("host/src/release", "crate::api", &[]),
    ("host/src/webhook", "crate::proxy", &[]),
    ("host/src/webhook", "crate::api", &[]),
    ("host/src/config", "crate::proxy", &[]),
    ("host/src/config", "crate::api", &[]),
    ("host/src/http1", "crate::listener", &[]),
    ("host/src/http1", "crate::upstream", &[]),
    ("host/src/http1", "crate::proxy", &[]),
    ("host/src/http1", "tokio::net", &[]),
    ("host/src/http2", "crate::listener", &[]),
    ("host/src/http2", "crate::upstream", &[]),
    ("host/src/http2", "crate::proxy", &[]),
    ("host/src/http2", "tokio::net", &[]),
    ("host/src/grpc", "crate::", &[]),
    ("host/src/listener", "crate::upstream", &[]),
    ("host/src/listener", "crate::proxy", &[]),
    ("host/src/upstream", "crate::listener", &[]),
    ("host/src/upstream", "crate::proxy", &[]),
    ("host/src/upstream", "crate::api", &[]),
    ("host/src/plugin", "crate::proxy", &[]),
    ("host/src/plugin", "crate::api", &[]),
    ("host/src/proxy", "crate::api", &[]),
    ("host/src", "crate::gateway", &["host/src/main.rs", "host/src/lib.rs"]),
    ("host/src", "unbounded_channel", &[]),
    // They panic when nobody reads, and wait for who reads slowly.
    ("host/src", "println!", &["host/src/plugin/state/tests"]),
];

#[test]
fn every_module_says_what_it_is() {
    let unit_test =
        |path: &str| path.ends_with("/tests.rs") || path.starts_with("host/") && path.contains("/tests/");
    let modules = sources().into_iter().filter(|(path, _)| !unit_test(path));
    let silent: Vec<_> = modules.filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "these files have no `//!` that says what they are: {silent:#?}");
}

#[test]
fn no_file_is_long() {
    let long = sources().into_iter().map(|(path, text)| (path, text.lines().count()));
    let long: Vec<_> = long.filter(|(_, lines)| *lines > LINES).collect();
    assert!(long.is_empty(), "these files have more than {LINES} lines, split them: {long:#?}");
}

#[test]
fn imports_go_one_way() {
    let mut wrong = vec![];
    for (path, text) in sources() {
        let within = |place: &str| path.starts_with(place);
        for (place, name, except) in FORBIDDEN.iter().filter(|(place, ..)| within(place)) {
            let named = code(&text).any(|line| line.contains(name));
            if named && !except.iter().any(|place| within(place)) {
                wrong.push(format!("{path} names {name}, which {place} must not know"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn plugins_do_not_know_the_host() {
    let top = top();
    let manifests = ["sdk", "sdk/client", "plugins/memory", "plugins/etcd", "plugins/http", "plugins/script"]
        .map(|place| top.join(place).join("Cargo.toml"));
    for manifest in manifests {
        let text = fs::read_to_string(&manifest).expect("read a manifest");
        let knows =
            text.lines().any(|line| line.starts_with("message-flow.") || line.starts_with("message-flow "));
        assert!(!knows, "{} depends on the host", manifest.display());
    }
}

#[test]
fn there_are_no_mod_rs_files() {
    let found: Vec<_> =
        sources().into_iter().map(|(path, _)| path).filter(|path| path.ends_with("/mod.rs")).collect();
    assert!(found.is_empty(), "write x.rs beside x/: {found:#?}");
}

/// The lines of a file that are neither comments nor below its unit tests' `mod`.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.filter(|line| !line.trim_start().starts_with("//"))
}

/// Every Rust source of the project: its path from the top, and its text.
fn sources() -> Vec<(String, String)> {
    let top = top();
    let mut found = vec![];
    for place in ["host", "sdk", "plugins", "examples", "tests"] {
        collect(&top.join(place), &mut found);
    }
    assert!(found.len() > 10, "the sources are where they are looked for");
    let read = |path: PathBuf| {
        let name = path.strip_prefix(top).expect("below the top").display().to_string();
        (name, fs::read_to_string(&path).expect("read a source"))
    };
    found.into_iter().map(read).collect()
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is below the top")
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() && !["target", "build", "node_modules"].iter().any(|made| path.ends_with(made)) {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
