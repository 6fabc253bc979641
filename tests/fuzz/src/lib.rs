//! What is fuzzed: one function for each thing that reads bytes from outside. Each may refuse its
//! input and must not panic, hang, or accept what it then writes differently.
//!
//! The functions run in two ways: at length under `cargo fuzz run NAME` in `tests/`, where
//! `fuzz_targets/NAME.rs` hands them over to libFuzzer, and for a bounded number of mutated seeds
//! as ordinary tests (`tests/all/fuzz.rs`).

use std::{
    collections::BTreeMap,
    fmt::{Debug, Display},
    path::Path,
    str::FromStr,
    sync::LazyLock,
};

use bytes::BytesMut;
use message_flow::{
    authority,
    config::{Config, Overrides, record},
    discovery::{definition::Limits, frame},
    http1, path,
    plugin::{Options, Plugins},
    table::{
        Numbers, View,
        adapter::{Change, Entry},
        record::{ReleaseRecord, RouterRecord, ServerRecord, ServerUri, ServiceId, ServiceRecord},
    },
    token::{Rules, Verifier},
    units::{Size, Span},
};

/// The configuration file.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = Config::parse(text, Path::new("message-flow.toml"), &Overrides::default()) {
        assert!(!error.to_string().is_empty());
    }
}

/// Durations, sizes, services and URIs as people write them, and targets as clients do.
pub fn texts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    target(text);
    comes_back::<Span>(text);
    comes_back::<Size>(text);
    comes_back::<ServiceId>(text);
    comes_back::<ServerUri>(text);
    if let Ok(uri) = text.parse::<ServerUri>() {
        assert!(!uri.host_port().is_empty());
        assert!(uri.base().is_empty() || uri.base().starts_with('/'), "{uri}");
    }
}

/// A path in normal form stays as it is, and has nothing in it that could be read in two ways; a host is
/// a host without its port as well.
fn target(text: &str) {
    if let Ok(path::Normal { target, encoded_slashes }) = path::normal(text) {
        let again = path::normal(&target).expect("what is normal has a normal form");
        assert_eq!(again.target, target, "{text:?}");
        let path = target.split('?').next().unwrap_or_default();
        assert!(path.starts_with('/') && !path.contains("//"), "{text:?} became {target:?}");
        assert!(
            path.split('/').all(|segment| segment != "." && segment != ".."),
            "{text:?} became {target:?}"
        );
        let divided = ["%2F", "%5C", "%00"].iter().any(|escape| path.contains(escape));
        assert_eq!(divided, again.encoded_slashes, "{text:?} became {target:?}");
        // One that `..` took away counts as well: who decodes it first takes something else away.
        assert!(encoded_slashes || !divided, "{text:?} became {target:?}");
    }
    if let Some(read) = authority::read(text) {
        let host = authority::host(text);
        assert_eq!(authority::canonical(read.host), host);
        assert!(authority::read(&host).is_some_and(|read| read.port.is_none()), "{text:?}: {host:?}");
    }
}

/// The token of a client; nobody here knows the secret, so none is believed but those that are seeds.
pub fn tokens(bytes: &[u8]) {
    static VERIFIER: LazyLock<Verifier> = LazyLock::new(verifier);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(doubt) = VERIFIER.verify(text) {
        assert!(!doubt.to_string().is_empty());
    }
}

fn verifier() -> Verifier {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "the secret of thirty-two bytes or more").expect("write");
    let rules = Rules {
        keys: vec![],
        secret_file: Some(secret),
        issuer: vec![],
        audience: vec!["chat".to_owned()],
        leeway: std::time::Duration::ZERO,
        required: false,
        claims: vec!["sub".into()],
    };
    rules.load().expect("the secret is long enough")
}

/// Requests and responses of HTTP/1.1. In whatever pieces they arrive, the same is understood.
pub fn heads(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let step = usize::from(step).max(1);
    let _ = http1::decode::Decoder::chunked().decode(&mut BytesMut::from(bytes));
    let at_once = (request(bytes, bytes.len()), response(bytes, bytes.len()));
    let in_pieces = (request(bytes, step), response(bytes, step));
    // What is malformed may be so at once, or only once the head has ended.
    assert_eq!(at_once.0.is_some(), in_pieces.0.is_some(), "a request in pieces of {step}");
    assert_eq!(at_once.1.is_some(), in_pieces.1.is_some(), "a response in pieces of {step}");
    assert!(at_once.0 == in_pieces.0 && at_once.1 == in_pieces.1, "in pieces of {step}");
}

/// Messages of which programs are known to read different things.
pub const SHAPES: &[&str] = &[
    "GET /a HTTP/1.1\nhost: a\n\n",
    "GET /a HTTP/1.1\r\nhost: a\n\r\n",
    "GET /a HTTP/1.1\r\nhost: a\r\n\n",
    "GET /a HTTP/1.1\r\nhost: a\rx: y\r\n\r\n",
    "\r\n\r\nGET /a HTTP/1.9\r\nhost: a\r\nx:\r\ny: \t z \t\r\n\r\n",
    "GET http://one?x=1 HTTP/1.1\r\nhost: two\r\n\r\n",
    "GET /\"<>`{}|^\\?\u{e9} HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /a HTTP/1.1\r\nhost : a\r\n\r\n",
    "GET /a HTTP/1.1\r\nhost: a\r\n b\r\n\r\n",
    "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\r\n\r\n",
    "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3 ; a = \"b;\\\"\"\r\nabc\r\n0\r\nx: y\r\n\r\n",
    "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\n\r\n",
    "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0000000000000003\r\nabc\r\n0\r\n\n",
    "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 204\r\ncontent-length: 3\r\n\r\nabc",
    "HTTP/1.1 099 Low\r\n\r\n",
    "HTTP/1.2 999 \r\ntransfer-encoding: chunked\r\n\r\n1;x=\"\n\"\r\na\r\n0\r\n\r\n",
];

/// What is understood of a message: its head in words, how many bytes of body, and what was left.
type Understood = Option<(String, usize, Vec<u8>)>;

const LONGEST_HEAD: usize = 4096;

fn request(bytes: &[u8], step: usize) -> Understood {
    let (mut parser, mut spare) = (http1::request::Parser::new(LONGEST_HEAD), http::HeaderMap::new());
    understood(bytes, step, |read| {
        let before = read.clone();
        let head = parser.parse(read, &mut spare).map_err(drop)?;
        Ok(head.map(|head| {
            let mut lines = [httparse::EMPTY_HEADER; LONGEST_HEAD];
            let mut other = httparse::Request::new(&mut lines);
            // Which knows no minor version but 0 and 1.
            let text = before.escape_ascii().to_string();
            if other.parse(&before).is_ok_and(|status| status.is_complete()) {
                assert_eq!(other.method, Some(head.method.as_str()), "{text}");
                assert_eq!(other.version == Some(1), head.http11, "{text}");
                same_headers(&head.headers, other.headers, &text);
            }
            to_the_letter(&before[..before.len() - read.len()]);
            (format!("{} {} {:?} {}", head.method, head.uri, head.headers, head.keep_alive), head.decoder)
        }))
    })
}

fn response(bytes: &[u8], step: usize) -> Understood {
    let mut parser = http1::response::Parser::new(LONGEST_HEAD);
    parser.begin();
    understood(bytes, step, |read| {
        let before = read.clone();
        let head = parser.parse(read, &http::Method::GET).map_err(drop)?;
        let Some(head) = head else { return Ok(None) };
        let mut lines = [httparse::EMPTY_HEADER; LONGEST_HEAD];
        let mut other = httparse::Response::new(&mut lines);
        let text = before.escape_ascii().to_string();
        if other.parse(&before).is_ok_and(|status| status.is_complete()) {
            assert_eq!(other.code, Some(head.status.as_u16()), "{text}");
            same_headers(&head.headers, other.headers, &text);
        }
        to_the_letter(&before[..before.len() - read.len()]);
        Ok(Some(head)
            .map(|head| (format!("{} {:?} {}", head.status, head.headers, head.keep_alive), head.decoder)))
    })
}

/// Another parser found the same headers.
fn same_headers(headers: &http::HeaderMap, others: &[httparse::Header<'_>], text: &str) {
    let others = others.iter().filter(|line| !line.name.is_empty());
    let mut map = http::HeaderMap::new();
    for line in others {
        let name = http::HeaderName::from_bytes(line.name.as_bytes()).expect("a name is one to both");
        map.append(name, http::HeaderValue::from_bytes(line.value).expect("a value is one to both"));
    }
    assert_eq!(*headers, map, "{text}");
}

/// Every line of a head that was accepted ends with CRLF.
fn to_the_letter(head: &[u8]) {
    for (at, byte) in head.iter().enumerate() {
        let whole = match byte {
            b'\r' => head.get(at + 1) == Some(&b'\n'),
            b'\n' => at > 0 && head[at - 1] == b'\r',
            _ => true,
        };
        assert!(whole, "{}", head.escape_ascii());
    }
}

type Head = Result<Option<(String, http1::decode::Decoder)>, ()>;

fn understood(bytes: &[u8], step: usize, mut parse: impl FnMut(&mut BytesMut) -> Head) -> Understood {
    let (mut read, mut found) = (BytesMut::new(), None);
    let mut length = 0;
    for piece in bytes.chunks(step.max(1)) {
        read.extend_from_slice(piece);
        if found.is_none() {
            found = parse(&mut read).ok()?;
        }
        let Some((_, decoder)) = &mut found else { continue };
        while let Some(frame) = decoder.decode(&mut read).ok()? {
            length += frame.data_ref().map_or(0, bytes::Bytes::len);
        }
    }
    let (head, decoder) = found?;
    // How much of an unfinished line was kept depends on nothing but the bytes.
    Some((format!("{head} {decoder:?}"), length, read.to_vec()))
}

/// What a service says over its connection.
pub fn frames(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let peer = std::net::IpAddr::from([127, 0, 0, 1]);
    match frame::read(text, peer, Limits { requirements: 16 }) {
        Ok(frame::Said::Define(definition)) => {
            assert!(definition.requires.len() <= 16);
            if let Some(server) = &definition.server {
                let written = serde_json::to_string(&server.record).expect("a record is written");
                assert_eq!(serde_json::from_str(&written).ok().as_ref(), Some(&server.record), "{written}");
            }
        }
        Ok(_) => {}
        Err(fault) => assert!(!fault.reason.is_empty() && fault.reason.len() < 64 << 10),
    }
}

/// The JSON documents of the registry.
pub fn records(bytes: &[u8]) {
    service(bytes);
    again::<ServiceRecord>(bytes);
    again::<ServerRecord>(bytes);
    again::<ReleaseRecord>(bytes);
    again::<RouterRecord>(bytes);
}

/// A service as the API gets it.
fn service(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice(bytes) else { return };
    let _ = (record::promote(&json), record::roll_back(&json));
    let Ok(spec) = record::service(&json) else { return };
    let written = serde_json::to_value(&spec).expect("a spec is written");
    assert_eq!(record::service(&written).expect("what was written is read"), spec);
}

/// What a datastore says changed. The view after single changes must be the view of what remains.
pub fn table_changes(bytes: &[u8]) {
    let numbers = Numbers::default();
    let overlay = BTreeMap::new();
    let mut view = View::build(&[], 0, &overlay, &numbers);
    let mut entries: BTreeMap<(String, String), String> = BTreeMap::new();
    for (at, part) in bytes.split(|&byte| byte == 0).enumerate() {
        let Some(change) = change(part) else { continue };
        view = view.apply(std::slice::from_ref(&change), at as u64 + 1, &overlay, &numbers);
        // One that cannot be read leaves what was there.
        if view.problems().contains_key(&format!("{} {}", change.kind, change.key)) {
            continue;
        }
        let place = (change.kind, change.key);
        match change.value {
            Some(value) => entries.insert(place, value),
            None => entries.remove(&place),
        };
    }
    let entries: Vec<_> =
        entries.into_iter().map(|((kind, key), value)| Entry { kind, key, value }).collect();
    let built = View::build(&entries, 1, &overlay, &numbers);
    let sorted = |view: &View| {
        let mut entries: Vec<_> =
            view.entries().into_iter().map(|entry| (entry.kind, entry.key, entry.value)).collect();
        entries.sort();
        entries
    };
    assert_eq!(sorted(&built), sorted(&view));
}

/// A file in the plugins directory: refused or loaded, and every built-in plugin is still there.
pub fn plugin(bytes: &[u8]) {
    static DATA: LazyLock<tempfile::TempDir> =
        LazyLock::new(|| tempfile::tempdir().expect("a temporary directory"));
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Runtime::new().expect("a runtime"));
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("fuzzed.wasm"), bytes).expect("write");
    let options = Options {
        directory: directory.path().to_owned(),
        data: DATA.path().to_owned(),
        hold: None,
        interval: std::time::Duration::from_secs(3600),
        settings: BTreeMap::new(),
        runtime: RUNTIME.handle().clone(),
        tasks: message_flow::supervise::Supervisor::default(),
    };
    let plugins = Plugins::start(options, &prometheus::Registry::new()).expect("the host starts");
    let names: Vec<_> = plugins.status().into_iter().map(|status| status.name).collect();
    assert!(names.iter().any(|name| name.as_str() == "fuzzed"), "it is accounted for: {names:?}");
}

/// `put KIND KEY VALUE` or `delete KIND KEY`, as lines.
fn change(part: &[u8]) -> Option<Change> {
    let text = std::str::from_utf8(part).ok()?;
    let mut lines = text.splitn(4, '\n');
    let (put, kind, key) = (lines.next()? == "put", lines.next()?, lines.next()?);
    let value = if put { Some(lines.next().unwrap_or_default().to_owned()) } else { None };
    Some(Change { kind: kind.to_owned(), key: key.to_owned(), value, ephemeral: false })
}

fn comes_back<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let written = value.to_string();
    assert_eq!(written.parse().ok(), Some(value), "{text:?} was written as {written:?}");
}

fn again<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(
        serde_json::from_slice::<T>(&written).ok(),
        Some(value),
        "{}",
        String::from_utf8_lossy(&written)
    );
}
