//! Who connects: the address of an accepted socket.
//!
//! A multishot accept has no room for addresses, and a direct descriptor has no `getpeername`. So each accepted socket is
//! asked for its peer by a request, which completes as it is submitted, and is told upward with the answer. A socket
//! whose address cannot be had is told without.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::accept::place;
use super::request::{self, Done};
use super::{Completion, Uring};
use crate::id::ListenerId;
use crate::io::Accepted;
use crate::io::sys::Region;

/// Bytes of a `sockaddr_in` and a `sockaddr_in6`.
const V4_LEN: u32 = 16;
const V6_LEN: u32 = 28;

/// How long the addresses of a listener's clients are.
pub(super) const fn address_len(local: Option<SocketAddr>) -> u32 {
    match local {
        Some(SocketAddr::V4(_)) => V4_LEN,
        Some(SocketAddr::V6(_)) => V6_LEN,
        None => 0,
    }
}

/// An accepted socket whose peer is not known yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unnamed {
    pub(super) listener: ListenerId,
    pub(super) socket: u64,
    /// Bytes of its address.
    pub(super) len: u32,
}

/// Places for the kernel's answers.
#[derive(Debug)]
pub(super) struct Names {
    memory: Region,
    /// Who waits, by place.
    waiting: Vec<Option<Unnamed>>,
    free: Vec<u32>,
    /// Who waits for a place.
    queue: VecDeque<Unnamed>,
}

impl Names {
    /// Bytes of a place: a `sockaddr_in6` and some.
    const PLACE: usize = 32;
    /// Places at most, twice as many as one submission has requests.
    const COUNT: usize = 1024;

    pub(super) fn new() -> io::Result<Self> {
        let memory = Region::new(Self::COUNT * Self::PLACE)?;
        Ok(Self { memory, waiting: Vec::new(), free: Vec::new(), queue: VecDeque::new() })
    }

    /// A place for one more answer.
    fn take(&mut self, unnamed: Unnamed) -> Option<(u32, *mut u8)> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.waiting.len() < Self::COUNT => {
                self.waiting.push(None);
                u32::try_from(self.waiting.len() - 1).unwrap_or(0)
            }
            None => return None,
        };
        self.waiting[place as usize] = Some(unnamed);
        Some((place, self.memory.at(place as usize * Self::PLACE, Self::PLACE)))
    }

    /// Who waited at this place, and the bytes that are there now. The place is free again.
    fn give(&mut self, place: u32) -> Option<(Unnamed, [u8; Self::PLACE])> {
        let unnamed = self.waiting.get_mut(place as usize)?.take()?;
        self.free.push(place);
        let start = self.memory.at(place as usize * Self::PLACE, Self::PLACE).cast::<[u8; Self::PLACE]>();
        // SAFETY: inside the region (checked), initialized (mapped as zeros), bytes need no alignment, and the request
        // that wrote here has completed.
        Some((unnamed, unsafe { start.read() }))
    }
}

impl Uring {
    /// Finds out who has connected, and tells of the connection then.
    pub(super) fn ask_for_peer(&mut self, unnamed: Unnamed) {
        if unnamed.len == 0 {
            return self.tell_accepted(unnamed, None);
        }
        let (ring, slot) = place(unnamed.socket);
        match self.names.take(unnamed) {
            Some((place, memory)) => self.push(ring, &request::peer_name(slot, memory, unnamed.len, u64::from(place))),
            None => self.names.queue.push_back(unnamed),
        }
    }

    pub(super) fn on_peer(&mut self, done: &Done) {
        let Some((unnamed, bytes)) = u32::try_from(done.about).ok().and_then(|place| self.names.give(place)) else {
            return;
        };
        let len = usize::try_from(done.result).unwrap_or(0).min(bytes.len());
        self.tell_accepted(unnamed, parse(&bytes[..len]));
        if let Some(next) = self.names.queue.pop_front() {
            self.ask_for_peer(next);
        }
    }

    fn tell_accepted(&mut self, unnamed: Unnamed, peer: Option<SocketAddr>) {
        let Unnamed { listener, socket, .. } = unnamed;
        self.done.push_back(Completion::Accepted(Accepted { listener, socket, peer }));
    }
}

/// What a `sockaddr_in` or a `sockaddr_in6` says.
fn parse(raw: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes([*raw.first()?, *raw.get(1)?]);
    let port = u16::from_be_bytes([*raw.get(2)?, *raw.get(3)?]);
    let ip = match i32::from(family) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(raw.get(4..8)?).ok()?)),
        // Four bytes of flow label are between.
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(raw.get(8..24)?).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let four = request::raw_address("10.1.2.3:65535".parse().unwrap());
        assert_eq!(parse(&four), Some("10.1.2.3:65535".parse().unwrap()));
        let mut six = [0; 28];
        six[..2].copy_from_slice(&10_u16.to_ne_bytes());
        six[2..4].copy_from_slice(&443_u16.to_be_bytes());
        six[8..24].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(parse(&six), Some("[2001:db8::7]:443".parse().unwrap()));
        assert_eq!(parse(&six[..23]), None);
        assert_eq!(parse(&[1, 0, 0, 0]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn places_run_out_and_come_back() {
        let unnamed = Unnamed { listener: ListenerId(0), socket: 7, len: V4_LEN };
        let mut names = Names::new().unwrap();
        assert!((0..Names::COUNT).all(|_| names.take(unnamed).is_some()));
        assert!(names.take(unnamed).is_none());
        assert!(names.give(5).is_some() && names.give(5).is_none() && names.give(u32::MAX).is_none());
        assert_eq!(names.take(unnamed).map(|(place, _)| place), Some(5));
    }
}
