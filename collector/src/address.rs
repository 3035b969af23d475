//! Addresses of sockets, as the kernel side copies them.
//!
//! Refuses: other families than IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Families of addresses (include/linux/socket.h).
const INET: u16 = 2;
const INET6: u16 = 10;

/// One end of a socket: IPv4 addresses stand in the first four bytes, and IPv4 in IPv6 is IPv4. `None` for other families.
pub fn of(family: u16, bytes: [u8; 16], port: u16) -> Option<SocketAddr> {
    let ip: IpAddr = match family {
        INET => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        INET6 => Ipv6Addr::from(bytes).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(family: u16, bytes: [u8; 16], expected: Option<&str>) {
        let found = of(family, bytes, 80).map(|address| address.to_string());
        assert_eq!(found.as_deref(), expected, "{family} {bytes:?}");
    }

    #[test]
    fn families() {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[10, 0, 0, 7]);
        check(INET, bytes, Some("10.0.0.7:80"));
        check(INET6, Ipv6Addr::LOCALHOST.octets(), Some("[::1]:80"));
        check(INET6, Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets(), Some("127.0.0.1:80"));
        check(1, bytes, None);
    }
}
