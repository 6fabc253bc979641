//! The grammar of lines (RFC 9112, sections 2.2 and 5; RFC 9110, section 5.6): a line ends with CRLF
//! and nothing else, a name is a token, and no line goes on in the next.
//!
//! Everything here looks at bytes that may be cut off anywhere: what would be right if more came is
//! none, not an error.

use super::Malformed;

/// Where a header stands in the bytes of a head.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) name: (u32, u32),
    pub(super) value: (u32, u32),
}

/// Which bytes a token may have.
const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");

const fn table(punctuation: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "up to 255")]
        let letter = (byte as u8).is_ascii_alphanumeric();
        table[byte] = letter;
        byte += 1;
    }
    let mut at = 0;
    while at < punctuation.len() {
        table[punctuation[at] as usize] = true;
        at += 1;
    }
    table
}

/// So many bytes at the beginning are those of a token.
#[inline]
pub(super) fn token(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !TOKEN[usize::from(*byte)]).unwrap_or(bytes.len())
}

/// So many bytes at the beginning are optional white space.
#[inline]
pub(super) fn white_space(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(bytes.len())
}

/// Looks for the end of a line. What is before it has neither CR nor LF.
#[inline]
pub(super) fn line_end(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(end) = memchr::memchr2(b'\r', b'\n', bytes) else { return Ok(None) };
    match (bytes[end], bytes.get(end + 1)) {
        (b'\n', _) => Err(Malformed("a line that ends with LF alone")),
        (_, None) => Ok(None),
        (_, Some(b'\n')) => Ok(Some(end)),
        (_, Some(_)) => Err(Malformed("a CR that is not followed by LF")),
    }
}

/// Looks for the headers that begin at `at` and end with an empty line, and notes where they stand.
/// What comes after that line; none if it is not there.
///
/// # Errors
/// Besides what is malformed, if there are more than `most` of them.
pub(super) fn headers(
    bytes: &[u8],
    mut at: usize,
    most: usize,
    spans: &mut Vec<Span>,
) -> Result<Option<usize>, Headers> {
    loop {
        let line = &bytes[at..];
        match line {
            [b'\r', b'\n', ..] => return Ok(Some(at + 2)),
            [] | [b'\r'] => return Ok(None),
            [b'\r', ..] => return Err(Malformed("a CR that is not followed by LF").into()),
            _ if spans.len() == most => return Err(Headers::TooMany),
            _ => {}
        }
        let name = token(line);
        match line.get(name) {
            Some(b':') if name > 0 => {}
            None => return Ok(None),
            Some(byte) => return Err(no_name(*byte, name).into()),
        }
        let Some(end) = line_end(&line[name + 1..])? else { return Ok(None) };
        let value = trim(line, (name + 1, name + 1 + end));
        spans.push(Span { name: span(at, (0, name)), value: span(at, value) });
        at += name + 1 + end + 2;
    }
}

/// Why headers cannot be understood.
pub(super) enum Headers {
    Malformed(Malformed),
    TooMany,
}

impl From<Malformed> for Headers {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// What is wrong with a line that has this byte where its name should go on or end.
#[cold]
fn no_name(byte: u8, name: usize) -> Malformed {
    Malformed(match (byte, name) {
        (b'\n', 0) => "a line that ends with LF alone",
        (b' ' | b'\t', 0) => "a line that continues another",
        (b' ' | b'\t', _) => "white space between a header's name and its colon",
        (b'\r' | b'\n', _) => "a header without a colon",
        _ => "a header's name",
    })
}

/// Without white space at both ends.
#[inline]
fn trim(line: &[u8], (from, to): (usize, usize)) -> (usize, usize) {
    let value = &line[from..to];
    let from = from + white_space(value);
    let end = line[from..to].iter().rposition(|byte| !matches!(byte, b' ' | b'\t'));
    (from, end.map_or(from, |last| from + last + 1))
}

/// A head is never as long as 4 GiB.
#[inline]
fn span(at: usize, (from, to): (usize, usize)) -> (u32, u32) {
    let place = |place: usize| u32::try_from(at + place).unwrap_or(u32::MAX);
    (place(from), place(to))
}

/// A version, after which something follows: whether it is at least HTTP/1.1. A higher minor version is
/// read as 1.1, which it must be understood as (RFC 9110, section 2.5).
pub(super) fn version(text: &[u8; 8]) -> Result<bool, Malformed> {
    match text {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9'] => Ok(*minor != b'0'),
        _ => Err(Malformed("a version that is not HTTP/1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> String {
        let mut spans = Vec::new();
        let part = |(from, to): (u32, u32)| &text[from as usize..to as usize];
        match headers(text.as_bytes(), 0, 4, &mut spans) {
            Ok(Some(end)) => {
                let lines = spans.iter().map(|span| format!("{}={};", part(span.name), part(span.value)));
                format!("{}{}", lines.collect::<String>(), &text[end..])
            }
            Ok(None) => "more".to_owned(),
            Err(Headers::TooMany) => "many".to_owned(),
            Err(Headers::Malformed(malformed)) => malformed.to_string(),
        }
    }

    #[test]
    fn headers_end_with_an_empty_line() {
        for (text, expect) in [
            ("\r\nrest", "rest"),
            ("a:b\r\n\r\nrest", "a=b;rest"),
            ("a: \t b c\t \r\nD:\r\n\r\n", "a=b c;D=;"),
            ("a:   \r\n\r\n", "a=;"),
            ("a: :b\r\n\r\n", "a=:b;"),
            ("a: b\r\na: b\r\na: b\r\na: b\r\na: b\r\n\r\n", "many"),
            ("a: b\r\na: b\r\na: b\r\na: b\r\n\r\n", "a=b;a=b;a=b;a=b;"),
        ] {
            assert_eq!(found(text), expect, "{text:?}");
        }
        let whole = "a: b\r\nc-d: e\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(found(&whole[..cut]), "more", "{cut}");
        }
    }

    #[test]
    fn lines_that_are_none() {
        for text in [
            "\n",
            "a: b\n\r\n",
            "a: b\r\n\n",
            "a: b\r\r\n\r\n",
            "a: b\rc\r\n\r\n",
            "a\r\n\r\n",
            "a b\r\n\r\n",
            "a : b\r\n\r\n",
            "a\t: b\r\n\r\n",
            " a: b\r\n\r\n",
            "a: b\r\n c\r\n\r\n",
            "a: b\r\n\tc\r\n\r\n",
            ": b\r\n\r\n",
            "a\0: b\r\n\r\n",
            "ä: b\r\n\r\n",
            "a: b\n",
            "\ra: b\r\n\r\n",
            "(a): b\r\n\r\n",
        ] {
            let said = found(text);
            assert!(!said.contains(['=', ';']) && said != "more", "{text:?}: {said}");
        }
    }

    #[test]
    fn versions() {
        for (text, http11) in
            [(b"HTTP/1.0", false), (b"HTTP/1.1", true), (b"HTTP/1.2", true), (b"HTTP/1.9", true)]
        {
            assert_eq!(version(text), Ok(http11));
        }
        for text in [b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1:1", b"HTTP/1.x", b"HTTP 1.1"] {
            assert!(version(text).is_err());
        }
    }
}
