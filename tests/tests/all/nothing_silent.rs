//! What an author does that has no effect is told to them.

use message_flow_tests::{Gateway, Upstream, eventually, guests};
use serde_json::json;

use super::languages::loaded;

#[tokio::test]
async fn what_is_not_taken_is_in_the_log_once() {
    let setup = Gateway::setup().config("[plugin.nera]\n[plugin.elsewhere]\n[plugin.near]\n");
    let setup = setup.plugin("near", guests::wasm("stamp")).file("plugins/near.ts", "export {}");
    let setup = setup.file("plugins/x.mjs", "export function resolve() {}").file("plugins/big.WASM", "");
    let setup = setup.file("plugins/notes.md", "").file("plugins/.hidden", "");
    let gateway = setup.start().await;
    let directory = gateway.path("plugins");
    std::fs::create_dir(directory.join("deep")).unwrap();
    std::os::unix::fs::symlink("gone.wasm", directory.join("link.wasm")).unwrap();
    gateway.active("near").await;
    let expected = [
        ("near.ts", "message-flow plugin new --lang ts"),
        ("x.mjs", "rename it to `x.js`"),
        ("big.WASM", "rename it to `big.wasm`"),
        ("deep", "it is a directory"),
        ("link.wasm", "it is a link to gone.wasm, where there is nothing"),
        ("[plugin.nera]", "did you mean [plugin.near]?"),
        ("[plugin.elsewhere]", "there is no elsewhere.wasm or elsewhere.js in"),
    ];
    let told = |name: &str, what: &str| {
        let log = gateway.log();
        log.lines().filter(|line| line.contains("WARN") && line.contains(name) && line.contains(what)).count()
    };
    eventually(|| async {
        let missing: Vec<_> = expected.iter().filter(|(name, what)| told(name, what) == 0).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}\n{}", gateway.log())) }
    })
    .await;
    // Every look after this one comes by the same files.
    gateway.drop_plugin("other.wasm", guests::bytes("stamp"));
    gateway.active("other").await;
    for (name, what) in expected {
        assert_eq!(told(name, what), 1, "{name}: {}", gateway.log());
    }
    for (silent, what) in
        [("notes.md", "not taken"), (".hidden", "not taken"), ("", "[plugin.near] is for no")]
    {
        assert_eq!(told(silent, what), 0, "{}", gateway.log());
    }
}

#[tokio::test]
async fn what_a_script_says_that_nobody_looks_at_is_an_error() {
    let upstream = Upstream::start("a").await;
    let script = "const answers = {
  headers: { respond: { status: 302, reason: 'there', headers: { location: '/there' } } },
  body: { respond: { status: 400, body: 'no' } },
  outer: { respond: { status: 400 }, headers: {} },
  reason: { respond: { status: 400, reason: { text: 'no' } } },
  fine: { respond: { status: 400, reason: undefined }, other: undefined },
};
export function onRequest() { return answers[request.header('answer')]; }
";
    let gateway = Gateway::start().await;
    gateway.drop_plugin("gate.js", script);
    loaded(&gateway, "gate").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["gate"] })).await;
    for (answer, part) in [
        ("headers", "with response.setHeader(…) in onResponse"),
        ("body", "what the client is to read is the `reason`"),
        ("outer", "an object with `headers`, which nobody looks at: it may have `respond`"),
        ("reason", "return nothing to forward, or"),
    ] {
        gateway.get("/chat/").header("answer", answer).send().await.problem(503);
        let told = |entry: &serde_json::Value| {
            entry["last_error"].as_str().is_some_and(|error| error.contains(part))
        };
        gateway.plugin("gate", told).await;
    }
    gateway.get("/chat/").header("answer", "fine").send().await.problem(400);
}

#[tokio::test]
async fn an_export_that_is_nearly_one_is_refused() {
    let gateway = Gateway::start().await;
    gateway.drop_plugin("fine.js", "export function onResponse() {}");
    loaded(&gateway, "fine").await;
    let scripts = [
        ("one", "on_request", "onRequest"),
        ("two", "onrequest", "onRequest"),
        ("three", "Resolve", "resolve"),
    ];
    for (name, written, meant) in scripts {
        let script = format!("export function {written}() {{}} export function onResponse() {{}}");
        gateway.drop_plugin(&format!("{name}.js"), script);
        let entry = gateway.plugin(name, |entry| entry["error"].is_string()).await;
        let error = entry["error"].as_str().unwrap_or_default();
        assert!(error.contains(&format!("nobody looks for `{written}`: write `{meant}`")), "{entry}");
    }
}
