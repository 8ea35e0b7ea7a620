//! Dialling, seen from inside: rings, slots, sources and errors that a test cannot bring about from outside.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::*;
use crate::io::Dial;
use crate::io::uring::sources::{HOSTS, PORT_FIRST};

fn loopback(connections: usize, slots: u32) -> Config {
    Config {
        sources: Sources::Loopback { lane: 0xfe00 | (std::process::id() & 0xff) as u16 },
        ..small(connections, slots)
    }
}

impl Shard {
    fn dial(&mut self, index: u32) -> ConnId {
        let id = ConnId::new(index, 0);
        let SocketAddr::V4(to) = self.address else { panic!("IPv4") };
        self.open.insert(id);
        self.uring.dial(id, to, &(*b"hello").into());
        id
    }
}

#[test]
fn rings_are_dialled_into_or_accepted_into() {
    let mut shard = Shard::new(loopback(40, 4));
    for index in 0..16 {
        let id = shard.dial(1000 + index);
        shard.until(|shard| shard.saw(id, "writable") == 1 && shard.next_index == index + 1);
    }
    let dialled: u32 =
        shard.uring.rings.iter().filter(|ring| ring.filler == Some(Filler::Dials)).map(|ring| ring.used).sum();
    assert_eq!((dialled, shard.slots_used()), (16, 32));
    shard.until(|shard| shard.received.values().filter(|bytes| *bytes == b"hello").count() == 16);
    let ids: Vec<_> = shard.open.iter().copied().collect();
    ids.iter().for_each(|id| shard.uring.close(*id, Ending::Graceful));
    shard.until(|shard| shard.open.is_empty());
    assert_eq!((shard.slots_used(), shard.uring.dials.in_the_opening()), (0, 0));
}

#[test]
fn thousands_that_are_being_dialled_can_be_closed_at_once() {
    const COUNT: u32 = 3000;
    let mut shard = Shard::new(loopback(COUNT as usize, 4096));
    shard.accepting = false;
    let ids: Vec<_> = (0..COUNT).map(|index| shard.dial(1000 + index)).collect();
    ids.iter().for_each(|id| shard.uring.close(*id, Ending::Graceful));
    shard.until(|shard| shard.open.is_empty());
    assert_eq!(shard.uring.dials.in_the_opening(), 0);
}

#[test]
fn a_cancellation_that_found_nothing_is_not_repeated_among_completions() {
    let mut shard = Shard::new(loopback(4, 4));
    shard.accepting = false;
    let id = shard.dial(1000);
    shard.uring.close(id, Ending::Graceful);
    let (listed, ring) = (std::mem::take(&mut shard.uring.listed), PRIMARY);
    shard.uring.rings[ring].listed = false;
    shard.uring.handle(ring, &Done::failed(Kind::CancelDial, id.bits(), libc::ENOENT));
    assert_eq!((shard.uring.listed.as_slice(), shard.uring.missed.len()), (&[][..], 1));
    shard.uring.listed = listed;
    shard.until(|shard| shard.open.is_empty() && shard.uring.missed.is_empty());
}

#[test]
fn the_limit_that_a_socket_met_is_told() {
    let limits = [
        (libc::ENFILE, ErrorKind::QuotaExceeded),
        (libc::EMFILE, ErrorKind::QuotaExceeded),
        (libc::ENOBUFS, ErrorKind::OutOfMemory),
        (libc::ENOMEM, ErrorKind::OutOfMemory),
    ];
    let mut shard = Shard::new(loopback(4, 4));
    for (index, (errno, kind)) in (0..).zip(limits) {
        let id = shard.dial(1000 + index);
        shard.uring.on_dial(&Done::failed(Kind::DialSocket, id.bits(), errno));
        shard.uring.on_dial(&Done::failed(Kind::DialBind, id.bits(), libc::EBADF));
        let told = shard.uring.done.pop_back();
        assert!(matches!(told, Some(Completion::Failed(it, as_kind)) if it == id && as_kind == kind), "{told:?}");
    }
}

#[test]
fn the_search_for_a_free_source_ends() {
    let mut shard = Shard::new(loopback(4, 4));
    // So many ports in a row, taken on all addresses.
    let mut taken: Vec<TcpListener> = Vec::new();
    let mut port = 20_000;
    while taken.len() < 6 {
        port += 1;
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Ok(listener) => taken.push(listener),
            Err(_) => taken.clear(),
        }
    }
    let first = port - 5;
    shard.uring.dials.sources.position = u32::from(first - PORT_FIRST) * HOSTS;
    let id = shard.dial(1000);
    shard.until(|shard| shard.saw(id, "failed") == 1);
    assert_eq!(shard.why, Some(ErrorKind::AddrInUse));
    let tried = shard.uring.dials.sources.position - u32::from(first - PORT_FIRST) * HOSTS;
    assert_eq!(tried, 1025);
    shard.close(id, Ending::Graceful);
    taken.clear();
    let id = shard.dial(1001);
    shard.until(|shard| shard.saw(id, "writable") == 1);
}

#[test]
fn where_no_ring_can_be_made_the_dial_fails_and_closes() {
    let mut shard = Shard::new(loopback(3, 4));
    // The listener has the only ring.
    let (_stream, _) = shard.pair();
    let id = shard.dial(1000);
    shard.until(|shard| shard.saw(id, "failed") == 1);
    shard.uring.send(id, Out::Bytes(b"into nothing"), 5);
    shard.turn();
    assert!(shard.shorts.iter().any(|short| short.tag == 5 && short.sent.is_err()));
    shard.close(id, Ending::Reset);
    assert_eq!(shard.slots_used(), 1);
}

#[test]
fn a_raw_address_is_a_sockaddr_in() {
    let raw = request::raw_address(SocketAddrV4::new(Ipv4Addr::new(127, 1, 2, 3), 0x1234));
    assert_eq!(raw[2..8], [0x12, 0x34, 127, 1, 2, 3]);
    assert_eq!(u16::from_ne_bytes([raw[0], raw[1]]), 2);
    assert_eq!(raw.len(), size_of::<libc::sockaddr_in>());
}
