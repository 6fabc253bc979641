//! `host[:port]` as users write it of servers, webhooks, grants and endpoints: one strict reading, so
//! that a port that is none is an error where it is written, and not another port where it is used.
//! A leaf that every module may use.

use std::net::Ipv6Addr;

/// The host, an IPv6 address in its brackets, and the port, if one is written. None unless it is
/// RFC 3986's `host [ ":" port ]` with a name or address that can be resolved, a port from 1 to
/// 65535, and nothing before or after.
pub fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let end = match text.starts_with('[') {
        true => text.find(']')? + 1,
        false => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(end);
    let port = match rest.strip_prefix(':') {
        Some(digits) => Some(port(digits)?),
        None if rest.is_empty() => None,
        None => return None,
    };
    is_host(host).then_some((host, port))
}

/// 1 to 65535, in digits alone.
fn port(digits: &str) -> Option<u16> {
    let plain = digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| plain && *port > 0)
}

fn is_host(host: &str) -> bool {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => (1..=253).contains(&host.len()) && host.bytes().all(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
