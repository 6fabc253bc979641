//! The head of a message: what is refused at once, what belongs to one connection only and is
//! taken off, and what this router adds.
//!
//! A request is always written anew from what was understood of it, never copied, so that its
//! server cannot understand it differently (RFC 9112, section 11.2).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header,
    request::Parts,
    uri::{Authority, Scheme},
};
use subtle::ConstantTimeEq;

use super::{Settings, identify, origin::Claim, respond::Refusal};
use crate::{
    authority,
    fields::{Trailers, elements},
    plugin::message::PASS,
};

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
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
    trailer: bool,
    host: bool,
    http2_settings: bool,
    keep_alive: bool,
    proxy_connection: bool,
    proxy_authentication: bool,
    /// Something is said of where the message comes from.
    pub(super) claims: bool,
    /// So is something that nobody says in good faith.
    pub(super) forged: bool,
    /// Something is said of who sends it, under a name that is this router's and no source of ids.
    pub(super) says_identity: bool,
    /// Whether it says that a plugin of this router sends it.
    pub(super) shows_pass: bool,
    /// Whether there is a `message-flow-service`.
    pub(super) names_service: bool,
}

impl Seen {
    pub(super) fn look(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for name in headers.keys() {
            match *name {
                header::HOST => seen.host = true,
                header::CONNECTION => seen.connection = true,
                header::CONTENT_LENGTH => seen.content_length = true,
                header::TRANSFER_ENCODING => seen.transfer_encoding = true,
                header::TE => seen.te = true,
                header::UPGRADE => seen.upgrade = true,
                header::EXPECT => seen.expect = true,
                header::VIA => seen.via = true,
                header::TRAILER => seen.trailer = true,
                header::FORWARDED => seen.claims = true,
                header::PROXY_AUTHENTICATE | header::PROXY_AUTHORIZATION => seen.proxy_authentication = true,
                _ => seen.look_at_custom(name.as_str()),
            }
        }
        seen
    }

    /// What is announced to follow the body.
    pub(super) fn trailers(&self, headers: &HeaderMap) -> Trailers {
        if self.trailer { Trailers::announced_in(headers) } else { Trailers::default() }
    }

    /// Whether the client holds its body back until it is asked for it.
    pub(super) fn expects_continue(&self, parts: &Parts) -> bool {
        self.expect && parts.version != Version::HTTP_10
    }

    fn look_at_custom(&mut self, name: &str) {
        match name.as_bytes()[0] {
            b'h' => self.http2_settings |= name == "http2-settings",
            b'k' => self.keep_alive |= name == "keep-alive",
            b'm' => {
                self.names_service |= name == "message-flow-service";
                self.shows_pass |= name == PASS;
                self.says_identity |= name != "message-flow-client" && identify::is_routers(name);
            }
            b'p' if name == "proxy-connection" => self.proxy_connection = true,
            _ => match Claim::of(name) {
                Claim::None => {}
                Claim::Origin => self.claims = true,
                Claim::Forged => self.forged = true,
            },
        }
    }

    /// Whether the sender could have had a header taken off by naming it in `connection`.
    pub(super) fn nominates(&self) -> bool {
        self.connection
    }
}

/// Refuses what no server should see.
pub(super) fn admit(parts: &Parts, seen: &Seen, settings: &Settings) -> Result<(), Refusal> {
    let headers = &parts.headers;
    if let Method::CONNECT | Method::TRACE = parts.method {
        return Err(Refusal::Unacceptable(
            StatusCode::METHOD_NOT_ALLOWED,
            "CONNECT and TRACE are not served",
        ));
    }
    admit_authority(parts, seen)?;
    if headers.len() > settings.max_headers {
        return Err(Refusal::Unacceptable(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many headers"));
    }
    if parts.uri.path().len() + parts.uri.query().map_or(0, str::len) > settings.max_uri {
        return Err(Refusal::Unacceptable(StatusCode::URI_TOO_LONG, "the request's target is too long"));
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
    if seen.via && comes_by_again(headers, settings.via.pseudonym()) {
        return Err(Refusal::Loop);
    }
    Ok(())
}

/// The body is longer than it may be.
pub(super) fn too_long() -> Refusal {
    Refusal::Unacceptable(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is too long")
}

/// What a request is sent to must be a host and maybe a port, wherever it says so, and no two of them
/// (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
fn admit_authority(parts: &Parts, seen: &Seen) -> Result<(), Refusal> {
    let named = parts.uri.authority().map(Authority::as_str);
    if let Some(named) = named {
        if parts.uri.scheme().is_none() {
            return Err(Refusal::Malformed("the request's target is neither a path nor an absolute URI"));
        }
        authority::read(named).ok_or(Refusal::Malformed("the request's target has no valid host"))?;
    }
    if !seen.host {
        let missing = match parts.version {
            Version::HTTP_09 | Version::HTTP_10 => false,
            Version::HTTP_11 => true,
            _ => named.is_none(),
        };
        return if missing { Err(Refusal::Malformed("no host header")) } else { Ok(()) };
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Refusal::Malformed("more than one host header"));
    }
    let host = first.and_then(|host| host.to_str().ok());
    // Empty says that there is none.
    let host = host.filter(|host| host.is_empty() || authority::read(host).is_some());
    let host = host.ok_or(Refusal::Malformed("the host header is no host, or has a port that is none"))?;
    match named {
        // In HTTP/1.1 the target simply goes before the header.
        Some(named) if parts.version > Version::HTTP_11 && !authority::same(named, host, port(parts)) => {
            Err(Refusal::Malformed("`:authority` and `host` are not the same"))
        }
        _ => Ok(()),
    }
}

/// Of an authority without one.
fn port(parts: &Parts) -> u16 {
    if parts.uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 }
}

fn comes_by_again(headers: &HeaderMap, pseudonym: &[u8]) -> bool {
    let lines = headers.get_all(header::VIA).iter();
    let mut words = lines.flat_map(|line| line.as_bytes().split(|byte| matches!(byte, b' ' | b',' | b'\t')));
    words.any(|word| word == pseudonym)
}

/// What else the client would like to speak on this connection, if that may pass: one protocol, and
/// one that the configuration names. Any other wish of HTTP/1.1 is ignored, as RFC 9110, section 7.8
/// allows: clients ask for HTTP/2 in this way whatever they send. In HTTP/2 there is nothing that
/// could be done instead.
pub(super) fn wanted_upgrade<'a>(
    parts: &'a Parts,
    seen: &Seen,
    settings: &Settings,
) -> Result<Option<&'a HeaderValue>, Refusal> {
    if !seen.upgrade || !seen.connection {
        return Ok(None);
    }
    let mut lines = parts.headers.get_all(header::UPGRADE).iter();
    let only = lines.next().filter(|_| lines.next().is_none());
    let may_pass = |protocol: &&HeaderValue| {
        let mut names = settings.upgrades.iter();
        names.any(|name| name.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()))
    };
    let mut options = elements(&parts.headers, &header::CONNECTION);
    let named = options.any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    let wanted = only.filter(may_pass).filter(|_| named);
    match parts.version {
        Version::HTTP_11 => Ok(wanted),
        Version::HTTP_2 if wanted.is_none() => {
            let why = "no tunnel of this protocol passes; `proxy.upgrades` says which do";
            Err(Refusal::Unacceptable(StatusCode::NOT_IMPLEMENTED, why))
        }
        Version::HTTP_2 => Ok(wanted),
        _ => Ok(None),
    }
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
        // Asked of the server anew, if it is to be.
        headers.remove(header::EXPECT);
    }
    if seen.proxy_authentication {
        headers.remove(header::PROXY_AUTHORIZATION);
    }
    if seen.http2_settings {
        headers.remove(HTTP2_SETTINGS);
    }
}

/// Takes off what belongs to the server's connection; returns what may follow the body. What it would
/// like to speak instead, an answer with 426 must say (RFC 9110, section 15.5.22).
pub(super) fn strip_response(headers: &mut HeaderMap, status: StatusCode) -> Trailers {
    let mut seen = Seen::look(headers);
    seen.upgrade &= status != StatusCode::UPGRADE_REQUIRED;
    strip_connection(headers, &seen);
    seen.trailers(headers)
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
        .filter(|name| !plain(name) && !name.eq_ignore_ascii_case(b"upgrade"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !NOT_NOMINATED.contains(name))
        .collect();
    for name in names {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
}

/// Says that the message came by here, and in which version of HTTP (RFC 9110, section 7.6.3). Responses
/// do not say so: a gateway need not, and it would tell clients nothing that is of use to them.
pub(super) fn add_via(parts: &mut Parts, seen: &Seen, settings: &Settings) {
    let via = settings.via.received(parts.version).clone();
    if seen.via {
        parts.headers.append(header::VIA, via);
    } else {
        parts.headers.insert(header::VIA, via);
    }
}

/// Takes off by what a plugin of this router shows who it is; whether it is one. Nobody else ever sees
/// that header.
pub(super) fn take_pass(headers: &mut HeaderMap, settings: &Settings) -> bool {
    let shown = headers.remove(PASS);
    match (&settings.pass, shown) {
        (Some(pass), Some(shown)) => bool::from(pass.as_bytes().ct_eq(shown.as_bytes())),
        _ => false,
    }
}

/// Whether a request with `OPTIONS` may go no further than to this router; counts the step otherwise
/// (RFC 9110, section 7.6.2).
pub(super) fn goes_no_further(headers: &mut HeaderMap) -> bool {
    let forwards = headers.get(header::MAX_FORWARDS).and_then(|value| value.to_str().ok());
    match forwards.and_then(|text| text.parse::<u64>().ok()) {
        Some(0) => true,
        Some(forwards) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(forwards - 1));
            false
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::{map, names, settings};

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
            ("connection", "x-internal, keep-alive, Upgrade"),
            ("x-internal", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-type", "text/plain"),
        ]);
        let mut told = headers.clone();
        strip_response(&mut told, StatusCode::UPGRADE_REQUIRED);
        assert_eq!(names(&told), ["content-type", "upgrade"]);
        strip_response(&mut headers, StatusCode::OK);
        assert_eq!(names(&headers), ["content-type"]);
    }

    #[test]
    fn loops_are_seen() {
        for (via, again) in [
            ("1.1 message-flow-test", true),
            ("1.0 fred, 2 message-flow-test (here)", true),
            ("1.1 message-flow-other", false),
        ] {
            let pseudonym = settings("").via.pseudonym().to_owned();
            assert_eq!(comes_by_again(&map(&[("via", via)]), &pseudonym), again, "{via}");
        }
    }

    #[test]
    fn the_version_that_was_spoken_is_named() {
        for (version, before, expect) in [
            (Version::HTTP_10, &[][..], "1.0 message-flow-test"),
            (Version::HTTP_11, &[], "1.1 message-flow-test"),
            (Version::HTTP_2, &[("via", "1.0 fred")], "1.0 fred, 2 message-flow-test"),
        ] {
            let mut parts = http::Request::new(()).into_parts().0;
            (parts.version, parts.headers) = (version, map(before));
            let seen = Seen::look(&parts.headers);
            add_via(&mut parts, &seen, &settings(""));
            let lines: Vec<_> =
                parts.headers.get_all("via").iter().map(|line| line.to_str().unwrap()).collect();
            assert_eq!(lines.join(", "), expect);
        }
    }

    #[test]
    fn only_plugins_have_a_pass() {
        let mut settings = settings("");
        let check = |settings: &Settings, shown: &[(&str, &str)], inside: bool| {
            let mut headers = map(shown);
            assert_eq!(take_pass(&mut headers, settings), inside, "{shown:?}");
            assert!(headers.is_empty());
        };
        check(&settings, &[(PASS, "")], false);
        settings.pass = Some(HeaderValue::from_static("secret"));
        check(&settings, &[], false);
        check(&settings, &[(PASS, "secre")], false);
        check(&settings, &[(PASS, "x"), (PASS, "secret")], false);
        check(&settings, &[(PASS, "secret")], true);
    }

    #[test]
    fn forwards_are_counted() {
        for (before, last, after) in [
            ("0", true, "0"),
            ("1", false, "0"),
            ("10", false, "9"),
            ("-1", false, "-1"),
            ("99999999999999999999", false, "99999999999999999999"),
        ] {
            let mut headers = map(&[("max-forwards", before)]);
            assert_eq!(goes_no_further(&mut headers), last, "{before}");
            assert_eq!(headers["max-forwards"], after);
        }
        assert!(!goes_no_further(&mut HeaderMap::new()));
    }

    /// A request with this first line and these hosts.
    fn sent_to(version: Version, target: &str, hosts: &[&str]) -> Result<(), Refusal> {
        let mut parts = http::Request::new(()).into_parts().0;
        (parts.version, parts.uri) = (version, target.parse().unwrap());
        for host in hosts {
            parts.headers.append("host", host.parse().unwrap());
        }
        admit_authority(&parts, &Seen::look(&parts.headers))
    }

    #[test]
    fn what_a_request_is_sent_to_is_a_host() {
        use Version as V;
        for (version, target, hosts) in [
            (V::HTTP_11, "/", &["a.test"][..]),
            (V::HTTP_11, "/", &["a.test:80"]),
            (V::HTTP_11, "/", &["a.test:"]),
            (V::HTTP_11, "/", &["[::1]:80"]),
            (V::HTTP_11, "/", &[""]),
            (V::HTTP_11, "http://b.test:81/", &["a.test"]),
            (V::HTTP_10, "/", &[]),
            (V::HTTP_2, "http://a.test/", &[]),
            (V::HTTP_2, "http://a.test/", &["A.test.:80"]),
            (V::HTTP_2, "https://a.test:443/", &["a.test"]),
            (V::HTTP_2, "/", &["a.test"]),
        ] {
            assert!(sent_to(version, target, hosts).is_ok(), "{version:?} {target} {hosts:?}");
        }
        for (version, target, hosts) in [
            (V::HTTP_11, "/", &[][..]),
            (V::HTTP_11, "/", &["a.test", "a.test"]),
            (V::HTTP_11, "/", &["a.test:80:80"]),
            (V::HTTP_11, "/", &["a.test:http"]),
            (V::HTTP_11, "/", &["a.test:-1"]),
            (V::HTTP_11, "/", &["a.test:65536"]),
            (V::HTTP_11, "/", &["u@a.test"]),
            (V::HTTP_11, "/", &["%61.test"]),
            (V::HTTP_11, "/", &["a.test, b.test"]),
            (V::HTTP_11, "a.test", &["a.test"]),
            (V::HTTP_11, "a.test:80", &["b.test"]),
            (V::HTTP_11, "http://u@a.test/", &["a.test"]),
            (V::HTTP_11, "http://a.test:http/", &["a.test"]),
            (V::HTTP_11, "http://a.test:-1/", &["a.test"]),
            (V::HTTP_11, "http://a.test/", &["a.test:x"]),
            (V::HTTP_11, "http://a.test/", &[]),
            (V::HTTP_10, "/", &["a.test:x"]),
            (V::HTTP_2, "/", &[]),
            (V::HTTP_2, "http://u:p@a.test/", &[]),
            (V::HTTP_2, "http://a.test:99999/", &[]),
            (V::HTTP_2, "http://a.test/", &["b.test"]),
            (V::HTTP_2, "http://a.test/", &["a.test:81"]),
            (V::HTTP_2, "http://a.test/", &[""]),
        ] {
            assert!(sent_to(version, target, hosts).is_err(), "{version:?} {target} {hosts:?}");
        }
    }

    #[test]
    fn only_wanted_upgrades_pass() {
        let check = |settings: &Settings, lines: &[&str], connection: &str, expect: Option<&str>| {
            let mut parts = http::Request::new(()).into_parts().0;
            parts.headers.append("connection", connection.parse().unwrap());
            for line in lines {
                parts.headers.append("upgrade", line.parse().unwrap());
            }
            let seen = Seen::look(&parts.headers);
            let wanted = wanted_upgrade(&parts, &seen, settings).unwrap();
            assert_eq!(wanted.and_then(|wanted| wanted.to_str().ok()), expect, "{lines:?} {connection}");
        };
        let usual = settings("");
        check(&usual, &["websocket"], "Upgrade", Some("websocket"));
        check(&usual, &["WebSocket"], "keep-alive, upgrade", Some("WebSocket"));
        for lines in [
            &["h2c"][..],
            &["HTTP/2.0"],
            &["TLS/1.0"],
            &["websocket, h2c"],
            &["h2c,websocket"],
            &["websocket", "h2c"],
            &["websocket", "websocket"],
            &["websocket/13"],
            &["tcp"],
            &[""],
        ] {
            check(&usual, lines, "upgrade, http2-settings", None);
        }
        check(&usual, &["websocket"], "keep-alive", None);
        let mut parts = http::Request::new(()).into_parts().0;
        (parts.version, parts.headers) =
            (Version::HTTP_2, map(&[("connection", "upgrade"), ("upgrade", "tcp")]));
        let refused = wanted_upgrade(&parts, &Seen::look(&parts.headers), &usual);
        assert!(refused.is_err(), "there is no plain request to make of a CONNECT");
        let more = settings("upgrades = [\"websocket\", \"tcp\"]");
        check(&more, &["TCP"], "upgrade", Some("TCP"));
        check(&settings("upgrades = []"), &["websocket"], "upgrade", None);
    }
}
