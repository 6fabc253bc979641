//! A guest that passes more to the host than it should fails its own call, says why in a few words,
//! and goes on with the next.

use std::{sync::Arc, time::Duration};

use message_flow::plugin::{
    Decision, Generation, Message, OnError, Settings, Verdict, message::ResponseHead,
};
use message_flow_tests::{Gateway, Upstream, guests};
use serde_json::json;

use super::plugin_host::{Host, start_with, with};

/// As a core module and as a component, under two names each: `open` ones undo what a failed call changed.
fn both() -> (Host, Vec<Arc<Generation>>) {
    let module = guests::bytes("excess");
    let encoder = wit_component::ComponentEncoder::default().validate(true).module(&module);
    let component = encoder.and_then(|mut encoder| encoder.encode()).unwrap();
    let settings =
        |on_error| Settings { deadline: Some(Duration::from_secs(20)), on_error, ..Settings::default() };
    let (closed, open) = (settings(None), settings(Some(OnError::Open)));
    let all = [("m", closed.clone()), ("c", closed), ("mo", open.clone()), ("co", open)];
    let host = start_with(&all, &[("m", &module), ("c", &component), ("mo", &module), ("co", &component)]);
    let builds = all.iter().map(|(name, _)| host.get(name)).collect();
    (host, builds)
}

fn message(excess: &str) -> Message {
    with(&[("excess", excess), ("x", "before")])
}

const FAULTS: [(&str, &str); 14] = [
    ("name", "set-header: a text of 4194304 bytes, where there may be 256"),
    ("value", "set-header: a text of 4194304 bytes, where there may be 65536"),
    ("add", "add-header: a text of 4194304 bytes, where there may be 65536"),
    ("remove", "remove-header: a text of 4194304 bytes, where there may be 256"),
    ("ask", "header: a text of 4194304 bytes, where there may be 256"),
    ("ask all", "headers: a text of 4194304 bytes, where there may be 256"),
    ("path", "set-path: a text of 4194305 bytes, where there may be 65536"),
    ("bad name", "set-header: `\\n\\n"),
    ("headers", "set-header: the message has 1000 headers already, which is the most"),
    ("one header", "add-header: the message has 1000 headers already, which is the most"),
    ("values", "set-header: a call changes a message 4096 times at most, and by 262144 bytes"),
    ("changes", "set-path: a call changes a message 4096 times at most, and by 262144 bytes"),
    ("response", "set-status: a call changes a message 4096 times at most, and by 262144 bytes"),
    ("pairs", "least-loaded: a text of 4194304 bytes, where there may be 65536"),
];

#[tokio::test]
async fn what_is_too_much_fails_the_call_and_spares_the_instance() {
    let (_host, builds) = both();
    for build in builds {
        build.on_request(&mut message("nothing")).await.unwrap();
        let instances = build.instances_and_memory().0;
        for (excess, why) in FAULTS {
            let mut message = message(excess);
            let error = build.on_request(&mut message).await.unwrap_err().to_string();
            let start = format!("plugin {}: on-request: {why}", build.name());
            assert!(error.starts_with(&start) && error.len() < 2000, "{excess}: {error}");
            assert!(message.headers.len() <= 1000, "{excess}");
            if build.on_error() == OnError::Open {
                assert_eq!((message.headers.len(), message.target()), (2, "/"), "{excess}: undone");
                assert_eq!(message.headers["x"], "before", "{excess}: undone");
            }
        }
        assert_eq!(build.instances_and_memory().0, instances, "{}: none was thrown away", build.name());
    }
}

#[tokio::test]
async fn a_response_is_bounded_too() {
    let (_host, builds) = both();
    for build in builds {
        let mut message = message("response headers");
        message.response = Some(Box::<ResponseHead>::default());
        let error = build.on_response(&mut message).await.unwrap_err().to_string();
        assert!(error.contains("add-header: the message has 1000 headers already"), "{error}");
        let mut message = self::message("response error");
        message.response = Some(Box::<ResponseHead>::default());
        let error = build.on_response(&mut message).await.unwrap_err().to_string();
        assert!((4000..5000).contains(&error.len()), "{} bytes", error.len());
    }
}

#[tokio::test]
async fn what_is_for_people_is_cut() {
    let (_host, builds) = both();
    for build in builds {
        let answer = build.on_request(&mut message("reason")).await.unwrap();
        let Verdict::Respond(rejection) = answer else { panic!("{answer:?}") };
        assert_eq!((rejection.status.as_u16(), rejection.reason.len()), (403, 4096));
        let answer = build.resolve(&mut message("reject")).await.unwrap();
        let Decision::Reject(rejection) = answer else { panic!("{answer:?}") };
        assert_eq!((rejection.status.as_u16(), rejection.reason.len()), (403, 4096));
        for (excess, cause) in
            [("error", "it returned an error: eee"), ("error ü", "it returned an error: ü")]
        {
            let error = build.on_request(&mut message(excess)).await.unwrap_err();
            assert!(error.cause.to_string().starts_with(cause) && error.cause.to_string().len() < 4200);
        }
        let error = build.on_request(&mut message("other")).await.unwrap_err().to_string();
        assert!(error.contains("it answered `other`, with `ooo") && error.len() < 400, "{error}");
        let error = build.on_request(&mut message("panic")).await.unwrap_err().to_string();
        assert!(error.contains("it trapped: ") && error.len() < 4400, "{} bytes", error.len());
        let error = build.resolve(&mut message("server")).await.unwrap_err().to_string();
        assert!(
            error.ends_with("it answered with a text of 4194304 bytes, where there may be 65536"),
            "{error}"
        );
        build.on_request(&mut message("log")).await.unwrap();
    }
}

#[tokio::test]
async fn a_state_is_bounded_before_it_is_written() {
    let settings =
        Settings { deadline: Some(Duration::from_secs(20)), state_limit: 9 << 20, ..Settings::default() };
    let host = start_with(&[("k", settings)], &[("k", &guests::bytes("keeper"))]);
    for (keep, kept) in [
        ("value", "Ok(())"),
        ("same", "Err(StateError::Full(9437184))"),
        ("expected", "Err(StateError::Full(9437184))"),
        ("key", "Err(StateError::Other(\"a key has at most 65536 bytes\"))"),
        ("count", "Err(StateError::Other(\"a key has at most 65536 bytes\"))"),
        ("look", "None"),
    ] {
        let mut message = with(&[("keep", keep)]);
        host.get("k").on_request(&mut message).await.unwrap();
        assert_eq!(message.headers["kept"], kept, "{keep}");
    }
}

async fn gateway() -> (Gateway, Upstream) {
    let upstream = Upstream::start("a").await;
    let config = "[plugin.excess]\ndeadline = \"20s\"\n";
    let gateway = Gateway::setup().config(config).plugin("excess", guests::wasm("excess")).start().await;
    gateway.active("excess").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["excess"] })).await;
    let asked = json!({ "servers": [upstream.uri()], "registrar": "excess", "sticky": false });
    gateway.put("asked", asked).await;
    (gateway, upstream)
}

#[tokio::test]
async fn a_line_of_the_log_is_one_line_whoever_writes_it() {
    let (gateway, _upstream) = gateway().await;
    gateway.get("/chat/").header("excess", "forge").send().await.expect(200);
    gateway.get("/asked/").header("excess", "lines").send().await.expect(503);
    gateway.logged("by a plugin").await;
    gateway.logged("a\\nERROR forged").await;
    let log = gateway.log();
    let forged = log.lines().filter(|line| line.contains("ERROR forged"));
    assert!(forged.clone().count() >= 2, "{log}");
    for line in forged {
        assert!(line.contains("message_flow"), "a line of its own: {line}");
    }
    assert!(!log.contains('\u{1b}') && !log.contains('\u{9b}') && !log.contains('\u{202e}'), "{log}");
}

#[tokio::test]
async fn a_registrar_that_names_no_server_is_told_of() {
    let (gateway, _upstream) = gateway().await;
    for (excess, said) in [("nothing", "answered ``"), ("unknown", "answered `no such server`")] {
        gateway.get("/asked/").client("cem").header("excess", excess).send().await.problem(503);
        let entry = gateway
            .plugin("excess", |entry| entry["last_error"].as_str().is_some_and(|error| error.contains(said)))
            .await;
        assert!(entry["last_error"].as_str().unwrap().contains("neither the id of a server"), "{entry}");
    }
    let failures = "message_flow_plugin_failures_total{cause=\"error\"";
    assert!(gateway.metric(failures).await >= 2.0);
    let line = gateway.logged("neither the id of a server").await;
    for part in ["WARN", "plugin=\"excess\"", "service=\"asked\"", "client=\"cem\""] {
        assert!(line.contains(part), "no {part} in {line}");
    }
}

#[tokio::test]
async fn explaining_changes_nothing_in_a_state() {
    let (one, two) = (Upstream::start("one").await, Upstream::start("two").await);
    let gateway = Gateway::setup().plugin("keeper", guests::wasm("keeper")).start().await;
    gateway.active("keeper").await;
    let servers = json!([one.uri(), two.uri()]);
    gateway.put("turns", json!({ "servers": servers, "registrar": "keeper", "sticky": false })).await;
    let explained = async || {
        let asked = gateway.ask("GET", "/v1/explain?service=turns&client=ann").send().await.expect(200);
        asked.json()["server"].as_str().unwrap_or_default().to_owned()
    };
    for _ in 0..3 {
        let first = explained().await;
        assert!(!first.is_empty());
        assert_eq!(explained().await, first, "asking changed what would be answered");
        let seen = (one.seen().len(), two.seen().len());
        gateway.get("/turns/").client("ann").send().await.expect(200);
        let went = if one.seen().len() > seen.0 { one.uri() } else { two.uri() };
        assert_eq!(
            went.trim_end_matches('/'),
            first.trim_end_matches('/'),
            "a message goes where it was said"
        );
        assert_ne!(explained().await, first, "the message counted");
    }
    let entry = gateway.active("keeper").await;
    assert_eq!(entry["calls"], 3, "explaining is no call: {entry}");
}
