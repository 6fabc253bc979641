//! A listener of this very router: whether an address leads to it, whatever name it was found by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Where a listener of this router is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own(pub SocketAddr);

impl Own {
    /// Whether a connection to this address would be accepted by the listener. One that is bound to every
    /// address of this machine needs a look at the routes of the system, which sends nothing.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        let (own, asked) = (self.0.ip().to_canonical(), address.ip().to_canonical());
        let here = || match (own.is_unspecified(), own) {
            (false, _) => own == asked,
            // What is bound to `::` takes IPv4 as well.
            (true, IpAddr::V4(_)) => asked.is_ipv4() && is_local(asked),
            (true, IpAddr::V6(_)) => is_local(asked),
        };
        self.0.port() == address.port() && (asked.is_unspecified() || here())
    }
}

/// Whether an address is one of this machine's: what is sent there comes from there.
fn is_local(address: IpAddr) -> bool {
    if address.is_loopback() {
        return true;
    }
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_every_address_of_its_own() {
        for (own, asked, expect) in [
            ("127.0.0.1:81", "127.0.0.1:81", true),
            ("127.0.0.1:81", "[::ffff:127.0.0.1]:81", true),
            ("127.0.0.1:81", "0.0.0.0:81", true),
            ("127.0.0.1:81", "127.0.0.1:82", false),
            ("127.0.0.1:81", "127.0.0.2:81", false),
            ("127.0.0.1:81", "192.0.2.1:81", false),
            ("[::1]:81", "[::1]:81", true),
            ("[::1]:81", "127.0.0.1:81", false),
            ("0.0.0.0:81", "127.0.0.2:81", true),
            ("0.0.0.0:81", "[::1]:81", false),
            ("0.0.0.0:81", "192.0.2.1:81", false),
            ("[::]:81", "[::1]:81", true),
            ("[::]:81", "127.0.0.1:81", true),
            ("[::]:81", "[2001:db8::1]:81", false),
        ] {
            assert_eq!(Own(own.parse().unwrap()).is_at(asked.parse().unwrap()), expect, "{own} {asked}");
        }
    }
}
