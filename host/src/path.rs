//! Paths in normal form (RFC 3986, section 6.2.2): what is unreserved is not percent-encoded, what
//! is encoded is so in capitals, there are no dot segments and no empty ones but the last, and
//! whatever a path cannot hold as it is is encoded.
//!
//! A path is decoded once: `%252e` stays what it is. Parameters (`;x`) are a part of their segment,
//! and the query is not looked at.

use std::borrow::Cow;

/// A path and query whose path is in normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normal<'a> {
    /// As it was where nothing had to be changed.
    pub target: Cow<'a, str>,
    /// Whether the path holds an encoded slash, backslash or NUL: a part of a segment to one reader,
    /// the end of it to another.
    pub encoded_slashes: bool,
}

/// Why a path has no normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Abnormal {
    /// More `..` than there are segments before it.
    #[error("the path leaves its root: it has more `..` than segments before them")]
    Above,
    /// Half an escape could be the first half of another one.
    #[error("the path has a `%` without two hexadecimal digits behind it: write `%25`")]
    Escape,
    /// It would be a dot segment to whoever decodes the slash.
    #[error("the path has a dot segment beside an encoded slash, backslash or NUL")]
    HiddenDots,
    /// It is no path at all.
    #[error("the target is no path: it does not begin with `/`")]
    NoPath,
}

/// What a byte of a path means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stands for itself, and is not to be encoded: `unreserved`.
    Unreserved,
    /// Stands for itself, and may mean another thing when it is encoded: the rest of `pchar`.
    Reserved,
    Slash,
    Percent,
    /// The path ends here.
    Query,
    /// Has to be encoded.
    Other,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "the loop ends at 255")]
        let class = match byte as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Unreserved,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => {
                Class::Reserved
            }
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'?' => Class::Query,
            _ => Class::Other,
        };
        classes[byte] = class;
        byte += 1;
    }
    classes
};

/// Brings the path of a path and query into normal form. One that is in it already, as nearly all
/// are, costs a look at each of its bytes.
///
/// # Errors
/// It has none, or what reads it next could take it for another.
pub fn normal(target: &str) -> Result<Normal<'_>, Abnormal> {
    if is_normal(target.as_bytes()) {
        return Ok(Normal { target: target.into(), encoded_slashes: false });
    }
    let (path, query) = target.split_at(memchr::memchr(b'?', target.as_bytes()).unwrap_or(target.len()));
    let path = match path.strip_prefix('/') {
        Some(path) => path,
        // The path of an absolute URI may be empty, which is `/` (RFC 9110, section 4.2.3).
        None if path.is_empty() => "",
        None => return Err(Abnormal::NoPath),
    };
    let mut writer = Writer { out: Vec::with_capacity(target.len() + 1), segment: 1, encoded_slashes: false };
    writer.out.push(b'/');
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        writer.add(segment.as_bytes(), segments.peek().is_none())?;
    }
    let Writer { mut out, encoded_slashes, .. } = writer;
    out.extend_from_slice(query.as_bytes());
    let target = String::from_utf8(out).map_err(|_| Abnormal::NoPath)?;
    Ok(Normal { target: target.into(), encoded_slashes })
}

/// Whether [`normal`] would change nothing, and find no encoded slash.
fn is_normal(target: &[u8]) -> bool {
    if target.first() != Some(&b'/') {
        return false;
    }
    let mut at = 0;
    while let Some(byte) = target.get(at) {
        match CLASSES[usize::from(*byte)] {
            Class::Unreserved | Class::Reserved => at += 1,
            Class::Slash if begins_oddly(&target[at + 1..]) => return false,
            Class::Slash => at += 1,
            Class::Percent => match escape(&target[at + 1..]) {
                Some(Escape { byte, capitals: true }) if !is_unreserved(byte) && !divides(byte) => at += 3,
                _ => return false,
            },
            Class::Query => return true,
            Class::Other => return false,
        }
    }
    true
}

/// Whether a segment is empty and not the last, or one of dots.
fn begins_oddly(rest: &[u8]) -> bool {
    let ends = |at: usize| matches!(rest.get(at), None | Some(b'/' | b'?'));
    match rest.first() {
        Some(b'/') => true,
        Some(b'.') => ends(1) || (rest.get(1) == Some(&b'.') && ends(2)),
        _ => false,
    }
}

/// A path that is being written.
struct Writer {
    /// Begins with `/`.
    out: Vec<u8>,
    /// Where the segment at hand begins.
    segment: usize,
    encoded_slashes: bool,
}

impl Writer {
    fn add(&mut self, segment: &[u8], last: bool) -> Result<(), Abnormal> {
        let divided = self.decode(segment)?;
        let written = &self.out[self.segment..];
        if divided && has_hidden_dots(written) {
            return Err(Abnormal::HiddenDots);
        }
        match written {
            b"." => self.out.truncate(self.segment),
            b".." => self.leave()?,
            b"" => {}
            _ if last => {}
            _ => {
                self.out.push(b'/');
                self.segment = self.out.len();
            }
        }
        Ok(())
    }

    /// Takes the segment at hand away, and the one before it.
    fn leave(&mut self) -> Result<(), Abnormal> {
        let before = self.segment.checked_sub(2).ok_or(Abnormal::Above)?;
        let slash = memchr::memrchr(b'/', &self.out[..=before]).ok_or(Abnormal::Above)?;
        self.segment = slash + 1;
        self.out.truncate(self.segment);
        Ok(())
    }

    /// Writes a segment; whether some reader could see several in it.
    fn decode(&mut self, segment: &[u8]) -> Result<bool, Abnormal> {
        let (mut at, mut divided) = (0, false);
        while let Some(&byte) = segment.get(at) {
            at += 1;
            let byte = match CLASSES[usize::from(byte)] {
                Class::Unreserved | Class::Reserved => {
                    self.out.push(byte);
                    continue;
                }
                Class::Percent => {
                    let Escape { byte, .. } = escape(&segment[at..]).ok_or(Abnormal::Escape)?;
                    at += 2;
                    byte
                }
                Class::Slash | Class::Query | Class::Other => byte,
            };
            if is_unreserved(byte) {
                self.out.push(byte);
                continue;
            }
            divided |= divides(byte);
            self.out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xF)]);
        }
        self.encoded_slashes |= divided;
        Ok(divided)
    }
}

/// Whether there is a dot segment in a segment to whoever decodes all of it. A NUL ends it for some.
fn has_hidden_dots(segment: &[u8]) -> bool {
    let mut part = 0;
    let is_dots = |part: &[u8]| matches!(part, b"." | b"..");
    for at in memchr::memchr_iter(b'%', segment) {
        if matches!(&segment[at..at + 3], b"%2F" | b"%5C" | b"%00") {
            if is_dots(&segment[part..at]) {
                return true;
            }
            part = at + 3;
        }
    }
    is_dots(&segment[part..])
}

/// The two digits of an escape.
struct Escape {
    byte: u8,
    /// Both are written as RFC 3986 would have them.
    capitals: bool,
}

fn escape(digits: &[u8]) -> Option<Escape> {
    let (high, low) = (*digits.first()?, *digits.get(1)?);
    let byte = value(high)? << 4 | value(low)?;
    Some(Escape { byte, capitals: !high.is_ascii_lowercase() && !low.is_ascii_lowercase() })
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'A' + value - 10 }
}

fn is_unreserved(byte: u8) -> bool {
    CLASSES[usize::from(byte)] == Class::Unreserved
}

/// Whether a reader that decodes this sees the end of a segment, or of the path.
fn divides(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\' | 0)
}

/// What is left of a path in normal form once a prefix in normal form has been taken off its front;
/// none if it does not begin with that. To begin with `/@a` is to begin with `/%40a`: the two are not
/// the same by RFC 3986, but they are to most servers.
pub fn strip_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    if let Some(rest) = path.strip_prefix(prefix) {
        return Some(rest);
    }
    if !path.contains('%') && !prefix.contains('%') {
        return None;
    }
    let (mut path_at, mut prefix_at) = (0, 0);
    while prefix_at < prefix.len() {
        let (wanted, wanted_length) = unit(&prefix.as_bytes()[prefix_at..])?;
        let (found, found_length) = unit(&path.as_bytes()[path_at..])?;
        if wanted != found {
            return None;
        }
        path_at += found_length;
        prefix_at += wanted_length;
    }
    path.get(path_at..)
}

/// The first character of what is left of a path in normal form, decoded unless that would divide a
/// segment, and how many bytes it takes.
fn unit(rest: &[u8]) -> Option<((u8, bool), usize)> {
    let first = *rest.first()?;
    match escape(rest.get(1..).unwrap_or_default()).filter(|_| first == b'%') {
        Some(Escape { byte, .. }) => Some(((byte, divides(byte)), 3)),
        None => Some(((first, false), 1)),
    }
}

/// A segment in normal form, all of it decoded; none if that is no text.
pub fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(segment.into());
    }
    let (mut rest, mut out) = (segment.as_bytes(), Vec::with_capacity(segment.len()));
    while let Some(((byte, _), length)) = unit(rest) {
        out.push(byte);
        rest = &rest[length..];
    }
    String::from_utf8(out).ok().map(Cow::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &str, expect: &str) {
        let found = normal(target).unwrap_or_else(|error| panic!("{target}: {error}"));
        assert_eq!(found.target, expect, "{target}");
        assert_eq!(is_normal(target.as_bytes()), target == expect && !found.encoded_slashes, "{target}");
        assert_eq!(normal(expect).map(|again| again.target.into_owned()), Ok(expect.to_owned()), "{expect}");
    }

    #[test]
    fn what_is_normal_is_left_alone() {
        for target in [
            "/",
            "/a",
            "/a/",
            "/a/b?c",
            "/a?//../%2e%2f\\%zz",
            "/.well-known/a",
            "/..a/a../...",
            "/a.b/.c",
            "/~a/-_/!$&'()*+,;=:@",
            "/a%20b/%C3%A9%3F",
            "/%252e%252e/%252F",
            "/a/..;/b/.;x",
            "/?",
        ] {
            check(target, target);
            assert!(matches!(normal(target).unwrap().target, Cow::Borrowed(_)), "{target}");
        }
    }

    #[test]
    fn what_means_the_same_becomes_the_same() {
        for target in [
            "/admin",
            "/%61dmin",
            "/%61%64%6D%69%6e",
            "//admin",
            "///admin",
            "/./admin",
            "/%2e/admin",
            "/.//./admin",
            "/x/../admin",
            "/x/%2e%2e/admin",
            "/x/.%2e/admin",
            "/x/%2E./admin",
            "/x//../admin",
            "/x/y/../../admin",
            "/x/..//admin",
        ] {
            check(target, "/admin");
        }
        for (target, expect) in [
            ("", "/"),
            ("?x", "/?x"),
            ("?/../x", "/?/../x"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a//", "/a/"),
            ("/a//b//?c//d", "/a/b/?c//d"),
            ("/a/../b?c", "/b?c"),
            ("/%7Ea/%2d%5f", "/~a/-_"),
            ("/%3a%c3%a9", "/%3A%C3%A9"),
            ("/é", "/%C3%A9"),
            ("/a\"<>`{}|^[]", "/a%22%3C%3E%60%7B%7D%7C%5E%5B%5D"),
            ("/%2e%2e;/a", "/..;/a"),
            ("/%252e/%2e", "/%252e/"),
        ] {
            check(target, expect);
        }
    }

    #[test]
    fn what_has_no_normal_form_is_refused() {
        for target in [
            "/..",
            "/../a",
            "/%2e%2e/a",
            "/a/../..",
            "/a/../../b",
            "//..",
            "/./..",
            "/a/%2e%2E/.%2e/b",
            "/..?a",
        ] {
            assert_eq!(normal(target), Err(Abnormal::Above), "{target}");
        }
        for target in ["/%", "/%2", "/%zz", "/%2%65", "/%%32e", "/a%/b", "/a%?b", "/%u002e"] {
            assert_eq!(normal(target), Err(Abnormal::Escape), "{target}");
        }
        for target in
            ["/x/..%2fadmin", "/x%5c..", "/a/%2e%2e%2F", "/a/.%00", "/a\\..\\b", "/a%2f.%2fb", "/%5c%2e%2e"]
        {
            assert_eq!(normal(target), Err(Abnormal::HiddenDots), "{target}");
        }
        for target in ["a", "*", "*?", "a/b"] {
            assert_eq!(normal(target), Err(Abnormal::NoPath), "{target}");
        }
    }

    #[test]
    fn encoded_slashes_are_seen() {
        for (target, expect) in [
            ("/admin%2fx", "/admin%2Fx"),
            ("/admin%2Fx", "/admin%2Fx"),
            ("/a%5cb", "/a%5Cb"),
            ("/a\\b", "/a%5Cb"),
            ("/a%00", "/a%00"),
            ("/@scope%2fname/..%2Ex", "/@scope%2Fname/...x"),
        ] {
            let found = normal(target).unwrap();
            assert_eq!((&*found.target, found.encoded_slashes), (expect, true), "{target}");
        }
        assert!(!normal("/a?%2f\\%00").unwrap().encoded_slashes);
    }

    #[test]
    fn prefixes() {
        for (path, prefix, expect) in [
            ("/a/b", "/a", Some("/b")),
            ("/b", "/a", None),
            ("/%40a/b", "/@a", Some("/b")),
            ("/@a/b", "/%40a", Some("/b")),
            ("/a%2Fb", "/a/", None),
            ("/a%2Fb/c", "/a%2Fb", Some("/c")),
            ("/a?%40b", "/a/@b", None),
            ("/%4", "/@", None),
        ] {
            assert_eq!(strip_prefix(path, prefix), expect, "{path} {prefix}");
        }
        assert_eq!(decoded("chat%402").as_deref(), Some("chat@2"));
        assert_eq!(decoded("chat").as_deref(), Some("chat"));
        assert_eq!(decoded("%C3"), None);
    }
}
