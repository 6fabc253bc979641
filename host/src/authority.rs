//! Authorities, `host[:port]`, by the letter of RFC 3986, section 3.2, and without userinfo, which has no
//! place in HTTP (RFC 9110, section 4.2.4): as clients write them in messages ([`read`]), and, in a stricter
//! reading, as users do of servers, webhooks, grants and endpoints ([`split`]). So a port that is none is an
//! error where it is written, and not another port where it is used. A leaf that every module may use.
//!
//! Percent-encoding is refused in hosts, though the grammar has it: no name of DNS needs it, and one
//! reader would decode it where another does not. So is a comma: to who takes a header for a list it
//! ends the host.

use std::{borrow::Cow, net::Ipv6Addr};

/// What an authority names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// As written: with the brackets of an IPv6 address, and maybe a dot at its end.
    pub host: &'a str,
    /// None where none is written, or none behind the colon.
    pub port: Option<u16>,
}

/// Reads an authority; none if it is not `host` or `host:port`.
pub fn read(text: &str) -> Option<Authority<'_>> {
    let (host, rest) = text.split_at(end_of_host(text));
    let port = match rest.strip_prefix(':') {
        Some("") => None,
        Some(digits) => Some(port(digits)?),
        None if rest.is_empty() => None,
        None => return None,
    };
    is_host(host).then_some(Authority { host, port })
}

/// The host, an IPv6 address in its brackets, and the port, if one is written. None unless it is an
/// authority with a name or address that can be resolved and, behind a colon, a port from 1 to 65535.
pub fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let Authority { host, port } = read(text)?;
    let written = port.map_or(!text.ends_with(':'), |port| port > 0);
    (written && is_resolvable(host)).then_some((host, port))
}

fn is_resolvable(host: &str) -> bool {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.len() <= 253 && host.bytes().all(named),
    }
}

/// Where the host of an authority ends and its port begins.
fn end_of_host(text: &str) -> usize {
    let end = match text.starts_with('[') {
        true => memchr::memchr(b']', text.as_bytes()).map(|bracket| bracket + 1),
        false => memchr::memchr(b':', text.as_bytes()),
    };
    end.unwrap_or(text.len())
}

fn port(digits: &str) -> Option<u16> {
    // `parse` would take a sign as well.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn is_host(host: &str) -> bool {
    if let Some(literal) = host.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(is_literal);
    }
    let mut before = b'.';
    for byte in host.bytes() {
        // A label is never empty, though the last one may have a dot behind it.
        if !is_name(byte) || (byte == b'.' && before == b'.') {
            return false;
        }
        before = byte;
    }
    !host.is_empty()
}

/// `IPv6address` or `IPvFuture`.
fn is_literal(text: &str) -> bool {
    let future = || {
        let (version, address) = text.strip_prefix(['v', 'V'])?.split_once('.')?;
        let version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some(version && !address.is_empty() && address.bytes().all(|byte| is_name(byte) || byte == b':'))
    };
    text.parse::<Ipv6Addr>().is_ok() || future().unwrap_or(false)
}

/// `unreserved` or one of `sub-delims` but the comma.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte)
}

/// The host of an authority that was read, as [`canonical`] has it.
pub fn host(authority: &str) -> Cow<'_, str> {
    canonical(&authority[..end_of_host(authority)])
}

/// A host without the dot at its end, and an IPv6 address as RFC 5952 has it. Capitals are left as
/// they are: comparisons ignore them.
pub fn canonical(host: &str) -> Cow<'_, str> {
    let Some(literal) = host.strip_prefix('[') else {
        return host.strip_suffix('.').unwrap_or(host).into();
    };
    match literal.strip_suffix(']').and_then(|address| address.parse::<Ipv6Addr>().ok()) {
        Some(address) => format!("[{address}]").into(),
        None => host.into(),
    }
}

/// Whether two authorities that were read name the same, where `port` is that of no port.
pub fn same(one: &str, other: &str, port: u16) -> bool {
    let equal = one.eq_ignore_ascii_case(other);
    equal || {
        let port_of = |text| read(text).map(|authority| authority.port.unwrap_or(port));
        host(one).eq_ignore_ascii_case(&host(other)) && port_of(one) == port_of(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (text, host, port) in [
            ("a", "a", None),
            ("a:", "a", None),
            ("a:0", "a", Some(0)),
            ("A.Example.test:65535", "A.Example.test", Some(65535)),
            ("a.test.:080", "a.test.", Some(80)),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("[::1]:81", "[::1]", Some(81)),
            ("[2001:DB8::192.0.2.1]:", "[2001:DB8::192.0.2.1]", None),
            ("[v1.a:b]", "[v1.a:b]", None),
            ("_dmarc.a~!$&'()*+;=", "_dmarc.a~!$&'()*+;=", None),
        ] {
            assert_eq!(read(text), Some(Authority { host, port }), "{text}");
        }
    }

    #[test]
    fn what_is_no_authority() {
        for text in [
            "",
            ":",
            ":80",
            "a:80:80",
            "a:http",
            "a:-1",
            "a:+1",
            "a: 1",
            "a:65536",
            "a:99999",
            "a:080808",
            "a:8o",
            "u@a",
            "u:p@a:80",
            "@a",
            "a@",
            "a,b",
            "admin.example.test,b:80",
            "a b",
            "a/b",
            "a\\b",
            "a?b",
            "a#b",
            "a\"b",
            "a<b",
            "a\tb",
            "a%41",
            "%61",
            "::1",
            "[::1",
            "::1]",
            "[::1]a",
            "[::1]:a",
            "[::1]:80:80",
            "[]",
            "[1.2.3.4]",
            "[::g]",
            "[fe80::1%25eth0]",
            "[v.a]",
            "[vg.a]",
            "a[::1]",
            "[[::1]]",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "é.test",
            "a,b@c",
            "a:８０",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_the_same_host() {
        for (authority, expect) in [
            ("a", "a"),
            ("a.:80", "a"),
            ("[0:0:0:0:0:0:0:1]:80", "[::1]"),
            ("[::0001]", "[::1]"),
            ("[2001:DB8::A]", "[2001:db8::a]"),
            ("[v1.a]", "[v1.a]"),
            ("", ""),
        ] {
            assert_eq!(host(authority), expect, "{authority}");
        }
        for (one, other, expect) in [
            ("a", "A", true),
            ("a", "a:80", true),
            ("a", "a:443", false),
            ("a.", "a", true),
            ("[::1]:1", "[0::1]:1", true),
            ("a", "b", false),
            ("a:1", "a:2", false),
        ] {
            assert_eq!(same(one, other, 80), expect, "{one} {other}");
        }
    }

    #[test]
    fn splits_what_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("a", "a", None),
            ("a:1", "a", Some(1)),
            ("a.example:65535", "a.example", Some(65535)),
            ("my_service-1.ns:8080", "my_service-1.ns", Some(8080)),
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[2001:DB8::1]:443", "[2001:DB8::1]", Some(443)),
            ("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.1]", Some(1)),
        ] {
            assert_eq!(split(text), Some((host, port)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        let long = "a".repeat(254);
        for text in [
            "",
            ":",
            ":80",
            "a:",
            "a:0",
            "a:00",
            "a:65536",
            "a:99999",
            "a:123456",
            "a:080080",
            "a:+80",
            "a:-1",
            "a: 80",
            "a:80 ",
            "a:http",
            "a:8O",
            "a:80:80",
            "a::80",
            "::1",
            "::1:80",
            "[::1",
            "[::1]80",
            "[::1]:",
            "[::1]:0",
            "[::1]:99999",
            "[]",
            "[]:80",
            "[a]:80",
            "[10.0.0.1]:80",
            "[fe80::1%25eth0]:80",
            "x[::1]",
            "u@a",
            "u:p@a:80",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a%41",
            "ä",
            "a,b",
            &long,
        ] {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
