//! What a plugin call costs, as the host sees it: an instance checked out, the message moved in,
//! the guest called, the message and the instance back.
//!
//! For every language whose example and guests were built (with the command of the example's README,
//! and `build.sh` of `tests/guests/languages`), and for scripts: a registrar that reads one header and
//! the client id and answers, the region registrar among three servers, the stamp; and how long each
//! takes to load when it is in the cache. At the end, how soon a saved script takes effect.
//! Run with `cargo bench -p message-flow-tests --bench plugin_calls`.

use std::{
    collections::BTreeMap,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use message_flow::plugin::{
    Generation, Message, Options, Plugins, Settings, Solo,
    candidates::{Candidate, Listed},
};
use message_flow_tests::guests;
use sha2::Digest;
use tokio::runtime::Runtime;

const WARM_UP: usize = 20_000;
const BATCHES: usize = 2_000;
const CALLS: usize = 100;
const LOADS: usize = 9;
const SAVES: usize = 15;

/// Of those that are built.
const LANGUAGES: [&str; 5] = ["c", "go", "javascript", "typescript", "python"];

/// What is measured of a language: its plugins, by what each is.
struct Language {
    name: &'static str,
    simple: Option<PathBuf>,
    region: Option<PathBuf>,
    stamp: Option<PathBuf>,
}

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = Bench { directory: directory.path().to_owned(), runtime };
    println!(
        "{:<44}{:>9}{:>9}{:>9}{:>12}{:>12}",
        "plugin", "least", "p50", "p99", "read, hash", "cached load"
    );
    for language in languages(directory.path()) {
        for (what, file) in
            [("simple", &language.simple), ("region", &language.region), ("stamp", &language.stamp)]
        {
            if let Some(file) = file {
                bench.plugin(&format!("{}: {what}", language.name), file);
            }
        }
    }
    bench.saved_script();
}

/// Every language whose plugins are built.
fn languages(scratch: &Path) -> Vec<Language> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let there = |file: PathBuf| file.exists().then_some(file);
    let mut all = vec![
        Language {
            name: "rust",
            simple: Some(guests::wasm("sticky")),
            region: Some(guests::example("region-registrar")),
            stamp: Some(guests::example("stamp")),
        },
        Language { name: "script", ..scripts(scratch) },
    ];
    all.extend(LANGUAGES.map(|name| {
        let built = |plugin: &str| there(tests.join(format!("../examples/{name}/build/{plugin}.wasm")));
        Language {
            name,
            simple: there(tests.join(format!("guests/languages/{name}/build/simple.wasm"))),
            region: built("region"),
            stamp: built("stamp"),
        }
    }));
    all
}

fn scripts(scratch: &Path) -> Language {
    let script = |name: &str, text: &str| {
        let file = scratch.join(format!("{name}.js"));
        fs::write(&file, text).expect("write a script");
        Some(file)
    };
    let simple = "export function resolve() {\n  const region = request.header('region');\n  if (region !== undefined) return request.client().length + region.length > 64 ? 'far' : 'near';\n}\n";
    let region = "export function resolve() {\n  const region = request.header('region');\n  return candidates.leastLoaded({ region }) ?? candidates.leastLoaded();\n}\n";
    let stamp = "export function onRequest() {\n  if (!request.header('x-request-id')) request.setHeader('x-request-id', 'mine');\n}\n";
    Language {
        name: "script",
        simple: script("simple", simple),
        region: script("region", region),
        stamp: script("stamp", stamp),
    }
}

struct Bench {
    directory: PathBuf,
    runtime: Runtime,
}

impl Bench {
    /// Loads one plugin by itself, from the cache, and measures its calls.
    fn plugin(&self, what: &str, file: &Path) {
        let data = self.directory.join("data");
        let open = || Solo::open(file, &data, self.runtime.handle().clone()).expect("a plugin");
        let mut loads = Vec::new();
        let mut reads = Vec::new();
        for load in 0..=LOADS {
            let began = Instant::now();
            let bytes = fs::read(file).expect("read a plugin");
            black_box(sha2::Sha256::digest(&bytes));
            reads.push(began.elapsed());
            let solo = open();
            let began = Instant::now();
            let generation =
                self.runtime.block_on(solo.load(Settings::default())).expect("the plugin is loaded");
            // The first of them is compiled.
            if load > 0 {
                loads.push(began.elapsed());
            }
            if load == LOADS {
                let [least, p50, p99] = self.runtime.block_on(calls(&generation));
                let [read, load] = [median(&mut reads), median(&mut loads)];
                println!("{what:<44}{least:>6} ns{p50:>6} ns{p99:>6} ns{read:>12.1?}{load:>12.1?}");
            }
        }
    }

    /// From the end of a write to the moment at which the next message would get what was written.
    fn saved_script(&self) {
        let plugins = self.directory.join("plugins");
        fs::create_dir(&plugins).expect("a directory for plugins");
        let file = plugins.join("saved.js");
        let write = |number: usize| {
            let text = format!("export const resolve = () => 'server-{number}';\n");
            fs::write(&file, text).expect("write a script");
        };
        write(0);
        let options = Options {
            directory: plugins.clone(),
            data: self.directory.join("data"),
            hold: None,
            interval: Duration::from_secs(3600),
            settings: BTreeMap::new(),
            runtime: self.runtime.handle().clone(),
            tasks: message_flow::supervise::Supervisor::default(),
        };
        let plugins = Plugins::start(options, &prometheus::Registry::new()).expect("the plugin host starts");
        let served = || plugins.current().by_name.get("saved").map(|generation| generation.number());
        let mut times = Vec::new();
        for number in 1..=SAVES {
            let before = served();
            write(number);
            let saved = Instant::now();
            while served() == before {
                assert!(saved.elapsed() < Duration::from_secs(10), "the script is not taken up");
                std::thread::sleep(Duration::from_micros(200));
            }
            times.push(saved.elapsed());
        }
        let (slowest, median) = (times.iter().max().copied().unwrap_or_default(), median(&mut times));
        println!("a saved script takes effect after {median:.1?}, at most {slowest:.1?}");
    }
}

/// The least, the median and the 99th percentile of batches, in nanoseconds a call.
async fn calls(generation: &Generation) -> [u128; 3] {
    let mut message = message();
    if generation.is(message_flow::plugin::Kind::Registrar) {
        let resolve = async |message: &mut Message| {
            black_box(generation.resolve(message).await.expect("it decides"));
        };
        measure(resolve, &mut message).await
    } else {
        let filter = async |message: &mut Message| {
            black_box(generation.on_request(message).await.expect("it decides"));
        };
        measure(filter, &mut message).await
    }
}

fn message() -> Message {
    let mut message = Message { client: "client-17".into(), ..Message::default() };
    for (name, value) in
        [("host", "chat.example.com"), ("region", "eu"), ("accept", "*/*"), ("user-agent", "bench")]
    {
        message.headers.insert(name, value.parse().expect("a header value"));
    }
    let server = |id: &str, region: &str| Candidate {
        id: id.into(),
        uri: format!("http://{id}.example.com"),
        weight: 1,
        healthy: true,
        in_flight: 0,
        metadata: vec![("region".to_owned(), region.to_owned())],
    };
    let servers = vec![server("eu-1", "eu"), server("eu-2", "eu"), server("us-1", "us")];
    message.candidates = Some(Arc::new(Listed(servers)));
    message
}

async fn measure(call: impl AsyncFn(&mut Message), message: &mut Message) -> [u128; 3] {
    for _ in 0..WARM_UP {
        call(message).await;
    }
    let mut times = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let began = Instant::now();
        for _ in 0..CALLS {
            call(message).await;
        }
        times.push(began.elapsed().as_nanos() / CALLS as u128);
    }
    times.sort_unstable();
    [times[0], times[BATCHES / 2], times[BATCHES * 99 / 100]]
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
