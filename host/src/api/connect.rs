//! `/v1/connect`, and `/` for the simplest clients: where a request becomes the connection of a
//! service. What is said on it is the concern of [`crate::discovery`].

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State as Shared},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    State,
    guard::Caller,
    problem::{Kind, Problem},
    token,
};
use crate::{auth::Action, discovery::Peer};

/// Opens the connection of a service: a WebSocket on which it says who it is and what it needs, and
/// is told what is there. `/` does the same. A page in a browser, which cannot set headers here, offers its
/// token as a subprotocol: `message-flow` and `message-flow.bearer.` with the token in base64url.
#[utoipa::path(
    get, path = "/v1/connect", tag = "discovery",
    responses(
        (status = 101, description = "Speak JSON from here"),
        (status = 426, description = "Not a WebSocket handshake", body = Problem),
        (status = 429, body = Problem),
    ),
)]
pub(super) async fn connect(
    Shared(state): Shared<State>,
    caller: Caller,
    mut request: Request,
) -> Result<Response, Problem> {
    caller.must(Action::Register, None)?;
    let accept = accept(request.headers())?;
    let protocol = token::protocol(request.headers());
    let (identity, following) = caller.follow(state.config.clone());
    let peer = Peer { address: caller.address()?, identity };
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
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let says = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let refuse = || {
        Problem::new(
            Kind::UpgradeRequired,
            "services connect here by WebSocket, version 13; nothing else is served",
        )
    };
    let websocket = says(header::CONNECTION, "upgrade")
        && says(header::UPGRADE, "websocket")
        && says(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| websocket).ok_or_else(refuse)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| refuse())
}
