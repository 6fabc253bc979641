//! Texts within the keys of a datastore: what separates, what does not print and what is not ASCII is
//! percent-encoded, so that a routing-table adapter can build paths out of any client's or service's name.

use std::fmt::Write;

/// Without a `/`, and never ambiguous.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | b'/' | 0..=0x20 | 0x7f.. => {
                write!(escaped, "%{byte:02X}").expect("a string takes every write");
            }
            _ => escaped.push(char::from(byte)),
        }
    }
    escaped
}

/// The text that was escaped; none if it was not by [`escape`].
#[must_use]
pub fn unescape(escaped: &str) -> Option<String> {
    let mut parts = escaped.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend(rest.bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back() {
        for text in ["", "ann", "a/b", "100%", "ü\u{0}\n ", "%2F", "\u{10ffff}"] {
            let escaped = escape(text);
            assert!(!escaped.contains('/') && escaped.is_ascii(), "{escaped}");
            assert_eq!(unescape(&escaped).as_deref(), Some(text));
        }
        for broken in ["%", "%2", "%zz", "a%ff"] {
            assert_eq!(unescape(broken), None, "{broken}");
        }
    }
}
