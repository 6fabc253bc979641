//! Who sends a message: the client id, from where the configuration says, in its order.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, header};

use super::Settings;
use crate::{
    config::ClientIdSource, listener::Connection, plugin::message::ClientId, table::record::is_client_id,
    token::Verified,
};

/// What a client called itself is not usable: 1 to 256 visible ASCII characters are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidClientId;

/// The id of who sends this. `token` is what is believed of its token, `peer` what the connection,
/// or a trusted proxy, says.
pub(super) fn identify(
    settings: &Settings,
    headers: &HeaderMap,
    token: Option<&Verified>,
    peer: impl Fn() -> ClientId,
) -> Result<ClientId, InvalidClientId> {
    for source in &settings.client_id {
        let found = match source {
            ClientIdSource::Header(name) => headers.get(name).map(|value| ClientId::Header(value.clone())),
            ClientIdSource::Cookie(name) => cookie(headers, name),
            ClientIdSource::Token(claim) => {
                token.and_then(|token| token.claim(claim)).cloned().map(ClientId::Text)
            }
            ClientIdSource::Peer => Some(peer()),
        };
        if let Some(id) = found {
            return if is_valid(&id) { Ok(id) } else { Err(InvalidClientId) };
        }
    }
    Ok(peer())
}

fn is_valid(id: &ClientId) -> bool {
    let text = match id {
        ClientId::Header(value) => value.as_bytes(),
        ClientId::Text(text) => text.as_bytes(),
    };
    is_client_id(text)
}

/// A cookie by its name. Lines are bytes: a cookie of somebody else's that is no text hides none.
fn cookie(headers: &HeaderMap, name: &str) -> Option<ClientId> {
    let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let mut pairs = lines.flat_map(|line| line.split(|byte| *byte == b';'));
    let found = pairs.find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let value = pair[equals + 1..].trim_ascii();
        (pair[..equals].trim_ascii() == name.as_bytes()).then_some(value)
    })?;
    let value = found.strip_prefix(b"\"").unwrap_or(found);
    let value = value.strip_suffix(b"\"").unwrap_or(value);
    let value = HeaderValue::from_bytes(value).ok().filter(|value| !value.is_empty());
    value.map(ClientId::Header)
}

/// The address on whose behalf a message was sent: the last in `x-forwarded-for` that is not
/// itself a trusted proxy.
pub(super) fn peer(settings: &Settings, headers: &HeaderMap, peer: IpAddr, text: &HeaderValue) -> ClientId {
    if settings.trusted.is_empty() || !settings.trusts(peer) {
        return ClientId::Header(text.clone());
    }
    let mut behalf = None;
    let lines: Vec<_> =
        headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok()).collect();
    for word in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Ok(address) = word.trim().parse::<IpAddr>() else { break };
        behalf = Some(address);
        if !settings.trusts(address) {
            break;
        }
    }
    let behalf = behalf.map(|address| ClientId::Text(address.to_string().into()));
    behalf.unwrap_or_else(|| ClientId::Header(text.clone()))
}

/// The address to which what a message costs is put down: as [`peer`] finds it, before or after this
/// router has added its own line.
pub(super) fn origin(settings: &Settings, headers: &HeaderMap, connection: &Connection) -> IpAddr {
    let own = connection.peer.ip();
    if settings.trusted.is_empty() || !settings.trusts(own) {
        return own;
    }
    peer(settings, headers, own, &connection.peer_text).as_str().parse().unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::settings;

    fn check(headers: &[(&'static str, &str)], expect: Result<&str, InvalidClientId>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let found = identify(&settings(""), &map, None, || ClientId::Text("192.0.2.1".into()));
        assert_eq!(found.as_ref().map(ClientId::as_str), expect.as_ref().copied(), "{headers:?}");
    }

    #[test]
    fn header_then_cookie_then_peer() {
        check(&[("message-flow-client", "a"), ("cookie", "message-flow-client=b")], Ok("a"));
        check(&[("cookie", "x=1; message-flow-client=\"b\"; y=2")], Ok("b"));
        check(&[("cookie", "x=1")], Ok("192.0.2.1"));
        check(&[("cookie", "x=\u{e9}; message-flow-client=b")], Ok("b"));
        check(&[("cookie", "x=\u{e9}"), ("cookie", "message-flow-client=b")], Ok("b"));
        check(&[("cookie", "message-flow-client=\u{e9}; y=1")], Err(InvalidClientId));
        check(&[], Ok("192.0.2.1"));
        check(&[("message-flow-client", "")], Err(InvalidClientId));
        check(&[("message-flow-client", &"x".repeat(257))], Err(InvalidClientId));
    }

    #[test]
    fn only_the_trusted_speak_for_others() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "203.0.113.9, 198.51.100.7".parse().unwrap());
        headers.append("x-forwarded-for", "10.0.0.2".parse().unwrap());
        let settings = settings("trusted = [\"10.0.0.0/8\"]");
        let behalf = |address: &str| {
            peer(&settings, &headers, address.parse().unwrap(), &address.parse().unwrap()).to_arc()
        };
        assert_eq!(&*behalf("10.0.0.1"), "198.51.100.7");
        assert_eq!(&*behalf("192.0.2.1"), "192.0.2.1");
    }
}
