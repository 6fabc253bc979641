//! Whatever bytes a client sends, the server behind the gateway reads the messages that the gateway
//! routed: as many, each with the same method, target, host and body. A real nginx is the judge.
//!
//! The bytes are made of shapes that programs are known to read differently, by a generator with a seed;
//! `DIFFERENTIAL_SEED` and `DIFFERENTIAL_CASES` choose others than the usual ones.

use bytes::BytesMut;
use http::HeaderMap;
use message_flow::http1;
use message_flow_tests::{Gateway, Nginx, raw::Raw, wait::PATIENCE};
use serde_json::json;

/// Says in a header what filters see of a message, which is what it was routed by.
const SAYS: &str = "export function onRequest() {\n\
    const query = request.query();\n\
    const target = request.path() + (query === undefined ? '' : '?' + query);\n\
    request.setHeader('x-routed', `${request.method()} ${target} ${request.authority()}`);\n\
}\n";

const CONFIG: &str = "[proxy.timeouts]\nhead = '300ms'\nbody = '300ms'\nkeep_alive = '300ms'\nfirst_byte = '300ms'\n\
    [[route]]\npath = '/'\nservice = 'chat'\n";

#[tokio::test]
async fn nginx_reads_what_was_routed() {
    let mut nginx = Nginx::start().await;
    let gateway = Gateway::setup().config(CONFIG).file("plugins/says.js", SAYS).start().await;
    gateway.active("says").await;
    gateway.put("chat", json!({ "server": nginx.uri(), "filters": ["says"] })).await;
    let number =
        |name: &str, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let mut shapes = Shapes(number("DIFFERENTIAL_SEED", 10));
    let mut compared = 0;
    for case in 0..number("DIFFERENTIAL_CASES", 400) {
        let bytes = shapes.connection();
        let mut client = Raw::connect(gateway.proxy()).await;
        client.say(&bytes).await;
        let heard = client.until_closed(PATIENCE).await;
        let mark = format!("/mark-{case}");
        gateway.get(&mark).send().await.expect(200);
        let read = nginx.read_until(&mark).await;
        let problem = difference(&bytes, &heard, &read);
        let what = || format!("case {case}: {}\nanswered: {heard}\nread: {read:#?}", bytes.escape_ascii());
        assert_eq!(problem, Ok(()), "{}", what());
        compared += read.iter().filter(|read| read.part("status") == "200").count();
    }
    println!("{compared} messages were read as they were routed");
    assert!(compared > 100, "most of what is sent should be a message: {compared}");
}

/// What nginx did not read as the gateway did.
fn difference(sent: &[u8], heard: &str, read: &[message_flow_tests::nginx::Read]) -> Result<(), String> {
    let answers: Vec<_> =
        heard.split("HTTP/1.1 ").skip(1).filter(|answer| !answer.starts_with('1')).collect();
    let from_nginx = |answer: &&str| answer.starts_with("200") && answer.contains("\r\nx-nginx: 1\r\n");
    let served: Vec<_> = read.iter().filter(|read| read.part("status") == "200").collect();
    let understood = understood(sent);
    let expected: Vec<_> = answers
        .iter()
        .zip(&understood)
        .filter(|(answer, _)| from_nginx(answer))
        .map(|(_, message)| message)
        .collect();
    if answers.iter().filter(|answer| from_nginx(answer)).count() != served.len()
        || expected.len() != served.len()
    {
        return Err(format!("nginx served {} messages of {understood:?}", served.len()));
    }
    for (message, read) in expected.into_iter().zip(served) {
        let routed = format!("{} {} {}", read.part("method"), read.part("target"), read.part("host"));
        if routed != read.part("routed") {
            return Err(format!("routed as {:?}, read as {routed:?}", read.part("routed")));
        }
        if (read.part("method"), read.part("body")) != (&message.method, &message.body) {
            return Err(format!("sent as {message:?}, read as {routed:?}"));
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Message {
    method: String,
    body: String,
}

/// The messages of a connection, as far as they are messages.
fn understood(sent: &[u8]) -> Vec<Message> {
    let (mut read, mut parser) = (BytesMut::from(sent), http1::request::Parser::new(32 << 10));
    let mut messages = vec![];
    while let Ok(Some(mut head)) = parser.parse(&mut read, &mut HeaderMap::new()) {
        let mut body = vec![];
        while let Ok(Some(frame)) = head.decoder.decode(&mut read) {
            body.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        messages.push(Message { method: head.method.to_string(), body });
        if !head.decoder.is_done() {
            break;
        }
    }
    messages
}

/// Makes connections' bytes; xorshift, so that a seed means the same everywhere.
struct Shapes(u64);

const METHODS: &[&str] = &["GET", "GET", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"];
const SEGMENTS: &[&[u8]] = &[
    b"/",
    b"/a",
    b"/a/b",
    b"/%61",
    b"/%2e",
    b"/%2E%2e",
    b"/.",
    b"/..",
    b"/...",
    b"//",
    b"/./",
    b"/x/../y",
    b"/%2f",
    b"/%5c",
    b"/%00",
    b"/%zz",
    b"/%",
    b"/\"",
    b"/<>",
    b"/{}",
    b"/|",
    b"/^`",
    b"/\\",
    b"/\xc3\xa9",
    b"/\xff",
    b"/~-._",
    b"/;p=1",
    b"/a:b@c",
    b"/!$&'()*+,=",
    b"/[]",
    b"/smuggled",
];
const QUERIES: &[&[u8]] = &[
    b"",
    b"",
    b"",
    b"?",
    b"?a=b",
    b"?a=%2e%2e/&b={}",
    b"?\"<>|\\^`",
    b"?\xe9",
    b"?/../x",
    b"??",
    b"?a=b#c",
    b"#a",
    b"?a b",
];
const ODD_TARGETS: &[&[u8]] = &[
    b"http://t",
    b"http://t/abs",
    b"http://t?x=1",
    b"http://u@t/a",
    b"http://t:80/a",
    b"*",
    b"a",
    b"t:80",
    b"",
    b"http:///a",
    b"/a\tb",
];
const VERSIONS: &[&str] = &[
    " HTTP/1.1",
    " HTTP/1.1",
    " HTTP/1.1",
    " HTTP/1.1",
    " HTTP/1.1",
    " HTTP/1.1",
    " HTTP/1.1",
    " HTTP/1.0",
    " HTTP/1.2",
    " HTTP/1.9",
    " HTTP/2.0",
    " HTTP/1.10",
    " HTTP/1.1 ",
    "  HTTP/1.1",
    "",
    " http/1.1",
];
const HOSTS: &[&str] = &[
    "Host: t",
    "Host: t",
    "Host: t",
    "Host: t",
    "host:t",
    "HOST:  T.test:8080 ",
    "Host: [::1]:80",
    "Host: t:80:80",
    "Host: u@t",
    "Host:",
    "Host : t",
    "Host: t, u",
    "X-No: host",
    "Host: t\r\nHost: u",
    "Host: t\r\n folded",
];
const HEADERS: &[&str] = &[
    "X: y",
    "x:y",
    "X:\t y \t",
    "X:",
    "X_Y: z",
    "X : y",
    " X: y",
    "X",
    ": y",
    "X: \u{e9}",
    "X: a\u{1}b",
    "X: a\u{7f}b",
    "X: a\rb",
    "X: a\nb",
    "X: y\r\n\tfolded",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: x, host, content-length, transfer-encoding",
    "TE: trailers",
    "Trailer: x-count, host",
    "Expect: 100-continue",
    "Upgrade: h2c\r\nConnection: upgrade, http2-settings",
    "Keep-Alive: 5",
    "Cookie: a=b; c",
    "X-Forwarded-For: 1.2.3.4",
    "Content-Type: text/plain",
    "\u{0}: y",
    "(): y",
];
const LENGTHS: &[&str] = &[
    "+5",
    "-1",
    "5, 5",
    "0x5",
    "5 5",
    "",
    "99999999999999999999",
    " 5",
    "05",
    "5\r\nContent-Length: 5",
    "5\r\nContent-Length: 6",
];
const CODINGS: &[&str] = &[
    "chunked",
    "chunked",
    "chunked",
    "chunked",
    "Chunked",
    "chunked, chunked",
    "gzip, chunked",
    "chunked, identity",
    "identity",
    "xchunked",
    "\tchunked",
    "chunked ",
    "\"chunked\"",
    "chunked;q=1",
    "",
    ",chunked",
    "chunked\r\nTransfer-Encoding: chunked",
];
const BODIES: &[&str] = &[
    "abc",
    "",
    "0\r\n\r\n",
    "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n",
    "\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "x\n\ny",
];
const EXTENSIONS: &[&str] = &[
    "",
    "",
    "",
    "",
    "",
    "",
    ";a",
    ";a=b",
    " ; a = \"b;\\\"c\"",
    ";",
    ";a=",
    ";a=\"\n\"",
    ";a\n",
    " ",
    ";a=\"\r\n\"",
    ",a",
    ";a b",
    "\t;a",
];
const ENDS: &[&str] = &[
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "\r\r\n",
    "",
    "\r\nx: y\r\n",
    "\r\nhost: evil\r\n",
    "\r\ncontent-length: 3\r\n",
    "\r\nx-count: 1\r\n",
    "\r\nx: y\n",
    "\r\n x: y\r\n",
];

impl Shapes {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % end
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Once in so many times.
    fn rarely(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// A few requests, and one that closes the connection if all goes well.
    fn connection(&mut self) -> Vec<u8> {
        let mut bytes = vec![];
        for _ in 0..=self.below(3) {
            self.request(&mut bytes);
        }
        bytes.extend_from_slice(b"GET /end HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        if self.rarely(12) {
            let at = self.below(bytes.len());
            bytes[at] = self.one(b"\r\n\t :;0a/%.\0\xff");
        }
        bytes
    }

    fn request(&mut self, bytes: &mut Vec<u8>) {
        if self.rarely(20) {
            bytes.extend_from_slice(self.one(&["\r\n", "\r\n\r\n", "\n", "\r"]).as_bytes());
        }
        bytes.extend_from_slice(self.one(METHODS).as_bytes());
        bytes.push(b' ');
        self.target(bytes);
        // Mostly usual, or hardly anything would be read by anybody.
        let version = if self.rarely(4) { self.one(VERSIONS) } else { " HTTP/1.1" };
        bytes.extend_from_slice(version.as_bytes());
        self.line_end(bytes);
        let host = if self.rarely(4) { self.one(HOSTS) } else { "Host: t" };
        self.line(bytes, host);
        for _ in 0..self.below(3) {
            let header = if self.rarely(2) { self.one(HEADERS) } else { "X: y" };
            self.line(bytes, header);
        }
        self.framed(bytes);
    }

    fn target(&mut self, bytes: &mut Vec<u8>) {
        if self.rarely(8) {
            return bytes.extend_from_slice(self.one(ODD_TARGETS));
        }
        for _ in 0..=self.below(3) {
            let segment = if self.rarely(2) { self.one(SEGMENTS) } else { b"/a" };
            bytes.extend_from_slice(segment);
        }
        bytes.extend_from_slice(self.one(QUERIES));
    }

    /// What ends the head, and the body.
    fn framed(&mut self, bytes: &mut Vec<u8>) {
        let (length, coding) = match self.below(10) {
            0..=3 => (false, false),
            4..=5 => (true, false),
            6..=8 => (false, true),
            _ => (true, true),
        };
        let body = self.one(BODIES);
        if length {
            let right = body.len().to_string();
            let said = if self.rarely(5) { self.one(LENGTHS) } else { &right };
            self.line(bytes, &format!("Content-Length: {said}"));
        }
        if coding {
            let said = if self.rarely(3) { self.one(CODINGS) } else { "chunked" };
            self.line(bytes, &format!("Transfer-Encoding: {said}"));
        }
        self.line_end(bytes);
        if coding {
            self.chunks(bytes, body);
        } else if length {
            bytes.extend_from_slice(body.as_bytes());
        }
    }

    fn chunks(&mut self, bytes: &mut Vec<u8>, body: &str) {
        if !body.is_empty() {
            let size = match self.below(12) {
                0 => format!("{:X}", body.len()),
                1 => format!("000{:x}", body.len()),
                2 => self.one(&["", "0x3", "+3", "-3", " 3", "3 ", "10000000000000003", "g"]).to_owned(),
                _ => format!("{:x}", body.len()),
            };
            bytes.extend_from_slice(size.as_bytes());
            bytes.extend_from_slice(self.one(EXTENSIONS).as_bytes());
            self.line_end(bytes);
            bytes.extend_from_slice(body.as_bytes());
            self.line_end(bytes);
        }
        bytes.extend_from_slice(if self.rarely(15) { b"" } else { b"0" });
        let end = self.one(ENDS);
        bytes.extend_from_slice(end.as_bytes());
        self.line_end(bytes);
    }

    fn line(&mut self, bytes: &mut Vec<u8>, line: &str) {
        bytes.extend_from_slice(line.as_bytes());
        self.line_end(bytes);
    }

    fn line_end(&mut self, bytes: &mut Vec<u8>) {
        let end = if self.rarely(40) { self.one(&["\n", "\r", "\r\r\n", "\n\r", " \r\n"]) } else { "\r\n" };
        bytes.extend_from_slice(end.as_bytes());
    }
}
