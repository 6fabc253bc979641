//! Every way in which a guest can fail, in every language: the message gets 503, the error names the
//! plugin, the function and the cause, and the next message is filtered as usual.

use message_flow_tests::{Gateway, Upstream, eventually, eventually_within, languages};
use serde_json::json;

use super::languages::{COMPILED, loaded};

/// How a guest fails, and a part of the cause that is named.
type Fault = (&'static str, &'static str);

const LIMITS: &str = "[plugin.faulty]\ndeadline = \"1s\"\nmemory = \"64MiB\"\n";

#[tokio::test]
async fn c() {
    let faults: &[Fault] = &[
        ("throw", "it trapped: wasm `unreachable` instruction executed"),
        ("error", "it returned an error: told to err"),
        ("exit", "it exited with status 3"),
        ("loop", "it took longer than its deadline of 1s"),
        ("allocate", "it needs more than its memory limit of 64MiB"),
        ("recurse", "in recurse, called by recurse"),
        ("nonsense", "9"),
    ];
    fails("c", faults).await;
}

#[tokio::test]
async fn go() {
    let faults: &[Fault] = &[
        ("throw", "panic: told to throw"),
        ("error", "it returned an error: told to err"),
        ("exit", "it exited with status 3"),
        ("loop", "it took longer than its deadline of 1s"),
        ("allocate", "it needs more than its memory limit of 64MiB"),
        ("recurse", "stack"),
    ];
    fails("go", faults).await;
}

/// And TypeScript, which is JavaScript by then.
#[tokio::test]
async fn javascript() {
    let faults: &[Fault] = &[
        ("throw", "it returned an error: told to throw"),
        ("error", "it returned an error: told to err"),
        ("loop", "it took longer than its deadline of 1s"),
        ("allocate", "memory"),
        ("recurse", "stack"),
        ("nonsense", "returns anything but a `request-filter.verdict` of wit/"),
    ];
    fails("javascript", faults).await;
}

#[tokio::test]
async fn python() {
    let faults: &[Fault] = &[
        ("throw", "it last logged: ValueError: told to throw"),
        ("error", "it returned an error: told to err"),
        ("exit", "SystemExit: 3"),
        ("loop", "it took longer than its deadline of 1s"),
        ("allocate", "it needs more than its memory limit of 64MiB"),
        ("recurse", "it last logged: RecursionError"),
        ("nonsense", "on_request returned 42, which is not Verdict_Forward or Verdict_Respond"),
        ("nothing", "on_request returned None, which is not"),
        ("within", "Rejection with the status 'teapot', which is not int"),
    ];
    fails("python", faults).await;
}

async fn fails(language: &str, faults: &[Fault]) {
    let guest = std::fs::read(languages::guest(language, "faulty")).unwrap();
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup().config(LIMITS).start().await;
    gateway.drop_plugin("faulty.wasm", guest);
    gateway.put("a", json!({ "server": upstream.uri(), "filters": ["faulty"] })).await;
    loaded(&gateway, "faulty").await;
    for (fault, cause) in faults {
        works(&gateway, &upstream).await;
        let seen = upstream.seen().len();
        let call = gateway.get("/a/").header("fault", *fault);
        let problem = call.send().await.problem(503).to_string();
        assert!(problem.contains("faulty"), "{language}, {fault}: the plugin is named: {problem}");
        assert_eq!(upstream.seen().len(), seen, "{language}, {fault}: the server saw nothing");
        named(&gateway, fault, cause).await;
    }
    works(&gateway, &upstream).await;
    let hinted = gateway.log().contains("a plugin in JavaScript");
    assert!(!hinted || language == "javascript", "{language}: a hint is for those whom it helps");
}

/// Often enough that no build counts as one that misbehaves from the start.
async fn works(gateway: &Gateway, upstream: &Upstream) {
    for _ in 0..10 {
        gateway.get("/a/").send().await.expect(200);
        assert_eq!(upstream.last().header("faulty"), "fine");
    }
}

async fn named(gateway: &Gateway, fault: &str, cause: &str) {
    let entry = gateway.plugin("faulty", |entry| entry["last_error"].is_string()).await;
    let error = entry["last_error"].as_str().unwrap_or_default();
    let whole = error.starts_with("plugin faulty: on-request: ") && error.contains(cause);
    assert!(whole, "{fault}: {cause} is not in: {error}\n{}", gateway.log());
}

#[tokio::test]
async fn an_import_that_is_not_granted_is_refused_from_a_bare_module_too() {
    for language in ["c", "go"] {
        let gateway = Gateway::start().await;
        gateway.drop_plugin("greedy.wasm", std::fs::read(languages::guest(language, "greedy")).unwrap());
        let error = eventually_within(COMPILED, || async {
            let plugins = gateway.ask("GET", "/v1/plugins").send().await.expect(200).json();
            let entry =
                plugins.as_array().into_iter().flatten().find(|entry| entry["name"] == "greedy").cloned();
            entry
                .and_then(|entry| Some(entry["error"].as_str()?.to_owned()))
                .ok_or_else(|| plugins.to_string())
        })
        .await;
        for part in ["message-flow:plugin/etcd@0.1.0", "grant = [\"etcd\"]", "[plugin.greedy]"] {
            assert!(error.contains(part), "{language}: {part} is not in: {error}");
        }
    }
}

#[tokio::test]
async fn a_module_that_exports_nothing_of_ours_is_refused() {
    let gateway = Gateway::start().await;
    let module = b"\0asm\x01\0\0\0".to_vec();
    gateway.drop_plugin("empty.wasm", module);
    eventually(|| async {
        let plugins = gateway.ask("GET", "/v1/plugins").send().await.expect(200).text();
        if plugins.contains("exports none of the interfaces") { Ok(()) } else { Err(plugins) }
    })
    .await;
}
