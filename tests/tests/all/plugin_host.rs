//! The plugin host by itself: builds are loaded from a directory and called as the proxy calls
//! them.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use message_flow::plugin::{
    Decision, Generation, Message, OnError, Options, PluginState, Plugins, Settings, Verdict, message::Place,
};
use message_flow_tests::guests;

pub(super) struct Host {
    plugins: Plugins,
    directory: tempfile::TempDir,
}

fn start(settings: &[(&str, Settings)], guests: &[(&str, &str)]) -> Host {
    let files: Vec<_> = guests.iter().map(|(name, guest)| (*name, guests::bytes(guest))).collect();
    let files: Vec<_> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    start_with(settings, &files)
}

pub(super) fn start_with(settings: &[(&str, Settings)], files: &[(&str, &[u8])]) -> Host {
    let directory = tempfile::tempdir().unwrap();
    let dropped = directory.path().join("plugins");
    std::fs::create_dir(&dropped).unwrap();
    for (name, bytes) in files {
        std::fs::write(dropped.join(format!("{name}.wasm")), bytes).unwrap();
    }
    let options = Options {
        directory: dropped,
        data: directory.path().join("data"),
        hold: None,
        interval: Duration::from_secs(1),
        settings: settings.iter().map(|(name, settings)| ((*name).to_owned(), settings.clone())).collect(),
        runtime: tokio::runtime::Handle::current(),
        tasks: message_flow::supervise::Supervisor::default(),
    };
    let plugins = Plugins::start(options, &prometheus::Registry::new()).unwrap();
    Host { plugins, directory }
}

impl Host {
    pub(super) fn get(&self, name: &str) -> Arc<Generation> {
        let set = self.plugins.current();
        let found = set.by_name.get(name);
        Arc::clone(found.unwrap_or_else(|| panic!("{name}: {:#?}", self.plugins.status())))
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("plugins").join(format!("{name}.wasm"))
    }

    /// Waits until something was published, and fails when nothing is for twenty seconds.
    async fn published(&self, act: impl AsyncFnOnce()) {
        let mut changes = self.plugins.subscribe();
        act().await;
        let changed = tokio::time::timeout(Duration::from_secs(20), changes.changed()).await;
        changed.unwrap_or_else(|_| panic!("nothing published: {:#?}", self.plugins.status())).unwrap();
    }
}

pub(super) fn with(headers: &[(&'static str, &str)]) -> Message {
    let mut message = Message { client: "c1".into(), ..Message::default() };
    for (name, value) in headers {
        message.headers.append(*name, value.parse().unwrap());
    }
    message
}

async fn error(generation: &Generation, headers: &[(&'static str, &str)]) -> String {
    let answer = generation.on_request(&mut with(headers)).await;
    answer.expect_err("the guest was told to fail").to_string()
}

#[tokio::test]
async fn a_registrar_decides() {
    let host = start(&[], &[("geo", "chooser")]);
    let geo = host.get("geo");
    let ask = async |told: &str| geo.resolve(&mut with(&[("choose", told)])).await;
    assert_eq!(ask("server http://a:1").await.unwrap(), Decision::Server("http://a:1".into()));
    assert_eq!(ask("pass").await.unwrap(), Decision::Pass);
    let Decision::Reject(rejection) = ask("reject 451 not here").await.unwrap() else {
        panic!("not rejected")
    };
    assert_eq!((rejection.status.as_u16(), rejection.reason.as_str()), (451, "not here"));
    assert_eq!(
        ask("error no idea").await.unwrap_err().to_string(),
        "plugin geo: resolve: it returned an error: no idea"
    );
}

#[tokio::test]
async fn every_failure_names_its_cause_and_the_next_call_works() {
    let settings = Settings { memory: 8 << 20, ..Settings::default() };
    let host = start(&[("f", settings)], &[("f", "faulty")]);
    let faulty = host.get("f");
    let cases = [
        (
            "trap",
            "it trapped: wasm `unreachable` instruction executed; it last logged: panicked at examples/faulty.rs",
        ),
        ("error", "it returned an error: told to err"),
        ("loop", "it took longer than its deadline of 50ms"),
        ("allocate", "it needs more than its memory limit of 8MiB"),
        ("recurse", "it trapped: "),
        ("header", "set-header: `bad header` is not a header name"),
        ("value", "set-header x: the value has a character that HTTP does not allow"),
        ("hop", "set-header: `transfer-encoding` belongs to the connection and cannot be changed"),
        ("path", "set-path: `no slash`: the target is no path: it does not begin with `/`"),
    ];
    for (fault, cause) in cases {
        let text = error(&faulty, &[("fault", fault)]).await;
        assert!(text.starts_with(&format!("plugin f: on-request: {cause}")), "{fault}: {text}");
        let mut next = with(&[]);
        assert_eq!(faulty.on_request(&mut next).await.unwrap(), Verdict::Forward, "after {fault}");
        assert_eq!(next.headers["faulty"], "fine");
    }
}

#[tokio::test]
async fn state_has_a_limit() {
    let settings = Settings { state_limit: 1 << 20, ..Settings::default() };
    let host = start(&[("c", settings)], &[("c", "counter")]);
    let text = error(&host.get("c"), &[("fault", "hoard")]).await;
    assert!(text.starts_with("plugin c: on-request: it returned an error: StateError::Full"), "{text}");
}

#[tokio::test]
async fn a_failed_call_leaves_no_trace_where_the_message_goes_on() {
    let open = Settings { on_error: Some(OnError::Open), ..Settings::default() };
    let host = start(&[("f", open)], &[("f", "faulty")]);
    for fault in ["trap", "error", "loop", "path"] {
        let mut message = with(&[("fault", fault), ("faulty", "before")]);
        host.get("f").on_request(&mut message).await.unwrap_err();
        assert_eq!(message.headers["faulty"], "before", "{fault}");
        assert_eq!(message.headers.len(), 2, "{fault}");
    }
}

#[tokio::test]
async fn a_body_is_read_and_replaced_on_the_async_lane() {
    use http_body_util::{BodyExt, Full};
    let host = start(&[], &[("r", "reader")]);
    let reader = host.get("r");
    assert!(reader.reads_body());
    let body = |bytes: &'static [u8]| {
        let stream = Full::from(bytes).map_err(|never| match never {}).boxed_unsync();
        Some(message_flow::plugin::Body::of_request(stream, &http::HeaderMap::new()))
    };
    let mut message = with(&[("replace", "other")]);
    message.body = body(b"seven!!");
    reader.on_request(&mut message).await.unwrap();
    assert_eq!(message.headers["length"], "7");
    let sent = message.take_body().unwrap();
    assert_eq!(message.headers["content-length"], "5");
    assert_eq!(sent.collect().await.unwrap().to_bytes(), "other");
    let mut message = with(&[]);
    message.body = body(b"kept");
    reader.on_request(&mut message).await.unwrap();
    assert!(!message.body.as_ref().unwrap().is_replaced());
    assert_eq!(message.take_body().unwrap().collect().await.unwrap().to_bytes(), "kept");
}

#[tokio::test]
async fn what_is_not_granted_is_refused_with_the_line_that_grants_it() {
    let host = start(&[], &[("n", "needy")]);
    let status = host.plugins.status();
    let refused = status.iter().find(|status| status.name == "n").unwrap();
    assert_eq!(refused.state, PluginState::Refused);
    assert_eq!(
        refused.error.as_deref().unwrap(),
        "it imports `message-flow:plugin/etcd@0.1.0`, which is not granted; to grant it, write \
         `grant = [\"etcd\"]` under [plugin.n]"
    );
}

#[tokio::test]
async fn a_build_is_replaced_refused_and_removed_without_a_gap() {
    let host = start(&[], &[("s", "stamp")]);
    let first = host.get("s");
    let replace = |bytes: &[u8]| {
        let partial = host.file(".partial");
        std::fs::write(&partial, bytes).unwrap();
        std::fs::rename(&partial, host.file("s")).unwrap();
    };
    host.published(async || replace(&guests::marked("stamp", "two"))).await;
    let mut message = with(&[]);
    host.get("s").on_request(&mut message).await.unwrap();
    assert_eq!(message.headers["stamp"], "two");
    let mut message = with(&[]);
    first.on_request(&mut message).await.unwrap();
    assert_eq!(message.headers["stamp"], "", "a message that began with the first build keeps it");

    replace(&guests::bytes("needy"));
    let refused =
        |host: &Host| host.plugins.status().iter().any(|status| status.state == PluginState::Refused);
    wait_until(|| refused(&host)).await;
    assert_eq!(host.get("s").number(), first.number() + 1, "what served before goes on");
    replace(b"\0asm garbage");
    wait_until(|| {
        host.plugins
            .status()
            .iter()
            .any(|status| status.error.as_deref().is_some_and(|text| text.contains("neither a WebAssembly")))
    })
    .await;

    host.published(async || std::fs::remove_file(host.file("s")).unwrap()).await;
    assert!(!host.plugins.current().by_name.contains_key("s"));
}

/// A host in which a build that always traps took the place of one that does not.
async fn trapping(settings: Settings) -> (Host, u64) {
    let host = start(&[("s", settings)], &[("s", "stamp")]);
    let first = host.get("s").number();
    let trapper = guests::bytes("trapper");
    host.published(async || std::fs::write(host.file("s"), trapper).unwrap()).await;
    (host, first)
}

async fn call_for(build: &Generation, clients: usize) {
    for call in 0..10 {
        let client = format!("c{}", call % clients);
        let mut message = Message { client: client.as_str().into(), ..with(&[]) };
        build.on_request(&mut message).await.unwrap_err();
    }
}

fn error_of(host: &Host, state: PluginState) -> Option<String> {
    host.plugins.status().into_iter().find(|status| status.name == "s" && status.state == state)?.error
}

#[tokio::test]
async fn a_build_that_crashes_at_once_is_rolled_back() {
    let (host, first) = trapping(Settings { rollback: Some(true), ..Settings::default() }).await;
    let bad = host.get("s");
    host.published(async || {
        tokio::spawn(async move { call_for(&bad, 5).await });
    })
    .await;
    assert_eq!(host.get("s").number(), first);
    let error = error_of(&host, PluginState::Failed).unwrap();
    assert!(error.starts_with("rolled back: "), "{error}");
}

#[tokio::test]
async fn a_client_whose_messages_crash_every_build_judges_none() {
    let settings = Settings { rollback: Some(true), ..Settings::default() };
    let host = start(&[("s", settings)], &[("s", "trapper")]);
    let first = host.get("s").number();
    let other = [guests::bytes("trapper"), b"\0\x03\x01xy".to_vec()].concat();
    host.published(async || std::fs::write(host.file("s"), other).unwrap()).await;
    let build = host.get("s");
    for _ in 0..10 {
        let mut message = Message { place: Place::Worker, ..with(&[]) };
        build.on_request(&mut message).await.unwrap_err();
    }
    host.plugins.look();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_ne!(host.get("s").number(), first, "one client had a build rolled back");
}

#[tokio::test]
async fn the_build_before_one_that_crashes_answers_in_its_place() {
    let (host, first) = trapping(Settings { rollback: Some(true), ..Settings::default() }).await;
    let bad = host.get("s");
    let ask = async || {
        let mut message = Message { place: Place::Worker, ..with(&[("kept", "yes")]) };
        let verdict = bad.on_request(&mut message).await;
        assert_eq!(message.headers["kept"], "yes");
        assert_eq!(message.headers.contains_key("stamp"), verdict.is_ok());
        verdict
    };
    host.published(async || {
        assert_eq!(ask().await.unwrap(), Verdict::Forward, "nothing is lost");
        assert_eq!(ask().await.unwrap(), Verdict::Forward, "nothing is lost");
    })
    .await;
    assert_eq!(host.get("s").number(), first, "two crashes were enough");
    let error = error_of(&host, PluginState::Failed).unwrap();
    assert!(error.contains("2 of its first 2 calls") && error.contains("answered 2 of these"), "{error}");
    // Messages that began with it have the build before it from then on.
    assert_eq!(ask().await.unwrap(), Verdict::Forward);
}

#[tokio::test]
async fn a_call_that_had_an_effect_is_not_made_again() {
    let settings = Settings { rollback: Some(true), ..Settings::default() };
    let host = start(&[("s", settings)], &[("s", "counter")]);
    let first = host.get("s").number();
    host.published(async || std::fs::write(host.file("s"), guests::bytes("spoiler")).unwrap()).await;
    let bad = host.get("s");
    let ask = async || {
        let mut message = Message { place: Place::Worker, ..with(&[]) };
        let verdict = bad.on_request(&mut message).await;
        verdict.map(|_| message.headers["count"].to_str().unwrap().to_owned())
    };
    host.published(async || {
        for _ in 0..3 {
            assert!(ask().await.unwrap_err().to_string().contains("it trapped"), "nobody else is asked");
        }
    })
    .await;
    assert_eq!(host.get("s").number(), first, "three crashes without a success were enough");
    assert_eq!(ask().await.unwrap(), "4", "each of these three counted once");
}

#[tokio::test]
async fn a_filter_that_protects_is_rolled_back_by_an_operator_alone() {
    let (host, first) = trapping(Settings::default()).await;
    let bad = host.get("s");
    call_for(&bad, 5).await;
    let told = |host: &Host| error_of(host, PluginState::Active).unwrap_or_default();
    wait_until(|| told(&host).contains("POST /v1/plugins/s/rollback")).await;
    assert_eq!(host.get("s").number(), bad.number());
    host.plugins.roll_back("s").await.unwrap();
    assert_eq!(host.get("s").number(), first);
    let error = error_of(&host, PluginState::Failed).unwrap();
    assert_eq!(error, "rolled back: an operator said so");
}

#[tokio::test]
async fn a_build_that_takes_too_much_of_the_workers_time_runs_beside_others() {
    let settings =
        Settings { deadline: Some(Duration::from_millis(300)), instances: 3, ..Settings::default() };
    // The same module without and with the component model around it, and one that reads bodies.
    let names = ["f", "c", "r"];
    let faulty = guests::bytes("faulty");
    let encoder = wit_component::ComponentEncoder::default().validate(true).module(&faulty);
    let component = encoder.and_then(|mut encoder| encoder.encode()).unwrap();
    let reader = guests::bytes("reader");
    let host = start_with(
        &names.map(|name| (name, settings.clone())),
        &[("f", &faulty), ("c", &component), ("r", &reader)],
    );
    for (name, lane) in [("f", "direct"), ("c", "sync"), ("r", "async")] {
        let build = host.get(name);
        assert_eq!(build.lane(), lane);
        let worker = |fault| Message { place: Place::Worker, ..with(&[("fault", fault)]) };
        let is_confined = || {
            let status = host.plugins.status();
            status.iter().any(|status| status.name == name && status.confined.is_some())
        };
        assert!(!build.may_wait() || lane == "async");
        for _ in 0..2 {
            build.on_request(&mut worker("loop")).await.unwrap_err();
        }
        assert!(is_confined() && build.may_wait(), "{lane}");
        let over = std::cell::Cell::new(false);
        let looping = async {
            let error = build.on_request(&mut worker("loop")).await.unwrap_err().to_string();
            over.set(true);
            error
        };
        let other = async {
            tokio::task::yield_now().await;
            !over.get()
        };
        let (looped, went_on) = tokio::join!(looping, other);
        assert!(looped.contains("its deadline of 300ms"), "{looped}");
        assert!(went_on, "{lane}: others had to wait for it");
        let mut message = worker("");
        build.on_request(&mut message).await.unwrap();
        assert!(message.headers.contains_key("fault"), "{lane}: the message came back");
        // No more than three may run or wait.
        let all = futures_util::future::join_all(
            (0..8).map(|_| async { build.on_request(&mut worker("loop")).await.unwrap_err().to_string() }),
        );
        let refused = all.await.into_iter().filter(|error| error.contains("threads of its own")).count();
        assert!(refused >= 5, "{lane}: {refused} of 8 were refused");
    }
}

#[tokio::test]
async fn what_is_gone_for_a_moment_goes_on() {
    let host = start(&[], &[("s", "stamp")]);
    let (first, directory) = (host.get("s").number(), host.directory.path().join("plugins"));
    let aside = host.directory.path().join("aside");
    let goes_on = async |what: &str| {
        host.plugins.look();
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(host.get("s").number(), first, "{what}");
    };
    // As editors do.
    std::fs::rename(host.file("s"), &aside).unwrap();
    goes_on("a file that is renamed").await;
    std::fs::rename(&aside, host.file("s")).unwrap();
    std::fs::rename(&directory, &aside).unwrap();
    goes_on("a directory that is gone").await;
    std::fs::create_dir(&directory).unwrap();
    goes_on("a directory that is empty").await;
    std::fs::write(host.file("s"), "").unwrap();
    goes_on("a file that is torn").await;
    // Another directory in its place is watched as this one was.
    host.published(async || std::fs::write(host.file("s"), guests::marked("stamp", "two")).unwrap()).await;
    host.published(async || std::fs::remove_dir_all(&directory).unwrap()).await;
    assert!(!host.plugins.current().by_name.contains_key("s"), "what stays gone is unloaded");
}

#[tokio::test]
async fn state_outlives_traps_builds_and_with_durable_the_process() {
    let durable = Settings { durable_state: true, ..Settings::default() };
    let mut host = start(&[("c", durable.clone())], &[("c", "counter")]);
    let count = async |host: &Host| {
        let mut message = with(&[]);
        host.get("c").on_request(&mut message).await.unwrap();
        message.headers["count"].to_str().unwrap().to_owned()
    };
    assert_eq!((count(&host).await, count(&host).await), ("1".into(), "2".into()));
    let options = Options {
        directory: host.directory.path().join("plugins"),
        data: host.directory.path().join("data"),
        hold: None,
        interval: Duration::from_secs(1),
        settings: BTreeMap::from([("c".to_owned(), durable)]),
        runtime: tokio::runtime::Handle::current(),
        tasks: message_flow::supervise::Supervisor::default(),
    };
    let compiled = host.directory.path().join("data/compiled");
    assert!(std::fs::read_dir(&compiled).unwrap().count() >= 1);
    drop(std::mem::replace(
        &mut host.plugins,
        Plugins::start(
            Options { data: host.directory.path().join("other"), ..options.clone() },
            &prometheus::Registry::new(),
        )
        .unwrap(),
    ));
    wait_until(|| Path::new(&compiled).exists()).await;
    host.plugins = Plugins::start(options, &prometheus::Registry::new()).unwrap();
    assert_eq!(count(&host).await, "3");
}

async fn wait_until(holds: impl Fn() -> bool) {
    let poll = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), poll).await.expect("it holds within ten seconds");
}
