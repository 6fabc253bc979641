//! `/v1/connect`, `/` for the simplest clients and `/primus` for those that speak Primus: where a request
//! becomes the connection of a service. What is said on it is the concern of [`crate::discovery`].

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State as Shared},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    State,
    guard::Caller,
    problem::{Kind, Problem},
    token,
};
use crate::{
    auth::Action,
    discovery::{Dialect, Peer},
};

/// Where clients of Primus connect, as its own servers have it by default.
pub(super) const PRIMUS: [&str; 2] = ["/primus", "/primus/"];

/// What a key decodes to has this many bytes (RFC 6455, section 4.1).
const KEY: usize = 16;

/// Opens the connection of a service: a WebSocket on which it says who it is and what it needs, and
/// is told what is there. `/` does the same, and `/primus` for clients of the library Primus. A page in a browser,
/// which cannot set headers here, offers its token as a subprotocol: `message-flow` and `message-flow.bearer.`
/// with the token in base64url.
#[utoipa::path(
    get, path = "/v1/connect", tag = "discovery", operation_id = "connect",
    responses(
        (status = 101, description = "Speak JSON from here"),
        (status = 400, description = "The handshake has a mistake in it", body = Problem),
        (status = 426, description = "Not a WebSocket handshake", body = Problem),
        (status = 429, description = "As many are connected as may be; see `Retry-After`", body = Problem),
    ),
)]
pub(super) async fn connect(
    Shared(state): Shared<State>,
    caller: Caller,
    mut request: Request,
) -> Result<Response, Problem> {
    caller.must(Action::Register, None)?;
    let accept = accept(request.method(), request.headers())?;
    let protocol = token::protocol(request.headers());
    let (identity, following) = caller.follow(state.config.clone());
    let primus = PRIMUS.contains(&request.uri().path());
    let dialect = if primus { Dialect::Primus } else { Dialect::Plain };
    let peer = Peer { address: caller.address()?, identity, dialect };
    let place = state.discovery.admit().ok_or_else(|| {
        Problem::new(Kind::TooMany, "as many services are connected as `discovery.connections` allows")
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    let (discovery, drain) = (Arc::clone(&state.discovery), state.drain.clone());
    tokio::spawn(async move {
        let Ok(io) = upgrade.await else { return };
        tokio::select! {
            () = discovery.serve(TokioIo::new(io), peer, drain) => drop(place),
            never = following => match never {},
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.extend(protocol.map(|protocol| (header::SEC_WEBSOCKET_PROTOCOL, protocol)));
    Ok(response)
}

/// The answer to the key of a handshake (RFC 6455, section 4.2).
fn accept(method: &Method, headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let says = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let websocket = method == Method::GET
        && says(header::CONNECTION, "upgrade")
        && says(header::UPGRADE, "websocket")
        && says(header::SEC_WEBSOCKET_VERSION, "13");
    if !websocket {
        let detail = "services connect here by WebSocket, version 13; nothing else is served";
        return Err(Problem::new(Kind::UpgradeRequired, detail));
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).into_iter();
    let key = keys.next().filter(|key| is_key(key) && keys.next().is_none());
    let answer = key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
    answer.ok_or_else(|| {
        let detail = "`Sec-WebSocket-Key` is not one: it is 16 random bytes in base64, in one line";
        Problem::new(Kind::Malformed, detail)
    })
}

/// Some libraries draw 22 digits at random, so the last one may have bits that stand for nothing.
fn is_key(key: &HeaderValue) -> bool {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
    BASE64.decode(key).is_ok_and(|bytes| bytes.len() == KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: &Method, headers: &[(&'static str, &str)]) -> Result<String, u16> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let answer = accept(method, &headers.collect());
        answer.map(|value| value.to_str().unwrap().to_owned()).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn a_handshake_is_one_or_is_refused() {
        const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
        let handshake = |key| {
            [
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "WebSocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", key),
            ]
        };
        assert_eq!(answer(&Method::GET, &handshake(KEY)), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into()));
        assert!(answer(&Method::GET, &handshake("dGhlIHNhbXBsZSBub25jZR==")).is_ok(), "bits of nothing");
        for key in [
            "",
            "x",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZSBsb25n",
            "!!!!",
        ] {
            assert_eq!(answer(&Method::GET, &handshake(key)), Err(400), "{key}");
        }
        assert_eq!(answer(&Method::GET, &handshake(KEY)[..3]), Err(400), "no key");
        assert_eq!(
            answer(&Method::GET, &[&handshake(KEY)[..], &[("sec-websocket-key", KEY)]].concat()),
            Err(400)
        );
        assert_eq!(answer(&Method::GET, &handshake(KEY)[1..]), Err(426), "no `Connection`");
        assert_eq!(answer(&Method::HEAD, &handshake(KEY)), Err(426));
        let old =
            [&handshake(KEY)[..2], &[("sec-websocket-version", "8"), ("sec-websocket-key", KEY)]].concat();
        assert_eq!(answer(&Method::GET, &old), Err(426));
        assert_eq!(answer(&Method::GET, &[]), Err(426));
    }
}
