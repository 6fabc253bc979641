//! The head of a request: parsed, and with it how its body ends and what the client would like.

use bytes::BytesMut;
use http::{HeaderMap, Method, Uri, header};

use super::{
    Malformed,
    decode::Decoder,
    lines::{Coding, Lines, Seen, coding, has_ended, keeps_alive, number},
    scan::{self, Headers},
    target,
};

/// Headers of one head, however long it may be.
const MOST_HEADERS: usize = 4096;
/// Empty lines before a request, which some clients send after a body (RFC 9112, section 2.2).
const MOST_EMPTY: usize = 4;

/// What is understood of a request before its body.
pub struct RequestHead {
    /// As it came.
    pub method: Method,
    /// In any of the forms of RFC 9112, section 3.2.
    pub uri: Uri,
    /// Whether the client speaks HTTP/1.1, not 1.0.
    pub http11: bool,
    /// As they came.
    pub headers: HeaderMap,
    /// For its body.
    pub decoder: Decoder,
    /// Whether the connection can carry another message after this one.
    pub keep_alive: bool,
    /// Whether the client waits for a word before it sends the body.
    pub expects_continue: bool,
    /// Whether it would like to speak something else.
    pub upgrades: bool,
    /// Whether it takes trailers.
    pub takes_trailers: bool,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not understood, or could be understood in two ways.
    #[error("malformed request: {0}")]
    Malformed(#[from] Malformed),
    /// Its target has a byte that no target may have.
    #[error("malformed request: its target has the byte 0x{0:02x}, which has to be written %{0:02X}")]
    Byte(u8),
    /// The head is too long, or has too many headers.
    #[error("the head of the request is too large, or has too many headers")]
    TooLarge,
    /// The target is.
    #[error("the target of the request is too long")]
    TargetTooLong,
    /// The body is coded as nobody here can read it.
    #[error("the only transfer-encoding served is chunked")]
    Coding,
}

/// Parses heads; keeps its scratch space from one to the next.
pub struct Parser {
    lines: Lines,
    max_head: usize,
    /// So many bytes of a head were there the last time.
    before: usize,
}

/// What the first line says, and where it ends.
struct First {
    method: Method,
    target: (usize, usize),
    /// Something of the target has to be encoded.
    raw: bool,
    http11: bool,
    end: usize,
}

impl Parser {
    /// For heads of so many bytes at most.
    pub fn new(max_head: usize) -> Self {
        Self { lines: Lines::default(), max_head, before: 0 }
    }

    /// Takes a head off what was read; none if it is not complete. `spare` gives its space to the
    /// headers.
    ///
    /// # Errors
    /// The request cannot be served; what follows on the connection is not to be believed.
    pub fn parse(
        &mut self,
        read: &mut BytesMut,
        spare: &mut HeaderMap,
    ) -> Result<Option<RequestHead>, Refused> {
        let worth_it = !read.is_empty() && (self.before == 0 || has_ended(read, self.before));
        let found = if worth_it { self.look(read)? } else { None };
        let Some((First { method, target, raw, http11, .. }, length)) = found else {
            self.before = read.len();
            return if read.len() >= self.max_head { Err(Refused::TooLarge) } else { Ok(None) };
        };
        self.before = 0;
        if length > self.max_head {
            return Err(Refused::TooLarge);
        }
        let bytes = read.split_to(length).freeze();
        let uri = target::uri(&method, bytes.slice(target.0..target.1), raw)?;
        let mut headers = std::mem::take(spare);
        headers.reserve(self.lines.len());
        let seen = self.lines.fill(&mut headers, &bytes)?;
        let decoder = decoder(&headers, seen, http11)?;
        let is = |name, text: &[u8]| {
            headers.get_all(name).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(text))
        };
        Ok(Some(RequestHead {
            method,
            uri,
            http11,
            keep_alive: keeps_alive(&headers, seen, http11),
            expects_continue: http11 && seen.expect && is(header::EXPECT, b"100-continue"),
            upgrades: http11 && seen.upgrade && seen.connection,
            takes_trailers: seen.te && is(header::TE, b"trailers"),
            headers,
            decoder,
        }))
    }

    /// The first line and how long the head is; remembers the places of the headers.
    fn look(&mut self, read: &[u8]) -> Result<Option<(First, usize)>, Refused> {
        let Some(first) = first(read)? else { return Ok(None) };
        self.lines.0.clear();
        match scan::headers(read, first.end, MOST_HEADERS, &mut self.lines.0) {
            Ok(length) => Ok(length.map(|length| (first, length))),
            Err(Headers::Malformed(malformed)) => Err(malformed.into()),
            Err(Headers::TooMany) => Err(Refused::TooLarge),
        }
    }
}

/// `METHOD SP target SP version CRLF`, with single spaces; none if it is cut off.
fn first(read: &[u8]) -> Result<Option<First>, Refused> {
    let mut at = 0;
    while read[at..].starts_with(b"\r\n") {
        at += 2;
        if at > 2 * MOST_EMPTY {
            return Err(Malformed("empty lines before it").into());
        }
    }
    let method = at..at + scan::token(&read[at..]);
    match read.get(method.end) {
        Some(b' ') if !method.is_empty() => {}
        None => return Ok(None),
        Some(b'\r') if read.len() == at + 1 => return Ok(None),
        Some(b'\n') if method.is_empty() => return Err(Malformed("a line that ends with LF alone").into()),
        Some(_) => return Err(Malformed("its method").into()),
    }
    let (length, raw) = target::scan(&read[method.end + 1..]);
    let target = (method.end + 1, method.end + 1 + length);
    match read.get(target.1) {
        Some(b' ') if length > 0 => {}
        None => return Ok(None),
        Some(b' ') => return Err(Malformed("no target between two spaces").into()),
        Some(b'\r' | b'\n') => return Err(Malformed("no version").into()),
        Some(byte) => return Err(Refused::Byte(*byte)),
    }
    let rest = &read[target.1 + 1..];
    let Some(version) = rest.first_chunk() else {
        return match b"HTTP/1.".starts_with(rest) {
            true => Ok(None),
            false => Err(Malformed("a version that is not HTTP/1").into()),
        };
    };
    let http11 = scan::version(version)?;
    let end = target.1 + 1 + version.len();
    match &read[end..] {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] => return Ok(None),
        [b'\n', ..] => return Err(Malformed("a line that ends with LF alone").into()),
        _ => return Err(Malformed("something between its version and the end of the line").into()),
    }
    let method = Method::from_bytes(&read[method]).map_err(|_| Malformed("its method"))?;
    Ok(Some(First { method, target, raw, http11, end: end + 2 }))
}

/// How the body ends (RFC 9112, section 6.3), without the leniency that it allows.
fn decoder(headers: &HeaderMap, seen: Seen, http11: bool) -> Result<Decoder, Refused> {
    match (seen.length, seen.encoding) {
        (false, false) => Ok(Decoder::Done),
        (true, true) => Err(Malformed("both content-length and transfer-encoding").into()),
        (true, false) => {
            let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
            let (length, second) = (lengths.next(), lengths.next());
            if second.is_some() {
                return Err(Malformed("two lengths").into());
            }
            Ok(Decoder::length(number(length.map_or(&[], |length| length.as_bytes()))?))
        }
        (false, true) if !http11 => Err(Malformed("transfer-encoding in HTTP/1.0").into()),
        (false, true) => match coding(headers) {
            Coding::Chunked => Ok(Decoder::chunked()),
            Coding::More => Err(Refused::Coding),
            Coding::Other => Err(Malformed("a transfer-encoding that does not end with chunked").into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<RequestHead>, Refused> {
        Parser::new(1 << 10).parse(&mut BytesMut::from(text), &mut HeaderMap::new())
    }

    fn framing(headers: &str) -> String {
        match parse(&format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n")) {
            Ok(Some(head)) => format!("{:?} {}", head.decoder, head.keep_alive),
            Ok(None) => "partial".to_owned(),
            Err(refused) => refused.to_string(),
        }
    }

    #[test]
    fn a_body_ends_as_the_head_says() {
        for (headers, expect) in [
            ("host: a", "Done true"),
            ("content-length: 5", "Length(5) true"),
            ("content-length: 0", "Done true"),
            ("Content-Length: 5\r\nConnection: x, Close", "Length(5) false"),
            ("transfer-encoding: Chunked", "Chunked(Size) true"),
        ] {
            assert_eq!(framing(headers), expect, "{headers}");
        }
    }

    #[test]
    fn what_can_be_understood_in_two_ways_is_refused() {
        for headers in [
            "content-length: 5\r\ncontent-length: 5",
            "content-length: 5, 5",
            "content-length: +5",
            "content-length:",
            "content-length: 99999999999999999999",
            "content-length: 5\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 5",
            "transfer-encoding: gzip",
            "transfer-encoding: chunked, identity",
            "transfer-encoding: xchunked",
            "transfer-encoding:",
            "a b: c",
            "a : c",
            "a: b\r\n c",
            "a: b\rc",
        ] {
            assert!(framing(headers).starts_with("malformed request: "), "{headers}: {}", framing(headers));
        }
        for headers in
            ["transfer-encoding: gzip, chunked", "transfer-encoding: chunked\r\ntransfer-encoding: chunked"]
        {
            assert_eq!(framing(headers), Refused::Coding.to_string(), "{headers}");
        }
        for first in [
            "GET / HTTP/2.0",
            "GET / HTTP/0.9",
            "GET /",
            "GET / ",
            "GET / x",
            "G\"T / HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET / HTTP/1.10",
            " GET / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1",
        ] {
            let refused = parse(&format!("{first}\r\nhost: a\r\n\r\n")).err();
            assert!(matches!(refused, Some(Refused::Malformed(_))), "{first}: {refused:?}");
        }
        for byte in ['\u{1}', '\t', '#', '\u{7f}'] {
            let refused = parse(&format!("GET /{byte}a HTTP/1.1\r\nhost: a\r\n\r\n")).err();
            assert_eq!(refused, Some(Refused::Byte(byte as u8)));
        }
        for text in [
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\n",
            "GET / HTTP/1.1\nhost: a\n\n",
            "GET / HTTP/1.1\rhost: a\r\r",
            "GET / HTTP/1.1\r\nhost: a\r\r\n\r\n",
            "GET / HTTP/1.1\r\n\rhost: a\r\n\r\n",
            "GET /\n HTTP/1.1\r\nhost: a\r\n\r\n",
            "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "\rGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        ] {
            let refused = parse(text).err();
            assert!(matches!(refused, Some(Refused::Malformed(_))), "{text:?}: {refused:?}");
        }
        let chunked10 = parse("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n").err();
        assert!(matches!(chunked10, Some(Refused::Malformed(_))));
    }

    #[test]
    fn what_a_client_would_like() {
        let head = "GET /a?b HTTP/1.1\r\nexpect: 100-Continue\r\nconnection: upgrade, te\r\nupgrade: x\r\nte: trailers\r\n\r\n";
        let head = parse(head).unwrap().unwrap();
        assert!(head.expects_continue && head.upgrades && head.takes_trailers && head.keep_alive);
        assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("GET", "/a?b"));
        let old = parse("GET / HTTP/1.0\r\nexpect: 100-continue\r\n\r\n").unwrap().unwrap();
        assert!(!old.expects_continue && !old.keep_alive);
        let old = parse("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n").unwrap().unwrap();
        assert!(old.keep_alive);
        let newer = parse("\r\n\r\nGET http://one?x={ HTTP/1.7\r\n\r\n").unwrap().unwrap();
        assert!(newer.http11 && newer.keep_alive);
        assert_eq!(newer.uri.to_string(), "http://one/?x=%7B");
    }

    #[test]
    fn heads_have_bounds() {
        assert!(parse("GET / HTTP/1.1\r\nhost: ").unwrap().is_none());
        let long = format!("GET / HTTP/1.1\r\na: {}", "x".repeat(1 << 10));
        assert_eq!(parse(&long).err(), Some(Refused::TooLarge));
        assert_eq!(parse(&format!("{long}\r\n\r\n")).err(), Some(Refused::TooLarge));
        let mut parser = Parser::new(1 << 20);
        let mut many = |lines: usize| {
            let text = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(lines));
            parser.parse(&mut BytesMut::from(&*text), &mut HeaderMap::new())
        };
        assert_eq!(many(200).unwrap().unwrap().headers.len(), 200);
        assert_eq!(many(MOST_HEADERS + 1).err(), Some(Refused::TooLarge));
        let target = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 16));
        let refused = parser.parse(&mut BytesMut::from(&*target), &mut HeaderMap::new());
        assert_eq!(refused.err(), Some(Refused::TargetTooLong));
    }

    #[test]
    fn heads_may_arrive_in_any_pieces() {
        let text = "\r\nPUT /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET";
        for step in 1..text.len() {
            let (mut parser, mut read) = (Parser::new(1 << 10), BytesMut::new());
            let mut spare = HeaderMap::new();
            let mut heads = vec![];
            for piece in text.as_bytes().chunks(step) {
                read.extend_from_slice(piece);
                if heads.is_empty() {
                    heads.extend(parser.parse(&mut read, &mut spare).unwrap());
                }
            }
            assert_eq!(heads.len(), 1, "in pieces of {step}");
            assert_eq!((heads[0].headers.len(), &*read), (2, &b"abcGET"[..]));
        }
    }
}
