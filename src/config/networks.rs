//! Networks: addresses that begin alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that have the first so many bits of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No address before the slash.
    #[error("has no IP address")]
    Address,
    /// Something else than a number of bits behind it.
    #[error("has a length that its kind of address cannot have")]
    Prefix,
    /// A bit behind the prefix is set.
    #[error("has bits behind its length")]
    Host,
}

impl Network {
    /// `ip` and all that have its first `prefix` bits; what the prefix leaves out of `ip` is taken for zero.
    #[must_use]
    pub fn new(ip: IpAddr, prefix: u8) -> Self {
        let ip = ip.to_canonical();
        let prefix = prefix.min(bits_of(ip));
        Self { ip: masked(ip, prefix), prefix }
    }

    /// Whether an address is one of them. An IPv4 address in IPv6's clothes (`::ffff:10.0.0.1`) is an IPv4 address.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.ip.is_ipv4() && masked(ip, self.prefix) == self.ip
    }
}

const fn bits_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The first bits of an address.
fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & u32::MAX.checked_shl(32 - prefix).unwrap_or(0)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & u128::MAX.checked_shl(128 - prefix).unwrap_or(0)).into(),
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `10.0.0.0/8`, `fd00::/8`, or an address, which is a network of its own.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let ip: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let bits = bits_of(ip);
        let is_number = |prefix: &&str| !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix {
            None => bits,
            Some(prefix) => {
                let prefix = Some(prefix).filter(is_number).and_then(|prefix| prefix.parse().ok());
                prefix.filter(|prefix| *prefix <= bits).ok_or(NetworkError::Prefix)?
            }
        };
        let network = Self { ip: masked(ip, prefix), prefix };
        if network.ip == ip { Ok(network) } else { Err(NetworkError::Host) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == bits_of(self.ip) { self.ip.fmt(f) } else { write!(f, "{}/{}", self.ip, self.prefix) }
    }
}

/// Some networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<Network>);

impl Networks {
    /// Those that nobody on the internet has: this machine, and the network for benchmarks (RFC 2544).
    #[must_use]
    pub fn local() -> Self {
        Self(vec![
            Network::new(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
            Network::new(Ipv6Addr::LOCALHOST.into(), 128),
            Network::new(Ipv4Addr::new(198, 18, 0, 0).into(), 15),
        ])
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn contains(network: &str, ip: &str) -> bool {
        network.parse::<Network>().unwrap().contains(ip.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("198.18.0.0/15", "198.19.255.255") && !contains("198.18.0.0/15", "198.20.0.0"));
        assert!(contains("192.0.2.7", "192.0.2.7") && !contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("0.0.0.0/0", "255.1.2.3") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/8", "fd12::9") && !contains("fd00::/8", "fe80::1"));
        assert!(contains("::/0", "2001:db8::1") && contains("::1", "::1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.1.1") && !contains("::/0", "::ffff:10.1.1.1"));
    }

    #[test]
    fn networks_are_written_as_they_are_read() {
        for text in ["10.0.0.0/8", "::1", "fd00::/8", "0.0.0.0/0", "127.0.0.1"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!(Network::new("10.1.2.3".parse().unwrap(), 8).to_string(), "10.0.0.0/8");
        for (text, error) in [
            ("10.0.0/8", NetworkError::Address),
            ("", NetworkError::Address),
            ("10.0.0.0/33", NetworkError::Prefix),
            ("10.0.0.0/", NetworkError::Prefix),
            ("10.0.0.0/+8", NetworkError::Prefix),
            ("::/129", NetworkError::Prefix),
            ("10.0.0.1/8", NetworkError::Host),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
    }
}
