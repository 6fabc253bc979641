//! What stands around the pieces of a chunked body (RFC 9112, section 7.1), to the letter: what one
//! program reads over and another does not is how messages are smuggled.

use super::{Malformed, scan};

/// A line that begins a chunk, its extensions included.
pub(super) const LONGEST_LINE: usize = 4 << 10;
/// Digits of a size, zeros in front included.
const MOST_DIGITS: usize = 16;
/// Sums of sizes are within 64 bits, here and at servers whose numbers have a sign.
const LARGEST: u64 = i64::MAX as u64;

/// The line that begins a chunk: how long it is and how many bytes the chunk has; none if it is cut off.
pub(super) fn line(bytes: &[u8]) -> Result<Option<(usize, u64)>, Malformed> {
    let (mut size, mut at) = (0_u64, 0);
    loop {
        let Some(byte) = bytes.get(at) else { return Ok(None) };
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => break,
        };
        if at == MOST_DIGITS {
            return Err(Malformed("the size of a chunk has too many digits"));
        }
        size = size << 4 | u64::from(digit);
        at += 1;
    }
    if at == 0 {
        return Err(Malformed("a chunk without a size"));
    }
    if size > LARGEST {
        return Err(Malformed("the size of a chunk is too large"));
    }
    // By far the most common: no extensions.
    if !bytes[at..].starts_with(b"\r\n") {
        match extensions(bytes, at)? {
            Some(end) => at = end,
            None if bytes.len() < LONGEST_LINE => return Ok(None),
            None => return Err(Malformed("the line of a chunk is too long")),
        }
    }
    match at + 2 {
        length @ ..=LONGEST_LINE => Ok(Some((length, size))),
        _ => Err(Malformed("the line of a chunk is too long")),
    }
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )` and the line's end: where that begins; none if it is
/// cut off. They mean nothing here and are not passed on.
fn extensions(bytes: &[u8], mut at: usize) -> Result<Option<usize>, Malformed> {
    const WRONG: Malformed = Malformed("the extensions of a chunk");
    let skip = |at: usize| at + scan::white_space(&bytes[at..]);
    loop {
        match &bytes[at..] {
            [b'\r', b'\n', ..] => return Ok(Some(at)),
            [] | [b'\r'] => return Ok(None),
            _ => {}
        }
        at = skip(at);
        match bytes.get(at) {
            Some(b';') => at = skip(at + 1),
            Some(_) => return Err(WRONG),
            None => return Ok(None),
        }
        let name = scan::token(&bytes[at..]);
        at += name;
        let Some(_) = bytes.get(at) else { return Ok(None) };
        if name == 0 {
            return Err(WRONG);
        }
        // White space that no `=` follows belongs to the next extension.
        let equals = skip(at);
        match bytes.get(equals) {
            Some(b'=') => match value(bytes, skip(equals + 1)) {
                Value::Until(end) => at = end,
                Value::CutOff => return Ok(None),
                Value::Wrong => return Err(WRONG),
            },
            Some(_) => {}
            None => return Ok(None),
        }
    }
}

enum Value {
    Until(usize),
    CutOff,
    Wrong,
}

/// A token or a quoted string that begins at `at`.
fn value(bytes: &[u8], at: usize) -> Value {
    match bytes.get(at) {
        Some(b'"') => quoted(bytes, at + 1),
        Some(_) => match at + scan::token(&bytes[at..]) {
            end if end == at => Value::Wrong,
            end if end == bytes.len() => Value::CutOff,
            end => Value::Until(end),
        },
        None => Value::CutOff,
    }
}

fn quoted(bytes: &[u8], mut at: usize) -> Value {
    let is_text = |byte: u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    loop {
        match &bytes[at..] {
            [b'"', ..] => return Value::Until(at + 1),
            [b'\\', escaped, ..] if is_text(*escaped) => at += 2,
            [] | [b'\\'] => return Value::CutOff,
            [b'\\', ..] => return Value::Wrong,
            [byte, ..] if is_text(*byte) => at += 1,
            _ => return Value::Wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_extensions() {
        for (text, size) in [
            ("0", 0),
            ("5", 5),
            ("00000000000000fF", 255),
            ("7fffffffffffffff", i64::MAX as u64),
            ("5;a", 5),
            ("5;a=b", 5),
            ("5 ; a = b ;\tc", 5),
            ("5;a=\"x y;\\\"\\\\=\u{e9}\"", 5),
            ("5;a=\"\";b", 5),
            ("5;a ;b", 5),
        ] {
            let whole = format!("{text}\r\nrest");
            let expect = (text.len() + 2, size);
            assert_eq!(line(whole.as_bytes()), Ok(Some(expect)), "{text}");
            for cut in 0..text.len() + 2 {
                assert_eq!(line(&whole.as_bytes()[..cut]), Ok(None), "{text} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_not_to_the_letter() {
        for text in [
            "\r\n",
            "\n",
            " 5\r\n",
            "5 \r\n",
            "5\t\r\n",
            "5\n",
            "5\r5",
            "5\rx\n",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "5h\r\n",
            "5;\r\n",
            "5; \r\n",
            "5;;a\r\n",
            "5;a=\r\n",
            "5;a= \r\n",
            "5;=b\r\n",
            "5;a b\r\n",
            "5;a=b c\r\n",
            "5,a\r\n",
            "5;a\n",
            "5;a=b\n",
            "5;a=\"\n\"\r\n",
            "5;a=\"\r\n\"\r\n",
            "5;a=\"\\\n\"\r\n",
            "5;a=\"x\0\"\r\n",
            "5;a=\"x\"y\r\n",
            "5;a ;\r\n",
            "5;a \r\n",
            "5;a=b \r\n",
            "5;\r\na",
            "8000000000000000\r\n",
            "00000000000000005\r\n",
            "fffffffffffffffff\r\n",
            "5;\u{e9}\r\n",
            "5 5\r\n",
        ] {
            assert!(line(text.as_bytes()).is_err(), "{text:?}");
        }
        let long = |length: usize| format!("1;{}\r\n", "x".repeat(length - 4));
        assert_eq!(line(long(LONGEST_LINE).as_bytes()), Ok(Some((LONGEST_LINE, 1))));
        assert!(line(long(LONGEST_LINE + 1).as_bytes()).is_err());
        assert!(line(&long(2 * LONGEST_LINE).as_bytes()[..LONGEST_LINE]).is_err());
    }
}
