//! The head of a response: parsed, and with it how its body ends.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use httparse::Status;

use super::{
    Malformed,
    decode::Decoder,
    lines::{Coding, Lines, Seen, USUAL, coding, described, has_ended, keeps_alive, number},
};
use crate::fields::elements;

/// Interim responses (1xx) before the response proper.
const MOST_INTERIM: usize = 16;

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
    fn look(&mut self, read: &BytesMut) -> Result<Option<(usize, StatusCode, bool)>, Malformed> {
        let mut headers = [const { MaybeUninit::uninit() }; USUAL];
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let length = match config.parse_response_with_uninit_headers(&mut response, read, &mut headers) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(described(error)),
        };
        let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Malformed("a status that is none"))?;
        self.lines.set(read, response.headers);
        Ok(Some((length, status, response.version == Some(1))))
    }

    fn headers(&self, bytes: &Bytes) -> Result<(HeaderMap, Seen), Malformed> {
        let mut headers = HeaderMap::with_capacity(self.lines.len().max(ROOM));
        let seen = self.lines.fill(&mut headers, bytes)?;
        Ok((headers, seen))
    }
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
        let keep_alive = keeps_alive(self.headers, self.seen, self.http11);
        let encoded = self.seen.encoding;
        let length = self.length()?;
        if encoded && !self.http11 {
            return Err(Malformed("transfer-encoding in HTTP/1.0"));
        }
        if encoded && length.is_some() {
            return Err(Malformed("both content-length and transfer-encoding"));
        }
        let bodiless = *self.to == Method::HEAD
            || self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bodiless {
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
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(USUAL + 1));
        assert!(parse(&many, &Method::GET).is_err());
        let (mut parser, mut read) = (Parser::new(1 << 10), BytesMut::from("HTTP/1.1 103 Early\r\n\r\n"));
        assert!(parser.parse(&mut read, &Method::GET).is_err(), "no interim response is left");
    }
}
