//! Where a web page is from: scheme, host and port (RFC 6454).

use std::{fmt, net::Ipv6Addr, str::FromStr};

use http::uri::Authority;

/// Scheme, host and port, in one spelling: lower case, the port always there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    secure: bool,
    host: String,
    port: u16,
}

/// Why a text is not an [`Origin`].
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an origin: write a scheme, a host and a port, such as http://localhost:3000")]
pub struct InvalidOrigin(String);

impl Origin {
    /// What is served here under this authority, as a `Host` header has it; none: it is no authority.
    pub fn served(secure: bool, authority: &str) -> Option<Self> {
        if authority.contains('@') {
            return None;
        }
        let authority: Authority = authority.parse().ok()?;
        let host = authority.host();
        let rest = authority.as_str().get(host.len()..)?;
        let port = match rest {
            "" => {
                if secure {
                    443
                } else {
                    80
                }
            }
            rest => rest
                .strip_prefix(':')
                .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?
                .parse()
                .ok()?,
        };
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match address {
            Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().ok()?),
            None => host.to_ascii_lowercase(),
        };
        (!host.is_empty()).then_some(Self { secure, host, port })
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let (scheme, authority) = text.split_once("://").unwrap_or_default();
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => Some(false),
            "https" => Some(true),
            _ => None,
        };
        let origin = secure.and_then(|secure| Self::served(secure, authority));
        origin.ok_or_else(|| InvalidOrigin(text.chars().take(200).collect()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_parts_count() {
        let one: Origin = "http://localhost:8081".parse().unwrap();
        for (text, expect) in [
            ("http://LOCALHOST:8081", true),
            ("https://localhost:8081", false),
            ("http://localhost:8080", false),
            ("http://localhost", false),
            ("http://127.0.0.1:8081", false),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap() == one, expect, "{text}");
        }
        assert_eq!("https://a".parse::<Origin>(), "https://a:443".parse());
        assert_eq!("http://[::1]:80".parse::<Origin>(), "http://[0:0::1]".parse());
        for text in [
            "null",
            "",
            "localhost",
            "http://",
            "http://a/",
            "http://a:b",
            "http://a:99999",
            "http://a:",
            "ftp://a",
            "http://u@a",
            "file://",
            "http://a?b",
            "http://:80",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
        assert_eq!(Origin::served(false, "localhost:8081"), Some(one));
        assert_eq!(Origin::served(false, "a:80:80"), None);
    }
}
