//! Who sends a message: the client id, from where the configuration says, in its order; and how the
//! server is told.
//!
//! Two headers are this router's alone: `message-flow-client` is the id by which a message was routed,
//! and `message-flow-verified: true` stands beside it exactly when a token that was verified says so.
//! Whatever a client sends under these names is replaced, and plugins cannot change them.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    Settings,
    head::Seen,
    origin::{self, Behalf},
};
use crate::{
    config::ClientIdSource, listener::Connection, plugin::message::ClientId, table::record::is_client_id,
    token::Verified,
};

/// What a client called itself is not usable: 1 to 256 visible ASCII characters are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidClientId;

const CLIENT: HeaderName = HeaderName::from_static("message-flow-client");
const VERIFIED: HeaderName = HeaderName::from_static("message-flow-verified");

/// The client of a message, and how it is known.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) id: ClientId,
    /// By a token that was verified.
    pub(super) verified: bool,
    /// By the header that the server gets, which is there once.
    told: bool,
}

impl Identity {
    /// Of a client that says who it is in some other way.
    pub(super) fn unverified(id: ClientId) -> Self {
        Self { id, verified: false, told: false }
    }

    /// Tells the server, and the plugins before it. Nothing is to be done for a client that said it
    /// itself.
    pub(super) fn tell(&self, headers: &mut HeaderMap, seen: &Seen) {
        if seen.says_identity {
            let names: Vec<_> = headers.keys().filter(|name| is_routers(name.as_str())).cloned().collect();
            for name in names.into_iter().filter(|name| *name != CLIENT) {
                headers.remove(name);
            }
        }
        if !self.told || seen.nominates() {
            headers.insert(CLIENT, self.id.to_value());
        }
        if self.verified {
            headers.insert(VERIFIED, HeaderValue::from_static("true"));
        }
    }
}

/// Whether a header in lower case says, or to a server that takes `_` for `-` seems to say, who sends a
/// message.
pub(super) fn is_routers(name: &str) -> bool {
    crate::plugin::message::is_routers(name)
}

/// The id of who sends this. `token` is what is believed of its token, `peer` what the connection,
/// or a trusted proxy, says.
pub(super) fn identify(
    settings: &Settings,
    headers: &HeaderMap,
    token: Option<&Verified>,
    peer: impl Fn() -> ClientId,
) -> Result<Identity, InvalidClientId> {
    for source in &settings.client_id {
        let found = match source {
            ClientIdSource::Header(name) => header(headers, name),
            ClientIdSource::Cookie(name) => cookie(headers, name).map(Identity::unverified),
            ClientIdSource::Token(claim) => {
                let claim = token.and_then(|token| token.claim(claim)).cloned().map(ClientId::Text);
                claim.map(|id| Identity { verified: true, ..Identity::unverified(id) })
            }
            ClientIdSource::Peer => Some(Identity::unverified(peer())),
        };
        if let Some(identity) = found {
            return if is_valid(&identity.id) { Ok(identity) } else { Err(InvalidClientId) };
        }
    }
    Ok(Identity::unverified(peer()))
}

fn header(headers: &HeaderMap, name: &HeaderName) -> Option<Identity> {
    let mut values = headers.get_all(name).iter();
    let id = ClientId::Header(values.next()?.clone());
    Some(Identity { told: *name == CLIENT && values.next().is_none(), ..Identity::unverified(id) })
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

/// The address on whose behalf a message was sent, if its peer may say so.
pub(super) fn peer(settings: &Settings, headers: &HeaderMap, peer: IpAddr, text: &HeaderValue) -> ClientId {
    if settings.trusted.is_empty() || !settings.trusts(peer) {
        return ClientId::Header(text.clone());
    }
    match origin::behalf(settings, headers) {
        Behalf::Peer => ClientId::Header(text.clone()),
        Behalf::Address(address) => ClientId::Text(address.to_string().into()),
        Behalf::Unknown => ClientId::Header(HeaderValue::from_static("unknown")),
    }
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
    use crate::proxy::tests::{map, settings};

    fn check(headers: &[(&'static str, &str)], expect: Result<&str, InvalidClientId>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let found = identify(&settings(""), &map, None, || ClientId::Text("192.0.2.1".into()));
        assert_eq!(found.as_ref().map(|found| found.id.as_str()), expect.as_ref().copied(), "{headers:?}");
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

    /// What the server is told of a message with these headers.
    fn told(config: &str, headers: &[(&str, &str)], verified: bool) -> Vec<String> {
        let mut headers = map(headers);
        let seen = Seen::look(&headers);
        let peer = || ClientId::Text("192.0.2.1".into());
        let mut identity = identify(&settings(config), &headers, None, peer).unwrap();
        if verified {
            identity = Identity { verified, ..Identity::unverified("ann".into()) };
        }
        super::super::head::strip_request(&mut headers, &seen);
        identity.tell(&mut headers, &seen);
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn servers_are_told_who_the_router_believes_it_is() {
        const CLIENT: &str = "message-flow-client";
        assert_eq!(told("", &[(CLIENT, "ann")], false), ["message-flow-client: ann"]);
        assert_eq!(told("", &[], false), ["message-flow-client: 192.0.2.1"]);
        assert_eq!(told("", &[(CLIENT, "ann"), (CLIENT, "bob")], false), ["message-flow-client: ann"]);
        assert_eq!(told("", &[("connection", CLIENT), (CLIENT, "ann")], false), ["message-flow-client: ann"]);
        assert_eq!(
            told("client_id = [\"peer\"]", &[(CLIENT, "ann")], false),
            ["message-flow-client: 192.0.2.1"]
        );
        assert_eq!(
            told("client_id = [\"header:x-id\"]", &[("x-id", "ann"), (CLIENT, "bob")], false),
            ["message-flow-client: ann", "x-id: ann"]
        );
        let verified = ["message-flow-client: ann", "message-flow-verified: true"];
        assert_eq!(told("", &[(CLIENT, "bob")], true), verified);
        for forged in
            ["message-flow-verified", "message_flow_verified", "message_flow_client", "message-flow_client"]
        {
            assert_eq!(told("", &[(CLIENT, "ann"), (forged, "true")], false), ["message-flow-client: ann"]);
            assert_eq!(told("", &[(forged, "false"), (forged, "x")], true), verified);
        }
    }
}
