//! The lines of a head: where each header stands in the bytes, and the map that they become.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Malformed, scan::Span};
use crate::fields::elements;

/// The headers of a head, as places in its bytes. Keeps its space from one head to the next.
#[derive(Default)]
pub(super) struct Lines(pub(super) Vec<Span>);

impl Lines {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts them into a map.
    pub(super) fn fill(&self, headers: &mut HeaderMap, bytes: &Bytes) -> Result<Seen, Malformed> {
        let mut seen = Seen::default();
        let place = |(from, to): (u32, u32)| from as usize..to as usize;
        for Span { name, value } in &self.0 {
            let name = HeaderName::from_bytes(&bytes[place(*name)]);
            let name = name.map_err(|_| Malformed("a header's name"))?;
            let value = HeaderValue::from_maybe_shared(bytes.slice(place(*value)));
            let value = value.map_err(|_| Malformed("a control character in a header's value"))?;
            seen.note(&name);
            headers.append(name, value);
        }
        Ok(seen)
    }
}

/// Which headers are there that say how a message is to be understood.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) connection: bool,
    pub(super) length: bool,
    pub(super) encoding: bool,
    pub(super) expect: bool,
    pub(super) upgrade: bool,
    pub(super) te: bool,
}

impl Seen {
    fn note(&mut self, name: &HeaderName) {
        match *name {
            header::CONNECTION => self.connection = true,
            header::CONTENT_LENGTH => self.length = true,
            header::TRANSFER_ENCODING => self.encoding = true,
            header::EXPECT => self.expect = true,
            header::UPGRADE => self.upgrade = true,
            header::TE => self.te = true,
            _ => {}
        }
    }
}

/// Whether the connection can carry another message after this one (RFC 9112, section 9.3).
pub(super) fn keeps_alive(headers: &HeaderMap, seen: Seen, http11: bool) -> bool {
    if !seen.connection {
        return http11;
    }
    let mut options = elements(headers, &header::CONNECTION);
    match http11 {
        true => !options.any(|option| option.eq_ignore_ascii_case(b"close")),
        false => options.any(|option| option.eq_ignore_ascii_case(b"keep-alive")),
    }
}

/// A length as a header says it: digits, and nothing else.
pub(super) fn number(text: &[u8]) -> Result<u64, Malformed> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    number.ok_or(Malformed("a content-length that is no number"))
}

/// What `transfer-encoding` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Chunked, once.
    Chunked,
    /// Chunked in the end, and something else before that.
    More,
    /// Anything else: nobody can tell where the body ends.
    Other,
}

pub(super) fn coding(headers: &HeaderMap) -> Coding {
    let mut codings = elements(headers, &header::TRANSFER_ENCODING).peekable();
    let first = codings.next().unwrap_or_default();
    let more = codings.peek().is_some();
    let last = codings.last().unwrap_or(first);
    match last.eq_ignore_ascii_case(b"chunked") {
        true if !more => Coding::Chunked,
        true => Coding::More,
        false => Coding::Other,
    }
}

/// Whether it may be worth to parse a head again, of which so many bytes were there the last time:
/// only once there is an empty line, so that a head that drips in costs no more than its length.
pub(super) fn has_ended(read: &[u8], before: usize) -> bool {
    let new = &read[before.saturating_sub(2)..];
    memchr::memchr_iter(b'\n', new).any(|at| matches!(&new[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_line_ends_a_head_however_it_arrives() {
        for head in
            ["GET / HTTP/1.1\r\na: b\r\n\r\n", "GET / HTTP/1.1\na: b\n\n", "GET / HTTP/1.1\na: b\n\r\n"]
        {
            for before in 0..head.len() {
                assert!(has_ended(head.as_bytes(), before), "{head:?} after {before}");
            }
            let before_last = &head.as_bytes()[..head.len() - 1];
            assert!(!has_ended(before_last, 0), "{head:?}");
        }
    }
}
