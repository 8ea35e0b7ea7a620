//! Dialling: connections that this end opens.
//!
//! ```text
//!   socket into a slot, no delay   run when they are submitted, one after the other
//!   bind -> connect -> hello       a chain: each begins when the one before has succeeded
//! ```
//!
//! The requests come back once in all: the chain's last, or whichever failed. Only a planned source is bound (see
//! [`super::sources`]), and one that is taken already is tried again with the next. The slots are ours to choose, so
//! rings that are dialled into are not accepted into.
//!
//! While a connection is being opened it has an entry in `Dials::pending` beside its eight bytes. It keeps the hello
//! alive until the kernel has sent it, and is gone with the last completion of the chain.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;

use super::request::{self, ADDRESS_BYTES, Done, Kind};
use super::ring::Filler;
use super::sources::{Plan, Sources};
use super::table::{CLOSING, DIAL, NO_SLOT};
use super::{Completion, PRIMARY, Uring};
use crate::id::ConnId;
use crate::io::Dial;

/// Requests of one dial at most.
const REQUESTS_MAX: usize = 5;
/// Sources tried for one connection at most. A port that somebody has on all addresses takes 253 from the plan.
const TRIES_MAX: u16 = 1024;
/// Connections in the opening for which memory is kept when there are none.
const PENDING_KEPT: usize = 4096;

/// A connection that is being opened.
#[derive(Debug)]
struct Pending {
    to: SocketAddrV4,
    hello: Arc<[u8]>,
    tries: u16,
}

/// All that are being opened.
#[derive(Debug)]
pub(super) struct Dials {
    pub(super) sources: Plan,
    pending: HashMap<ConnId, Pending>,
    /// Those that want another source.
    again: VecDeque<ConnId>,
    /// Where there was a free slot last.
    ring: usize,
    /// Why the last socket could not be made.
    no_socket: i32,
}

impl Dials {
    pub(super) fn new(sources: Sources) -> Self {
        let (pending, again) = (HashMap::new(), VecDeque::new());
        Self { sources: Plan::new(sources), pending, again, ring: PRIMARY, no_socket: libc::EBADF }
    }

    #[cfg(test)]
    pub(super) fn in_the_opening(&self) -> usize {
        self.pending.len()
    }

    fn forget(&mut self, id: ConnId) {
        self.pending.remove(&id);
        if self.pending.is_empty() {
            self.pending.shrink_to(PENDING_KEPT);
        }
    }
}

impl Dial for Uring {
    fn dial(&mut self, id: ConnId, to: SocketAddrV4, hello: &Arc<[u8]>) {
        match self.slot_to_dial() {
            Ok((ring, slot)) => {
                self.table.attach(id, u32::try_from(ring).unwrap_or(0), slot);
                if let Some(entry) = self.table.get(id) {
                    entry.set(DIAL);
                }
                self.dials.pending.insert(id, Pending { to, hello: Arc::clone(hello), tries: 0 });
                self.make_socket(id);
            }
            Err(error) => {
                self.table.attach(id, 0, NO_SLOT);
                self.fail(id, error.raw_os_error().unwrap_or(libc::ENOMEM));
            }
        }
    }
}

impl Uring {
    /// A slot in a ring that is dialled into, or in a new one.
    fn slot_to_dial(&mut self) -> io::Result<(usize, u32)> {
        let count = self.rings.len();
        let from = self.dials.ring;
        let mut rings = (0..count).map(|step| (from + step) % count);
        let ring = match rings.find(|&ring| self.rings[ring].has_room_for(Filler::Dials)) {
            Some(ring) => Some(ring),
            None => self.add_ring()?,
        };
        let taken = ring.and_then(|ring| Some((ring, self.rings[ring].take_slot()?)));
        self.dials.ring = taken.map_or(from, |(ring, _)| ring);
        taken.ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))
    }

    fn make_socket(&mut self, id: ConnId) {
        let Some(entry) = self.table.get(id) else { return };
        let (ring, slot) = (entry.ring(), entry.slot());
        self.push(ring, &request::socket(slot, id));
        self.push(ring, &request::no_delay(slot));
        self.connect(id);
    }

    /// Queues the chain. Not from within a completion: what lies in the arena must be submitted first.
    fn connect(&mut self, id: ConnId) {
        let (Some(entry), Some(pending)) = (self.table.get(id), self.dials.pending.get(&id)) else { return };
        let (ring, slot) = (entry.ring(), entry.slot());
        let (start, len) = (pending.hello.as_ptr(), u32::try_from(pending.hello.len()).unwrap_or(u32::MAX));
        let (to, from) = (pending.to, self.dials.sources.next(*pending.to.ip()));
        let mut addresses = [0; 2 * ADDRESS_BYTES];
        addresses[..ADDRESS_BYTES].copy_from_slice(&request::raw_address(to));
        addresses[ADDRESS_BYTES..].copy_from_slice(&request::raw_address(from.unwrap_or(to)));
        let Some(address) = self.copy(&addresses) else { return self.dial_over(id, libc::ENOMEM) };
        // A chain ends where a submission ends.
        if let Err(error) = self.rings[ring].make_room(REQUESTS_MAX) {
            self.broken = Some(error.kind());
        }
        if from.is_some() {
            self.push(ring, &request::bind(slot, address.wrapping_add(ADDRESS_BYTES), id));
        }
        self.push(ring, &request::connect(slot, address, len > 0, id));
        if len > 0 {
            self.push(ring, &request::hello(slot, start, len, id));
        }
    }

    /// Tries other sources for those whose was taken.
    pub(super) fn dial_again(&mut self) {
        for _ in 0..self.dials.again.len() {
            let Some(id) = self.dials.again.pop_front() else { return };
            match self.table.open(id) {
                Some(_) => self.connect(id),
                None => self.dial_over(id, libc::ECANCELED),
            }
        }
    }

    pub(super) fn on_dial(&mut self, done: &Done) {
        let id = done.id();
        if done.kind == Kind::DialSocket {
            self.dials.no_socket = done.errno();
            return;
        }
        if self.table.get(id).is_none_or(|entry| !entry.has(DIAL)) {
            return;
        }
        let Some(pending) = self.dials.pending.get_mut(&id) else { return };
        let whole = pending.hello.is_empty() || done.result.unsigned_abs() as usize == pending.hello.len();
        match done.errno() {
            libc::EADDRINUSE if done.kind == Kind::DialBind && pending.tries < TRIES_MAX => {
                pending.tries += 1;
                self.dials.again.push_back(id);
            }
            // The slot is empty.
            libc::EBADF => self.dial_over(id, self.dials.no_socket),
            0 if !whole => self.dial_over(id, libc::EPIPE),
            errno => self.dial_over(id, errno),
        }
    }

    /// It stands (0), or does not.
    fn dial_over(&mut self, id: ConnId, errno: i32) {
        self.dials.forget(id);
        let Some(entry) = self.table.get(id) else { return };
        entry.clear(DIAL);
        if entry.has(CLOSING) {
            return self.close_slot(id);
        }
        if errno != 0 {
            return self.fail(id, errno);
        }
        self.done.push_back(Completion::Writable(id));
        self.settle(id);
    }
}
