//! Cookies: HTTP/2 may send each pair as a field of its own, to compress them better (RFC 9113, section
//! 8.2.3). Everywhere else there is one line, and many servers look at one alone.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};

/// Makes one `cookie` out of however many there are.
pub(crate) fn join(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut joined = BytesMut::new();
    let mut sensitive = false;
    for crumb in headers.get_all(header::COOKIE) {
        sensitive |= crumb.is_sensitive();
        if !joined.is_empty() && !crumb.is_empty() {
            joined.put_slice(b"; ");
        }
        joined.put_slice(crumb.as_bytes());
    }
    let mut joined = value(joined.freeze());
    joined.set_sensitive(sensitive);
    headers.insert(header::COOKIE, joined);
}

fn value(bytes: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes).expect("values with a separator between are a value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(crumbs: &[&[u8]], expect: &[&[u8]]) {
        let mut headers = HeaderMap::new();
        headers.append("x-before", HeaderValue::from_static("1"));
        for crumb in crumbs {
            headers.append(header::COOKIE, HeaderValue::from_bytes(crumb).unwrap());
        }
        headers.append("x-after", HeaderValue::from_static("1"));
        join(&mut headers);
        let found: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(found, expect);
        assert_eq!(headers.len(), 2 + expect.len());
    }

    #[test]
    fn crumbs_become_one_line() {
        check(&[], &[]);
        check(&[b"a=1"], &[b"a=1"]);
        check(&[b"a=1", b"b=2", b"c=3"], &[b"a=1; b=2; c=3"]);
        check(&[b"a=1; b=2", b"c=3"], &[b"a=1; b=2; c=3"]);
        check(&[b"", b"a=1", b"", b"b=2"], &[b"a=1; b=2"]);
        check(&[b"a=\xff", b"b=\"x y\""], &[b"a=\xff; b=\"x y\""]);
        let many = vec![&b"k=v"[..]; 500];
        check(&many, &[many.join(&b"; "[..]).as_slice()]);
    }

    #[test]
    fn a_secret_stays_one() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1"));
        let mut secret = HeaderValue::from_static("b=2");
        secret.set_sensitive(true);
        headers.append(header::COOKIE, secret);
        join(&mut headers);
        assert!(headers[header::COOKIE].is_sensitive());
    }
}
