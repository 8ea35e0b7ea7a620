//! Which addresses there are, by arithmetic: no table says who comes from where.
//!
//! All lie in 198.18.0.0/15, which is kept for benchmarks and never routed (RFC 2544, RFC 6890). The server has
//! 198.18.0.1. The clients of device `n` have the `n`-th block of 4,096 addresses of 198.19.0.0/16, of which the device
//! takes one and two are broadcast addresses; each of the others has 64,512 ports.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Where servers listen.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Bits of a block's prefix.
const PREFIX: u32 = 20;
/// Devices that a namespace has blocks for.
pub const DEVICES_MAX: u8 = 16;
/// The lowest port; those below are for services.
const PORT_MIN: u16 = 1024;
const PORTS: u32 = u16::MAX as u32 - PORT_MIN as u32 + 1;
/// Addresses of a block that clients do not get at its beginning: the subnet's own, and the device's.
const RESERVED: u32 = 2;
/// Addresses of a block that clients get: the last is the subnet's broadcast.
const ADDRESSES: u32 = (1 << (32 - PREFIX)) - RESERVED - 1;

/// Connections that one device has addresses for.
pub const CONNECTIONS_MAX: u32 = ADDRESSES * PORTS;

/// The addresses of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The subnet's own address.
    base: u32,
}

impl Block {
    /// That of this device, the first being 0.
    pub(super) fn new(device: u8) -> Self {
        let base = u32::from(Ipv4Addr::new(198, 19, 0, 0));
        Self { base: base + (u32::from(device % DEVICES_MAX) << (32 - PREFIX)) }
    }

    /// The device's own address.
    pub(super) fn device(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// The mask that the device's address has.
    pub(super) fn mask() -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX << (32 - PREFIX))
    }

    /// Where the connection with this index comes from. Neighbours share an address. Indexes beyond
    /// [`CONNECTIONS_MAX`] begin again.
    pub(super) fn source(self, index: u32) -> SocketAddrV4 {
        let index = index % CONNECTIONS_MAX;
        let port = u16::try_from(index % PORTS).unwrap_or(0) + PORT_MIN;
        SocketAddrV4::new(Ipv4Addr::from(self.base + RESERVED + index / PORTS), port)
    }

    /// The index back.
    pub(super) fn index(self, source: SocketAddrV4) -> Option<u32> {
        let address = u32::from(*source.ip()).checked_sub(self.base + RESERVED).filter(|at| *at < ADDRESSES)?;
        let port = source.port().checked_sub(PORT_MIN)?;
        Some(address * PORTS + u32::from(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_survives_its_address() {
        for device in 0..DEVICES_MAX {
            let block = Block::new(device);
            for index in [0, 1, PORTS - 1, PORTS, 4_999_999, CONNECTIONS_MAX - 1] {
                let source = block.source(index);
                assert_eq!(block.index(source), Some(index));
                assert!(source.port() >= PORT_MIN && *source.ip() != block.device());
                assert_eq!(u32::from(*source.ip()) & u32::from(Block::mask()), block.base);
                assert_eq!(Block::new((device + 1) % DEVICES_MAX).index(source), None);
            }
        }
    }

    #[test]
    fn addresses_of_nobody_have_no_index() {
        let block = Block::new(3);
        for (address, port) in [(block.base, 1024), (block.base + 1, 1024), (block.base + 4095, 1024), (0, 1024)] {
            assert_eq!(block.index(SocketAddrV4::new(Ipv4Addr::from(address), port)), None);
        }
        assert_eq!(block.index(SocketAddrV4::new(Ipv4Addr::from(block.base + 2), 1023)), None);
    }
}
