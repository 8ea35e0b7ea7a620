//! Where dialled connections come from.
//!
//! One address has fewer ports than a load generator has connections, but loopback has 16 million addresses, all of
//! them local. So a plan walks through the ports, and with each port through the addresses of its lane:
//!
//! ```text
//!   127.lane high.lane low.2 : 1024, .3 : 1024, ... .254 : 1024, .2 : 1025, ...    16 million per lane, then again
//! ```
//!
//! Ports that the kernel chooses (at the bind, or at the connect with IP_BIND_ADDRESS_NO_PORT) cost the same within the
//! noise, 9 to 12 µs of the client's CPU per dial at 100,000 connections, as does the order of ports before addresses;
//! but they are 28,000 per address, and a kernel that chooses the address too needs 600 µs when few ports are left
//! (Linux 6.18, 2 busy cores).

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Where dialled connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// Whatever the kernel chooses: about 28,000 connections to one address and port.
    Kernel,
    /// For targets in 127.0.0.0/8 addresses and ports of a lane, 16 million of them; for others as the kernel chooses.
    /// The lane should be nobody else's, neither another thread's nor another process's: a source that is taken costs
    /// another try.
    Loopback {
        /// Which 254 addresses: the second and third byte of 127.x.y.z.
        lane: u16,
    },
}

/// The first address of a lane, and how many follow it: the first two and the last may be special.
const HOST_FIRST: u8 = 2;
pub(super) const HOSTS: u32 = 253;
/// Ports below are for servers with privileges.
pub(super) const PORT_FIRST: u16 = 1024;
const PORTS: u32 = u16::MAX as u32 - PORT_FIRST as u32 + 1;

/// Walks through the sources for ever.
#[derive(Debug)]
pub(super) struct Plan {
    sources: Sources,
    /// Below `HOSTS * PORTS`.
    pub(super) position: u32,
}

impl Plan {
    /// Begins somewhere, so that a second run does not meet what the first has left in TIME_WAIT.
    pub(super) fn new(sources: Sources) -> Self {
        let port = RandomState::new().build_hasher().finish() % u64::from(PORTS);
        Self { sources, position: u32::try_from(port).unwrap_or(0) * HOSTS }
    }

    /// The source for the next connection to `target`, `None` to leave it to the kernel.
    pub(super) fn next(&mut self, target: Ipv4Addr) -> Option<SocketAddrV4> {
        let Sources::Loopback { lane } = self.sources else { return None };
        if !target.is_loopback() {
            return None;
        }
        let mut source = self.step(lane);
        if *source.ip() == target {
            source = self.step(lane);
        }
        Some(source)
    }

    fn step(&mut self, lane: u16) -> SocketAddrV4 {
        let (port, host) = (self.position / HOSTS, self.position % HOSTS);
        self.position = (self.position + 1) % (HOSTS * PORTS);
        let [high, low] = lane.to_be_bytes();
        let host = HOST_FIRST + u8::try_from(host).unwrap_or(0);
        SocketAddrV4::new(Ipv4Addr::new(127, high, low, host), PORT_FIRST + u16::try_from(port).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_lane_has_ten_million_sources_and_none_twice() {
        let target = Ipv4Addr::new(127, 0, 0, 7);
        let mut plan = Plan::new(Sources::Loopback { lane: 0 });
        let count = (HOSTS - 1) * PORTS;
        assert!(count > 10_000_000);
        let mut seen = vec![0_u64; (1 << 24) / 64 * 256];
        for _ in 0..count {
            let source = plan.next(target).unwrap();
            let [a, b, c, host] = source.ip().octets();
            assert!((a, b, c) == (127, 0, 0) && (2..255).contains(&host) && source.port() >= 1024);
            assert_ne!(*source.ip(), target);
            let bit = usize::from(host) << 16 | usize::from(source.port());
            assert!(seen[bit / 64] & 1 << (bit % 64) == 0, "{source} twice");
            seen[bit / 64] |= 1 << (bit % 64);
        }
        let again = plan.next(target).unwrap();
        let bit = usize::from(again.ip().octets()[3]) << 16 | usize::from(again.port());
        assert!(seen[bit / 64] & 1 << (bit % 64) != 0, "then it begins again");
    }

    #[test]
    fn lanes_share_no_address_and_the_last_is_like_the_first() {
        let mut addresses = std::collections::HashSet::new();
        for lane in [0, 1, 256, u16::MAX] {
            let mut plan = Plan::new(Sources::Loopback { lane });
            for _ in 0..HOSTS {
                let source = plan.next(Ipv4Addr::LOCALHOST).unwrap();
                assert!(source.ip().is_loopback() && addresses.insert(*source.ip()), "{source}");
            }
        }
    }

    #[test]
    fn other_targets_are_left_to_the_kernel() {
        assert_eq!(Plan::new(Sources::Kernel).next(Ipv4Addr::LOCALHOST), None);
        assert_eq!(Plan::new(Sources::Loopback { lane: 3 }).next(Ipv4Addr::new(192, 0, 2, 1)), None);
    }
}
