//! Which hosts a token may register, by how they are written.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::units::Cidr;

/// A host, a network, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `10.0.0.0/8`, or an address: what is written as an address in it. A name that means one does not count,
    /// nor does any spelling of an address but the usual.
    Network(Cidr),
    /// `app.example`, in any case, with or without a final dot.
    Name(String),
    /// `*.internal`: every name that ends so, not `internal` itself.
    Below(String),
}

impl HostPattern {
    /// Whether it stands for this host, which a URI has in brackets if it is an IPv6 address.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match (self, host.parse::<IpAddr>()) {
            (Self::Network(network), Ok(address)) => network.contains(address),
            (Self::Network(_), Err(_)) | (_, Ok(_)) => false,
            (Self::Name(name), Err(_)) => *name == plain(host),
            (Self::Below(domain), Err(_)) => {
                let host = plain(host);
                let name = host.strip_suffix(domain.as_str()).and_then(|name| name.strip_suffix('.'));
                name.is_some_and(|name| !name.is_empty())
            }
        }
    }
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Why a text is not a [`HostPattern`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a host: write a network such as 10.0.0.0/8, a name, or *.NAME for all names below it")]
pub struct InvalidHostPattern(String);

impl FromStr for HostPattern {
    type Err = InvalidHostPattern;

    fn from_str(text: &str) -> Result<Self, InvalidHostPattern> {
        if let Ok(network) = text.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Self::Network(network));
        }
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let name = plain(name);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let label = |label: &str| !label.is_empty() && label.bytes().all(allowed);
        match name.len() <= 253 && name.split('.').all(label) {
            true if below => Ok(Self::Below(name)),
            true => Ok(Self::Name(name)),
            false => Err(InvalidHostPattern(text.chars().take(200).collect())),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => write!(f, "{network}"),
            Self::Name(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_as_they_are_written() {
        for (pattern, host, expect) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "[::ffff:10.1.2.3]", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/8", "ten.example", false),
            ("127.0.0.0/8", "localhost", false),
            ("127.0.0.0/8", "2130706433", false),
            ("127.0.0.0/8", "127.1", false),
            ("127.0.0.0/8", "0x7f.0.0.1", false),
            ("::1", "[::1]", true),
            ("fd00::/8", "[FD12::1]", true),
            ("app.example", "App.Example.", true),
            ("app.example", "app.example.evil", false),
            ("app.example", "an.app.example", false),
            ("*.internal", "a.internal", true),
            ("*.internal", "a.b.INTERNAL.", true),
            ("*.internal", "internal", false),
            ("*.internal", ".internal", false),
            ("*.internal", "evilinternal", false),
            ("*.0.0.1", "10.0.0.1", false),
        ] {
            assert_eq!(pattern.parse::<HostPattern>().unwrap().matches(host), expect, "{pattern} {host}");
        }
        for text in ["", "*", "*.", "a*", "*.*.a", "http://a", "a:80", "10.0.0.0/33", "a..b", "a b", "a/b"] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }
}
