//! Where a request carries its token: in `Authorization`, or among the subprotocols of a WebSocket handshake,
//! because a browser lets no page set headers there. The latter is how Kubernetes does it too.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// What services speak here.
const PROTOCOL: &str = "message-flow";
/// Before the token, which is base64url without padding (RFC 4648, section 5).
const BEARER: &str = "message-flow.bearer.";

/// The token of a request. `Authorization` goes before a subprotocol.
pub(super) fn token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    match headers.get(header::AUTHORIZATION) {
        Some(value) => bearer(value).map(Cow::Borrowed),
        None => {
            offered(headers).find_map(|offer| offer.strip_prefix(BEARER)).and_then(decoded).map(Cow::Owned)
        }
    }
}

/// The answer to the subprotocols of a handshake: never one with a token in it.
pub(super) fn protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    offered(headers).any(|offer| offer == PROTOCOL).then(|| HeaderValue::from_static(PROTOCOL))
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The subprotocols of a handshake; nothing else has any.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let values = values.filter(|_| headers.contains_key(header::UPGRADE));
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn tokens_come_as_bearers() {
        for (value, expect) in [
            ("Bearer mf_1", Some("mf_1")),
            ("bearer  mf_1 ", Some("mf_1")),
            ("Basic mf_1", None),
            ("mf_1", None),
        ] {
            assert_eq!(token(&headers(&[("authorization", value)])).as_deref(), expect, "{value}");
        }
    }

    #[test]
    fn or_as_subprotocols_of_a_handshake() {
        const PROTOCOLS: &str = "sec-websocket-protocol";
        for (offers, expect, answer) in [
            ("message-flow, message-flow.bearer.bWZfMQ", Some("mf_1"), Some("message-flow")),
            ("message-flow.bearer.bWZfMQ,message-flow", Some("mf_1"), Some("message-flow")),
            ("message-flow.bearer.bWZfMQ", Some("mf_1"), None),
            ("message-flow", None, Some("message-flow")),
            ("message-flow.bearer.bWZfMQ==", None, None),
            ("message-flow.bearer._w", None, None),
            ("chat", None, None),
        ] {
            let headers = headers(&[("upgrade", "websocket"), (PROTOCOLS, offers)]);
            assert_eq!(token(&headers).as_deref(), expect, "{offers}");
            assert_eq!(protocol(&headers).as_ref().map(|value| value.to_str().unwrap()), answer, "{offers}");
        }
        let both = [
            ("upgrade", "websocket"),
            (PROTOCOLS, "message-flow.bearer.bWZfMQ"),
            ("authorization", "Bearer a"),
        ];
        assert_eq!(token(&headers(&both)).as_deref(), Some("a"));
        assert_eq!(token(&headers(&both[1..2])), None, "no handshake");
    }
}
