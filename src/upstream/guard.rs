//! Where this node may connect.
//!
//! Pure. The rule is asked with the address that is connected to next, after resolving: a name
//! that is harmless when it is checked and points inside when it is used gets nowhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::origin::{Origin, plain_host};

/// The hosts that one upstream's configuration vouches for.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    own: Vec<Origin>,
    trusted: Vec<(String, Option<u16>)>,
}

impl Guard {
    /// Takes the endpoints, and `trusted_hosts` as `host` or `host:port`.
    pub(super) fn new(endpoints: impl IntoIterator<Item = Origin>, trusted_hosts: &[String]) -> Self {
        let trusted = trusted_hosts.iter().map(|host| split_port(host)).collect();
        Self { own: endpoints.into_iter().collect(), trusted }
    }

    /// Whether the address may be connected to for the sake of this host and port: it is public,
    /// or the host is an endpoint itself or trusted.
    pub(super) fn admits(&self, host: &str, port: u16, address: IpAddr) -> bool {
        let host = plain_host(host);
        is_public(address)
            || self.own.iter().any(|own| own.host == host && own.port == port)
            || self.is_trusted(&host, port)
    }

    /// Whether `trusted_hosts` names it.
    pub(super) fn is_trusted(&self, host: &str, port: u16) -> bool {
        let host = plain_host(host);
        self.trusted
            .iter()
            .any(|(trusted, at)| *trusted == host && at.is_none_or(|trusted_port| trusted_port == port))
    }

    /// Whether it is the origin of an endpoint, which may receive credentials.
    pub(super) fn is_own(&self, origin: &Origin) -> bool {
        self.own.contains(origin)
    }
}

fn split_port(text: &str) -> (String, Option<u16>) {
    // `::1` has colons and no port; `[::1]:5000` has one.
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (plain_host(host), Some(port)),
            Err(_) => (plain_host(text), None),
        },
        _ => (plain_host(text), None),
    }
}

/// Whether an address is one that anybody on the Internet may have (the special-purpose registries
/// of RFC 6890 taken out).
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // IPv4-mapped, NAT64 (RFC 6052) and 6to4 (RFC 3056): the IPv4 address within is what is
        // reached.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => embedded(high, low),
        // Protocol assignments and Teredo (2001::/23), documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // All other global unicast addresses lie in 2000::/3.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::7f00:1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "5f00::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_private_address_needs_a_name_in_the_configuration() {
        let endpoint = Origin::of(&"http://registry.corp:5000".parse().unwrap()).unwrap();
        let trusted = [
            "Auth.Corp".to_owned(),
            "10.0.0.9:8080".to_owned(),
            "[::1]:5001".to_owned(),
            "fd00::7".to_owned(),
        ];
        let guard = Guard::new([endpoint], &trusted);
        let inside: IpAddr = "10.0.0.9".parse().unwrap();
        for (host, port, admitted) in [
            ("registry.corp", 5000, true),
            ("REGISTRY.corp.", 5000, true),
            ("registry.corp", 80, false),
            ("auth.corp", 443, true),
            ("auth.corp", 80, true),
            ("other.corp", 443, false),
            ("10.0.0.9", 8080, true),
            ("10.0.0.9", 22, false),
            ("[::1]", 5001, true),
            ("::1", 5002, false),
            ("[fd00::7]", 1, true),
        ] {
            assert_eq!(guard.admits(host, port, inside), admitted, "{host}:{port}");
            assert!(guard.admits(host, port, "1.1.1.1".parse().unwrap()), "public: {host}:{port}");
        }
    }
}
