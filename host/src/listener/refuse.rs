//! What a client is told whose request never became one: its head is malformed, too large or too
//! slow. A problem document (RFC 9457), after which the connection is closed.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{grpc, http1::request::Refused};

/// Why something of a client is not served before it is a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// More connections than there may be, in all or of one peer.
    Connections,
    /// The process lacks what a connection takes, such as file descriptors; it is tried again.
    Exhausted,
    /// The head is not understood, or could be understood in two ways.
    Malformed,
    /// The head is too long, or has too many headers.
    HeadTooLarge,
    /// The target is.
    TargetTooLong,
    /// The body is coded as nobody here can read it.
    Coding,
}

impl Unserved {
    /// Every one of them.
    pub const ALL: [Self; 6] = [
        Self::Connections,
        Self::Exhausted,
        Self::Malformed,
        Self::HeadTooLarge,
        Self::TargetTooLong,
        Self::Coding,
    ];

    /// As metrics name it, and the type of the problem that the client is told of.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Exhausted => "exhausted",
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head-too-large",
            Self::TargetTooLong => "target-too-long",
            Self::Coding => "not-implemented",
        }
    }
}

/// A problem document: `kind` ends its `type`, `detail` is for people.
pub(crate) fn problem(status: StatusCode, kind: &str, detail: &str) -> String {
    let document = serde_json::json!({
        "type": format!("urn:message-flow:problem:{kind}"),
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    document.to_string()
}

/// A response in full.
fn answer(status: StatusCode, kind: &str, detail: &str) -> Vec<u8> {
    let document = problem(status, kind, detail);
    let length = document.len();
    let head = format!("HTTP/1.1 {} {}", status.as_str(), status.canonical_reason().unwrap_or("Error"));
    let about = "content-type: application/problem+json\r\nconnection: close";
    format!("{head}\r\n{about}\r\ncontent-length: {length}\r\n\r\n{document}").into_bytes()
}

/// The head of a request did not arrive in time.
pub(super) fn timed_out() -> Vec<u8> {
    answer(StatusCode::REQUEST_TIMEOUT, "timeout", "the head of the request did not arrive in time")
}

/// The head of a request cannot be served.
pub(super) fn refused(refused: Refused) -> (Unserved, Vec<u8>) {
    let (status, why) = meaning(refused);
    (why, answer(status, why.name(), &refused.to_string()))
}

/// The same where messages are not bytes; as a call of gRPC expects it, if it is one.
pub(super) fn response(refused: Refused, is_call: bool) -> (Unserved, Response<Bytes>) {
    let (status, why) = meaning(refused);
    let detail = refused.to_string();
    let mut response = Response::default();
    if is_call {
        grpc::fail(response.headers_mut(), status, &detail);
        return (why, response);
    }
    *response.body_mut() = problem(status, why.name(), &detail).into();
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    (why, response)
}

fn meaning(refused: Refused) -> (StatusCode, Unserved) {
    match refused {
        Refused::Malformed(_) | Refused::Byte(_) => (StatusCode::BAD_REQUEST, Unserved::Malformed),
        Refused::TooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Unserved::HeadTooLarge),
        Refused::TargetTooLong => (StatusCode::URI_TOO_LONG, Unserved::TargetTooLong),
        Refused::Coding => (StatusCode::NOT_IMPLEMENTED, Unserved::Coding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Malformed;

    #[test]
    fn answers_are_documents() {
        let two = Refused::Malformed(Malformed("two lengths"));
        for (answer, status, says) in [
            (timed_out(), "408", "in time"),
            (refused(two).1, "400", "malformed request: two lengths"),
            (refused(Refused::Byte(0x7f)).1, "400", "0x7f"),
            (refused(Refused::TooLarge).1, "431", "too large"),
            (refused(Refused::TargetTooLong).1, "414", "too long"),
            (refused(Refused::Coding).1, "501", "chunked"),
        ] {
            let text = String::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{text}");
            let document: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(document["status"].to_string(), status);
            assert!(document["detail"].as_str().unwrap().contains(says), "{document}");
        }
    }
}
