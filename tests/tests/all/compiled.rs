//! Compiled code on disk: a restart compiles nothing again that is in use, however many plugins there are,
//! and what is damaged is never run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use message_flow::plugin::{Kind, Message, Options, PluginSet, Plugins, Verdict};
use message_flow_tests::{Gateway, Upstream, guests, wait::PATIENCE, within};

/// A filter that forwards everything, and nothing else.
const FILTER: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "message-flow:plugin/request-filter@0.1.0#on-request") (result i32) i32.const 8))"#;

const PLUGINS: usize = 500;

/// One of many builds that differ by a custom section alone.
fn filter(number: usize) -> Vec<u8> {
    let number = number.to_string();
    let section = [&[0, 2 + number.len() as u8, 1, b'n'][..], number.as_bytes()].concat();
    [wat::parse_str(FILTER).unwrap(), section].concat()
}

fn start(directory: &Path, registry: &prometheus::Registry) -> (Plugins, Duration) {
    let options = Options {
        directory: directory.join("plugins"),
        data: directory.join("data"),
        hold: None,
        interval: Duration::from_secs(60),
        settings: BTreeMap::new(),
        runtime: tokio::runtime::Handle::current(),
        tasks: message_flow::supervise::Supervisor::default(),
    };
    let began = Instant::now();
    (Plugins::start(options, registry).unwrap(), began.elapsed())
}

/// How much code was found compiled, and how much was not, since a start.
fn code(registry: &prometheus::Registry) -> [f64; 2] {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == "message_flow_plugin_code_total").unwrap();
    let metrics = family.get_metric();
    ["found", "compiled"].map(|how| {
        let metric = metrics.iter().find(|metric| metric.get_label()[0].value() == how);
        metric.unwrap().get_counter().get_value()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_plugins_are_compiled_once() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("plugins")).unwrap();
    for number in 0..PLUGINS {
        fs::write(directory.path().join(format!("plugins/p{number:03}.wasm")), filter(number)).unwrap();
    }
    let registry = prometheus::Registry::new();
    let (plugins, first) = start(directory.path(), &registry);
    let [found, compiled] = code(&registry);
    assert_eq!(found, 0.0);
    assert!(compiled >= PLUGINS as f64, "{compiled}");
    drop(plugins);
    // One that comes before all others by its name and has to be compiled.
    fs::write(directory.path().join("plugins/a.wasm"), filter(PLUGINS)).unwrap();
    for start_again in 0..2 {
        let registry = prometheus::Registry::new();
        let (plugins, again) = start(directory.path(), &registry);
        let wanted = if start_again == 0 { [compiled, 1.0] } else { [compiled + 1.0, 0.0] };
        assert_eq!(code(&registry), wanted, "a restart compiles what is new and no more");
        let set = plugins.current();
        assert_eq!(set.by_name.keys().filter(|name| name.starts_with('p')).count(), PLUGINS);
        for name in ["p000", "p123", "p499"] {
            let verdict = set.by_name[name].on_request(&mut Message::default()).await.unwrap();
            assert_eq!(verdict, Verdict::Forward);
        }
        println!("{PLUGINS} plugins: {first:?} to compile and start, {again:?} to start again");
        if start_again == 1 {
            call_all_from_threads(&set, 4);
            another(&plugins, directory.path()).await;
        }
    }
}

/// Calls every plugin from so many threads, as workers do, each of which has instances of its own.
fn call_all_from_threads(set: &PluginSet, threads: usize) {
    let call = || {
        for build in set.by_name.values().filter(|build| build.is(Kind::RequestFilter)) {
            let verdict = build.on_request(&mut Message::default()).now_or_never();
            assert_eq!(verdict.expect("it does not wait").unwrap(), Verdict::Forward);
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(call))));
}

/// One more, beside so many.
async fn another(plugins: &Plugins, directory: &Path) {
    let mut changes = plugins.subscribe();
    let (began, file) = (Instant::now(), directory.join(".another"));
    fs::write(&file, filter(PLUGINS + 1)).unwrap();
    fs::rename(file, directory.join("plugins/another.wasm")).unwrap();
    within(PATIENCE, "another plugin", changes.changed()).await.unwrap();
    assert!(plugins.current().by_name.contains_key("another"));
    println!("{:?} until one more serves", began.elapsed());
}

/// The same numbers for the same seed (splitmix64).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % most as u64) as usize
    }
}

fn compiled(gateway: &Gateway) -> Vec<PathBuf> {
    let files = fs::read_dir(gateway.path("data/compiled")).unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_bit_that_flipped_in_compiled_code_is_named_and_never_run() {
    let upstream = Upstream::start("a").await;
    let record = format!("[service.chat]\nserver = \"{}\"\nfilters = [\"stamp\"]\n", upstream.uri());
    let setup = Gateway::setup().config(record).plugin("stamp", guests::wasm("stamp"));
    let mut gateway = setup.start().await;
    gateway.get("/chat/").send().await.expect(200);
    let mut seeded = Seeded(11);
    for round in 0..8 {
        let files = compiled(&gateway);
        let setup = gateway.kill().await;
        for file in &files {
            let mut bytes = fs::read(file).unwrap();
            let (at, bit) = (seeded.below(bytes.len()), seeded.below(8));
            bytes[at] ^= 1 << bit;
            fs::write(file, bytes).unwrap();
        }
        gateway = setup.start().await;
        let line = gateway.logged("compiled plugin deleted; it is compiled again").await;
        assert!(line.contains("plugin=") && line.contains("its checksum is another"), "{line}");
        gateway.logged("plugin=\"stamp\"").await;
        let damaged = gateway.metric("message_flow_plugin_code_total{code=\"damaged\"}").await;
        assert!(damaged >= 2.0, "round {round}: {damaged} of {files:?} were found out");
        let reply = gateway.get("/chat/").send().await.expect(200);
        assert!(reply.headers.contains_key("stamped"), "the plugin serves: {:?}", reply.headers);
    }
    let gateway = gateway.kill().await.start().await;
    assert!(gateway.metric("message_flow_plugin_code_total{code=\"compiled\"}").await < 1.0, "all is whole");
    gateway.get("/chat/").send().await.expect(200);
    assert!(!gateway.log().contains("compiled plugin deleted"));
}
