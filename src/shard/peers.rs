//! Where connections come from, beside the table: eight bytes each, IPv6 somewhere else.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use hashbrown::HashMap;

use super::addresses::Marks;
use super::core::Core;
use crate::id::ConnId;

/// What is kept by index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Place {
    ip: u32,
    port: u16,
    /// Where to look.
    family: Family,
    marks: Marks,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
enum Family {
    #[default]
    Unknown,
    /// Here.
    V4,
    /// In the map.
    V6,
}

const _: () = assert!(size_of::<Place>() == 8);

/// The addresses of a shard's clients, by index in its table. The room for all is reserved at the start and touched only
/// as it is used.
#[derive(Debug)]
pub(super) struct Peers {
    places: Vec<Place>,
    others: HashMap<u32, SocketAddr>,
}

impl Peers {
    pub(super) fn new(connections_max: usize) -> Self {
        Self { places: Vec::with_capacity(connections_max), others: HashMap::new() }
    }

    /// Notes who has an index now.
    pub(super) fn set(&mut self, index: u32, peer: Option<SocketAddr>, marks: Marks) {
        let at = index as usize;
        if at >= self.places.len() {
            if peer.is_none() && marks == Marks::default() {
                return;
            }
            self.places.resize(at + 1, Place::default());
        }
        if self.places[at].family == Family::V6 {
            self.others.remove(&index);
        }
        self.places[at] = match peer {
            Some(SocketAddr::V4(peer)) => {
                Place { ip: peer.ip().to_bits(), port: peer.port(), family: Family::V4, marks }
            }
            Some(peer @ SocketAddr::V6(_)) => {
                self.others.insert(index, peer);
                Place { family: Family::V6, marks, ..Place::default() }
            }
            None => Place { marks, ..Place::default() },
        };
    }

    /// What is counted for who has an index.
    pub(super) fn marks(&self, index: u32) -> Marks {
        self.places.get(index as usize).map_or_else(Marks::default, |place| place.marks)
    }

    pub(super) fn mark(&mut self, index: u32, marks: Marks) {
        self.places.get_mut(index as usize).into_iter().for_each(|place| place.marks = marks);
    }

    /// Who has an index.
    pub(super) fn get(&self, index: u32) -> Option<SocketAddr> {
        let place = self.places.get(index as usize)?;
        match place.family {
            Family::Unknown => None,
            Family::V4 => Some(SocketAddrV4::new(Ipv4Addr::from_bits(place.ip), place.port).into()),
            Family::V6 => self.others.get(&index).copied(),
        }
    }
}

impl Core {
    /// The connection that bears an entry, if that is a stream.
    pub(super) fn bearer(&self, id: ConnId) -> Option<ConnId> {
        let extra = self.table.get(id)?.extra.as_deref()?;
        extra.borne.as_deref().map(|borne| borne.carrier)
    }

    /// The client's address; of a stream that of the connection which bears it. `None` where it is not known.
    #[must_use]
    pub fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        self.table.get(id)?;
        self.peers.get(self.bearer(id).unwrap_or(id).index())
    }
}

/// Who a client is, as logs and operators are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whence {
    /// Its address.
    Ip(SocketAddr),
    /// It came in at a Unix socket, and nobody said for whom.
    Unix,
}

impl fmt::Display for Whence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

impl Core {
    /// What is told of who a client is; `None` where nothing is known.
    pub(super) fn whence(&self, id: ConnId) -> Option<Whence> {
        let is_unix = || {
            let listener = self.table.get(id)?.listener();
            let entrance = self.entrances.get(usize::from(listener.0))?;
            entrance.is_unix().then_some(Whence::Unix)
        };
        self.peer(id).map(Whence::Ip).or_else(is_unix)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn an_index_has_the_address_that_was_set_last() {
        let mut peers = Peers::new(2);
        let of = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
        peers.set(3, of("10.0.0.1:65535"), Marks::default());
        peers.set(1, of("[2001:db8::1]:7"), Marks::default());
        assert_eq!((peers.get(3), peers.get(1)), (of("10.0.0.1:65535"), of("[2001:db8::1]:7")));
        assert_eq!((peers.get(0), peers.get(4)), (None, None));
        peers.set(1, of("0.0.0.0:0"), Marks::default());
        assert_eq!((peers.get(1), peers.others.len()), (of("0.0.0.0:0"), 0));
        peers.set(3, of("10.0.0.1:1"), Marks::COUNTED);
        peers.mark(3, peers.marks(3).with(Marks::SHAKING));
        peers.mark(90, Marks::COUNTED);
        assert_eq!((peers.marks(3), peers.marks(90)), (Marks::COUNTED.with(Marks::SHAKING), Marks::default()));
        peers.set(3, None, Marks::default());
        peers.set(90, None, Marks::default());
        assert_eq!((peers.get(3), peers.places.len()), (None, 4));
    }
}
