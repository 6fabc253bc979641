//! The target of a request (RFC 9112, section 3.2): which of its forms it has, and what of it has to be
//! percent-encoded.
//!
//! Browsers, curl and many others send some bytes raw that RFC 3986 has no place for. Everything in front
//! of a server passes these on, and servers understand them as if they were encoded; so here they are
//! encoded, once, and everybody sees the same target.

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Uri, uri::PathAndQuery};

use super::{Malformed, request::Refused};

/// What may be done with a byte of a target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Passed on as it is.
    Plain,
    /// Percent-encoded.
    Raw,
    /// Ends the target, or must not be there: white space, control characters, and `#`, behind which some
    /// servers read a fragment and others a part of the path.
    End,
}

const KINDS: [Kind; 256] = kinds();

const fn kinds() -> [Kind; 256] {
    let mut kinds = [Kind::Raw; 256];
    let mut byte = 0;
    while byte <= 0x7f {
        kinds[byte] = match byte as u8 {
            0..=b' ' | b'#' | 0x7f => Kind::End,
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{'..=b'}' => Kind::Raw,
            _ => Kind::Plain,
        };
        byte += 1;
    }
    kinds
}

/// How long a target is, and whether something of it has to be encoded.
pub(super) fn scan(bytes: &[u8]) -> (usize, bool) {
    let mut raw = false;
    let end = bytes.iter().position(|byte| {
        let kind = KINDS[usize::from(*byte)];
        raw |= kind == Kind::Raw;
        kind == Kind::End
    });
    (end.unwrap_or(bytes.len()), raw)
}

/// The target, with its path at least `/`. `raw`: something of it has to be encoded.
pub(super) fn uri(method: &Method, target: Bytes, raw: bool) -> Result<Uri, Refused> {
    if target.starts_with(b"/") {
        return parse(if raw { encoded(&target, 0) } else { target });
    }
    if target == "*" && *method == Method::OPTIONS || *method == Method::CONNECT {
        return parse(target);
    }
    let after_scheme = memchr::memmem::find(&target, b"://").filter(|at| *at > 0);
    let authority = after_scheme.map(|at| at + 3).ok_or(Malformed("its target has to begin with `/`"))?;
    let path = memchr::memchr2(b'/', b'?', &target[authority..]).map_or(target.len(), |at| authority + at);
    if let Some(byte) = target[..path].iter().find(|byte| KINDS[usize::from(**byte)] == Kind::Raw) {
        return Err(Refused::Byte(*byte));
    }
    match target.get(path) {
        Some(b'/') if !raw => parse(target),
        None if *method == Method::OPTIONS => of_the_server(target),
        _ => parse(encoded(&target, path)),
    }
}

/// A client that sends `OPTIONS http://one` asks the whole server, as `OPTIONS *` does, which is what a
/// proxy has to make of it (RFC 9112, section 3.2.4).
fn of_the_server(target: Bytes) -> Result<Uri, Refused> {
    let mut parts = parse(target)?.into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("*"));
    Uri::from_parts(parts).map_err(|_| Malformed("its target is none").into())
}

/// With everything from `path` on encoded, and a `/` where the path is empty.
fn encoded(target: &[u8], path: usize) -> Bytes {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = BytesMut::with_capacity(target.len() * 3 + 1);
    encoded.extend_from_slice(&target[..path]);
    if target.get(path) != Some(&b'/') {
        encoded.put_u8(b'/');
    }
    for byte in &target[path..] {
        match KINDS[usize::from(*byte)] {
            Kind::Plain => encoded.put_u8(*byte),
            Kind::Raw | Kind::End => {
                let [high, low] = [byte >> 4, byte & 15].map(|half| DIGITS[usize::from(half)]);
                encoded.extend_from_slice(&[b'%', high, low]);
            }
        }
    }
    encoded.freeze()
}

fn parse(target: Bytes) -> Result<Uri, Refused> {
    let too_long = target.len() >= usize::from(u16::MAX) - 1;
    Uri::from_maybe_shared(target).map_err(|_| match too_long {
        true => Refused::TargetTooLong,
        false => Refused::Malformed(Malformed("its target is none")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: Method, target: &[u8]) -> Result<String, Refused> {
        let (length, raw) = scan(target);
        assert_eq!(length, target.len(), "{}", target.escape_ascii());
        uri(&method, Bytes::copy_from_slice(target), raw).map(|uri| uri.to_string())
    }

    #[test]
    fn what_is_sent_raw_is_encoded() {
        for (target, expect) in [
            (&b"/a/b?c=d&e[]=f'g"[..], "/a/b?c=d&e[]=f'g"),
            (b"/\"<>`{}|^\\", "/%22%3C%3E%60%7B%7D%7C%5E%5C"),
            (b"/?\"<>`{}|^\\", "/?%22%3C%3E%60%7B%7D%7C%5E%5C"),
            (b"/caf\xc3\xa9?\xe9\xff", "/caf%C3%A9?%E9%FF"),
            (b"/%7B%2f{", "/%7B%2f%7B"),
            (b"//a//b", "//a//b"),
            (b"http://one", "http://one/"),
            (b"http://one?x=1", "http://one/?x=1"),
            (b"http://one?x={1}", "http://one/?x=%7B1%7D"),
            (b"http://one/a|b", "http://one/a%7Cb"),
            (b"http://one:80/a", "http://one:80/a"),
        ] {
            assert_eq!(read(Method::GET, target).unwrap(), expect, "{}", target.escape_ascii());
        }
        assert_eq!(read(Method::OPTIONS, b"*").unwrap(), "*");
        let whole = uri(&Method::OPTIONS, Bytes::from_static(b"http://one:80"), false).unwrap();
        assert_eq!((whole.host(), whole.path()), (Some("one"), "*"));
        assert_eq!(read(Method::OPTIONS, b"http://one/").unwrap(), "http://one/");
        assert_eq!(read(Method::OPTIONS, b"http://one?a").unwrap(), "http://one/?a");
        assert_eq!(read(Method::CONNECT, b"a:80").unwrap(), "a:80");
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for target in
            [&b"*"[..], b"a", b"a/b", b"a:80", b"http:/a", b"http://", b"http:///a", b"?a", b"://a/b"]
        {
            assert!(read(Method::GET, target).is_err(), "{}", target.escape_ascii());
        }
        assert_eq!(read(Method::GET, b"http://o{ne/").err(), Some(Refused::Byte(b'{')));
        for byte in (0..=b' ').chain([b'#', 0x7f]) {
            assert_eq!(scan(&[b'/', byte, b'a']), (1, false), "{byte}");
        }
    }
}
