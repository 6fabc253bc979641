//! What a plugin call costs, as the host sees it: an instance checked out, the message moved in,
//! the guest called, the message and the instance back.
//!
//! Prints the median and the 99th percentile of batches, for a registrar that reads one header and
//! the client id and answers, and for a filter that reads one header and sets another.
//! Run with `cargo bench -p message-flow-tests --bench plugin_calls`.

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use message_flow::plugin::{Message, Options, Plugins};
use message_flow_tests::guests;

const WARM_UP: usize = 20_000;
const BATCHES: usize = 2_000;
const CALLS: usize = 100;

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dropped = directory.path().join("plugins");
    std::fs::create_dir(&dropped).expect("a directory for plugins");
    for guest in ["sticky", "one_header"] {
        std::fs::copy(guests::wasm(guest), dropped.join(format!("{guest}.wasm"))).expect("copy a guest");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let options = Options {
        directory: dropped,
        data: directory.path().join("data"),
        interval: Duration::from_secs(3600),
        settings: BTreeMap::new(),
        runtime: runtime.handle().clone(),
    };
    let plugins = Plugins::start(options, &prometheus::Registry::new()).expect("the plugin host starts");
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
    });
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
