//! Addresses at which nothing of a user's can be: what others may name is never dialled there.
//!
//! Whoever may register a server, set a webhook's target or write a plugin must not reach with it
//! what only this machine may. The metadata services of clouds hand out credentials to whoever asks
//! from the machine; most live at link-local addresses, the others are listed here. A name may
//! resolve to anything, so it is the resolved address that is looked at, in every form in which an
//! IPv6 address can stand for one of IPv4. A leaf that every module may use.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services that are not at a link-local address, by the documentation of each cloud.
const METADATA_V4: [Ipv4Addr; 3] = [
    // Azure's WireServer.
    Ipv4Addr::new(168, 63, 129, 16),
    // Alibaba Cloud.
    Ipv4Addr::new(100, 100, 100, 200),
    // Oracle Cloud, of old.
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 6] = [
    // Amazon EC2: instance metadata, and credentials of EKS pods.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    // Google Cloud.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // Oracle Cloud.
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    // Akamai (Linode).
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1),
    // Scaleway.
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Whether this is link-local, unspecified, multicast, broadcast, or a cloud's metadata service.
pub fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_forbidden_v4(v4),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => false,
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || METADATA_V6.contains(&v6)
                || embedded(v6).into_iter().flatten().any(is_forbidden_v4)
        }
    }
}

fn is_forbidden_v4(v4: Ipv4Addr) -> bool {
    // "This host on this network" (RFC 1122): Linux takes all of it for itself or nobody.
    let this_network = v4.octets()[0] == 0;
    this_network || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || METADATA_V4.contains(&v4)
}

/// The IPv4 addresses to which something on the way may translate an IPv6 address.
fn embedded(v6: Ipv6Addr) -> [Option<Ipv4Addr>; 3] {
    let segments = v6.segments();
    let at =
        |place: usize| Ipv4Addr::from((u32::from(segments[place]) << 16) | u32::from(segments[place + 1]));
    match segments {
        // IPv4-compatible and IPv4-mapped (RFC 4291), IPv4-translated (RFC 7915).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => [Some(at(6)), None, None],
        // NAT64: the well-known prefix (RFC 6052), and the one for local use (RFC 8215), whose bits 64
        // to 71 are skipped where it is shorter.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => [Some(at(6)), None, None],
        [0x64, 0xff9b, 1, high, low, last, ..] => {
            let [_, low] = low.to_be_bytes();
            let [high_octet, second] = high.to_be_bytes();
            let [third_rest, _] = last.to_be_bytes();
            [Some(at(6)), Some(Ipv4Addr::new(high_octet, second, low, third_rest)), None]
        }
        // 6to4 (RFC 3056).
        [0x2002, ..] => [Some(at(1)), None, None],
        // Teredo (RFC 4380): the server, and the client with its bits inverted.
        [0x2001, 0, ..] => [Some(at(2)), Some(Ipv4Addr::from_bits(!at(6).to_bits())), None],
        // ISATAP (RFC 5214).
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => [Some(at(6)), None, None],
        _ => [None; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbids_what_is_no_server_in_every_form() {
        for text in [
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "fe80::a9fe:a9fe",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:a9fe:a9fe::1",
            "fd00:42::42",
            "::ffff:169.254.169.254",
            "::ffff:168.63.129.16",
            "::169.254.169.254",
            "::100.100.100.200",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::a83f:8110",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2002:a9fe:a9fe::",
            "2002:a9fe:a9fe::1",
            "2002:a83f:8110:1::1",
            "2001:0:a9fe:a9fe::1",
            "2001:0:a00:1:0:0:5601:5601",
            "fd12::5efe:a9fe:a9fe",
            "2001:db8::200:5efe:100.100.100.200",
        ] {
            assert!(is_forbidden(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn lets_servers_be() {
        for text in [
            "127.0.0.1",
            "127.1.2.3",
            "::1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "100.100.100.201",
            "168.63.129.17",
            "8.8.8.8",
            "fd00::1",
            "fd00:ec2::1",
            "2001:db8::1",
            "2606:4700::1111",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::8.8.8.8",
            "2002:a00:1::1",
        ] {
            assert!(!is_forbidden(text.parse().unwrap()), "{text}");
        }
    }
}
