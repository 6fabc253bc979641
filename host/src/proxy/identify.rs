//! Who sends a message: the client id, from where the configuration says, in its order.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, header};

use super::Settings;
use crate::{config::ClientIdSource, plugin::message::ClientId, token::Verified};

/// The longest id, in bytes.
const LONGEST: usize = 256;

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
            ClientIdSource::Cookie(name) => cookie(headers, name).map(ClientId::Text),
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
    (1..=LONGEST).contains(&text.len()) && text.iter().all(|byte| (b' '..=b'~').contains(byte))
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<Arc<str>> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';'));
    let found = pairs.find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"'))
    });
    found.filter(|value| !value.is_empty()).map(Arc::from)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::settings;

    fn check(headers: &[(&'static str, &str)], expect: Result<&str, InvalidClientId>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let found = identify(&settings(""), &map, None, || ClientId::Text("192.0.2.1".into()));
        assert_eq!(found.as_ref().map(ClientId::as_str), expect.as_ref().copied(), "{headers:?}");
    }

    #[test]
    fn header_then_cookie_then_peer() {
        check(&[("message-flow-client", "a"), ("cookie", "message-flow-client=b")], Ok("a"));
        check(&[("cookie", "x=1; message-flow-client=\"b\"; y=2")], Ok("b"));
        check(&[("cookie", "x=1")], Ok("192.0.2.1"));
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
