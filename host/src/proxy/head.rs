//! The head of a message: what is refused at once, what belongs to one connection only and is
//! taken off, and what this router adds.
//!
//! A request is always written anew from what was understood of it, never copied, so that its
//! server cannot understand it differently (RFC 9112, section 11.2).

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts};

use super::{Settings, respond::Refusal};
use crate::{fields::elements, listener::Connection};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// What only this router or a trusted one before it may say of where a message comes from.
const ORIGIN: [HeaderName; 6] = [
    header::FORWARDED,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-real-ip"),
];

/// What one look at the headers found.
#[derive(Default)]
pub(super) struct Seen {
    connection: bool,
    transfer_encoding: bool,
    content_length: bool,
    te: bool,
    upgrade: bool,
    expect: bool,
    via: bool,
    host: usize,
    keep_alive: bool,
    proxy_connection: bool,
    proxy_authentication: bool,
    forwarded: bool,
    /// Whether there is a `message-flow-service`.
    pub(super) names_service: bool,
}

impl Seen {
    pub(super) fn look(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for name in headers.keys() {
            match *name {
                header::HOST => seen.host = 1,
                header::CONNECTION => seen.connection = true,
                header::CONTENT_LENGTH => seen.content_length = true,
                header::TRANSFER_ENCODING => seen.transfer_encoding = true,
                header::TE => seen.te = true,
                header::UPGRADE => seen.upgrade = true,
                header::EXPECT => seen.expect = true,
                header::VIA => seen.via = true,
                header::FORWARDED => seen.forwarded = true,
                header::PROXY_AUTHENTICATE | header::PROXY_AUTHORIZATION => seen.proxy_authentication = true,
                _ => seen.look_at_custom(name.as_str()),
            }
        }
        seen
    }

    fn look_at_custom(&mut self, name: &str) {
        match name.as_bytes()[0] {
            b'x' => self.forwarded |= name.starts_with("x-forwarded-") || name == "x-real-ip",
            b'k' => self.keep_alive |= name == "keep-alive",
            b'm' => self.names_service |= name == "message-flow-service",
            b'p' => self.proxy_connection |= name == "proxy-connection",
            _ => {}
        }
    }
}

/// Refuses what no server should see.
pub(super) fn admit(parts: &Parts, seen: &Seen, settings: &Settings) -> Result<(), Refusal> {
    let headers = &parts.headers;
    admit_host(parts, seen)?;
    if headers.len() > settings.max_headers {
        return Err(Refusal::Unacceptable(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many headers"));
    }
    if parts.uri.path().len() + parts.uri.query().map_or(0, str::len) > settings.max_uri {
        return Err(Refusal::Unacceptable(StatusCode::URI_TOO_LONG, "the request's target is too long"));
    }
    if parts.method == Method::CONNECT {
        return Err(Refusal::Unacceptable(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served"));
    }
    if seen.content_length {
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let length = length.ok_or(Refusal::Malformed("content-length is not a number"))?;
        if length > settings.max_body {
            return Err(too_long());
        }
    }
    if seen.expect && !headers[header::EXPECT].as_bytes().eq_ignore_ascii_case(b"100-continue") {
        return Err(Refusal::Unacceptable(
            StatusCode::EXPECTATION_FAILED,
            "the only expectation served is 100-continue",
        ));
    }
    if seen.via && comes_by_again(headers, &settings.pseudonym) {
        return Err(Refusal::Loop);
    }
    Ok(())
}

/// The body is longer than it may be.
pub(super) fn too_long() -> Refusal {
    Refusal::Unacceptable(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is too long")
}

fn admit_host(parts: &Parts, seen: &Seen) -> Result<(), Refusal> {
    if seen.host == 0 {
        return match parts.uri.authority().is_some() || parts.version == Version::HTTP_10 {
            true => Ok(()),
            false => Err(Refusal::Malformed("no host header")),
        };
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Refusal::Malformed("more than one host header"));
    }
    match first.is_some_and(|host| is_host(host.as_bytes())) {
        true => Ok(()),
        false => Err(Refusal::Malformed("the host header is no host")),
    }
}

/// A host and maybe a port, by the characters of RFC 3986. Empty is allowed: it says "none".
fn is_host(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(byte))
}

fn comes_by_again(headers: &HeaderMap, pseudonym: &HeaderValue) -> bool {
    let mark = pseudonym.as_bytes().split(|byte| *byte == b' ').next_back().unwrap_or_default();
    let lines = headers.get_all(header::VIA).iter();
    let mut words = lines.flat_map(|line| line.as_bytes().split(|byte| matches!(byte, b' ' | b',' | b'\t')));
    words.any(|word| word == mark)
}

/// Whether the client wants to speak something else on this connection.
pub(super) fn wants_upgrade(parts: &Parts, seen: &Seen) -> bool {
    seen.upgrade
        && matches!(parts.version, Version::HTTP_11 | Version::HTTP_2)
        && seen.connection
        && elements(&parts.headers, &header::CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"))
}

/// Takes off what belongs to the client's connection, first of all what it says does.
pub(super) fn strip_request(headers: &mut HeaderMap, seen: &Seen) {
    strip_connection(headers, seen);
    if seen.te {
        let trailers =
            headers.get_all(header::TE).iter().any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    if seen.expect {
        // Answered by this router as soon as the server takes the body.
        headers.remove(header::EXPECT);
    }
    if seen.proxy_authentication {
        headers.remove(header::PROXY_AUTHORIZATION);
    }
}

/// Takes off what belongs to the server's connection.
pub(super) fn strip_response(headers: &mut HeaderMap) {
    strip_connection(headers, &Seen::look(headers));
}

/// Takes off what belongs to one connection in either direction.
fn strip_connection(headers: &mut HeaderMap, seen: &Seen) {
    strip_nominated(headers, seen.connection);
    if seen.transfer_encoding {
        headers.remove(header::TRANSFER_ENCODING);
    }
    if seen.upgrade {
        headers.remove(header::UPGRADE);
    }
    if seen.keep_alive {
        headers.remove(KEEP_ALIVE);
    }
    if seen.proxy_connection {
        headers.remove(PROXY_CONNECTION);
    }
    if seen.proxy_authentication {
        headers.remove(header::PROXY_AUTHENTICATE);
    }
}

/// Headers that a client cannot have removed by naming them in `connection`: they say who it is
/// and how long the message is.
const NOT_NOMINATED: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION];

fn strip_nominated(headers: &mut HeaderMap, present: bool) {
    if !present {
        return;
    }
    let usual = |line: &HeaderValue| matches!(line.as_bytes(), b"keep-alive" | b"Keep-Alive" | b"close");
    if headers.get_all(header::CONNECTION).iter().all(usual) {
        headers.remove(header::CONNECTION);
        return;
    }
    let plain = |name: &[u8]| name.eq_ignore_ascii_case(b"close") || name.eq_ignore_ascii_case(b"keep-alive");
    let names: Vec<_> = elements(headers, &header::CONNECTION)
        .filter(|name| !plain(name))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !NOT_NOMINATED.contains(name))
        .collect();
    for name in names {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
}

/// Says where the message comes from. What the client said of that is believed only if its peer
/// is trusted.
pub(super) fn add_origin(headers: &mut HeaderMap, seen: &Seen, connection: &Connection, settings: &Settings) {
    // What is added below: the map grows once at most.
    headers.reserve(4);
    let mut before = None;
    if seen.forwarded {
        if settings.trusts(connection.peer.ip()) {
            before = Some(forwarded_by(headers, connection));
        } else {
            ORIGIN.iter().for_each(|name| drop(headers.remove(name)));
        }
    }
    let before = before.unwrap_or_default();
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
    if seen.via {
        headers.append(header::VIA, settings.pseudonym.clone());
    } else {
        headers.insert(header::VIA, settings.pseudonym.clone());
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
        let node = match connection.peer.ip() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::settings;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Headers as received, and the names of those that are passed on.
    type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);

    #[test]
    fn hop_by_hop_headers_of_requests() {
        let cases: [Case; 7] = [
            (&[("connection", "keep-alive"), ("keep-alive", "5"), ("accept", "*/*")], &["accept"]),
            (&[("connection", "close, X-Secret"), ("x-secret", "1"), ("x-kept", "1")], &["x-kept"]),
            (
                &[
                    ("connection", "x-a"),
                    ("connection", "x-b,,x-c"),
                    ("x-a", "1"),
                    ("x-b", "1"),
                    ("x-c", "1"),
                ],
                &[],
            ),
            (&[("te", "trailers, deflate")], &[]),
            (&[("te", "trailers"), ("transfer-encoding", "chunked")], &["te"]),
            (&[("proxy-authorization", "x"), ("proxy-connection", "x"), ("upgrade", "h2c")], &[]),
            (
                &[
                    ("connection", "host, content-length, authorization"),
                    ("host", "h"),
                    ("authorization", "a"),
                ],
                &["authorization", "host"],
            ),
        ];
        for (headers, expect) in cases {
            let mut headers = map(headers);
            let seen = Seen::look(&headers);
            strip_request(&mut headers, &seen);
            assert_eq!(names(&headers), expect);
        }
    }

    #[test]
    fn hop_by_hop_headers_of_responses() {
        let mut headers = map(&[
            ("connection", "x-internal, keep-alive"),
            ("x-internal", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-type", "text/plain"),
        ]);
        strip_response(&mut headers);
        assert_eq!(names(&headers), ["content-type"]);
    }

    #[test]
    fn a_client_cannot_forge_or_delete_where_it_comes_from() {
        let mut headers = map(&[
            ("host", "h"),
            ("connection", "x-forwarded-for, via"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
        ]);
        let seen = Seen::look(&headers);
        strip_request(&mut headers, &seen);
        add_origin(&mut headers, &seen, &Connection::for_tests("192.0.2.1"), &settings(""));
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "h");
        assert_eq!(
            names(&headers),
            ["host", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
        );
    }

    #[test]
    fn trusted_proxies_are_believed() {
        let mut headers = map(&[
            ("host", "inner"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outer"),
            ("forwarded", "for=203.0.113.9"),
        ]);
        let seen = Seen::look(&headers);
        add_origin(
            &mut headers,
            &seen,
            &Connection::for_tests("10.0.0.1"),
            &settings("trusted = [\"10.0.0.0/8\"]"),
        );
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 10.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "outer");
        let forwarded: Vec<_> = headers.get_all("forwarded").iter().collect();
        assert_eq!(forwarded, ["for=203.0.113.9", "for=10.0.0.1;proto=http"]);
    }

    #[test]
    fn loops_are_seen() {
        let pseudonym = settings("").pseudonym;
        let own = pseudonym.to_str().unwrap();
        for (via, again) in [
            (own.to_owned(), true),
            (format!("1.0 fred, {own}"), true),
            ("1.1 message-flow-other".into(), false),
        ] {
            assert_eq!(comes_by_again(&map(&[("via", &via)]), &pseudonym), again, "{via}");
        }
    }

    #[test]
    fn hosts() {
        for host in ["example.com", "example.com:80", "[::1]:80", "", "xn--a"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in ["a b", "a/b", "user@host", "a\"b", "a<b", "a\tb"] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
