//! The head of a response: parsed, and with it how its body ends.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};

use super::{
    Malformed,
    decode::Decoder,
    lines::{Coding, Lines, Seen, coding, has_ended, keeps_alive, number},
    scan::{self, Headers},
};
use crate::fields::elements;

/// Interim responses (1xx) before the response proper.
const MOST_INTERIM: usize = 16;

/// Headers of one head.
const MOST_HEADERS: usize = 1024;

/// What the map of a head's headers has room for, at least. It serves the head of the next request
/// afterwards, to which some are added.
const ROOM: usize = 12;

/// What is understood of a response before its body.
pub struct ResponseHead {
    /// Its status.
    pub status: StatusCode,
    /// As they came.
    pub headers: HeaderMap,
    /// For its body.
    pub decoder: Decoder,
    /// Whether the connection can carry another message after this one.
    pub keep_alive: bool,
}

/// Why a response cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// What is wrong with it.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Longer than a head may be.
    #[error("the head is longer than {0} bytes")]
    TooLong(usize),
}

/// Parses heads; keeps its scratch space from one to the next.
pub struct Parser {
    lines: Lines,
    max_head: usize,
    /// Interim responses that may still come before the response proper.
    interim_left: usize,
    /// So many bytes of a head were there the last time.
    before: usize,
}

impl Parser {
    /// For heads of so many bytes at most.
    pub fn new(max_head: usize) -> Self {
        Self { lines: Lines::default(), max_head, interim_left: 0, before: 0 }
    }

    /// The heads of another message follow.
    pub fn begin(&mut self) {
        (self.interim_left, self.before) = (MOST_INTERIM, 0);
    }

    /// Takes a head off what was read; none if it is not complete.
    pub fn parse(&mut self, read: &mut BytesMut, to: &Method) -> Result<Option<ResponseHead>, Unreadable> {
        let worth_it = !read.is_empty() && (self.before == 0 || has_ended(read, self.before));
        let found = if worth_it { self.look(read)? } else { None };
        let Some((length, status, http11)) = found else {
            self.before = read.len();
            return match read.len() >= self.max_head {
                true => Err(Unreadable::TooLong(self.max_head)),
                false => Ok(None),
            };
        };
        self.before = 0;
        if length > self.max_head {
            return Err(Unreadable::TooLong(self.max_head));
        }
        if status.is_informational() {
            let left = self.interim_left.checked_sub(1);
            self.interim_left = left.ok_or(Malformed("interim responses without end"))?;
        }
        let bytes = read.split_to(length).freeze();
        let (headers, seen) = self.headers(&bytes)?;
        let framing = Framing { status, http11, to, headers: &headers, seen };
        let (decoder, keep_alive) = framing.decide()?;
        Ok(Some(ResponseHead { status, headers, decoder, keep_alive }))
    }

    /// Length, status and whether it is HTTP/1.1; remembers the places of the headers.
    fn look(&mut self, read: &[u8]) -> Result<Option<(usize, StatusCode, bool)>, Malformed> {
        let Some((status, http11, end)) = first(read)? else { return Ok(None) };
        self.lines.0.clear();
        match scan::headers(read, end, MOST_HEADERS, &mut self.lines.0) {
            Ok(length) => Ok(length.map(|length| (length, status, http11))),
            Err(Headers::Malformed(malformed)) => Err(malformed),
            Err(Headers::TooMany) => Err(Malformed("too many headers")),
        }
    }

    fn headers(&self, bytes: &Bytes) -> Result<(HeaderMap, Seen), Malformed> {
        let mut headers = HeaderMap::with_capacity(self.lines.len().max(ROOM));
        let seen = self.lines.fill(&mut headers, bytes)?;
        Ok((headers, seen))
    }
}

/// `version SP status SP reason CRLF`: the status, whether it is HTTP/1.1, and where the line ends; none
/// if it is cut off. Many servers leave out the space where there is no reason; nobody can read that in
/// two ways, so it is allowed.
fn first(read: &[u8]) -> Result<Option<(StatusCode, bool, usize)>, Malformed> {
    const LENGTH: usize = "HTTP/1.1 200".len();
    let Some((line, rest)) = read.split_first_chunk::<LENGTH>() else {
        return match b"HTTP/1.".starts_with(&read[..read.len().min(7)]) {
            true => Ok(None),
            false => Err(Malformed("a version that is not HTTP/1")),
        };
    };
    let [version @ .., b' ', hundreds, tens, ones] = line else {
        return Err(Malformed("no space between version and status"));
    };
    let http11 = scan::version(version)?;
    let status = StatusCode::from_bytes(&[*hundreds, *tens, *ones]);
    let status = status.map_err(|_| Malformed("a status that is none"))?;
    let Some(reason) = scan::line_end(rest)? else { return Ok(None) };
    let wrong = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if !matches!(rest[0], b' ' | b'\r') || rest[..reason].iter().any(wrong) {
        return Err(Malformed("what follows the status"));
    }
    Ok(Some((status, http11, LENGTH + reason + 2)))
}

/// How the body of a response ends (RFC 9112, section 6.3).
struct Framing<'a> {
    status: StatusCode,
    http11: bool,
    to: &'a Method,
    headers: &'a HeaderMap,
    seen: Seen,
}

impl Framing<'_> {
    fn decide(&self) -> Result<(Decoder, bool), Malformed> {
        let mut keep_alive = keeps_alive(self.headers, self.seen, self.http11);
        let encoded = self.seen.encoding;
        let length = self.length()?;
        if encoded && !self.http11 {
            return Err(Malformed("transfer-encoding in HTTP/1.0"));
        }
        if encoded && length.is_some() {
            return Err(Malformed("both content-length and transfer-encoding"));
        }
        let interim = self.status.is_informational();
        let bodiless = *self.to == Method::HEAD
            || interim
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bodiless {
            // What says that it has a body and can have none may be followed by one. The length of what a
            // GET would have got is meant where the status is 304 (RFC 9110, section 8.6).
            let announced = encoded || length.is_some_and(|length| length > 0);
            let allowed = *self.to == Method::HEAD || self.status == StatusCode::NOT_MODIFIED && !encoded;
            if announced && interim && self.status != StatusCode::SWITCHING_PROTOCOLS {
                return Err(Malformed("an interim response with a body"));
            }
            keep_alive &= allowed || !announced;
            return Ok((Decoder::Done, keep_alive));
        }
        if encoded {
            return match coding(self.headers) {
                Coding::Chunked => Ok((Decoder::chunked(), keep_alive)),
                Coding::More | Coding::Other => Err(Malformed("a transfer-encoding that is not chunked")),
            };
        }
        Ok(match length {
            Some(length) => (Decoder::length(length), keep_alive),
            None => (Decoder::UntilClose, false),
        })
    }

    /// Several that agree are one.
    fn length(&self) -> Result<Option<u64>, Malformed> {
        if !self.seen.length {
            return Ok(None);
        }
        let mut length = None;
        for text in elements(self.headers, &header::CONTENT_LENGTH) {
            let parsed = number(text)?;
            if length.replace(parsed).is_some_and(|before| before != parsed) {
                return Err(Malformed("two lengths"));
            }
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, to: &Method) -> Result<Option<(ResponseHead, String)>, Unreadable> {
        let mut parser = Parser::new(1 << 10);
        parser.interim_left = 1;
        let mut read = BytesMut::from(text);
        let head = parser.parse(&mut read, to)?;
        Ok(head.map(|head| (head, String::from_utf8_lossy(&read).into_owned())))
    }

    fn framing(text: &str) -> String {
        match parse(&format!("{text}\r\n\r\n"), &Method::GET) {
            Ok(Some((head, _))) => format!("{:?} {}", head.decoder, head.keep_alive),
            Ok(None) => "partial".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_body_ends_as_the_head_says() {
        let cases = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5", "Length(5) true"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5, 5", "Length(5) true"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close", "Length(5) false"),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5", "Length(5) false"),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive", "Length(5) true"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked", "Chunked(Size) true"),
            ("HTTP/1.1 200 OK", "UntilClose false"),
            ("HTTP/1.1 204 No Content", "Done true"),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5", "Done true"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0", "Done true"),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 0", "Done true"),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5", "Done false"),
            ("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked", "Done false"),
            ("HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked", "Done false"),
            ("HTTP/1.7 200 OK\r\ncontent-length: 5", "Length(5) true"),
            ("HTTP/1.1 999 \r\ncontent-length: 5", "Length(5) true"),
            ("HTTP/1.1 200\r\ncontent-length: 5", "Length(5) true"),
            ("HTTP/1.1 200 d\u{e9}j\u{e0}\tvu\r\ncontent-length: 5", "Length(5) true"),
        ];
        for (head, expect) in cases {
            assert_eq!(framing(head), expect, "{head}");
        }
        let (head, rest) =
            parse("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", &Method::HEAD).unwrap().unwrap();
        assert!(head.decoder.is_done());
        assert_eq!((head.headers["content-length"].as_bytes(), &*rest), (&b"5"[..], "ab"));
    }

    #[test]
    fn what_can_be_understood_in_two_ways_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ncontent-length: +5",
            "HTTP/1.1 200 OK\r\ncontent-length:",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\na b: c",
            "HTTP/1.1 200 OK\r\na : c",
            "HTTP/1.1 200 OK\r\na: b\r\n c",
            "HTTP/2.0 200 OK",
            "ICY 200 OK",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 099 OK",
            "HTTP/1.1 000 OK",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 200\tOK",
            "HTTP/1.1  200 OK",
            "HTTP/1.1 200 O\0K",
            "HTTP/1.1 200 OK\ncontent-length: 5",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\nx: y",
            "HTTP/1.1 200 OK\rx\r\ncontent-length: 5",
            "HTTP/1.1 103 Early\r\ncontent-length: 5",
            "HTTP/1.1 100 Go\r\ntransfer-encoding: chunked",
        ] {
            let said = framing(head);
            assert!(!said.contains(['(', '"']) && said != "partial", "{head}: {said}");
        }
    }

    #[test]
    fn heads_have_bounds() {
        assert!(parse("HTTP/1.1 200 OK\r\ncontent-le", &Method::GET).unwrap().is_none());
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(1 << 10));
        assert!(matches!(parse(&long, &Method::GET), Err(Unreadable::TooLong(_))));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MOST_HEADERS + 1));
        let many = Parser::new(1 << 20).parse(&mut BytesMut::from(&*many), &Method::GET).err();
        assert_eq!(many, Some(Unreadable::Malformed(Malformed("too many headers"))));
        let (mut parser, mut read) = (Parser::new(1 << 10), BytesMut::from("HTTP/1.1 103 Early\r\n\r\n"));
        assert!(parser.parse(&mut read, &Method::GET).is_err(), "no interim response is left");
    }
}
