//! Core modules that are called directly: they do what their components do, and what they leave in
//! their memory is not believed.

use std::sync::Arc;

use http::HeaderMap;
use message_flow::plugin::{
    CallError, Generation, Message, Settings, Verdict,
    candidates::{Candidate, Listed},
    message::ResponseHead,
};
use message_flow_tests::guests;

use super::plugin_host::{Host, start_with, with};

fn load(files: &[(&str, &[u8])]) -> Host {
    let settings = Settings { memory: 8 << 20, ..Settings::default() };
    let settings: Vec<_> = files.iter().map(|(name, _)| (*name, settings.clone())).collect();
    start_with(&settings, files)
}

fn message(headers: &[(&'static str, &str)]) -> Message {
    Message { uri: "/a/b?c=d".parse().unwrap(), ..with(headers) }
}

fn component(module: &[u8]) -> Vec<u8> {
    let encoder = wit_component::ComponentEncoder::default().validate(true).module(module);
    encoder.and_then(|mut encoder| encoder.encode()).unwrap()
}

/// Both ways in which a guest can be called.
fn both(guest: &str) -> (Host, [Arc<Generation>; 2]) {
    let module = guests::bytes(guest);
    let host = load(&[("module", &module), ("component", &component(&module))]);
    let both = [host.get("module"), host.get("component")];
    assert_eq!(both.each_ref().map(|build| build.lane()), ["direct", "sync"], "{guest}");
    (host, both)
}

/// What a call came to, without what tells the two apart: the plugin's name, and those of its functions.
fn plain<T: std::fmt::Debug>(build: &Generation, answer: Result<T, CallError>) -> String {
    let answer = answer.map_err(|error| {
        let text = error.to_string();
        text.split(" in ").next().unwrap().replacen(build.name(), "it", 1)
    });
    format!("{answer:?}")
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn a_filter_does_what_its_component_does() {
    let faults = ["trap", "error", "loop", "allocate", "recurse", "header", "value", "hop", "path"];
    let cases = [("faulty", &["fine"][..], false), ("faulty", &faults, true)];
    let cases =
        cases.into_iter().chain([("speaker", &["", "respond"][..], false), ("speaker", &["other"], true)]);
    for (guest, told, fails) in cases {
        let (_host, both) = both(guest);
        for told in told {
            let headers = [("fault", *told), ("many", "one"), ("many", "tw\u{f6}"), ("empty", "")];
            let mut outcomes = vec![];
            for build in &both {
                let mut message = message(&headers);
                let answer = build.on_request(&mut message).await;
                assert_eq!(answer.is_err(), fails, "{guest}, {told}: {answer:?}");
                let left = (plain(build, answer), lines(&message.headers), message.target().to_owned());
                outcomes.push(left);
            }
            assert_eq!(outcomes[0], outcomes[1], "{guest}, {told}");
        }
    }
}

#[tokio::test]
async fn a_response_filter_does_what_its_component_does() {
    let (_host, both) = both("speaker");
    for told in ["", "error", "status"] {
        let mut outcomes = vec![];
        for build in &both {
            let mut message = message(&[]);
            let mut head = Box::new(ResponseHead::default());
            head.headers.insert("fault", told.parse().unwrap());
            for value in ["one", "two"] {
                head.headers.append("many", value.parse().unwrap());
            }
            message.response = Some(head);
            let answer = build.on_response(&mut message).await;
            assert_eq!(answer.is_err(), !told.is_empty(), "{told}: {answer:?}");
            let head = message.response.unwrap();
            outcomes.push((plain(build, answer), head.status, lines(&head.headers)));
        }
        assert_eq!(outcomes[0], outcomes[1], "{told}");
    }
}

#[tokio::test]
async fn a_registrar_decides_as_its_component_does() {
    let (_host, both) = both("speaker");
    let candidate = |id: &str, disk: &str, in_flight| Candidate {
        id: id.into(),
        uri: format!("http://{id}"),
        weight: 1,
        healthy: true,
        in_flight,
        metadata: [("region", "eu"), ("disk", disk)].map(|(key, value)| (key.into(), value.into())).into(),
    };
    let candidates = [candidate("a:1", "slow", 0), candidate("b:1", "fast", 9), candidate("c:1", "fast", 5)];
    let cases = [
        ("server", "Ok(Server(\"http://a:1\"))"),
        ("least", "Ok(Server(\"c:1\"))"),
        ("pass", "Ok(Pass)"),
        ("reject", "Ok(Reject(Rejection { status: 451, reason: \"not here\" }))"),
        (
            "other",
            "Err(\"plugin it: resolve: it answered `other`, with `thing`, which this host does not know\")",
        ),
        ("error", "Err(\"plugin it: resolve: it returned an error: no idea\")"),
        ("too many", "Err(\"plugin it: resolve: least-loaded: it takes at most 8 pairs\")"),
    ];
    for (told, decided) in cases {
        for build in &both {
            let mut message = message(&[("choose", told)]);
            message.candidates = Some(Arc::new(Listed(candidates.to_vec())));
            let answer = build.resolve(&mut message).await;
            assert_eq!(plain(build, answer), decided, "{told}, {}", build.lane());
        }
    }
}

/// A filter in the text format, around these functions.
fn filter(imports: &str, functions: &str) -> Vec<u8> {
    let text = format!(
        "(module {imports}
           (memory (export \"memory\") 1)
           (global $initialized (mut i32) (i32.const 0))
           (global $freed (mut i32) (i32.const 1))
           {functions})"
    );
    wat::parse_str(text).unwrap()
}

const ON_REQUEST: &str = "(export \"message-flow:plugin/request-filter@0.1.0#on-request\")";
const REQUEST: &str = "\"message-flow:plugin/request@0.1.0\"";

async fn ask(module: &[u8]) -> Result<Verdict, String> {
    let host = load(&[("f", module)]);
    let filter = host.get("f");
    assert_eq!(filter.lane(), "direct");
    let answer = filter.on_request(&mut message(&[("a", "value")])).await.map_err(|error| error.to_string());
    // Whatever it was, the next message is shown to an instance that works as this one did.
    let again = filter.on_request(&mut message(&[("a", "value")])).await.map_err(|error| error.to_string());
    assert_eq!(answer, again);
    answer
}

#[tokio::test]
async fn what_it_answers_is_read_within_its_memory() {
    let at = |place: &str, data: &str| {
        filter("", &format!("{data} (func {ON_REQUEST} (result i32) i32.const {place})"))
    };
    let outside = "it points to what is not in its memory";
    let cases = [
        (at("65536", ""), outside),
        (at("-1", ""), outside),
        (at("65530", "(data (i32.const 65530) \"\\01\")"), outside),
        (at("0", "(data (i32.const 0) \"\\02\")"), "it answered with case 2, which there is not"),
        (
            at("0", "(data (i32.const 0) \"\\00\\00\\00\\00\\09\")"),
            "it answered with case 9, which there is not",
        ),
        // An error whose text begins inside of its memory and ends outside of it.
        (at("0", "(data (i32.const 0) \"\\01\\00\\00\\00\\00\\ff\\00\\00\\00\\ff\\00\\00\")"), outside),
        (at("0", "(data (i32.const 0) \"\\01\\00\\00\\00\\10\\00\\00\\00\\ff\\ff\\ff\\ff\")"), outside),
        (
            at("0", "(data (i32.const 0) \"\\01\\00\\00\\00\\0c\\00\\00\\00\\02\\00\\00\\00\\c3\\28\")"),
            "a text of it is not UTF-8",
        ),
    ];
    for (module, cause) in cases {
        let text = ask(&module).await.unwrap_err();
        assert!(text.starts_with("plugin f: on-request: ") && text.contains(cause), "{cause}: {text}");
    }
    let said = at("0", "(data (i32.const 0) \"\\01\\00\\00\\00\\0c\\00\\00\\00\\02\\00\\00\\00no\")");
    assert_eq!(ask(&said).await.unwrap_err(), "plugin f: on-request: it returned an error: no");
}

#[tokio::test]
async fn what_it_asks_for_is_written_within_its_memory() {
    let header = format!("(import {REQUEST} \"header\" (func $header (param i32 i32 i32)))");
    let asks = |import: &str, realloc: &str, call: &str| {
        let functions = format!(
            "(data (i32.const 100) \"a\\ff\")
             (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) {realloc})
             (func {ON_REQUEST} (result i32) {call} i32.const 0)"
        );
        filter(import, &functions)
    };
    let read = "(call $header (i32.const 100) (i32.const 1) (i32.const 200))";
    let outside = "it points to what is not in its memory";
    let cases = [
        (asks(&header, "i32.const 65535", read), outside),
        (asks(&header, "i32.const -1", read), outside),
        (
            asks(&header, "i32.const 300", "(call $header (i32.const 65536) (i32.const 1) (i32.const 200))"),
            outside,
        ),
        (
            asks(
                &header,
                "i32.const 300",
                "(call $header (i32.const 65500) (i32.const 200) (i32.const 200))",
            ),
            outside,
        ),
        (
            asks(&header, "i32.const 300", "(call $header (i32.const 100) (i32.const -1) (i32.const 200))"),
            "a text of 4294967295 bytes, where there may be 256",
        ),
        (
            asks(&header, "i32.const 300", "(call $header (i32.const 100) (i32.const 1) (i32.const 65530))"),
            outside,
        ),
        (
            asks(&header, "i32.const 300", "(call $header (i32.const 100) (i32.const 2) (i32.const 200))"),
            "a text of it is not UTF-8",
        ),
        // It would go on for ever.
        (asks(&header, &format!("{read} i32.const 300"), read), "asks for texts in it"),
        (asks(&header, "unreachable", read), "it trapped"),
        (asks(&header.replace("\"header\"", "\"headers\""), "i32.const -1", read), outside),
    ];
    for (module, cause) in cases {
        let text = ask(&module).await.unwrap_err();
        assert!(text.starts_with("plugin f: on-request: ") && text.contains(cause), "{cause}: {text}");
    }
    let found = "(call $header (i32.const 100) (i32.const 1) (i32.const 200))
                 (if (i64.ne (i64.load (i32.const 200)) (i64.const 0x12c00000001)) (then unreachable))
                 (if (i32.ne (i32.load (i32.const 208)) (i32.const 5)) (then unreachable))
                 (if (i32.ne (i32.load (i32.const 300)) (i32.const 0x756c6176)) (then unreachable))";
    assert_eq!(ask(&asks(&header, "i32.const 300", found)).await, Ok(Verdict::Forward));
}

/// As the canonical ABI has it: made ready once, and told when its answer was read.
#[tokio::test]
async fn it_is_initialized_and_its_answers_are_freed() {
    let functions = format!(
        "(func (export \"_initialize\") (global.set $initialized (i32.const 1)))
         (func {ON_REQUEST} (result i32)
           (if (i32.eqz (global.get $initialized)) (then unreachable))
           (if (i32.eqz (global.get $freed)) (then unreachable))
           (global.set $freed (i32.const 0))
           i32.const 8)
         (func (export \"cabi_post_message-flow:plugin/request-filter@0.1.0#on-request\") (param i32)
           (if (i32.ne (local.get 0) (i32.const 8)) (then unreachable))
           (global.set $freed (i32.const 1)))"
    );
    assert_eq!(ask(&filter("", &functions)).await, Ok(Verdict::Forward));
}

/// What is more than that has a component around it, as before.
#[tokio::test]
async fn what_needs_more_is_called_as_a_component() {
    let started = filter("", &format!("(start $s) (func $s) (func {ON_REQUEST} (result i32) i32.const 0)"));
    let counter = guests::bytes("counter");
    let host = load(&[("started", &started), ("counter", &counter)]);
    for name in ["started", "counter"] {
        assert_eq!(host.get(name).lane(), "sync", "{name}");
        assert_eq!(host.get(name).on_request(&mut message(&[])).await.unwrap(), Verdict::Forward, "{name}");
    }
}
