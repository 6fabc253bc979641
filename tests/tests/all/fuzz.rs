//! A bounded run of every fuzz target, over mutated seeds.

use message_flow_tests::{Gateway, Upstream, guests};
use proptest::{
    collection::vec,
    prelude::{ProptestConfig, Strategy, any},
    test_runner::TestRunner,
};

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "public in the crate that it is a part of otherwise")]
mod targets;

const CONFIGURATION: &str = "[proxy]\nlisten = \"127.0.0.1:8080\"\nclient_id = [\"header:x\", \"cookie:y\", \"peer\"]\ntrusted = [\"10.0.0.0/8\"]\n\
    [proxy.limits]\nhead = \"32KiB\"\n[api]\nopen = true\n[plugin.geo]\nconfig = { a = \"b\" }\nmemory = \"64MiB\"\ndeadline = \"50ms\"\n\
    on_error = \"open\"\ngrant = [\"http:a.test\"]\n[[route]]\nhost = \"*.a.test\"\npath = \"/v1/\"\nservice = \"chat@2\"\n\
    [service.chat]\nservers = [\"http://127.0.0.1:1\", { uri = \"http://[::1]:2\", weight = 2 }]\nsticky = { ttl = \"30m\" }\n\
    [[access]]\ntoken_sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\nactions = [\"admin\"]\nnames = [\"*\"]\n";

const RECORDS: &[&str] = &[
    r#"{"server":"http://127.0.0.1:1/base","registrar":"geo","sticky":{"ttl":"30m"},"filters":["a"]}"#,
    r#"{"servers":[{"uri":"http://127.0.0.1:1","id":"x","weight":3,"metadata":{"a":"b"}},"h2c://[::1]:2"],"sticky":false}"#,
    r#"{"health":{"path":"/ok","interval":"1s","timeout":"100ms","unhealthy_after":3,"healthy_after":2}}"#,
    r#"{"weights":{"1":90,"2":10}}"#,
    r#"{"uri":"http://127.0.0.1:8081","incarnation":"abc"}"#,
];

const FRAMES: &[&str] = &[
    r#"{"name":"carchase-service","requires":["explosion-service@2",{"name":"b","servers":"all"}],"port":9877,"since":7}"#,
    r#"{"type":"identification","payload":{"name":"a","version":2,"host":"::1","port":1,"weight":3,"metadata":{"a":1}}}"#,
    r#"{"name":"a","uri":"h2c://b:2/base","load_balancer":{"host":"lb","port":80},"check":{"path":"/ok","interval":"1s"}}"#,
    r#"{"type":"require","payload":{"requires":["a","b@1"],"servers":"all"}}"#,
    r#"{"type":"drain","payload":{"deadline":"30s"}}"#,
    r#"{"type":"deregister"}"#,
];

const CHANGES: &str = "put\nservice\nchat\n{\"sticky\":false}\0put\nserver\nchat/a:1\n{\"uri\":\"http://a:1\"}\0\
    put\nserver\nchat@2/b:1\n{\"uri\":\"http://b:1\",\"weight\":0}\0put\nrelease\nchat\n{\"weights\":{\"2\":1}}\0\
    delete\nserver\nchat/a:1\0put\nrouter\nr1\n{\"uri\":\"http://c\",\"incarnation\":\"1\"}\0put\nodd\nx\n[]\0delete\nservice\nchat";

const REQUEST: &str = "POST /chat/a%20b?c=d HTTP/1.1\r\nhost: a.test:80\r\nx: alice\r\ncookie: a=b; id=\"c\"; e\r\n\
    forwarded: for=192.0.2.1;proto=https, for=\"[::1]:80\"\r\nx-forwarded-for: 192.0.2.1, 10.0.0.1\r\nvia: 1.1 a\r\n\
    connection: keep-alive, x\r\nte: trailers\r\nmessage-flow-version: 2\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

#[test]
fn configuration() {
    fuzz(400, &[CONFIGURATION.as_bytes()], targets::configuration);
}

#[test]
fn heads() {
    let response = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close, x\r\netag: a\r\n\r\nabc";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nx: y\r\n\r\n";
    let fixed =
        "PUT / HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\nabcdeGET / HTTP/1.1\r\n\r\n";
    let seeds = [response, chunked, fixed, REQUEST].into_iter().chain(targets::SHAPES.iter().copied());
    let seeds: Vec<_> = seeds.map(|text| format!("\u{5}{text}")).collect();
    let seeds: Vec<_> = seeds.iter().map(String::as_bytes).collect();
    fuzz(8000, &seeds, targets::heads);
}

#[test]
fn texts() {
    let seeds =
        ["30m", "64MiB", "chat@2", "http://[::1]:80/base/", "h2c://host.test:1", "18446744073709551615d"];
    let of_clients =
        ["/x/%2e%2e/%61dmin//./b?c/../d", "/a%2f..%5c%00\\x", "/%252e/..;/%7E\"", "a.test.:80", "[::0:1]:80"];
    let seeds: Vec<_> = seeds.iter().chain(&of_clients).map(|text| text.as_bytes()).collect();
    fuzz(6000, &seeds, targets::texts);
}

#[test]
fn records() {
    let seeds: Vec<_> = RECORDS.iter().map(|text| text.as_bytes()).collect();
    fuzz(2000, &seeds, targets::records);
}

#[test]
fn frames() {
    let seeds: Vec<_> = FRAMES.iter().map(|text| text.as_bytes()).collect();
    fuzz(4000, &seeds, targets::frames);
}

/// The claims of the second are `{"sub":"alice","exp":4102444800,"aud":"chat"}`, and the secret is not ours.
#[test]
fn tokens() {
    let rsa = include_bytes!("../../golden/tokens/rs256.txt");
    let seed = b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMCwiYXVkIjoiY2hhdCJ9.AAAA";
    fuzz(4000, &[rsa.trim_ascii(), seed], targets::tokens);
}

#[test]
fn table_changes() {
    fuzz(5000, &[CHANGES.as_bytes()], targets::table_changes);
}

#[test]
fn plugin() {
    let gate = guests::bytes("gate");
    fuzz(40, &[&gate, b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"], targets::plugin);
}

/// What only the proxy can read: heads of requests, with cookies, forwarding and client ids.
#[test]
fn requests() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (gateway, upstream) = runtime.block_on(async {
        let upstream = Upstream::start("a").await;
        let config =
            "[proxy]\nclient_id = [\"cookie:id\", \"header:x\", \"peer\"]\ntrusted = [\"127.0.0.0/8\"]\n";
        let gateway = Gateway::setup().config(config).start().await;
        gateway.put("chat", serde_json::json!({ "server": upstream.uri() })).await;
        (gateway, upstream)
    });
    let proxy = gateway.proxy();
    let shapes = targets::SHAPES.iter().filter(|shape| !shape.starts_with("HTTP/"));
    let seeds: Vec<_> = shapes.map(|shape| shape.as_bytes()).chain([REQUEST.as_bytes()]).collect();
    fuzz(300, &seeds, |bytes| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(proxy).expect("it still listens");
        stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a socket");
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut heard = vec![];
        let _ = stream.read_to_end(&mut heard);
        let heard = String::from_utf8_lossy(&heard);
        assert!(!heard.contains("HTTP/1.1 500"), "{heard}");
        assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 "), "{heard}");
    });
    let alive = runtime.block_on(gateway.get("/chat/").send());
    assert_eq!(alive.status, 200);
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
    drop(upstream);
}

/// One change to a seed.
#[derive(Clone, Debug)]
enum Mutation {
    Set(usize, u8),
    Insert(usize, u8),
    Cut(usize, usize),
    Repeat(usize, usize),
    End(usize),
}

/// Runs `target` on every seed as it is and on `cases` seeds with a few mutations each.
fn fuzz(cases: u32, seeds: &[&[u8]], target: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    seeds.iter().for_each(|seed| target(seed));
    let place = any::<usize>;
    let mutation = proptest::prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (place(), proptest::sample::select(b"\0\n\"{}[]:,.=@/-+0aZ\xff".to_vec()))
            .prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        (place(), 0..64usize).prop_map(|(at, length)| Mutation::Cut(at, length)),
        (place(), 0..64usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        place().prop_map(Mutation::End),
    ];
    let inputs = (0..seeds.len(), vec(mutation, 1..6));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&inputs, |(seed, mutations)| {
        let mut bytes = seeds[seed].to_vec();
        mutations.into_iter().for_each(|mutation| mutate(&mut bytes, mutation));
        let outcome = std::panic::catch_unwind(|| target(&bytes));
        // What a person can replay, and not only how proptest got there.
        let input = || format!("the input was {}", bytes.escape_ascii());
        outcome.map_err(|_| proptest::test_runner::TestCaseError::fail(input()))
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

fn mutate(bytes: &mut Vec<u8>, mutation: Mutation) {
    let place = |at: usize| at % (bytes.len() + 1);
    match mutation {
        Mutation::Set(at, byte) => {
            let at = place(at);
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
        Mutation::Insert(at, byte) => bytes.insert(place(at), byte),
        Mutation::Cut(at, length) => {
            let at = place(at);
            bytes.drain(at..(at + length).min(bytes.len()));
        }
        Mutation::Repeat(at, length) => {
            let at = place(at);
            let piece = bytes[at..(at + length).min(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        Mutation::End(at) => bytes.truncate(place(at)),
    }
}
