//! Plugins come and go as files do.

use std::{fs, os::unix::fs::symlink, time::Duration};

use message_flow_tests::{Gateway, Upstream, eventually, guests};
use serde_json::{Value, json};

/// A gateway whose service `chat` passes the filter `stamp`, which is not there yet.
async fn stamping() -> (Gateway, Upstream) {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::start().await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["stamp"] })).await;
    (gateway, upstream)
}

/// Waits until messages are stamped with this mark.
async fn stamped(gateway: &Gateway, mark: &str) {
    eventually(|| async {
        let reply = gateway.get("/chat/").send().await;
        let found = reply.header("stamped").to_owned();
        if reply.status == 200 && found == mark {
            Ok(())
        } else {
            Err(format!(
                "{} stamped {found:?}, not {mark:?}\n{}\n{}",
                reply.status,
                reply.text(),
                gateway.log()
            ))
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_filter_closes_its_service_and_is_named() {
    let (gateway, _upstream) = stamping().await;
    let problem = gateway.get("/chat/").send().await.problem(503);
    assert!(problem["detail"].as_str().unwrap_or_default().contains("stamp"), "{problem}");
}

#[tokio::test]
async fn a_dropped_file_serves_and_a_deleted_one_stops() {
    let (gateway, upstream) = stamping().await;
    gateway.drop_plugin("stamp.wasm", guests::marked("stamp", "1"));
    stamped(&gateway, "1").await;
    assert_eq!(upstream.last().header("stamp"), "1");

    let entry = gateway.active("stamp").await;
    let kinds: Vec<_> = entry["kinds"].as_array().expect("kinds").iter().filter_map(Value::as_str).collect();
    assert_eq!(kinds, ["request-filter", "response-filter"]);
    assert_eq!(entry["sha256"].as_str().map(str::len), Some(64), "{entry}");
    assert!(!entry["generation"].is_null(), "{entry}");

    fs::remove_file(gateway.path("plugins/stamp.wasm")).expect("delete");
    let call = gateway.get("/chat/");
    gateway.until(call, 503).await;
}

#[tokio::test]
async fn a_replaced_file_serves() {
    let (gateway, _upstream) = stamping().await;
    let mut generations = vec![];
    for mark in ["1", "2", "3", "4"] {
        gateway.drop_plugin("stamp.wasm", guests::marked("stamp", mark));
        stamped(&gateway, mark).await;
        generations.push(gateway.active("stamp").await["generation"].to_string());
    }
    generations.dedup();
    assert_eq!(generations.len(), 4, "{generations:?}");
}

#[tokio::test]
async fn a_file_that_is_written_piece_by_piece_counts_when_it_is_complete() {
    use std::io::Write;

    let (gateway, _upstream) = stamping().await;
    gateway.drop_plugin("stamp.wasm", guests::marked("stamp", "1"));
    stamped(&gateway, "1").await;

    let bytes = guests::marked("stamp", "2");
    let mut file = fs::File::create(gateway.path("plugins/stamp.wasm")).expect("truncate");
    for piece in bytes.chunks(bytes.len() / 10 + 1) {
        file.write_all(piece).expect("write");
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(["1", "2"].contains(&gateway.get("/chat/").send().await.expect(200).header("stamped")));
    }
    drop(file);

    stamped(&gateway, "2").await;
}

#[tokio::test]
async fn a_symlink_that_is_swapped_counts() {
    let (gateway, _upstream) = stamping().await;
    let plugins = gateway.path("plugins");
    // As Kubernetes mounts a ConfigMap: the file links through a directory link, which is swapped.
    for (at, mark) in ["1", "2"].iter().enumerate() {
        let version = plugins.join(format!("..version{at}"));
        fs::create_dir(&version).expect("a directory");
        fs::write(version.join("stamp.wasm"), guests::marked("stamp", mark)).expect("write");
        symlink(&version, plugins.join("..next")).expect("link");
        fs::rename(plugins.join("..next"), plugins.join("..data")).expect("swap");
        if at == 0 {
            symlink("..data/stamp.wasm", plugins.join("stamp.wasm")).expect("link");
        }
        stamped(&gateway, mark).await;
    }
}

#[tokio::test]
async fn what_editors_leave_is_passed_over() {
    let (gateway, _upstream) = stamping().await;
    let bytes = guests::bytes("stamp");
    for name in [
        ".stamp.wasm.swp",
        "#stamp.wasm#",
        "stamp.wasm~",
        "stamp.wasm.tmp",
        "4913",
        ".#stamp.wasm",
        "notes.txt",
    ] {
        fs::write(gateway.path("plugins").join(name), &bytes).expect("write");
    }
    fs::create_dir(gateway.path("plugins/directory.wasm")).expect("a directory");
    gateway.drop_plugin("stamp.wasm", guests::marked("stamp", "1"));
    stamped(&gateway, "1").await;

    let plugins = gateway.ask("GET", "/v1/plugins").send().await.expect(200).json();
    let names: Vec<_> =
        plugins.as_array().expect("a list").iter().filter_map(|entry| entry["name"].as_str()).collect();
    for name in &names {
        assert!(["stamp", "memory", "etcd", "directory"].contains(name), "{names:?}");
    }
}

#[tokio::test]
async fn a_bad_build_leaves_the_good_one_serving() {
    let (gateway, _upstream) = stamping().await;
    gateway.drop_plugin("stamp.wasm", guests::marked("stamp", "1"));
    stamped(&gateway, "1").await;
    let good = guests::bytes("stamp");
    let bad: [(&str, Vec<u8>); 4] = [
        ("garbage", b"no WebAssembly at all".to_vec()),
        ("truncated", good[..good.len() / 2].to_vec()),
        ("empty module", b"\0asm\x01\0\0\0".to_vec()),
        ("empty component", b"\0asm\x0d\0\x01\0".to_vec()),
    ];

    for (what, bytes) in bad {
        gateway.drop_plugin("stamp.wasm", bytes);
        let entry = gateway.plugin("stamp", |entry| entry["error"].is_string()).await;
        assert!(!entry["error"].as_str().unwrap_or_default().is_empty(), "{what}: {entry}");
        assert_eq!(gateway.get("/chat/").send().await.expect(200).header("stamped"), "1", "{what}");
        gateway.drop_plugin("stamp.wasm", guests::marked("stamp", "1"));
        gateway.plugin("stamp", |entry| entry["state"] == "active" && !entry["error"].is_string()).await;
    }
}

#[tokio::test]
async fn a_build_that_does_not_start_is_refused() {
    let config = "[plugin.fails.config]\nstart = \"fail\"\n[plugin.traps.config]\nstart = \"trap\"\n\
                  [plugin.loops.config]\nstart = \"loop\"\n";
    let mut setup = Gateway::setup().config(config);
    for name in ["fails", "traps", "loops", "starts"] {
        setup = setup.plugin(name, guests::wasm("beginner"));
    }
    let gateway = setup.start().await;
    gateway.active("starts").await;
    let fails = gateway.plugin("fails", |entry| entry["error"].is_string()).await;
    assert!(fails["error"].as_str().unwrap_or_default().contains("config.start says fail"), "{fails}");
    gateway.plugin("traps", |entry| entry["error"].is_string()).await;
    let loops = gateway.plugin("loops", |entry| entry["error"].is_string()).await;
    assert!(loops["error"].as_str().unwrap_or_default().contains("deadline"), "it names the limit: {loops}");

    let upstream = Upstream::start("a").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["starts"] })).await;
    gateway.get("/chat/").send().await.expect(200);
    assert_eq!(upstream.last().header("started"), "yes");
}

#[tokio::test]
async fn a_huge_file_is_refused_without_being_read() {
    let (gateway, _upstream) = stamping().await;
    let file = fs::File::create(gateway.path("plugins/huge.wasm")).expect("create");
    file.set_len(1 << 30).expect("a sparse file");

    let entry = gateway.plugin("huge", |entry| entry["error"].is_string()).await;

    assert!(entry["error"].as_str().unwrap_or_default().contains("at most"), "it names the limit: {entry}");
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("read the status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib < 600 << 10, "the peak was {kib} KiB");
}

#[tokio::test]
async fn a_generation_that_misbehaves_at_once_is_rolled_back() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup().config("[plugin.stamp]\nrollback = true\n").start().await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["stamp"] })).await;
    gateway.drop_plugin("stamp.wasm", guests::marked("stamp", "1"));
    stamped(&gateway, "1").await;

    gateway.drop_plugin("stamp.wasm", guests::bytes("trapper"));
    // Wait until it serves (and fails, for many clients), or was rolled back already.
    let client = std::cell::Cell::new(0);
    eventually(|| async {
        client.set(client.get() + 1);
        gateway.get("/chat/").client(&format!("client-{}", client.get())).send().await;
        if gateway.log().contains("rolled back") { Ok(()) } else { Err("it was not rolled back") }
    })
    .await;

    stamped(&gateway, "1").await;
    let entry = gateway.plugin("stamp", |entry| entry["error"].is_string()).await;
    assert!(entry["error"].as_str().unwrap_or_default().contains("rolled back"), "{entry}");
}

#[tokio::test]
async fn state_outlives_a_reload() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup().plugin("counter", guests::wasm("counter")).start().await;
    gateway.active("counter").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["counter"] })).await;
    for _ in 0..3 {
        gateway.get("/chat/").send().await.expect(200);
    }
    let before = gateway.active("counter").await["sha256"].clone();

    // A custom section changes the hash and nothing else.
    let other = [guests::bytes("counter"), b"\0\x03\x01xy".to_vec()].concat();
    gateway.drop_plugin("counter.wasm", other);
    gateway.plugin("counter", |entry| entry["state"] == "active" && entry["sha256"] != before).await;

    gateway.get("/chat/").send().await.expect(200);
    assert_eq!(upstream.last().header("count"), "4");
}

#[tokio::test]
async fn metrics_count_calls_and_traps() {
    let upstream = Upstream::start("a").await;
    let gateway = Gateway::setup().plugin("faulty", guests::wasm("faulty")).start().await;
    gateway.active("faulty").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["faulty"] })).await;
    for _ in 0..3 {
        gateway.get("/chat/").send().await.expect(200);
    }
    gateway.get("/chat/").header("fault", "trap").send().await.expect(503);

    let page = gateway.ask("GET", "/metrics").send().await.expect(200).text();
    let lines: Vec<_> = page.lines().filter(|line| line.contains("plugin=\"faulty\"")).collect();
    for word in ["calls", "cause=\"trap\""] {
        let counted = lines.iter().any(|line| line.contains(word) && !line.ends_with(" 0"));
        assert!(counted, "no {word} in {lines:#?}");
    }
}

#[tokio::test]
async fn a_build_that_is_not_what_its_users_need_is_refused_and_they_are_named() {
    let upstream = Upstream::start("a").await;
    let config = "[plugin.near.config]\nchoose = \"first\"\n";
    let gateway = Gateway::setup().config(config).plugin("near", guests::wasm("chooser")).start().await;
    let before = gateway.active("near").await["sha256"].clone();
    gateway.put("chat", json!({ "servers": [upstream.uri()], "registrar": "near", "sticky": false })).await;
    gateway.get("/chat/").send().await.expect(200);

    gateway.drop_plugin("near.wasm", guests::bytes("gate"));
    let refused = gateway.plugin("near", |entry| entry["state"] == "refused").await;
    let error = refused["error"].as_str().unwrap_or_default();
    assert_eq!(error, "it is no registrar any more, and service `chat` uses it as one: change that first");
    assert_eq!(gateway.active("near").await["sha256"], before);
    gateway.get("/chat/").send().await.expect(200);

    gateway.put("chat", json!({ "servers": [upstream.uri()], "sticky": false })).await;
    gateway.plugin("near", |entry| entry["state"] == "active" && entry["sha256"] != before).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_its_clients_fault() {
    use message_flow_tests::raw::Raw;

    let upstream = Upstream::start("a").await;
    let config = "[proxy.timeouts]\nbody = \"1s\"\n[plugin.reader]\ninstances = 2\n";
    let gateway = Gateway::setup().config(config).plugin("reader", guests::wasm("reader")).start().await;
    gateway.active("reader").await;
    gateway.put("chat", json!({ "server": upstream.uri(), "filters": ["reader"] })).await;
    let head = "POST /chat/ HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n";

    let mut slow = Raw::connect(gateway.proxy()).await;
    slow.say(format!("{head}01234")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Longer than its deadline, and not too long.
    slow.say("56789").await;
    slow.hear("HTTP/1.1 200").await;

    let mut stalled = vec![];
    for _ in 0..4 {
        let mut raw = Raw::connect(gateway.proxy()).await;
        raw.say(format!("{head}01234")).await;
        stalled.push(raw);
    }
    // As many as may run at once wait, and others go on.
    gateway.call("POST", "/chat/").body("0123456789").send().await.expect(200);
    for raw in &mut stalled {
        raw.hear("HTTP/1.1 408").await;
    }
    let mut broken = Raw::connect(gateway.proxy()).await;
    broken.say(format!("{head}01234")).await;
    drop(broken);
    gateway.call("POST", "/chat/").body("0123456789").send().await.expect(200);

    let entry = gateway.active("reader").await;
    assert_eq!((&entry["crashes"], &entry["last_error"]), (&json!(0), &Value::Null), "{entry}");
    assert!(gateway.metric("message_flow_plugin_failures_total").await < 1.0);
}
