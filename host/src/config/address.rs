//! Addresses as people write them: where to listen.

use std::net::SocketAddr;

/// An address to listen on; `localhost` is 127.0.0.1.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let address = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    address.as_deref().unwrap_or(text).parse().map_err(|_| {
        let port = text.strip_prefix(':').or(Some(text)).filter(|port| port.parse::<u16>().is_ok());
        let port = port.unwrap_or("8080");
        format!(
            "`{text}` is not an address to listen on: write 127.0.0.1:{port} for this machine only, 0.0.0.0:{port} for all"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listens_on_addresses_and_localhost() {
        assert_eq!(listen("localhost:80"), listen("127.0.0.1:80"));
        assert!(listen("[::1]:80").is_ok());
        for text in [
            ":8080",
            "8080",
            "example.com:80",
            "127.0.0.1",
            "127.0.0.1:99999",
            "127.0.0.1:",
            "127.0.0.1:+1",
            "localhost:99999",
            "localhost:",
            "",
        ] {
            assert!(listen(text).is_err(), "{text}");
        }
        assert!(listen(":9000").unwrap_err().contains("127.0.0.1:9000"));
    }
}
