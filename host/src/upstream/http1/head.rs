//! The head of a response: parsed, and with it how its body ends.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use httparse::{Response, Status};

use super::{Http1Error, decode::Decoder};
use crate::fields::elements;

/// Headers of one response.
const MOST_HEADERS: usize = 128;
/// Interim responses (1xx) before the response proper.
const MOST_INTERIM: usize = 16;

/// What is understood of a response before its body.
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) decoder: Decoder,
    /// Whether the connection can carry another message after this one.
    pub(super) keep_alive: bool,
}

/// Where a header stands in the bytes of a head.
#[derive(Clone, Copy)]
struct Span {
    name: (usize, usize),
    value: (usize, usize),
}

/// Parses heads; keeps its scratch space from one to the next.
pub(super) struct Parser {
    spans: Vec<Span>,
    max_head: usize,
    /// Interim responses that may still come before the response proper.
    interim_left: usize,
}

impl Parser {
    pub(super) fn new(max_head: usize) -> Self {
        Self { spans: Vec::new(), max_head, interim_left: 0 }
    }

    /// The heads of another message follow.
    pub(super) fn begin(&mut self) {
        self.interim_left = MOST_INTERIM;
    }

    /// Takes a head off what was read; none if it is not complete.
    pub(super) fn parse(
        &mut self,
        read: &mut BytesMut,
        to: &Method,
    ) -> Result<Option<ResponseHead>, Http1Error> {
        if read.is_empty() {
            return Ok(None);
        }
        let Some((length, status, http11)) = self.look(read)? else {
            return match read.len() >= self.max_head {
                true => Err(Http1Error::HeadTooLong(self.max_head)),
                false => Ok(None),
            };
        };
        if status.is_informational() {
            let left = self.interim_left.checked_sub(1);
            self.interim_left = left.ok_or(Http1Error::Malformed("interim responses without end"))?;
        }
        let bytes = read.split_to(length).freeze();
        let (headers, seen) = self.headers(&bytes)?;
        let framing = Framing { status, http11, to, headers: &headers, seen };
        let (decoder, keep_alive) = framing.decide()?;
        Ok(Some(ResponseHead { status, headers, decoder, keep_alive }))
    }

    /// Length, status and whether it is HTTP/1.1; leaves the places of the headers in `spans`.
    fn look(&mut self, read: &BytesMut) -> Result<Option<(usize, StatusCode, bool)>, Http1Error> {
        let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let mut response = Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut response, read, &mut headers);
        let length = match parsed {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(Http1Error::Malformed(described(error))),
        };
        let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Http1Error::Malformed("a status that is none"))?;
        let span = |part: &[u8]| {
            let from = part.as_ptr() as usize - read.as_ptr() as usize;
            (from, from + part.len())
        };
        self.spans.clear();
        self.spans.extend(
            response
                .headers
                .iter()
                .map(|header| Span { name: span(header.name.as_bytes()), value: span(header.value) }),
        );
        Ok(Some((length, status, response.version == Some(1))))
    }

    fn headers(&self, bytes: &Bytes) -> Result<(HeaderMap, Seen), Http1Error> {
        let (mut headers, mut seen) = (HeaderMap::with_capacity(self.spans.len()), Seen::default());
        for Span { name, value } in &self.spans {
            let name = HeaderName::from_bytes(&bytes[name.0..name.1])
                .map_err(|_| Http1Error::Malformed("a header's name"))?;
            let value = HeaderValue::from_maybe_shared(bytes.slice(value.0..value.1))
                .map_err(|_| Http1Error::Malformed("a header's value"))?;
            match name {
                header::CONNECTION => seen.connection = true,
                header::CONTENT_LENGTH => seen.length = true,
                header::TRANSFER_ENCODING => seen.encoding = true,
                _ => {}
            }
            headers.append(name, value);
        }
        Ok((headers, seen))
    }
}

fn described(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a header's name",
        httparse::Error::HeaderValue => "a header's value",
        httparse::Error::NewLine => "a line's end",
        httparse::Error::Status => "a status that is none",
        httparse::Error::TooManyHeaders => "too many headers",
        httparse::Error::Version => "a version that is not HTTP/1",
        _ => "not HTTP",
    }
}

/// Which headers are there that say how a message ends.
#[derive(Clone, Copy, Default)]
struct Seen {
    connection: bool,
    length: bool,
    encoding: bool,
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
    fn decide(&self) -> Result<(Decoder, bool), Http1Error> {
        let keep_alive = self.keeps_alive();
        let encoded = self.seen.encoding;
        let length = self.length()?;
        if encoded && !self.http11 {
            return Err(Http1Error::Malformed("transfer-encoding in HTTP/1.0"));
        }
        if encoded && length.is_some() {
            return Err(Http1Error::Malformed("both content-length and transfer-encoding"));
        }
        let bodiless = *self.to == Method::HEAD
            || self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bodiless {
            return Ok((Decoder::Done, keep_alive));
        }
        if encoded {
            self.must_be_chunked()?;
            return Ok((Decoder::chunked(), keep_alive));
        }
        Ok(match length {
            Some(length) => (Decoder::length(length), keep_alive),
            None => (Decoder::UntilClose, false),
        })
    }

    fn keeps_alive(&self) -> bool {
        if !self.seen.connection {
            return self.http11;
        }
        let mut options = elements(self.headers, &header::CONNECTION);
        match self.http11 {
            true => !options.any(|option| option.eq_ignore_ascii_case(b"close")),
            false => options.any(|option| option.eq_ignore_ascii_case(b"keep-alive")),
        }
    }

    /// Several that agree are one.
    fn length(&self) -> Result<Option<u64>, Http1Error> {
        if !self.seen.length {
            return Ok(None);
        }
        let mut length = None;
        for text in elements(self.headers, &header::CONTENT_LENGTH) {
            let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
            let parsed = std::str::from_utf8(text).ok().filter(|_| digits).and_then(|text| text.parse().ok());
            let parsed: u64 = parsed.ok_or(Http1Error::Malformed("a content-length that is no number"))?;
            if length.replace(parsed).is_some_and(|before| before != parsed) {
                return Err(Http1Error::Malformed("two lengths"));
            }
        }
        Ok(length)
    }

    fn must_be_chunked(&self) -> Result<(), Http1Error> {
        let mut codings = self.headers.get_all(header::TRANSFER_ENCODING).iter();
        let (first, second) = (codings.next(), codings.next());
        let chunked = first.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        match chunked && second.is_none() {
            true => Ok(()),
            false => Err(Http1Error::Malformed("a transfer-encoding that is not chunked")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, to: &Method) -> Result<Option<(ResponseHead, String)>, Http1Error> {
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
            assert!(said.starts_with("malformed response: "), "{head}: {said}");
        }
    }

    #[test]
    fn heads_have_bounds() {
        assert!(parse("HTTP/1.1 200 OK\r\ncontent-le", &Method::GET).unwrap().is_none());
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(1 << 10));
        assert!(matches!(parse(&long, &Method::GET), Err(Http1Error::HeadTooLong(_))));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MOST_HEADERS + 1));
        assert!(parse(&many, &Method::GET).is_err());
        let (mut parser, mut read) = (Parser::new(1 << 10), BytesMut::from("HTTP/1.1 103 Early\r\n\r\n"));
        assert!(parser.parse(&mut read, &Method::GET).is_err(), "no interim response is left");
    }
}
