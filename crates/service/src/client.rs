//! Where a request comes from.
//!
//! Headers can say anything. The address of a client is taken from the one header that the operator named as written by a proxy of his
//! own (variable `trusted_proxy`), and there from the last hop, which is the one that proxy saw. Without such a header it is the peer
//! of the connection: Spin appends `spin-client-addr` after any forged one of that name, so the last value counts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::HeaderMap;

/// A client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub ip: IpAddr,
    /// Whether it tells clients apart. An address that is not a public one does not: it is a proxy's, also where the trusted header names it,
    /// or somebody's on this machine, and all of its clients look the same.
    pub distinct: bool,
}

impl Client {
    /// The client of a request. `trusted` is the name of the trusted header; empty: there is none.
    #[must_use]
    pub fn of(headers: &HeaderMap, trusted: &str) -> Option<Self> {
        // Without it: around the proxy, or there is none.
        let ip = last_hop(headers, trusted.trim()).or_else(|| last_hop(headers, "spin-client-addr"))?;
        Some(Self { ip, distinct: is_public(ip) })
    }

    /// What is counted as one client: an IPv4 address, or the IPv6 network that one customer is given (/64).
    #[must_use]
    pub fn network(&self) -> String {
        match self.ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        }
    }
}

fn last_hop(headers: &HeaderMap, name: &str) -> Option<IpAddr> {
    if name.is_empty() {
        return None;
    }
    let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    let hop = value.rsplit(',').next()?.trim();
    let ip = hop.parse::<SocketAddr>().map(|address| address.ip()).ok().or_else(|| hop.trim_matches(['[', ']']).parse().ok())?;
    Some(ip.to_canonical())
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // 100.64/10 is what carriers and clouds use between themselves.
            let shared = ip.octets()[0] == 100 && (64..128).contains(&ip.octets()[1]);
            !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip == Ipv4Addr::UNSPECIFIED || shared)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"));
        lines.iter().map(line).fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
    }

    fn told(lines: &[(&'static str, &str)], trusted: &str) -> Option<(String, bool)> {
        Client::of(&headers(lines), trusted).map(|client| (client.network(), client.distinct))
    }

    #[test]
    fn the_trusted_header_counts_and_its_last_hop_only() {
        let lines = [("x-forwarded-for", "6.6.6.6, 9.9.9.9"), ("x-real-ip", "7.7.7.7"), ("spin-client-addr", "10.0.0.2:4711")];
        assert_eq!(told(&lines, "x-forwarded-for"), Some(("9.9.9.9".into(), true)));
        assert_eq!(told(&lines, "X-Real-IP"), Some(("7.7.7.7".into(), true)));
        let twice = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "9.9.9.9:80")];
        assert_eq!(told(&twice, "x-forwarded-for"), Some(("9.9.9.9".into(), true)));
    }

    #[test]
    fn a_last_hop_that_is_not_public_is_another_proxy_and_tells_nobody_apart() {
        for hop in ["10.1.2.3:80", "6.6.6.6, 192.168.0.1", "6.6.6.6, 127.0.0.1", "fd00::1", "::ffff:10.0.0.1"] {
            let lines = [("x-forwarded-for", hop), ("spin-client-addr", "9.9.9.9:4711")];
            assert!(!told(&lines, "x-forwarded-for").expect(hop).1, "{hop}");
        }
    }

    #[test]
    fn without_one_it_is_the_peer_and_a_proxy_or_this_machine_tell_nobody_apart() {
        let forged = [("x-forwarded-for", "6.6.6.6"), ("spin-client-addr", "6.6.6.6:1"), ("spin-client-addr", "9.9.9.9:4711")];
        assert_eq!(told(&forged, ""), Some(("9.9.9.9".into(), true)));
        for peer in ["127.0.0.1:1", "10.0.0.2:1", "192.168.1.1:1", "172.16.0.9:1", "100.64.1.1:1", "[::1]:1", "[fd00::1]:1", "[fe80::1]:1"]
        {
            assert!(!told(&[("spin-client-addr", peer)], "").expect(peer).1, "{peer}");
        }
        assert_eq!(told(&[], "x-forwarded-for"), None);
    }

    #[test]
    fn a_header_that_is_no_address_falls_back_to_the_peer() {
        for strange in ["", "unknown", "1.2.3", "for=1.2.3.4", "'; DROP TABLE users"] {
            let lines = [("x-forwarded-for", strange), ("spin-client-addr", "9.9.9.9:4711")];
            assert_eq!(told(&lines, "x-forwarded-for"), Some(("9.9.9.9".into(), true)), "{strange}");
        }
    }

    #[test]
    fn an_ipv6_customer_is_one_network() {
        let one = told(&[("cf-connecting-ip", "2001:db8:1:2:3:4:5:6")], "cf-connecting-ip");
        assert_eq!(one, told(&[("cf-connecting-ip", "2001:db8:1:2::1")], "cf-connecting-ip"));
        assert_eq!(one.expect("an address").0, "2001:db8:1:2::/64");
        assert_eq!(told(&[("x-real-ip", "::ffff:1.2.3.4")], "x-real-ip").expect("an address").0, "1.2.3.4");
    }
}
