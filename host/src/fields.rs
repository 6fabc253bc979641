//! Header fields that are lists, and which fields may follow a body.

mod trailers;

use http::{HeaderMap, HeaderName};

pub use trailers::{Trailers, is_trailer};

/// The elements of a field, over all of its lines, without the white space around them (RFC 9110,
/// section 5.6.1). Empty ones are kept, and quoted commas are not looked for: neither `connection`
/// nor the other fields that are read here have any.
pub fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
}

#[cfg(test)]
mod tests {
    use http::header::CONNECTION;

    use super::*;

    #[test]
    fn lines_are_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(elements(&headers, &CONNECTION).count(), 0);
        for line in ["close,  upgrade", "", "\tte "] {
            headers.append(CONNECTION, line.parse().unwrap());
        }
        let found: Vec<_> = elements(&headers, &CONNECTION).collect();
        assert_eq!(found, [&b"close"[..], b"upgrade", b"", b"te"]);
    }
}
