//! A plugin that fails costs the message at hand and nothing else.

use std::time::{Duration, Instant};

use message_flow_tests::{Gateway, Upstream, eventually, guests};
use serde_json::json;

const CONFIG: &str = "[plugin.closed]\nmemory = \"16MiB\"\ndeadline = \"50ms\"\nstate_limit = \"1MiB\"\n\
                      [plugin.open]\nmemory = \"16MiB\"\ndeadline = \"50ms\"\nstate_limit = \"1MiB\"\non_error = \"open\"\n";

async fn faulty() -> (Gateway, Upstream) {
    faulty_with(CONFIG).await
}

async fn faulty_with(config: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start("a").await;
    let setup = Gateway::setup().config(config).plugin("closed", guests::wasm("faulty"));
    let gateway = setup.plugin("open", guests::wasm("faulty")).start().await;
    for name in ["closed", "open"] {
        gateway.active(name).await;
        gateway.put(name, json!({ "server": upstream.uri(), "filters": [name] })).await;
    }
    (gateway, upstream)
}

const FAULTS: &[&str] = &["trap", "error", "loop", "allocate", "recurse", "header", "value", "hop", "path"];

#[tokio::test]
async fn each_fault_costs_its_message_alone() {
    let (gateway, upstream) = faulty().await;
    // Not so often that it counts as a generation that misbehaves from the start.
    for _ in 0..200 {
        gateway.get("/closed/").send().await.expect(200);
    }
    for fault in FAULTS {
        let seen = upstream.seen().len();
        let begin = Instant::now();
        let problem = gateway.get("/closed/").header("fault", *fault).send().await.problem(503);
        assert!(begin.elapsed() < Duration::from_secs(2), "{fault} took {:?}", begin.elapsed());
        assert!(problem.to_string().contains("closed"), "{fault}: the plugin is named: {problem}");
        assert_eq!(upstream.seen().len(), seen, "{fault}: the server saw nothing");

        gateway.get("/closed/").send().await.expect(200);
        assert_eq!(
            upstream.last().header("faulty"),
            "fine",
            "{fault}: the next message is filtered as usual"
        );
        for _ in 0..20 {
            gateway.get("/closed/").send().await.expect(200);
        }
    }
}

#[tokio::test]
async fn on_error_open_sends_the_message_as_it_was() {
    let (gateway, upstream) = faulty().await;
    for _ in 0..200 {
        gateway.get("/open/").send().await.expect(200);
    }
    for fault in FAULTS {
        gateway.get("/open/").header("fault", *fault).send().await.expect(200);
        let seen = upstream.last();
        assert_eq!((seen.header("fault"), seen.header("faulty")), (*fault, ""), "{fault}");
        gateway.get("/open/").send().await.expect(200);
        assert_eq!(upstream.last().header("faulty"), "fine", "after {fault}");
        for _ in 0..20 {
            gateway.get("/open/").send().await.expect(200);
        }
    }
}

#[tokio::test]
async fn limits_are_named_where_they_are_logged() {
    let upstream = Upstream::start("a").await;
    let faults = [
        ("loop", "faulty", "deadline of 50ms"),
        ("allocate", "faulty", "memory"),
        ("hoard", "counter", "StateError::Full"),
    ];
    // A plugin of its own for each, as what fails often is not logged each time.
    let mut setup = Gateway::setup();
    for (fault, guest, _) in faults {
        setup = setup
            .config(CONFIG.lines().take(4).collect::<Vec<_>>().join("\n").replace("closed", fault) + "\n");
        setup = setup.plugin(fault, guests::wasm(guest));
    }
    let gateway = setup.start().await;
    for (fault, _, limit) in faults {
        gateway.active(fault).await;
        gateway.put(fault, json!({ "server": upstream.uri(), "filters": [fault] })).await;
        gateway.get(format!("/{fault}/")).header("fault", fault).send().await.problem(503);
        eventually(|| async {
            let log = gateway.log();
            let line = log.lines().find(|line| line.contains(&format!("plugin {fault}")));
            if line.is_some_and(|line| line.contains(limit)) {
                Ok(())
            } else {
                Err(format!("{fault}: no {limit} in\n{log}"))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_looping_plugin_does_not_stop_the_others() {
    let (gateway, upstream) = faulty().await;
    gateway.put("plain", json!({ "server": upstream.uri() })).await;
    let looping: Vec<_> =
        (0..8).map(|_| tokio::spawn(gateway.get("/closed/").header("fault", "loop").send())).collect();
    let begin = Instant::now();
    for _ in 0..10 {
        gateway.get("/plain/").send().await.expect(200);
    }
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    for call in looping {
        assert_eq!(call.await.expect("no panic").status, 503);
    }
    gateway.ask("GET", "/live").send().await.expect(200);
}

#[tokio::test]
async fn chatter_is_cut() {
    // The lines that are kept are escaped one by one, for which a build for tests takes its time.
    let (gateway, _upstream) = faulty_with(&CONFIG.replace("50ms", "5s")).await;
    gateway.get("/closed/").header("fault", "chatter").send().await.expect(200);
    let long = gateway.log().lines().filter(|line| line.contains("xxxxxxxx")).count();
    assert!(long <= 64, "{long} lines were kept");
}

/// How often the thread that drives deadlines was put to sleep so far.
fn naps(gateway: &Gateway) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
    let mut found = statuses.filter(|status| status.starts_with("Name:\tplugin-deadline"));
    let status = found.next().expect("the thread has its name");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.expect("Linux counts them").trim().parse().unwrap()
}

#[tokio::test]
async fn deadlines_hold_after_a_rest_and_cost_nothing_before() {
    let (gateway, _upstream) = faulty().await;
    for _ in 0..200 {
        gateway.get("/closed/").send().await.expect(200);
    }
    for _ in 0..3 {
        // It would nap 500 times a second if it ticked.
        eventually(|| async {
            let before = naps(&gateway);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let naps = naps(&gateway) - before;
            if naps < 100 { Ok(()) } else { Err(format!("{naps} naps in a second")) }
        })
        .await;
        let begin = Instant::now();
        gateway.get("/closed/").header("fault", "loop").send().await.problem(503);
        assert!(begin.elapsed() >= Duration::from_millis(50), "deadlines are never shorter");
        assert!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
        gateway.get("/closed/").send().await.expect(200);
    }
}
