//! Scripts: JavaScript files in the plugins directory.

use std::time::{Duration, Instant};

use message_flow_tests::{Gateway, Upstream};
use serde_json::json;

const STAMP: &str = "export function onRequest() { request.setHeader('stamp', 'MARK'); }\n\
                     export function onResponse() { response.setHeader('stamped', 'MARK'); }\n";

/// A gateway with a script and a service that uses it in every way.
async fn gateway(script: &str, upstream: &Upstream) -> Gateway {
    configured(script, "", upstream).await
}

async fn configured(script: &str, config: &str, upstream: &Upstream) -> Gateway {
    let gateway = Gateway::setup().config(config).file("plugins/geo.js", script).start().await;
    gateway.active("geo").await;
    let servers = json!([{ "uri": upstream.uri(), "id": "one", "metadata": { "region": "eu" } }]);
    gateway.put("chat", json!({ "servers": servers, "filters": ["geo"], "sticky": false })).await;
    gateway.put("asked", json!({ "servers": servers, "registrar": "geo", "sticky": false })).await;
    gateway
}

#[tokio::test]
async fn a_script_is_what_it_exports() {
    let upstream = Upstream::start("a").await;
    let script = format!(
        "{STAMP}export const resolve = () => candidates.servers().find((s) => s.metadata.region === request.header('region'))?.id\n\
         ?? {{ reject: {{ status: 451, reason: `no server for ${{request.client()}}` }} }};"
    );
    let gateway = gateway(&script, &upstream).await;
    let entry = gateway.active("geo").await;
    assert_eq!(entry["kinds"], json!(["registrar", "request-filter", "response-filter"]), "{entry}");
    assert_eq!(entry["lane"], "sync");
    let reply = gateway.get("/chat/").send().await.expect(200);
    assert_eq!((upstream.last().header("stamp"), reply.header("stamped")), ("MARK", "MARK"));
    gateway.get("/asked/").header("region", "eu").send().await.expect(200);
    let reply = gateway.get("/asked/").header("message-flow-client", "ann").send().await.expect(451);
    assert!(reply.text().contains("no server for ann"), "{}", reply.text());
}

#[tokio::test]
async fn a_saved_script_takes_effect_at_once_and_a_broken_one_is_refused() {
    let upstream = Upstream::start("a").await;
    let gateway = gateway(STAMP, &upstream).await;
    let mut fastest = Duration::MAX;
    for number in 0..5 {
        let mark = format!("v{number}");
        let saved = Instant::now();
        std::fs::write(gateway.path("plugins/geo.js"), STAMP.replace("MARK", &mark)).expect("save");
        while gateway.get("/chat/").send().await.expect(200).header("stamped") != mark {
            assert!(saved.elapsed() < Duration::from_secs(10), "{}", gateway.log());
        }
        fastest = fastest.min(saved.elapsed());
    }
    println!("a saved script took effect after {fastest:?}");
    gateway.drop_plugin("geo.js", "export function onRequest() {\n  request.setHeader('stamp' 1);\n}\n");
    let entry = gateway.plugin("geo", |entry| entry["error"].is_string()).await;
    let error = entry["error"].as_str().unwrap_or_default();
    assert!(error.contains("geo.js:2:") && error.contains("SyntaxError"), "{error}");
    assert_eq!(gateway.get("/chat/").send().await.expect(200).header("stamped"), "v4");
}

#[tokio::test]
async fn what_goes_wrong_is_named_with_file_line_and_column() {
    let upstream = Upstream::start("a").await;
    let script = "\
        const faults = {\n\
          throws() { throw new TypeError('told to'); },\n\
          value() { throw { code: 7 }; },\n\
          missing() { return nothing.at.all; },\n\
          loops() { for (;;) {} },\n\
          recurses() { return faults.recurses() + 1; },\n\
          hoards() { const all = []; for (;;) all.push('x'.repeat(65536) + all.length); },\n\
          nonsense() { return 42; },\n\
          within() { return { respond: { status: 'teapot' } }; },\n\
          promise() { return Promise.resolve(); },\n\
          header() { request.setHeader('bad header', 'x'); },\n\
          full() { state.set('k', 'x'.repeat(2 ** 20)); },\n\
        };\n\
        export function onRequest() {\n\
          const fault = request.header('fault');\n\
          request.setHeader('faulty', 'fine');\n\
          return fault && faults[fault]();\n\
        }\n";
    let config = "[plugin.geo]\nmemory = \"16MiB\"\nstate_limit = \"64KiB\"\ndeadline = \"2s\"\n";
    let gateway = configured(script, config, &upstream).await;
    for (fault, cause) in [
        ("throws", "it returned an error: geo.js:2:"),
        ("throws", "TypeError: told to"),
        ("value", "it threw {\"code\":7}"),
        ("missing", "ReferenceError: nothing is not defined"),
        ("loops", "it took longer than its deadline of 2s, at geo.js:5:"),
        ("recurses", "geo.js:6:"),
        ("recurses", "RangeError: Maximum call stack size exceeded"),
        ("hoards", "geo.js:7:"),
        ("hoards", "out of memory"),
        ("nonsense", "geo.js: onRequest returned 42: return nothing to forward, or"),
        ("within", "onRequest returned {\"respond\":{\"status\":\"teapot\"}}: return nothing to forward, or"),
        ("promise", "onRequest returned a promise; a script answers at once"),
        ("header", "set-header: `bad header` is not a header name"),
        ("full", "Error: state is full: its limit is 65536 bytes"),
    ] {
        gateway.get("/chat/").header("fault", fault).send().await.expect(503);
        let wanted = |entry: &serde_json::Value| {
            entry["last_error"]
                .as_str()
                .is_some_and(|error| error.starts_with("plugin geo: on-request: ") && error.contains(cause))
        };
        gateway.plugin("geo", wanted).await;
        gateway.get("/chat/").send().await.expect(200);
        assert_eq!(upstream.last().header("faulty"), "fine", "after {fault}");
    }
}

#[tokio::test]
async fn however_deep_it_recurses_a_script_is_no_crash() {
    let upstream = Upstream::start("a").await;
    let script = "\
        const deep = (open, close) => open.repeat(200000) + close.repeat(200000);\n\
        const nest = () => { let all = []; for (let i = 0; i < 200000; i++) all = [all]; return all; };\n\
        const faults = {\n\
          parse() { return JSON.parse(deep('[', ']')); },\n\
          stringify() { return JSON.stringify(nest()); },\n\
          text() { return String(nest()); },\n\
          pattern() { return /(?:(a|ab)+)+$/.test('a'.repeat(100000) + 'b'); },\n\
          code() { return new Function(deep('(', ')')); },\n\
          getter() { const o = { get x() { return o.x; } }; return o.x; },\n\
          sort() { const again = () => { [2, 1].sort(again); return 0; }; again(); },\n\
        };\n\
        export function onRequest() {\n\
          const fault = request.header('fault');\n\
          if (fault) { try { faults[fault](); } catch { request.setHeader('caught', fault); } }\n\
        }\n";
    let gateway = configured(script, "[plugin.geo]\ndeadline = \"5s\"\n", &upstream).await;
    for fault in ["parse", "stringify", "text", "pattern", "code", "getter", "sort"] {
        for _ in 0..2 {
            let reply = gateway.get("/chat/").header("fault", fault).send().await;
            assert!([200, 503].contains(&reply.status), "{fault}: {reply:?}");
        }
        gateway.get("/chat/").send().await.expect(200);
    }
    let entry = gateway.active("geo").await;
    assert_eq!(entry["crashes"], 0, "{entry}\n{}", gateway.log());
}

#[tokio::test]
async fn a_script_keeps_state_and_reads_its_configuration() {
    let upstream = Upstream::start("a").await;
    let script = "export function onRequest() {\n\
        state.set('last', request.path());\n\
        request.setHeader('count', String(state.add('count', 1)));\n\
        request.setHeader('seen', JSON.stringify([state.get('last'), state.get('none') ?? null, state.scan('l'), config.entries()]));\n\
        if (!state.swap('once', undefined, 'x')) request.addHeader('again', 'yes');\n\
      }";
    let config = "[plugin.geo]\nconfig = { region = \"eu\" }\n";
    let gateway = configured(script, config, &upstream).await;
    gateway.get("/chat/a").send().await.expect(200);
    gateway.get("/chat/b").send().await.expect(200);
    let last = upstream.last();
    assert_eq!((last.header("count"), last.header("again")), ("2", "yes"));
    assert_eq!(last.header("seen"), r#"["/b",null,[["last","/b"]],{"region":"eu"}]"#);
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_the_reason() {
    let gateway = Gateway::setup()
        .config("[plugin.spins]\ndeadline = \"1s\"\n")
        .file("plugins/empty.js", "const x = 1;")
        .file("plugins/value.js", "export const resolve = 7;")
        .file("plugins/imports.js", "import { x } from './other.js'; export function resolve() {}")
        .file("plugins/spins.js", "for (;;) {}")
        .file("plugins/binary.js", b"export \xff".to_vec())
        .file("plugins/twice.js", STAMP)
        .plugin("twice", message_flow_tests::guests::wasm("stamp"))
        .start()
        .await;
    for (name, why) in [
        ("empty", "it exports none of resolve, onRequest, onResponse, onEvent"),
        ("value", "value.js: `resolve` is no function"),
        ("imports", "imports.js"),
        ("spins", "it took longer than its deadline of 1s, at spins.js:1:"),
        ("binary", "its text is not UTF-8, from byte 7 on"),
        ("twice", "there are both twice.wasm and twice.js: remove one of them"),
    ] {
        let entry = gateway.plugin(name, |entry| entry["error"].is_string()).await;
        assert!(entry["error"].as_str().unwrap_or_default().contains(why), "{name}: {entry}");
    }
}

#[tokio::test]
async fn a_script_that_says_so_reads_and_replaces_bodies() {
    let upstream = Upstream::start("a").await;
    let script = "export const readsBody = true;\n\
        export function onRequest() {\n\
          if (request.path() !== '/echo') return;\n\
          const order = request.json(1000);\n\
          if (order.items.length === 0) return { respond: { status: 422, reason: 'an empty order' } };\n\
          request.setBody(JSON.stringify({ ...order, count: order.items.length }));\n\
        }\n\
        export function onResponse() {\n\
          response.setHeader('length', String(response.bytes().length));\n\
          response.setBody(response.body().toUpperCase());\n\
        }\n";
    let gateway = gateway(script, &upstream).await;
    assert_eq!(gateway.active("geo").await["lane"], "async");
    let order = |body: String| gateway.call("POST", "/chat/echo").body(body);
    let reply = order(r#"{"items":["tea","jam"]}"#.to_owned()).send().await.expect(200);
    assert_eq!(
        (reply.text().as_str(), reply.header("length")),
        (r#"{"ITEMS":["TEA","JAM"],"COUNT":2}"#, "33")
    );
    let empty = order(r#"{"items":[]}"#.to_owned()).send().await.problem(422);
    assert!(empty.to_string().contains("an empty order"), "{empty}");
    for (body, cause) in [
        (format!(r#"{{"items":["{}"]}}"#, "x".repeat(1000)), "Error: the body is longer than 1000 bytes"),
        ("{".to_owned(), "SyntaxError"),
    ] {
        order(body).send().await.expect(503);
        let named = |entry: &serde_json::Value| {
            entry["last_error"].as_str().is_some_and(|error| error.contains(cause))
        };
        gateway.plugin("geo", named).await;
    }
    assert_eq!(gateway.get("/chat/").send().await.expect(200).text(), "A");
}

#[tokio::test]
async fn a_script_that_does_not_say_so_holds_no_body_up() {
    let upstream = Upstream::start("a").await;
    let script = "export function onRequest() { if (request.header('peek')) request.body(); }";
    let gateway = gateway(script, &upstream).await;
    assert_eq!(gateway.active("geo").await["lane"], "sync");
    let echo = gateway.call("POST", "/chat/echo").body("whole".to_owned());
    assert_eq!(echo.clone().send().await.expect(200).text(), "whole");
    echo.header("peek", "yes").send().await.expect(503);
    let says = "a script that reads or sets bodies says so: `export const readsBody = true;`";
    gateway
        .plugin("geo", |entry| entry["last_error"].as_str().is_some_and(|error| error.contains(says)))
        .await;
}

#[tokio::test]
async fn the_engine_is_ready_before_the_first_script() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    let compiled = || std::fs::read_dir(gateway.path("data/compiled")).map_or(0, Iterator::count);
    let at_first = compiled();
    message_flow_tests::eventually_within(Duration::from_secs(120), || async {
        if compiled() > at_first { Ok(()) } else { Err(format!("{} compiled", compiled())) }
    })
    .await;
    gateway.drop_plugin("geo.js", STAMP);
    gateway.active("geo").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["geo"] })).await;
    assert_eq!(gateway.get("/chat/").send().await.expect(200).header("stamped"), "MARK");
}
