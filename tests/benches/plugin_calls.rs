//! What a plugin call costs, as the host sees it: an instance checked out, the message moved in,
//! the guest called, the message and the instance back.
//!
//! Prints the median and the 99th percentile of batches, for a registrar that reads one header and
//! the client id and answers, for a filter that reads one header and sets another, and for the
//! region registrar and the stamp of every language whose example was built (with the command of its
//! README), with how long a load from the cache takes.
//! Run with `cargo bench -p message-flow-tests --bench plugin_calls`.

use std::{
    collections::BTreeMap,
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use message_flow::plugin::{
    Generation, Message, Options, Plugins,
    message::{Candidate, Candidates},
};
use message_flow_tests::guests;

const WARM_UP: usize = 20_000;
const BATCHES: usize = 2_000;
const CALLS: usize = 100;

/// Of those that are built.
const LANGUAGES: [&str; 5] = ["c", "go", "javascript", "python", "typescript"];

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dropped = directory.path().join("plugins");
    std::fs::create_dir(&dropped).expect("a directory for plugins");
    for guest in ["sticky", "one_header"] {
        std::fs::copy(guests::wasm(guest), dropped.join(format!("{guest}.wasm"))).expect("copy a guest");
    }
    let languages = copy_languages(&dropped);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let options = || Options {
        directory: dropped.clone(),
        data: directory.path().join("data"),
        interval: Duration::from_secs(3600),
        settings: BTreeMap::new(),
        runtime: runtime.handle().clone(),
    };
    // All of them are compiled once; the second start finds them in the cache.
    drop(Plugins::start(options(), &prometheus::Registry::new()).expect("the plugin host starts"));
    let began = Instant::now();
    let plugins = Plugins::start(options(), &prometheus::Registry::new()).expect("the plugin host starts");
    println!("{} plugins loaded from the cache in {:.1?}", plugins.current().by_name.len(), began.elapsed());
    let set = plugins.current();
    let mut message = Message { client: "client-17".into(), ..Message::default() };
    for (name, value) in
        [("host", "chat.example.com"), ("region", "eu"), ("accept", "*/*"), ("user-agent", "bench")]
    {
        message.headers.insert(name, value.parse().expect("a header value"));
    }
    println!("{:<44}{:>10}{:>10}", "call", "p50", "p99");
    runtime.block_on(async {
        let registrar = &set.by_name["sticky"];
        measure(
            "registrar: one header, client id, answer",
            async |message: &mut Message| {
                black_box(registrar.resolve(message).await.expect("it decides"));
            },
            &mut message,
        )
        .await;
        let filter = &set.by_name["one_header"];
        measure(
            "request filter: one header read, one set",
            async |message: &mut Message| {
                black_box(filter.on_request(message).await.expect("it decides"));
            },
            &mut message,
        )
        .await;
        message.candidates = Some(Arc::new(Two));
        for language in languages {
            let of = |name: &str| &set.by_name[format!("{name}_{language}").as_str()];
            language_calls(language, of("region"), of("stamp"), &mut message).await;
        }
    });
}

/// The examples of every language that were built, as `region_LANGUAGE` and `stamp_LANGUAGE`.
fn copy_languages(dropped: &Path) -> Vec<&'static str> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let built = |language: &&str| {
        ["region", "stamp"].iter().all(|name| {
            let file = examples.join(language).join(format!("build/{name}.wasm"));
            std::fs::copy(file, dropped.join(format!("{name}_{language}.wasm"))).is_ok()
        })
    };
    LANGUAGES.into_iter().filter(built).collect()
}

async fn language_calls(language: &str, region: &Generation, stamp: &Generation, message: &mut Message) {
    let resolve = async |message: &mut Message| {
        black_box(region.resolve(message).await.expect("it decides"));
    };
    measure(&format!("{language}: region, two candidates"), resolve, message).await;
    let filter = async |message: &mut Message| {
        black_box(stamp.on_request(message).await.expect("it decides"));
    };
    measure(&format!("{language}: stamp"), filter, message).await;
}

/// A server in each of two regions.
struct Two;

impl Candidates for Two {
    fn servers(&self) -> Vec<Candidate> {
        let server = |region: &str| Candidate {
            id: format!("{region}-1"),
            uri: format!("http://{region}.example.com"),
            weight: 1,
            healthy: true,
            in_flight: 0,
            metadata: vec![("region".to_owned(), region.to_owned())],
        };
        vec![server("eu"), server("us")]
    }
}

async fn measure(name: &str, call: impl AsyncFn(&mut Message), message: &mut Message) {
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
    println!("{name:<44}{:>7} ns{:>7} ns", times[BATCHES / 2], times[BATCHES * 99 / 100]);
}
