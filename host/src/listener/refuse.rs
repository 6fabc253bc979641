//! What a client is told whose request never became one: its head is malformed, too large or too
//! slow. hyper answers such heads by itself, with a status and nothing else; these are the same
//! answers as problem documents (RFC 9457).

macro_rules! answer {
    ($status:literal, $title:literal, $kind:literal, $length:literal, $detail:literal) => {
        concat!(
            "HTTP/1.1 ",
            $status,
            " ",
            $title,
            "\r\ncontent-type: application/problem+json\r\nconnection: close\r\ncontent-length: ",
            $length,
            "\r\n\r\n{\"type\":\"urn:message-flow:problem:",
            $kind,
            "\",\"title\":\"",
            $title,
            "\",\"status\":",
            $status,
            ",\"detail\":\"",
            $detail,
            "\"}"
        )
        .as_bytes()
    };
}

/// The head of a request did not arrive in time.
pub(super) const TIMED_OUT: &[u8] =
    answer!("408", "Request Timeout", "timeout", "140", "the head of the request did not arrive in time");
const MALFORMED: &[u8] =
    answer!("400", "Bad Request", "malformed", "137", "malformed request: its head is not valid HTTP");
const TOO_LARGE: &[u8] = answer!(
    "431",
    "Request Header Fields Too Large",
    "head-too-large",
    "178",
    "the head of the request is too large, or has too many headers"
);
const URI_TOO_LONG: &[u8] =
    answer!("414", "URI Too Long", "target-too-long", "136", "the target of the request is too long");

/// What to say in place of hyper's own answer, if these are the bytes of one.
pub(super) fn better_words(bytes: &[u8]) -> Option<&'static [u8]> {
    let (line, headers) = bytes.split_at_checked(bytes.windows(2).position(|end| end == b"\r\n")?)?;
    if !is_bare(headers) {
        return None;
    }
    match line.strip_prefix(b"HTTP/1.1 ")?.get(..3)? {
        b"400" => Some(MALFORMED),
        b"414" => Some(URI_TOO_LONG),
        b"431" => Some(TOO_LARGE),
        _ => None,
    }
}

/// Nothing but what hyper adds to an answer without headers and body.
fn is_bare(headers: &[u8]) -> bool {
    let mut lines = headers.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.all(|line| {
        line.is_empty()
            || line == b"connection: close"
            || line == b"content-length: 0"
            || line.starts_with(b"date: ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_right() {
        for answer in [TIMED_OUT, MALFORMED, TOO_LARGE, URI_TOO_LONG] {
            let text = std::str::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            assert_eq!(length, body.len().to_string(), "{text}");
            serde_json::from_str::<serde_json::Value>(body).unwrap();
        }
    }

    #[test]
    fn only_bare_answers_are_put_better() {
        let bare = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(better_words(bare), Some(MALFORMED));
        for other in [
            &b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP",
        ] {
            assert_eq!(better_words(other), None);
        }
    }
}
