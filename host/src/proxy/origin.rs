//! Where a message comes from, as its server is told: by this router, and by routers before it only
//! if the configuration trusts them.
//!
//! Anybody can write the headers by which proxies speak to servers. What is received under such a name
//! is a claim, and those of peers that are not trusted are taken off. Servers that turn header names into
//! variables take `_` for `-`, so this module does too; no proxy writes `_`, hence such a spelling
//! is taken off whoever sent it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Settings, head::Seen};
use crate::listener::Connection;

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a header says of where its message comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nothing.
    None,
    /// Something that a trusted peer may say.
    Origin,
    /// Something that nobody says in good faith.
    Forged,
}

/// Besides `x-forwarded…`, all of it: who the client is, what it asked for, and by which scheme. What
/// an application may have clients say, such as `x-http-method-override`, is not among them.
const CLAIMS: [&str; 24] = [
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-envoy-external-address",
    "true-client-ip",
    "client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
    "fly-client-ip",
    "x-host",
    "x-original-host",
    "x-original-url",
    "x-original-uri",
    "x-original-method",
    "x-original-forwarded-for",
    "x-rewrite-url",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
    "x-original-remote-addr",
];

/// Longer than any of them.
const LONGEST: usize = 32;

impl Claim {
    /// Of a header with this name, in lower case.
    pub(super) fn of(name: &str) -> Self {
        if !matches!(name.as_bytes().first(), Some(b'x' | b'f' | b'c' | b't' | b'p')) {
            return Self::None;
        }
        if name == "proxy" {
            // A CGI program would have its own requests go by that proxy (https://httpoxy.org).
            return Self::Forged;
        }
        if memchr::memchr(b'_', name.as_bytes()).is_none() {
            return if is_claim(name.as_bytes()) { Self::Origin } else { Self::None };
        }
        let mut spelt = [0; LONGEST];
        let length = name.len().min(LONGEST);
        for (to, from) in spelt.iter_mut().zip(name.bytes()) {
            *to = if from == b'_' { b'-' } else { from };
        }
        if is_claim(&spelt[..length]) { Self::Forged } else { Self::None }
    }
}

fn is_claim(name: &[u8]) -> bool {
    name.starts_with(b"x-forwarded") || CLAIMS.iter().any(|claim| claim.as_bytes() == name)
}

/// Says where the message comes from.
pub(super) fn add(headers: &mut HeaderMap, seen: &Seen, connection: &Connection, settings: &Settings) {
    let mut before = Before::default();
    if seen.claims || seen.forged {
        let trusted = settings.trusts(connection.peer.ip());
        strip(headers, trusted);
        if trusted && seen.claims {
            before = forwarded_by(headers, connection);
        }
    }
    headers.insert(FORWARDED_FOR, before.addresses.unwrap_or_else(|| connection.peer_text.clone()));
    if !before.proto {
        let proto = HeaderValue::from_static(if connection.tls { "https" } else { "http" });
        headers.insert(FORWARDED_PROTO, proto);
    }
    if !before.host
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
}

fn strip(headers: &mut HeaderMap, trusted: bool) {
    let goes = |name: &&HeaderName| match Claim::of(name.as_str()) {
        Claim::None => false,
        Claim::Origin => !trusted,
        Claim::Forged => true,
    };
    let names: Vec<_> = headers.keys().filter(goes).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// What trusted proxies said.
#[derive(Default)]
struct Before {
    addresses: Option<HeaderValue>,
    proto: bool,
    host: bool,
}

fn forwarded_by(headers: &mut HeaderMap, connection: &Connection) -> Before {
    let lines = headers.get_all(FORWARDED_FOR).iter();
    let mut addresses: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
    addresses.push(connection.peer_text.as_bytes());
    let addresses = HeaderValue::from_bytes(&addresses.join(&b", "[..])).ok();
    if headers.contains_key(header::FORWARDED) {
        let proto = if connection.tls { "https" } else { "http" };
        let node = match connection.peer.ip().to_canonical() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("\"[{v6}]\""),
        };
        if let Ok(element) = HeaderValue::try_from(format!("for={node};proto={proto}")) {
            headers.append(header::FORWARDED, element);
        }
    }
    Before {
        addresses,
        proto: headers.contains_key(FORWARDED_PROTO),
        host: headers.contains_key(FORWARDED_HOST),
    }
}

/// On whose behalf a message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behalf {
    /// Its peer's own, or nothing is said of it.
    Peer,
    /// Of this address: the nearest that is no trusted proxy's, or the farthest where all of them are.
    Address(IpAddr),
    /// A trusted proxy named something that is no address.
    Unknown,
}

/// On whose behalf a trusted peer sends, as `x-forwarded-for`, or else `forwarded`, says. Each proxy
/// appended the address that it saw, so they are read from the right, and whatever is left of an
/// address that is not trusted was written by the client.
pub(super) fn behalf(settings: &Settings, headers: &HeaderMap) -> Behalf {
    let read = |nodes: &mut dyn Iterator<Item = &[u8]>| {
        let mut behalf = Behalf::Peer;
        for node in nodes {
            match address(node) {
                Some(address) if settings.trusts(address) => behalf = Behalf::Address(address),
                Some(address) => return Behalf::Address(address),
                None => return Behalf::Unknown,
            }
        }
        behalf
    };
    if headers.contains_key(FORWARDED_FOR) {
        return read(&mut elements_from_the_right(headers, &FORWARDED_FOR));
    }
    read(&mut elements_from_the_right(headers, &header::FORWARDED).map(node))
}

/// Elements that are not empty, the last one first.
fn elements_from_the_right<'h>(
    headers: &'h HeaderMap,
    name: &'h HeaderName,
) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).into_iter().rev().map(HeaderValue::as_bytes);
    let elements = lines.flat_map(|line| line.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty())
}

/// The node after `for=` in an element of `forwarded` (RFC 7239, section 4); empty if there is none.
fn node(element: &[u8]) -> &[u8] {
    let mut pairs = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let found = pairs.find_map(|pair| {
        let (key, value) = pair.split_at_checked(b"for=".len())?;
        key.eq_ignore_ascii_case(b"for=").then_some(value)
    });
    let value = found.unwrap_or_default();
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// An address, in brackets or not, with a port or without.
fn address(node: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(node).ok()?;
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let host = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((host, "")) => host,
        Some((host, rest)) => rest.strip_prefix(':').filter(|port| is_port(port)).map(|_| host)?,
        None => match text.split_once(':') {
            Some((host, port)) if is_port(port) && !host.is_empty() => host,
            _ => text,
        },
    };
    host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{
        head::strip_request,
        tests::{map, names, settings},
    };

    #[test]
    fn what_speaks_for_a_proxy() {
        for name in CLAIMS {
            assert!(name.len() < LONGEST);
            assert_eq!(Claim::of(name), Claim::Origin, "{name}");
            let spelt = name.replace('-', "_");
            let expect = if spelt == name { Claim::Origin } else { Claim::Forged };
            assert_eq!(Claim::of(&spelt), expect, "{spelt}");
        }
        for (name, expect) in [
            ("x-forwarded", Claim::Origin),
            ("x-forwarded-client-cert", Claim::Origin),
            ("x-forwarded-a-name-that-is-longer-than-all-others", Claim::Origin),
            ("x_forwarded_for", Claim::Forged),
            ("x-forwarded_for", Claim::Forged),
            ("x_forwarded-a-name-that-is-longer-than-all-others", Claim::Forged),
            ("proxy", Claim::Forged),
            ("proxy-connection", Claim::None),
            ("x-http-method-override", Claim::None),
            ("x-original-filename", Claim::None),
            ("x-requested-with", Claim::None),
            ("x_request_id", Claim::None),
            ("traceparent", Claim::None),
            ("cf-ray", Claim::None),
            ("host", Claim::None),
        ] {
            assert_eq!(Claim::of(name), expect, "{name}");
        }
    }

    #[test]
    fn a_client_cannot_forge_or_delete_where_it_comes_from() {
        let mut headers = map(&[
            ("host", "h"),
            ("connection", "x-forwarded-for, via"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("proxy", "http://evil"),
            ("x-original-url", "/admin"),
            ("true-client-ip", "1.1.1.1"),
            ("x-kept", "1"),
        ]);
        let seen = Seen::look(&headers);
        strip_request(&mut headers, &seen);
        add(&mut headers, &seen, &Connection::for_tests("192.0.2.1"), &settings(""));
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "h");
        assert_eq!(
            names(&headers),
            ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-kept"]
        );
    }

    #[test]
    fn trusted_proxies_are_believed() {
        let mut headers = map(&[
            ("host", "inner"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outer"),
            ("forwarded", "for=203.0.113.9"),
            ("x-original-url", "/a"),
        ]);
        let seen = Seen::look(&headers);
        let settings = settings("trusted = [\"10.0.0.0/8\"]");
        add(&mut headers, &seen, &Connection::for_tests("10.0.0.1"), &settings);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 10.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "outer");
        assert_eq!(headers["x-original-url"], "/a");
        assert!(!headers.contains_key("x_forwarded_for"));
        let forwarded: Vec<_> = headers.get_all("forwarded").iter().collect();
        assert_eq!(forwarded, ["for=203.0.113.9", "for=10.0.0.1;proto=http"]);
    }

    #[test]
    fn the_nearest_address_that_is_not_trusted_counts() {
        let settings = settings("trusted = [\"10.0.0.0/8\", \"fd00::/8\"]");
        let check = |lines: &[(&str, &[u8])], expect: &str| {
            let mut headers = HeaderMap::new();
            for (name, line) in lines {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_bytes(line).unwrap());
            }
            let found = match behalf(&settings, &headers) {
                Behalf::Peer => "peer".to_owned(),
                Behalf::Unknown => "unknown".to_owned(),
                Behalf::Address(address) => address.to_string(),
            };
            assert_eq!(found, expect, "{headers:?}");
        };
        let far = "x-forwarded-for";
        check(&[], "peer");
        check(&[(far, b"")], "peer");
        check(&[(far, b" , ,")], "peer");
        for line in [
            &b"203.0.113.9"[..],
            b"6.6.6.6, 203.0.113.9",
            b"6.6.6.6, 203.0.113.9, 10.0.0.2",
            b"6.6.6.6, 203.0.113.9:4711, 10.0.0.2:80",
            b"203.0.113.9,",
            b"6.6.6.6,\t203.0.113.9 ,, 10.0.0.2, ",
            b"\xff\xfe, 203.0.113.9",
            b"6.6.6.6 \xff, 203.0.113.9",
            b"::ffff:203.0.113.9",
            b"unknown, 203.0.113.9",
        ] {
            check(&[(far, line)], "203.0.113.9");
        }
        check(&[(far, b"6.6.6.6"), (far, b"\xff, 203.0.113.9")], "203.0.113.9");
        check(&[(far, b"203.0.113.9"), (far, b"10.0.0.2")], "203.0.113.9");
        check(&[(far, b"203.0.113.9"), (far, b"")], "203.0.113.9");
        for line in [
            &b"2001:db8::1"[..],
            b"[2001:db8::1]",
            b"[2001:0DB8::1]:4711, fd00::1",
            b"2001:db8:0::1, [fd00::2]:1",
        ] {
            check(&[(far, line)], "2001:db8::1");
        }
        check(&[(far, b"10.9.9.9")], "10.9.9.9");
        check(&[(far, b"10.9.9.9, 10.0.0.2")], "10.9.9.9");
        for line in [
            &b"unknown"[..],
            b"6.6.6.6, garbage",
            b"203.0.113.9, \xff",
            b"6.6.6.6, [::1",
            b"1.2.3.4:x",
            b"6.6.6.6 7.7.7.7",
        ] {
            check(&[(far, line)], "unknown");
            check(&[(far, &[line, b", 10.0.0.2"].concat())], "unknown");
        }
        check(&[("forwarded", b"for=6.6.6.6, for=203.0.113.9;proto=https")], "203.0.113.9");
        check(&[("forwarded", b"by=10.0.0.1;For=\"203.0.113.9:80\", for=10.0.0.2")], "203.0.113.9");
        check(&[("forwarded", b"for=\"[2001:db8::1]:4711\"")], "2001:db8::1");
        check(&[("forwarded", b"for=6.6.6.6, for=_hidden")], "unknown");
        check(&[("forwarded", b"for=6.6.6.6, proto=https")], "unknown");
        check(&[("forwarded", b"for=6.6.6.6"), (far, b"203.0.113.9")], "203.0.113.9");
    }
}
