//! `message-flow plugin check`, `test` and `bench`: what an author sees of a plugin.

use std::path::Path;

use message_flow_tests::{Gateway, guests};

/// A project directory with a built plugin and scenarios.
fn project(guest: &str, scenarios: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::copy(guests::wasm(guest), directory.path().join("geo.wasm")).expect("copy a guest");
    if !scenarios.is_empty() {
        std::fs::create_dir(directory.path().join("scenarios")).expect("make a directory");
    }
    for (name, text) in scenarios {
        std::fs::write(directory.path().join("scenarios").join(name), text).expect("write a scenario");
    }
    directory
}

/// Exit code and output of `message-flow plugin TOOL PATH`.
async fn tool(tool: &str, path: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut setup = Gateway::setup().argument(tool).argument(path.display().to_string());
    for argument in more {
        setup = setup.argument(*argument);
    }
    let (status, said) = setup.run("plugin").await;
    (status.code(), said)
}

fn named(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in:\n{said}");
    }
}

#[tokio::test]
async fn check_says_what_a_plugin_is_and_asks_for() {
    let (code, said) = tool("check", &guests::wasm("chooser"), &[]).await;
    assert_eq!(code, Some(0), "{said}");
    named(&said, &["plugin chooser", "registrar", "0.1.0", "sync", "message-flow:plugin/", "none needed"]);
    named(&said, &["compiled in", "a further instance took", "of memory"]);

    let (code, said) = tool("check", &guests::wasm("needy"), &[]).await;
    assert_eq!(code, Some(0), "{said}");
    named(&said, &["async", "`grant = [\"etcd\"]` under [plugin.needy]"]);
}

#[tokio::test]
async fn check_says_what_is_wrong_and_exits_with_64() {
    let directory = tempfile::tempdir().expect("a directory");
    let garbage = directory.path().join("garbage.wasm");
    std::fs::write(&garbage, b"this is no WebAssembly").expect("write");
    for (file, what) in [
        (garbage.clone(), "neither a WebAssembly component nor a core module"),
        (directory.path().join("absent.wasm"), "absent.wasm: it cannot be read"),
        (directory.path().join("plugin.txt"), "NAME.wasm"),
    ] {
        let (code, said) = tool("check", &file, &[]).await;
        assert_eq!(code, Some(64), "{said}");
        named(&said, &[what]);
    }
    let broken = directory.path().join("broken.js");
    std::fs::write(&broken, "export function resolve() {").expect("write");
    let (code, said) = tool("check", &broken, &[]).await;
    assert_eq!(code, Some(64), "{said}");
    named(&said, &["plugin broken: load: it returned an error: broken.js:1:"]);
    assert_eq!(said.matches("plugin broken").count(), 1, "{said}");
}

const PASSES: &str = r#"{ "name": "told to choose", "call": "resolve",
    "request": { "headers": { "choose": "server http://a:1" } },
    "expect": { "decision": "server", "server": "http://a:1" } }"#;
const REJECTS: &str = r#"[
    { "name": "told to reject", "call": "resolve", "request": { "headers": { "choose": "reject 451 not here" } },
      "expect": { "decision": "reject", "status": 451, "reason": "not here" } },
    { "name": "told to err", "call": "resolve", "request": { "headers": { "choose": "error no idea" } },
      "expect": { "error": "it returned an error: no idea" } }
]"#;

#[tokio::test]
async fn scenarios_that_pass_exit_with_0() {
    let project = project("chooser", &[("1.json", PASSES), ("2.json", REJECTS)]);
    for path in [project.path().to_owned(), project.path().join("geo.wasm")] {
        let (code, said) = tool("test", &path, &[]).await;
        assert_eq!(code, Some(0), "{said}");
        named(
            &said,
            &["ok    told to choose", "ok    told to reject", "ok    told to err", "3 passed, 0 failed"],
        );
    }
}

#[tokio::test]
async fn a_scenario_that_fails_exits_with_1_and_says_what_was_expected() {
    let expects_other = PASSES.replace("\"server\": \"http://a:1\" }", "\"server\": \"http://b:2\" }");
    let project = project("chooser", &[("1.json", &expects_other), ("2.json", REJECTS)]);
    let (code, said) = tool("test", project.path(), &[]).await;
    assert_eq!(code, Some(1), "{said}");
    named(&said, &["FAIL  told to choose", "expected server \"http://b:2\", got server \"http://a:1\""]);
    named(&said, &["2 passed, 1 failed"]);
}

#[tokio::test]
async fn filters_are_held_to_verdict_and_headers() {
    let scenario = |expect: &str| {
        format!(
            r#"{{ "name": "it stamps", "call": "on-request", "request": {{ "headers": {{ "ink": "blue", "other": "x" }} }}, "expect": {expect} }}"#
        )
    };
    for (expect, code, said) in [
        (r#"{ "verdict": "forward", "set": { "stamp": "blue", "ink": "blue" } }"#, 0, "1 passed"),
        (
            r#"{ "verdict": "forward", "set": { "stamp": "red" } }"#,
            1,
            r#"expected the header stamp: ["red"], got ["blue"]"#,
        ),
        (r#"{ "verdict": "forward", "removed": ["other"] }"#, 1, "expected no header other"),
        (r#"{ "verdict": "respond", "status": 429 }"#, 1, "expected respond 429, got forward"),
    ] {
        let project = project("stamp", &[("1.json", &scenario(expect))]);
        let (found, output) = tool("test", project.path(), &[]).await;
        assert_eq!(found, Some(code), "{output}");
        named(&output, &[said]);
    }
    let response = r#"{ "name": "it stamps", "call": "on-response", "response": { "status": 404 }, "expect": { "status": 404, "set": { "stamped": "" } } }"#;
    let (code, said) = tool("test", project("stamp", &[("1.json", response)]).path(), &[]).await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn what_is_no_scenario_exits_with_64() {
    for (text, what) in [
        (PASSES.replace("\"expect\"", "\"expects\""), "unknown field `expects`"),
        (PASSES.replace("\"decision\": \"server\", ", ""), "`resolve` needs `decision`"),
        (PASSES.replace("resolve", "revolve"), "unknown variant `revolve`"),
    ] {
        let (code, said) = tool("test", project("chooser", &[("bad.json", &text)]).path(), &[]).await;
        assert_eq!(code, Some(64), "{said}");
        named(&said, &["bad.json", what]);
    }
    let (code, said) = tool("test", project("chooser", &[]).path(), &[]).await;
    assert_eq!(code, Some(64), "{said}");
    named(&said, &["there are no scenarios"]);
    let empty = tempfile::tempdir().expect("a directory");
    let (code, said) = tool("test", empty.path(), &[]).await;
    assert_eq!(code, Some(64), "{said}");
    named(&said, &["build it first"]);
}

#[tokio::test]
async fn bench_says_what_calls_and_instances_cost() {
    let project = project("chooser", &[("1.json", PASSES)]);
    let (code, said) = tool("bench", project.path(), &["--seconds", "1"]).await;
    assert_eq!(code, Some(0), "{said}");
    named(&said, &["resolve: told to choose", "p50", "p99", "a new instance", "memory of an instance"]);
    let (code, said) = tool("bench", &guests::wasm("stamp"), &["--seconds", "1"]).await;
    assert_eq!(code, Some(0), "{said}");
    named(&said, &["on-request: an ordinary message", "on-response: an ordinary message"]);
}

#[tokio::test]
async fn an_adapter_is_held_to_what_every_adapter_promises() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("mine.wasm");
    std::fs::write(&file, message_flow::plugin::builtin("memory").expect("it is built in")).expect("write");
    let (code, said) = tool("test", &file, &["--conformance"]).await;
    assert_eq!(code, Some(0), "{said}");
    named(&said, &["ok    an assignment is created once", "13 passed, 0 failed"]);
    let (code, said) = tool("test", &guests::wasm("stamp"), &["--conformance"]).await;
    assert_eq!(code, Some(64), "{said}");
}
