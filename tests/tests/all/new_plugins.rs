//! `message-flow plugin new`: what it makes builds with one command, passes its own scenarios and
//! routes messages.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use message_flow_tests::{Gateway, Upstream, gateway::binary, languages};
use serde_json::json;

fn message_flow(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).current_dir(directory).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

/// Makes a project and runs, one after the other, the three commands that it prints.
fn built(directory: &Path, lang: &str, kind: &str) -> PathBuf {
    let arguments = ["plugin", "new", "--lang", lang, "--kind", kind, "geo"];
    let output = message_flow(directory, &arguments);
    let told = said(&output);
    assert!(output.status.success(), "{lang}: {told}");
    std::fs::create_dir_all(directory.join("plugins")).unwrap();
    let commands: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert_eq!(commands.len(), 3, "{told}");
    let program = binary().display().to_string();
    for command in commands {
        let command = command.replace("message-flow ", &format!("{program} "));
        languages::run(lang, directory, &command);
    }
    directory.join("plugins/geo.wasm")
}

async fn routes(file: PathBuf) {
    let (eu, us) = (Upstream::start("eu").await, Upstream::start("us").await);
    let gateway = Gateway::setup().plugin("geo", file).start().await;
    gateway
        .put(
            "chat",
            json!({ "registrar": "geo", "servers": [
                { "uri": eu.uri(), "metadata": { "region": "eu" } },
                { "uri": us.uri(), "metadata": { "region": "us" } },
            ] }),
        )
        .await;
    for (client, region) in [("ann", "eu"), ("bob", "us")] {
        let reply = gateway.get("/chat/").client(client).header("region", region).send().await;
        assert_eq!(reply.expect(200).text(), region);
    }
}

#[tokio::test]
async fn javascript_from_nothing_to_a_routed_message() {
    let directory = tempfile::tempdir().unwrap();
    routes(built(directory.path(), "js", "registrar")).await;
}

#[tokio::test]
async fn c_from_nothing_to_a_routed_message() {
    languages::example("c");
    let directory = tempfile::tempdir().unwrap();
    routes(built(directory.path(), "c", "registrar")).await;
}

#[tokio::test]
async fn go_from_nothing_to_a_routed_message() {
    languages::example("go");
    let directory = tempfile::tempdir().unwrap();
    routes(built(directory.path(), "go", "registrar")).await;
}

#[tokio::test]
async fn filters_pass_their_scenarios() {
    for lang in ["ts", "c"] {
        languages::example("c");
        let directory = tempfile::tempdir().unwrap();
        built(directory.path(), lang, "filter");
    }
}

/// What a project has around its plugin holds for whatever is written in its place.
#[tokio::test]
async fn a_filter_of_ones_own_in_typescript() {
    let directory = tempfile::tempdir().unwrap();
    built(directory.path(), "ts", "filter");
    let source = "import { addHeader, setHeader } from 'message-flow:plugin/request@0.1.0';
export const requestFilter = {
  onRequest() {
    addHeader('chance', String(Math.random()));
    addHeader('token', crypto.randomUUID());
    setHeader('time', String(Date.now()));
    console.log('it printed', true);
    console.error('it complained');
    return { tag: 'forward' };
  },
};
export const responseFilter = { onResponse(): void {} };
";
    std::fs::write(directory.path().join("geo/geo.ts"), source).unwrap();
    languages::run("ts", directory.path(), "npm --prefix geo run build");
    let plugin = std::fs::read(directory.path().join("geo/build/geo.wasm")).unwrap();
    super::language_chance::own_chance("typescript", ("wasm", plugin)).await;
}

#[tokio::test]
async fn python_passes_its_scenarios() {
    languages::example("python");
    let directory = tempfile::tempdir().unwrap();
    built(directory.path(), "python", "filter");
}

/// The one kind that only Rust has; the SDK in it is that of the others.
#[tokio::test]
async fn a_table_in_rust_keeps_what_every_adapter_promises() {
    let directory = tempfile::tempdir().unwrap();
    built(directory.path(), "rust", "table");
}

#[tokio::test]
async fn what_it_cannot_make_it_says() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, reason) in [
        (["--lang", "go", "--kind", "table", "geo"], "in Rust only"),
        (["--lang", "js", "--kind", "filter", "../geo"], "is no name for a plugin"),
        (["--lang", "perl", "--kind", "filter", "geo"], "invalid value 'perl'"),
    ] {
        let output = message_flow(directory.path(), &[&["plugin", "new"], &arguments[..]].concat());
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(said(&output).contains(reason), "{}", said(&output));
    }
}
