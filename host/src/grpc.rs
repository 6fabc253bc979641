//! What gRPC expects of an answer that does not come from its server: status 200, and the outcome in
//! the head, where its clients look for it ("trailers-only", gRPC over HTTP/2). This module knows nobody.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Bytes of a message that are passed on; a head has to hold it.
const LONGEST: usize = 1 << 10;

/// Whether a request is a call. `application/grpc-web` is not: it is HTTP/1.1's, and its clients go by
/// the status of HTTP.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    match kind.split_at_checked("application/grpc".len()) {
        Some((kind, rest)) if kind.eq_ignore_ascii_case(b"application/grpc") => {
            matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
        }
        _ => false,
    }
}

/// Makes the head of an answer say to a call what this status and text say to others.
pub(crate) fn fail(headers: &mut HeaderMap, status: StatusCode, detail: &str) {
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(STATUS, HeaderValue::from(code(status)));
    headers.insert(MESSAGE, message(detail));
}

/// The status of gRPC that is meant. Where its own table of statuses that proxies make ("HTTP to gRPC
/// Status Code Mapping") is for clients that know no better, this says more: what took too long, and
/// what was too large.
fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        // Its client gave up.
        499 => 1,
        // DEADLINE_EXCEEDED
        408 | 504 => 4,
        // PERMISSION_DENIED
        403 => 7,
        // RESOURCE_EXHAUSTED
        413 | 414 | 429 | 431 => 8,
        // UNIMPLEMENTED
        404 | 405 | 415 | 417 | 501 => 12,
        // INTERNAL
        400 | 500 | 508 => 13,
        // UNAVAILABLE
        502 | 503 => 14,
        // UNAUTHENTICATED
        401 => 16,
        // UNKNOWN
        _ => 2,
    }
}

/// Percent-encoded but for visible ASCII.
fn message(detail: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(detail.len());
    for byte in detail.bytes() {
        if encoded.len() >= LONGEST {
            break;
        }
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("a string takes everything"),
        }
    }
    HeaderValue::try_from(encoded).expect("visible ASCII is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        let is_call = |kind: &'static str| {
            is_call(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x=y", "Application/gRPC"]
        {
            assert!(is_call(kind), "{kind}");
        }
        for kind in
            ["", "application/grpc-web", "application/grpc-web+proto", "application/grpcx", "text/plain"]
        {
            assert!(!is_call(kind), "{kind}");
        }
        assert!(!super::is_call(&HeaderMap::new()));
    }

    #[test]
    fn statuses() {
        let cases = [(504, 4), (408, 4), (503, 14), (502, 14), (431, 8), (413, 8), (404, 12), (401, 16)];
        for (http, grpc) in cases.into_iter().chain([(403, 7), (400, 13), (429, 8), (418, 2), (508, 13)]) {
            assert_eq!(code(StatusCode::from_u16(http).unwrap()), grpc, "{http}");
        }
    }

    #[test]
    fn messages_are_encoded_and_bounded() {
        for (text, expect) in [("no server", "no server"), ("50 %\n\u{e9}", "50 %25%0A%C3%A9"), ("", "")] {
            assert_eq!(message(text), expect);
        }
        assert!(message(&"\n".repeat(5000)).len() <= LONGEST + 2);
    }

    #[test]
    fn an_answer_has_one_status() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("9"));
        fail(&mut headers, StatusCode::GATEWAY_TIMEOUT, "too late");
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["content-type"], "application/grpc");
        assert_eq!(headers["grpc-status"], "4");
        assert_eq!(headers["grpc-message"], "too late");
    }
}
