//! Addresses to listen on: free ones, and words about those in use.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::{Context as _, Result, bail};

/// How many ports the sandbox takes: its own page, then one for each thing it stands in for.
pub const SANDBOX_PORTS: u16 = 6;

/// Finds a run of free ports where port 0 was asked for; otherwise checks that those asked for are free.
pub fn reserve(address: SocketAddr, count: u16, whose: &str, option: &str) -> Result<SocketAddr> {
    if address.port() == 0 {
        return free(address, count);
    }
    for port in address.port()..=address.port().saturating_add(count - 1) {
        let address = SocketAddr::new(address.ip(), port);
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                bail!("{address} is in use, which {whose} needs; stop what uses it, or choose another with {option}")
            }
            Err(error) => {
                return Err(error).with_context(|| format!("{whose} cannot listen on {address}; choose another address with {option}"));
            }
        }
    }
    Ok(address)
}

/// A run of ports that nobody listens on right now.
fn free(address: SocketAddr, count: u16) -> Result<SocketAddr> {
    for _ in 0..100 {
        let first = TcpListener::bind(SocketAddr::new(address.ip(), 0))?.local_addr()?;
        let all_free = (1..count).all(|offset| {
            let port = first.port().checked_add(offset);
            port.is_some_and(|port| TcpListener::bind(SocketAddr::new(address.ip(), port)).is_ok())
        });
        if all_free {
            return Ok(first);
        }
    }
    bail!("there are no {count} free ports in a row on {}", address.ip())
}

/// How this machine reaches what listens on this address.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_port_in_use_is_named() -> Result<()> {
        let taken = TcpListener::bind(LOOPBACK)?;
        let address = taken.local_addr()?;
        let refusal = reserve(address, 1, "the app", "--listen").err().map(|error| error.to_string());
        let refusal = refusal.unwrap_or_default();
        assert!(refusal.starts_with(&format!("{address} is in use")), "{refusal}");
        assert!(refusal.ends_with("--listen"));
        Ok(())
    }

    #[test]
    fn free_ports_are_found_in_a_row() -> Result<()> {
        let first = reserve(LOOPBACK, SANDBOX_PORTS, "the sandbox", "--sandbox-listen")?;
        assert_ne!(first.port(), 0);
        reserve(first, SANDBOX_PORTS, "the sandbox", "--sandbox-listen")?;
        Ok(())
    }

    #[test]
    fn an_app_that_listens_everywhere_is_reached_on_loopback() -> Result<()> {
        assert_eq!(reachable("0.0.0.0:3000".parse()?), "127.0.0.1:3000".parse()?);
        assert_eq!(reachable("[::]:3000".parse()?), "[::1]:3000".parse()?);
        assert_eq!(reachable("127.0.0.2:3000".parse()?), "127.0.0.2:3000".parse()?);
        Ok(())
    }
}
