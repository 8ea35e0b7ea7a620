//! The client's side of TCP for millions of connections, sans-I/O: packets and the time in, packets and completions out.
//!
//! It follows RFC 9293 as far as a client needs that keeps nothing it can do without:
//!
//! - Bytes that come in order are lent where they lie in their packet. What comes before its turn is answered with a
//!   duplicate acknowledgement, so that the peer sends what is missing (RFC 5681 section 3.2), and held, see [`held`].
//! - Bytes are taken for sending as far as the peer's window has room, and sent at once. There is no congestion control:
//!   a window has at most 65,535 bytes, and the path has no bottleneck but its own loss. They are kept until they are
//!   acknowledged, and sent again after a fixed time that doubles, after three duplicate acknowledgements, and for each
//!   partial acknowledgement while a loss is mended (RFC 6582).
//! - Resets and SYNs inside the window get a challenge (RFC 5961). Keep-alives and window probes are answered.
//! - No scaling, no time stamps, no selective acknowledgements, no TIME-WAIT (see [`entry::State`] for why), no RTT
//!   estimate, no Nagle, no urgent data.
//!
//! An idle connection is one [`Entry`]. A busy one has a [`Flight`] too, and one with a hole in what it received is in
//! [`Held`].

mod entry;
mod flight;
mod held;
mod receive;
#[cfg(test)]
mod tests;
mod timers;
mod wire;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use self::entry::{Entry, State};
use self::flight::{Alarms, Flight};
use self::held::Held;
use self::wire::Wire;
use super::link::Vanish;
use super::outbox::Outbox;
use super::packet::{Bits, Checksums};
use super::plan::Block;
use crate::id::ConnId;
use crate::io::{Completion, Ending, Out};
use crate::time::Instant;

/// What the sequence numbers of the next connection of a port are beyond those of the last: more than any window.
const SEQUENCE_STEP: u32 = 1 << 17;

/// What a [`Tcp`] needs to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    pub(super) block: Block,
    pub(super) connections_max: usize,
    /// Bytes of a packet at most.
    pub(super) mtu: u16,
    pub(super) checksums: Checksums,
    /// What comes before each packet that goes out.
    pub(super) prefix: &'static [u8],
    /// How long to wait for an acknowledgement at first. It must be more than a peer may delay one.
    pub(super) retransmit_after: Duration,
    /// How often to try again before a connection fails.
    pub(super) retries: u8,
    pub(super) vanish: Option<Vanish>,
}

/// All connections of one device.
#[derive(Debug)]
pub(super) struct Tcp {
    entries: Vec<Entry>,
    flights: Slab<Flight>,
    alarms: Alarms,
    wire: Wire,
    /// Those that may owe an acknowledgement.
    owing: Vec<u32>,
    /// Bytes that came before their turn.
    held: Held,
    /// Those of whom some may be next now.
    filled: Vec<u32>,
    /// What the caller has not been told yet.
    told: VecDeque<Completion>,
    connections_max: usize,
    retries: u8,
    vanish: Option<Vanish>,
    vanished: u64,
}

impl Tcp {
    pub(super) fn new(config: Config) -> Self {
        Self {
            entries: Vec::with_capacity(config.connections_max),
            flights: Slab::new(),
            alarms: Alarms::new(config.retransmit_after),
            wire: Wire::new(config.block, config.mtu, config.checksums, config.prefix),
            owing: Vec::new(),
            held: Held::default(),
            filled: Vec::new(),
            told: VecDeque::new(),
            connections_max: config.connections_max,
            retries: config.retries,
            vanish: config.vanish,
            vanished: 0,
        }
    }

    /// Packets to send.
    pub(super) const fn out(&mut self) -> &mut Outbox {
        &mut self.wire.out
    }

    /// Segments sent again so far.
    pub(super) const fn repeated(&self) -> u64 {
        self.wire.repeated
    }

    /// Connections that fell silent so far.
    pub(super) const fn vanished(&self) -> u64 {
        self.vanished
    }

    /// Connections with something that is not acknowledged.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// What the caller has to hear. What became of connections that were closed meanwhile is left out.
    pub(super) fn next(&mut self) -> Option<Completion> {
        while let Some(completion) = self.told.pop_front() {
            let (Completion::Writable(id) | Completion::PeerClosed(id) | Completion::Failed(id, _)) = completion else {
                return Some(completion);
            };
            if self.entries.get(id.index() as usize).is_some_and(|entry| entry.is_of(id) && !entry.has(Entry::CLOSED)) {
                return Some(completion);
            }
        }
        None
    }

    /// Whether [`Tcp::next`] or [`Tcp::next_held`] may have something.
    pub(super) fn has_news(&self) -> bool {
        !self.told.is_empty() || !self.filled.is_empty()
    }

    /// Sends a SYN; `hello` follows as soon as it is answered.
    pub(super) fn dial(&mut self, id: ConnId, to: SocketAddrV4, hello: &Arc<[u8]>, now: Instant) {
        let is_inside = (id.index() as usize) < self.connections_max;
        let Some(target) = self.wire.target(to).filter(|_| is_inside) else {
            self.fail_at_once(id, ErrorKind::AddrNotAvailable);
            return;
        };
        self.begin(id, target);
        let entry = &mut self.entries[id.index() as usize];
        let first = entry.next_out.wrapping_add(SEQUENCE_STEP);
        entry.next_out = first.wrapping_add(1);
        let mut flight = Flight::new(id.index(), first);
        flight.unacked.push(Out::Shared(hello, 0, hello.len()), hello.len());
        let key = insert(&mut self.flights, entry, flight);
        self.wire.segment(id.index(), entry, Bits::SYN, first, &[]);
        self.set_alarm(key, now);
    }

    /// A connection that never was one. Its entry waits for a close like any other's.
    pub(super) fn fail_at_once(&mut self, id: ConnId, kind: ErrorKind) {
        self.begin(id, 0).state = State::Broken;
        self.told.push_back(Completion::Failed(id, kind));
    }

    /// Takes what the peer has room for, and sends it.
    pub(super) fn send(&mut self, id: ConnId, out: Out<'_>, now: Instant) -> Result<usize, ErrorKind> {
        let Some(entry) = self.find(id) else { return Err(ErrorKind::NotConnected) };
        if entry.state == State::SynSent {
            return Ok(0);
        }
        if !entry.sends() || entry.has(Entry::CLOSED) {
            return Err(ErrorKind::BrokenPipe);
        }
        let window = usize::from(entry.window);
        self.look_for_vanished(id.index(), now);
        let len = match out {
            Out::Bytes(bytes) => bytes.len(),
            Out::Shared(_, start, end) => end - start,
        };
        let queued = self.flight(id.index()).map_or(0, |flight| flight.unacked.bytes().len());
        let taken = len.min(window.saturating_sub(queued));
        if taken > 0 {
            let key = self.fly(id.index());
            self.flights[key as usize].unacked.push(out, taken);
            self.pump(key, now);
        }
        Ok(taken)
    }

    /// Tells once when there is room.
    pub(super) fn want_writable(&mut self, id: ConnId, now: Instant) {
        let Some(entry) = self.find(id) else { return };
        entry.set(Entry::WANTS_ROOM);
        if entry.state == State::SynSent {
            return;
        }
        self.tell_room(id.index());
        // While the peer's window is shut, nothing is in flight that would make it say when it opens.
        if self.entries[id.index() as usize].has(Entry::WANTS_ROOM) && self.flight(id.index()).is_none() {
            let key = self.fly(id.index());
            self.set_alarm(key, now);
        }
    }

    /// Shuts our window: what comes from now on is dropped, and the peer sends it again later.
    pub(super) fn pause(&mut self, id: ConnId) {
        if let Some(entry) = self.find(id) {
            entry.set(Entry::PAUSED);
        }
        self.owe_ack(id);
    }

    /// Opens it again.
    pub(super) fn resume(&mut self, id: ConnId) {
        if let Some(entry) = self.find(id) {
            entry.clear(Entry::PAUSED);
        }
        self.owe_ack(id);
    }

    /// Sends a FIN behind all that was taken.
    pub(super) fn shutdown(&mut self, id: ConnId, now: Instant) {
        let Some(entry) = self.find(id) else { return };
        entry.state = match entry.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            _ => return,
        };
        let key = self.fly(id.index());
        self.flights[key as usize].fin = true;
        self.pump(key, now);
    }

    /// Ends a connection. `Closed` is told when the peer has acknowledged our end and shown its own, or is given up;
    /// at once after a reset.
    pub(super) fn close(&mut self, id: ConnId, ending: Ending, now: Instant) {
        let Some(entry) = self.find(id) else { return };
        if entry.has(Entry::CLOSED) {
            return;
        }
        let is_mute = entry.has(Entry::VANISHED) || matches!(entry.state, State::SynSent | State::Broken | State::Done);
        if is_mute {
            self.end(id.index());
        } else if ending == Ending::Reset {
            self.reset(id.index());
        } else {
            // What still comes is received and dropped.
            entry.clear(Entry::PAUSED | Entry::WANTS_ROOM);
            entry.set(Entry::CLOSED);
            self.shutdown(id, now);
            self.linger(id.index(), now);
        }
    }

    /// Ends a connection of which its peer hears nothing any more.
    pub(super) fn vanish(&mut self, id: ConnId) {
        let Some(entry) = self.find(id) else { return };
        if !entry.has(Entry::VANISHED | Entry::CLOSED) {
            entry.set(Entry::VANISHED);
            self.vanished += 1;
            self.end(id.index());
        }
    }

    /// Sends the acknowledgements that nothing took along.
    pub(super) fn acknowledge(&mut self) {
        for index in self.owing.drain(..) {
            let entry = &mut self.entries[index as usize];
            if entry.has(Entry::OWES_ACK) {
                self.wire.ack(index, entry);
            }
        }
    }

    fn owe_ack(&mut self, id: ConnId) {
        if let Some(entry) = self.find(id)
            && !matches!(entry.state, State::SynSent | State::Broken)
            && !entry.has(Entry::OWES_ACK)
        {
            entry.set(Entry::OWES_ACK);
            self.owing.push(id.index());
        }
    }

    /// The entry of a new name. Names come from the caller's table, whose size bounds ours.
    fn begin(&mut self, id: ConnId, target: u8) -> &mut Entry {
        let at = id.index() as usize;
        if at >= self.entries.len() {
            self.entries.resize_with(at + 1, Entry::default);
        }
        let entry = &mut self.entries[at];
        debug_assert!(entry.state == State::Free, "{id} comes before its index was free");
        entry.begin(id, target);
        entry
    }

    /// The connection of that name.
    fn find(&mut self, id: ConnId) -> Option<&mut Entry> {
        self.entries.get_mut(id.index() as usize).filter(|entry| entry.is_of(id))
    }

    fn flight(&self, index: u32) -> Option<&Flight> {
        self.entries[index as usize].flight().and_then(|key| self.flights.get(key as usize))
    }

    /// The key of its flight, which is made if there is none.
    fn fly(&mut self, index: u32) -> u32 {
        let entry = &mut self.entries[index as usize];
        let first = entry.next_out;
        entry.flight().unwrap_or_else(|| insert(&mut self.flights, entry, Flight::new(index, first)))
    }

    /// Sends what the window lets through, and sees to it that an alarm is set.
    fn pump(&mut self, key: u32, now: Instant) {
        let Some(flight) = self.flights.get_mut(key as usize) else { return };
        let index = flight.index;
        let entry = &mut self.entries[index as usize];
        let (bytes, before) = (flight.unacked.bytes(), entry.next_out);
        let window = usize::from(entry.window).min(bytes.len());
        let mut sent = entry.next_out.wrapping_sub(flight.first) as usize;
        while sent < window {
            let end = (sent + usize::from(entry.mss)).min(window);
            let is_last = end == bytes.len();
            let fin = flight.fin && is_last;
            let bits = Bits::ACK.with_if(Bits::PSH, is_last).with_if(Bits::FIN, fin);
            let seq = entry.next_out;
            self.wire.segment(index, entry, bits, seq, &bytes[sent..end]);
            entry.next_out = flight.first.wrapping_add(cut(end)).wrapping_add(u32::from(fin));
            sent = end + usize::from(fin);
        }
        // A FIN needs no window.
        if flight.fin && sent == bytes.len() {
            let seq = entry.next_out;
            self.wire.segment(index, entry, Bits::ACK.with(Bits::FIN), seq, &[]);
            entry.next_out = seq.wrapping_add(1);
        }
        // An alarm that is set already is that of what was sent first, RFC 6298 section 5.
        if flight.alarm == 0 || (before == flight.first && entry.next_out != before) {
            self.set_alarm(key, now);
        }
    }

    /// Tells of room, if it is wanted and there is enough to be worth it.
    fn tell_room(&mut self, index: u32) {
        let queued = self.flight(index).map_or(0, |flight| flight.unacked.bytes().len());
        let entry = &mut self.entries[index as usize];
        let (window, mss) = (usize::from(entry.window), usize::from(entry.mss));
        let has_room = window > 0 && window.saturating_sub(queued) >= mss.min(window);
        // Whoever cannot send any more finds that out by trying.
        if entry.has(Entry::WANTS_ROOM) && (has_room || !entry.sends()) {
            entry.clear(Entry::WANTS_ROOM);
            self.told.push_back(Completion::Writable(entry.id(index)));
        }
    }

    /// Lets a share of the connections fall silent when their time has come.
    fn look_for_vanished(&mut self, index: u32, now: Instant) -> bool {
        let entry = &mut self.entries[index as usize];
        if let Some(vanish) = &self.vanish
            && !entry.has(Entry::VANISHED)
            && !matches!(entry.state, State::SynSent | State::Free)
            && vanish.takes(entry.id(index), entry.since, now)
        {
            entry.set(Entry::VANISHED);
            self.vanished += 1;
        }
        entry.has(Entry::VANISHED)
    }

    /// The connection does not work any more.
    fn fail(&mut self, index: u32, kind: ErrorKind) {
        let entry = &mut self.entries[index as usize];
        if entry.has(Entry::CLOSED) {
            self.end(index);
            return;
        }
        entry.state = State::Broken;
        self.told.push_back(Completion::Failed(entry.id(index), kind));
        self.land(index);
    }

    /// Both directions are over.
    fn finish(&mut self, index: u32) {
        self.land(index);
        let entry = &mut self.entries[index as usize];
        entry.state = State::Done;
        if entry.has(Entry::CLOSED) {
            self.end(index);
        }
    }

    fn reset(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let seq = entry.next_out;
        self.wire.segment(index, entry, Bits::RST, seq, &[]);
        self.end(index);
    }

    /// The slot is free.
    fn end(&mut self, index: u32) {
        self.land(index);
        let entry = &mut self.entries[index as usize];
        self.told.push_back(Completion::Closed(entry.id(index)));
        if entry.has(Entry::HOLDS) {
            self.held.forget(index);
        }
        entry.end();
    }

    /// Drops the flight.
    fn land(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        if let Some(key) = entry.flight() {
            self.flights.try_remove(key as usize);
            entry.set_flight(None);
        }
    }
}

fn insert(flights: &mut Slab<Flight>, entry: &mut Entry, flight: Flight) -> u32 {
    let key = cut(flights.insert(flight));
    entry.set_flight(Some(key));
    key
}

/// For what is less than 2^32 by far: keys of flights, of which there is one per connection, and lengths in a window.
fn cut(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
