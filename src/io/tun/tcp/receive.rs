//! Segments that arrive, in the order of checks of RFC 9293 section 3.10.7.

use std::io::ErrorKind;
use std::ops::Range;

use super::super::link::seconds;
use super::super::packet::{self, Bits, Segment};
use super::entry::{Entry, State};
use super::wire::WINDOW;
use super::{Tcp, cut};
use crate::id::ConnId;
use crate::io::Completion;
use crate::time::Instant;

/// Duplicate acknowledgements that mean a loss, RFC 5681 section 3.2.
const DUPLICATES: u8 = 3;

impl Tcp {
    /// Takes a packet. Returns whose payload lies where in it, if that is news for the caller; [`Tcp::next`] has
    /// whatever else it means.
    pub(in crate::io::tun) fn receive(&mut self, packet: &[u8], now: Instant) -> Option<(ConnId, Range<usize>)> {
        let (segment, payload) = packet::read(packet, self.wire.checksums)?;
        let index = self.wire.block.index(segment.to)?;
        let taken = cut(payload.len());
        let Some(entry) = self.entries.get(index as usize) else {
            self.wire.refuse(&segment, taken + u32::from(segment.bits.has(Bits::SYN)));
            return None;
        };
        let is_mute = entry.has(Entry::VANISHED);
        let is_ours = !matches!(entry.state, State::Free | State::Broken) && self.wire.goes_to(entry, segment.from);
        if is_mute || self.look_for_vanished(index, now) {
            return None;
        }
        if !is_ours {
            self.wire.refuse(&segment, taken + u32::from(segment.bits.has(Bits::SYN)));
            return None;
        }
        if self.entries[index as usize].state == State::SynSent {
            self.handshake(index, &segment, now);
            return None;
        }
        if let Some(news) = self.arrive(index, &segment, payload.clone(), now) {
            return Some(news);
        }
        if self.is_early(index, &segment) {
            self.hold(index, segment.seq, &packet[payload]);
        }
        None
    }

    /// The next bytes that were held until it was their turn: whose, and how many at their beginning are no news. Ask
    /// before the next packet.
    pub(in crate::io::tun) fn next_held(&mut self) -> Option<(ConnId, Box<[u8]>, usize)> {
        while let Some(&index) = self.filled.last() {
            let entry = &mut self.entries[index as usize];
            let id = entry.id(index);
            let is_wanted = entry.receives() && entry.has(Entry::HOLDS) && !entry.has(Entry::PAUSED | Entry::CLOSED);
            if !is_wanted && entry.has(Entry::HOLDS) {
                self.held.forget(index);
            } else if is_wanted && let Some((bytes, old)) = self.held.take(index, entry.next_in) {
                entry.next_in = entry.next_in.wrapping_add(cut(bytes.len() - old));
                self.owe_ack(id);
                return Some((id, bytes, old));
            }
            self.filled.pop();
            if self.held.is_done(index) {
                entry.clear(Entry::HOLDS);
            }
        }
        None
    }

    /// Whether a segment, which was not taken, begins behind a hole that may be filled. The order of RFC 9293 has
    /// dropped or answered it by now.
    fn is_early(&self, index: u32, segment: &Segment) -> bool {
        let entry = &self.entries[index as usize];
        let ahead = segment.seq.wrapping_sub(entry.next_in);
        let is_plain = segment.bits.has(Bits::ACK) && !segment.bits.has(Bits::SYN.with(Bits::RST));
        let is_wanted = entry.receives() && !entry.has(Entry::PAUSED | Entry::CLOSED);
        is_plain && is_wanted && ahead > 0 && ahead < u32::from(WINDOW)
    }

    fn hold(&mut self, index: u32, seq: u32, bytes: &[u8]) {
        if !bytes.is_empty() && self.held.keep(index, seq, bytes) {
            self.entries[index as usize].set(Entry::HOLDS);
        }
    }

    /// RFC 9293 section 3.10.7.3. Nobody but us begins, so a SYN without ACK is dropped.
    fn handshake(&mut self, index: u32, segment: &Segment, now: Instant) {
        let entry = &mut self.entries[index as usize];
        let Some(key) = entry.flight() else { return };
        let (is_reset, is_ours) = (segment.bits.has(Bits::RST), segment.ack == entry.next_out);
        if !segment.bits.has(Bits::ACK) {
            return;
        }
        if !is_ours {
            self.wire.refuse(segment, 0);
            self.try_at_once(key, is_reset);
        } else if is_reset {
            self.fail(index, ErrorKind::ConnectionRefused);
        } else if segment.bits.has(Bits::SYN) {
            entry.state = State::Established;
            entry.next_in = segment.seq.wrapping_add(1);
            entry.window = segment.window;
            entry.mss = self.wire.mss(segment.mss);
            entry.since = seconds(now);
            entry.set(Entry::OWES_ACK);
            entry.clear(Entry::WANTS_ROOM);
            self.owing.push(index);
            self.told.push_back(Completion::Writable(entry.id(index)));
            let flight = &mut self.flights[key as usize];
            (flight.first, flight.recover) = (entry.next_out, entry.next_out);
            (flight.tries, flight.duplicates) = (0, 0);
            self.pump(key, now);
            self.land_if_done(index);
        }
    }

    /// Our reset has ended what the peer kept of an earlier connection (RFC 9293 section 3.5.1), so that the SYN has
    /// reason to go again without waiting. Once, so that no two ever talk without end.
    fn try_at_once(&mut self, key: u32, is_reset: bool) {
        let flight = &mut self.flights[key as usize];
        if !is_reset && flight.duplicates == 0 {
            flight.duplicates = 1;
            self.repeat(key);
        }
    }

    /// RFC 9293 section 3.10.7.4.
    fn arrive(
        &mut self,
        index: u32,
        segment: &Segment,
        payload: Range<usize>,
        now: Instant,
    ) -> Option<(ConnId, Range<usize>)> {
        let entry = &mut self.entries[index as usize];
        let bits = segment.bits;
        let len = cut(payload.len()) + u32::from(bits.has(Bits::FIN)) + u32::from(bits.has(Bits::SYN));
        // First: is any of it in the window? `old` bytes at its beginning are known already.
        let old = entry.next_in.wrapping_sub(segment.seq);
        let ahead = segment.seq.wrapping_sub(entry.next_in);
        let is_next = old < len || old == 0;
        if !is_next && ahead >= u32::from(WINDOW) {
            if !bits.has(Bits::RST) {
                self.wire.ack(index, entry);
            }
            return None;
        }
        // Second and fourth, with the stricter rules of RFC 5961: only the exact reset counts.
        if bits.has(Bits::RST) && old == 0 {
            self.fail(index, ErrorKind::ConnectionReset);
            return None;
        }
        if bits.has(Bits::RST) || bits.has(Bits::SYN) {
            self.wire.ack(index, entry);
            return None;
        }
        // Fifth.
        if !bits.has(Bits::ACK) || !self.acknowledged(index, segment, len, now) {
            return None;
        }
        let entry = &mut self.entries[index as usize];
        // A FIN that fits would have to be told; who is paused hears of it when the peer sends it again.
        if len > 0 && (!is_next || entry.has(Entry::PAUSED)) {
            self.wire.ack(index, entry);
            return None;
        }
        if len == 0 || !entry.receives() {
            return None;
        }
        self.take(index, bits, payload, old as usize)
    }

    /// Seventh and eighth: bytes, of which the first `old` are known, and the peer's end.
    fn take(&mut self, index: u32, bits: Bits, payload: Range<usize>, old: usize) -> Option<(ConnId, Range<usize>)> {
        let entry = &mut self.entries[index as usize];
        let fresh = (payload.start + old).min(payload.end)..payload.end;
        let id = entry.id(index);
        entry.next_in = entry.next_in.wrapping_add(cut(fresh.len()));
        let is_news = !fresh.is_empty() && !entry.has(Entry::CLOSED);
        if entry.has(Entry::HOLDS) {
            self.filled.push(index);
        }
        if bits.has(Bits::FIN) {
            entry.next_in = entry.next_in.wrapping_add(1);
            self.wire.ack(index, entry);
            self.told.push_back(Completion::PeerClosed(id));
            match entry.state {
                State::Established => entry.state = State::CloseWait,
                State::FinWait1 => entry.state = State::LastAck,
                _ => self.finish(index),
            }
        } else {
            self.owe_ack(id);
        }
        is_news.then_some((id, fresh))
    }

    /// Takes the acknowledgement and the window. False: it is of something that was never sent, or all is over with it.
    ///
    /// The window of any acceptable segment counts, as there is no room for SND.WL1 and SND.WL2. An old one that comes
    /// late can shut it wrongly until the next one, or until the answer to a probe.
    fn acknowledged(&mut self, index: u32, segment: &Segment, len: u32, now: Instant) -> bool {
        let entry = &mut self.entries[index as usize];
        let key = entry.flight();
        let first = key.and_then(|key| self.flights.get(key as usize)).map_or(entry.next_out, |flight| flight.first);
        let (sent, acked) = (entry.next_out.wrapping_sub(first), segment.ack.wrapping_sub(first));
        if acked > sent {
            let is_old = acked > u32::MAX / 2;
            if !is_old {
                self.wire.ack(index, entry);
            }
            return is_old;
        }
        let is_same_window = entry.window == segment.window;
        entry.window = segment.window;
        let Some(key) = key else { return true };
        if acked > 0 {
            self.advance(key, acked, now);
        } else if sent > 0 && len == 0 && is_same_window {
            self.count_duplicate(key);
        } else if sent == 0 {
            let tries = self.tries_after_answer(self.flights[key as usize].tries);
            self.flights[key as usize].tries = tries;
        }
        if !matches!(self.entries[index as usize].state, State::Free | State::Done) {
            self.pump_if_stalled(key, now);
            self.tell_room(index);
            self.land_if_done(index);
            return true;
        }
        // The last acknowledgement; nothing can come behind the peer's own end.
        false
    }

    /// The first `acked` sequence numbers of a flight have arrived.
    fn advance(&mut self, key: u32, acked: u32, now: Instant) {
        let flight = &mut self.flights[key as usize];
        let index = flight.index;
        let is_hole = flight.recover.wrapping_sub(flight.first.wrapping_add(acked)).wrapping_sub(1) < u32::MAX / 2;
        let is_end = flight.fin && acked == flight.len();
        flight.first = flight.first.wrapping_add(acked);
        flight.unacked.forget(acked as usize);
        (flight.tries, flight.duplicates) = (0, 0);
        let entry = &mut self.entries[index as usize];
        if !is_hole {
            flight.recover = flight.first;
        }
        if is_end {
            flight.fin = false;
            if entry.state == State::LastAck {
                self.finish(index);
            } else {
                entry.state = State::FinWait2;
                self.linger(index, now);
            }
            return;
        }
        if entry.next_out != flight.first {
            if is_hole {
                let recover = flight.recover;
                self.repeat(key);
                self.flights[key as usize].recover = recover;
            }
            self.set_alarm(key, now);
        }
    }

    fn count_duplicate(&mut self, key: u32) {
        let flight = &mut self.flights[key as usize];
        flight.duplicates = flight.duplicates.saturating_add(1);
        if flight.duplicates == DUPLICATES && flight.recover == flight.first {
            self.repeat(key);
        }
    }

    /// Goes on with what an earlier window held back.
    fn pump_if_stalled(&mut self, key: u32, now: Instant) {
        let Some(flight) = self.flights.get(key as usize) else { return };
        let sent = self.entries[flight.index as usize].next_out.wrapping_sub(flight.first);
        if sent < flight.len() {
            self.pump(key, now);
        }
    }

    /// A flight goes when nothing is left to be acknowledged, sent or waited for.
    fn land_if_done(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        let Some(flight) = self.flight(index) else { return };
        let is_empty = flight.len() == 0 && flight.first == entry.next_out;
        let is_lingering = entry.state == State::FinWait2 && entry.has(Entry::CLOSED);
        if is_empty && !is_lingering && !entry.has(Entry::WANTS_ROOM) {
            self.land(index);
        }
    }
}
