//! Accepting: which listener accepts into which ring.
//!
//! A listener accepts into one ring at a time, the one with the most free slots. While there are many, one multishot
//! accept does all the work. A multishot accept that meets a full table drops the connection it has just taken, so
//! near the end of a table it is replaced by single accepts, never more than there are slots. When a table is full the
//! listener moves on to another ring, made if need be; when all are full it waits for a slot.
//!
//! A listener that closes is looked at once more when its accepts have come back: who waits there until then is taken.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::peer::{self, Unnamed};
use super::request::{self, Done, Kind};
use super::ring::{COMPLETIONS, Filler, Ring};
use super::{Completion, Uring};
use crate::id::ListenerId;
use crate::io::syn_filter::{self, Source};
use crate::io::{Accepted, Backlog};

/// Free slots from which on a multishot accept is safe. It takes all that the listener's queue has in one system call,
/// and ends only when no completion has room any more: so many, by all listeners of a ring together.
const FREE_FOR_MULTISHOT: u32 = COMPLETIONS;
/// Single accepts that are out at a time.
const SINGLES_MAX: u32 = 16;
/// How long a listener rests after the kernel was out of descriptors or memory, unless a slot gets free.
const REST: Duration = Duration::from_millis(100);

/// A listener and its requests.
#[derive(Debug)]
pub(super) struct Listener {
    id: ListenerId,
    /// `None` once it is closed.
    socket: Option<TcpListener>,
    /// Bytes of its clients' addresses, 0 where they have none.
    address_len: u32,
    /// Where its requests are.
    ring: usize,
    /// How many.
    out: u32,
    multishot: bool,
    cancelling: bool,
    /// It closes when nobody waits there.
    closing: bool,
    rest_until: Option<Instant>,
    /// It has a filter, and so have those who come from it.
    filtered: bool,
}

impl Listener {
    /// Whether it may still hand out a connection.
    pub(super) const fn is_open(&self) -> bool {
        self.socket.is_some() || self.out > 0
    }

    /// Leaves the socket to others who have it too, and set their own filter.
    fn leave(&mut self) {
        if let Some(socket) = self.socket.take().filter(|_| self.filtered) {
            let _ = syn_filter::clear(&socket);
        }
    }

    /// Whether a connection waits to be taken.
    fn has_waiting(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        let mut looked = [PollFd::new(socket, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut looked, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }
}

/// Which slot of which ring, in `Accepted::socket`.
const fn socket(ring: usize, slot: u32) -> u64 {
    (ring as u64) << 32 | slot as u64
}

/// The reverse of [`socket`].
pub(super) fn place(socket: u64) -> (usize, u32) {
    ((socket >> 32) as usize, (socket & 0xffff_ffff) as u32)
}

impl Uring {
    pub(super) fn add_listener(&mut self, id: ListenerId, socket: TcpListener) {
        // Whoever had it before may have left it with a filter.
        let _ = syn_filter::clear(&socket);
        let address_len = peer::address_len(socket.local_addr().ok());
        self.listeners.push(Listener {
            id,
            socket: Some(socket),
            address_len,
            ring: 0,
            out: 0,
            multishot: false,
            cancelling: false,
            closing: false,
            rest_until: None,
            filtered: false,
        });
        self.accept_changed = true;
    }

    pub(super) fn filter_listener(&mut self, id: ListenerId, sources: &[Source]) -> io::Result<()> {
        for listener in self.listeners.iter_mut().filter(|listener| listener.id == id && listener.address_len > 0) {
            if let Some(socket) = listener.socket.as_ref().filter(|_| listener.filtered || !sources.is_empty()) {
                syn_filter::set(socket, sources)?;
                listener.filtered = !sources.is_empty();
            }
        }
        Ok(())
    }

    /// Takes what an accepted socket has of its listener's filter off.
    pub(super) fn clear_filter(&mut self, accepted: &Accepted) {
        if self.listeners.iter().any(|listener| listener.id == accepted.listener && listener.filtered) {
            let (ring, slot) = place(accepted.socket);
            self.push(ring, &request::no_filter(slot));
        }
    }

    pub(super) fn close_listener(&mut self, id: ListenerId, backlog: Backlog) {
        for position in 0..self.listeners.len() {
            if self.listeners[position].id != id {
                continue;
            }
            self.cancel_accepts(position);
            let listener = &mut self.listeners[position];
            listener.closing = true;
            if backlog == Backlog::Leave {
                listener.leave();
            }
        }
        self.accept_changed = true;
        // Whoever waits for it to have closed is waiting for no completion.
        self.rung = true;
    }

    /// Closes a listener whose accepts have come back, unless somebody waits there.
    fn close_when_empty(&mut self, position: usize) {
        let listener = &self.listeners[position];
        if listener.out > 0 || listener.cancelling {
            return self.cancel_accepts(position);
        }
        if !listener.has_waiting() {
            self.listeners[position].socket = None;
            self.rung = true;
            return;
        }
        if self.find_ring(position) {
            self.arm_accepts(position);
            // They have taken all when they are submitted, and have come back when the shard looks next.
            self.rung = true;
        }
    }

    /// When a resting listener wants to try again.
    pub(super) fn accept_deadline(&self) -> Option<Instant> {
        self.listeners.iter().filter(|listener| listener.socket.is_some()).filter_map(|it| it.rest_until).min()
    }

    /// A slot got free.
    pub(super) fn freed(&mut self, ring: usize, slot: u32) {
        self.rings[ring].give_slot(slot);
        self.accept_changed = true;
        self.listeners.iter_mut().for_each(|listener| listener.rest_until = None);
    }

    /// Sees to it that each listener has the right requests out.
    pub(super) fn balance(&mut self) {
        if !self.accept_changed && self.accept_deadline().is_none_or(|deadline| deadline > Instant::now()) {
            return;
        }
        self.accept_changed = false;
        let count = self.listeners.len();
        // Each time another one is first, for the case that there is one slot.
        self.first_listener = (self.first_listener + 1) % count.max(1);
        for step in 0..count {
            self.balance_one((self.first_listener + step) % count);
        }
    }

    fn balance_one(&mut self, position: usize) {
        let listener = &mut self.listeners[position];
        if listener.socket.is_none() || self.accept_paused {
            listener.rest_until = None;
            return self.cancel_accepts(position);
        }
        if listener.rest_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        listener.rest_until = None;
        if listener.closing {
            return self.close_when_empty(position);
        }
        let free = self.rings[listener.ring].free();
        let (out, multishot) = (listener.out, listener.multishot);
        if out > 0 && multishot {
            if free <= FREE_FOR_MULTISHOT {
                self.cancel_accepts(position);
            }
            return;
        }
        if out > 0 && free > 2 * FREE_FOR_MULTISHOT {
            return self.cancel_accepts(position);
        }
        if out > 0 || self.find_ring(position) {
            self.arm_accepts(position);
        }
    }

    /// Chooses where a listener accepts into, if there is room for it.
    fn find_ring(&mut self, position: usize) -> bool {
        match self.roomy_ring() {
            Ok(Some(ring)) => {
                self.rings[ring].filler = Some(Filler::Accepts);
                self.listeners[position].ring = ring;
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.accept_failed(position, error.kind());
                false
            }
        }
    }

    fn arm_accepts(&mut self, position: usize) {
        let listener = &mut self.listeners[position];
        let Some(socket) = &listener.socket else { return };
        if listener.cancelling {
            return;
        }
        let (fd, ring) = (socket.as_raw_fd(), listener.ring);
        let free = self.rings[ring].free();
        listener.multishot = listener.out == 0 && free > FREE_FOR_MULTISHOT;
        if listener.multishot {
            listener.out = 1;
            return self.push(ring, &request::accept(fd, position as u64));
        }
        let more = free.min(self.singles_share(ring).saturating_sub(self.listeners[position].out));
        let listener = &mut self.listeners[position];
        listener.out += more;
        self.rings[ring].reserved += more;
        for _ in 0..more {
            self.push(ring, &request::accept_one(fd, position as u64));
        }
    }

    /// Single accepts that one listener may have out in this ring, so that none takes the last slots from the others.
    fn singles_share(&self, ring: usize) -> u32 {
        let open = self.listeners.iter().filter(|listener| listener.socket.is_some()).count();
        let ring = &self.rings[ring];
        let share = (ring.free() + ring.reserved) / u32::try_from(open).unwrap_or(u32::MAX).max(1);
        share.clamp(1, SINGLES_MAX)
    }

    fn cancel_accepts(&mut self, position: usize) {
        let listener = &mut self.listeners[position];
        if listener.out == 0 || listener.cancelling {
            return;
        }
        listener.cancelling = true;
        let kind = if listener.multishot { Kind::Accept } else { Kind::AcceptOne };
        let ring = listener.ring;
        self.push(ring, &request::cancel_accept(kind, position as u64));
    }

    /// The ring with the most free slots, a new one if all are full, `None` if there may be no more.
    fn roomy_ring(&mut self) -> io::Result<Option<usize>> {
        let roomy = self.rings.iter().enumerate().filter(|(_, ring)| ring.has_room_for(Filler::Accepts));
        match roomy.rev().max_by_key(|(_, ring)| ring.free()) {
            Some((ring, _)) => Ok(Some(ring)),
            None => self.add_ring(),
        }
    }

    /// One more ring, `None` if there may be no more.
    pub(super) fn add_ring(&mut self) -> io::Result<Option<usize>> {
        if self.rings.len() >= self.rings_max {
            return Ok(None);
        }
        self.rings.push(Ring::new(self.slots, Some(self.kick.as_raw_fd()))?);
        Ok(Some(self.rings.len() - 1))
    }

    fn accept_failed(&mut self, position: usize, kind: io::ErrorKind) {
        let listener = &mut self.listeners[position];
        listener.rest_until = Some(Instant::now() + REST);
        self.done.push_back(Completion::AcceptFailed(listener.id, kind));
    }

    pub(super) fn on_accept(&mut self, ring: usize, done: &Done) {
        let position = usize::try_from(done.about).unwrap_or(usize::MAX);
        let Some(listener) = self.listeners.get_mut(position) else { return };
        self.accept_changed = true;
        if !done.more() {
            listener.out = listener.out.saturating_sub(1);
        }
        if done.kind == Kind::AcceptOne {
            self.rings[ring].reserved = self.rings[ring].reserved.saturating_sub(1);
        }
        let (id, closed, multishot) = (listener.id, listener.socket.is_none(), listener.multishot);
        match done.errno() {
            0 => {
                self.rings[ring].used += 1;
                // Now, not when all that a storm brings has been seen: the next system call may meet a full table.
                if multishot && done.more() && self.rings[ring].free() <= FREE_FOR_MULTISHOT {
                    self.cancel_accepts(position);
                }
                let socket = socket(ring, done.result.unsigned_abs());
                self.untold += 1;
                self.ask_for_peer(Unnamed { listener: id, socket, len: self.listeners[position].address_len });
            }
            // Cancelled, or that one connection is gone before we had it: accept(2), "Error handling".
            libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO | libc::EPERM => {}
            _ if closed => {}
            errno => self.accept_failed(position, io::Error::from_raw_os_error(errno).kind()),
        }
    }

    pub(super) fn on_cancel_accept(&mut self, done: &Done) {
        let position = usize::try_from(done.about).unwrap_or(usize::MAX);
        if let Some(listener) = self.listeners.get_mut(position) {
            listener.cancelling = false;
            self.accept_changed = true;
        }
    }
}
