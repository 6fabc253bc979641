//! Opens connections to servers, never to addresses that no server of a user's can have.
//!
//! A name may resolve to anything, and whoever may register a server must not reach with it what
//! only this machine may: the cloud's metadata service lives at a link-local address and hands out
//! credentials. So every *resolved* address is checked at the time of dialling.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::Endpoint;

/// Amazon's metadata service over IPv6.
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name means nothing.
    #[error("`{0}` cannot be resolved")]
    Resolve(String, #[source] io::Error),
    /// The name means nothing that may be dialled.
    #[error("{0} is not dialled: link-local, metadata, unspecified and multicast addresses are no servers")]
    Forbidden(IpAddr),
    /// The last address tried.
    #[error("{0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// All of it together.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// Connected, but HTTP did not begin.
    #[error("HTTP did not begin")]
    Handshake(#[source] h2::Error),
}

/// Opens a TCP connection within `limit`.
pub async fn dial(endpoint: &Endpoint, limit: Duration) -> Result<TcpStream, DialError> {
    match timeout(limit, dial_any(endpoint)).await {
        Ok(dialled) => dialled,
        Err(_) => Err(DialError::Timeout(limit)),
    }
}

async fn dial_any(endpoint: &Endpoint) -> Result<TcpStream, DialError> {
    if let Ok(address) = endpoint.host.parse::<IpAddr>() {
        return dial_one(SocketAddr::new(address, endpoint.port)).await;
    }
    let resolve = |error| DialError::Resolve(endpoint.host.to_string(), error);
    let addresses = lookup_host((&*endpoint.host, endpoint.port)).await.map_err(resolve)?;
    let mut failed = resolve(io::Error::new(io::ErrorKind::NotFound, "no address"));
    for address in addresses {
        match dial_one(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn dial_one(address: SocketAddr) -> Result<TcpStream, DialError> {
    if is_forbidden(address.ip()) {
        return Err(DialError::Forbidden(address.ip()));
    }
    let stream = TcpStream::connect(address).await.map_err(|error| DialError::Connect(address, error))?;
    // Only fails on a socket that is dead already.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Whether no server can be there.
pub fn is_forbidden(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast() || v6 == METADATA
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbids_what_is_no_server() {
        for text in [
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "::ffff:169.254.169.254",
            "224.0.0.1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            assert!(is_forbidden(text.parse().unwrap()), "{text}");
        }
        for text in ["127.0.0.1", "::1", "10.0.0.1", "192.168.0.1", "fd00::1", "8.8.8.8", "::ffff:10.0.0.1"] {
            assert!(!is_forbidden(text.parse().unwrap()), "{text}");
        }
    }
}
