//! Texts within keys: `%`, `/`, control characters and what is not ASCII are percent-encoded.

use std::fmt::Write;

/// Without a `/`, and never ambiguous.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | b'/' | 0..=0x20 | 0x7f.. => {
                write!(escaped, "%{byte:02X}").expect("a string takes every write")
            }
            _ => escaped.push(char::from(byte)),
        }
    }
    escaped
}

/// The text that was escaped; none if it was not by [`escape`].
pub(crate) fn unescape(escaped: &str) -> Option<String> {
    let mut parts = escaped.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend(rest.bytes());
    }
    String::from_utf8(bytes).ok()
}
