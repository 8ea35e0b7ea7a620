//! What is done when nothing comes.

use std::io::ErrorKind;

use super::entry::{Entry, State};
use super::flight::Alarms;
use super::{Tcp, cut};
use crate::time::Instant;

use super::super::packet::Bits;

/// A first SYN waits this many times longer than data, as powers of two: a server with a full queue drops it, and many
/// that come again soon do not help.
const SYN_LEVEL: u8 = 1;
/// How long a peer may take to close its side after we have closed ours: the longest distance of all.
const LINGER_LEVEL: u8 = Alarms::LEVELS - 1;
/// Probes of a shut window that are answered come no more rarely than one level above this.
const PROBE_LEVEL_MAX: u8 = 4;

impl Tcp {
    /// When [`Tcp::tick`] has something to do.
    pub(in crate::io::tun) fn due(&mut self) -> Option<Instant> {
        self.alarms.next(|key, serial| self.flights.get(key as usize).is_some_and(|flight| flight.alarm == serial))
    }

    /// Does what is due, `bound` times at most. Returns whether that was all.
    pub(in crate::io::tun) fn tick(&mut self, now: Instant, bound: usize) -> bool {
        for _ in 0..bound {
            let live = |key, serial| self.flights.get(key as usize).is_some_and(|flight| flight.alarm == serial);
            let Some(key) = self.alarms.take(now, live) else { return true };
            self.ring(key, now);
        }
        false
    }

    /// Sets the alarm of a flight, later with each try.
    pub(super) fn set_alarm(&mut self, key: u32, now: Instant) {
        let Some(flight) = self.flights.get_mut(key as usize) else { return };
        let level = match self.entries[flight.index as usize].state {
            State::SynSent => SYN_LEVEL.saturating_add(flight.tries),
            State::FinWait2 => LINGER_LEVEL,
            _ => flight.tries,
        };
        self.alarms.set(key, flight, level, now);
    }

    /// Waits for the end of a peer that has acknowledged ours, but not for ever.
    pub(super) fn linger(&mut self, index: u32, now: Instant) {
        let entry = &self.entries[index as usize];
        if entry.state == State::FinWait2 && entry.has(Entry::CLOSED) {
            let key = self.fly(index);
            self.set_alarm(key, now);
        }
    }

    fn ring(&mut self, key: u32, now: Instant) {
        let Some(flight) = self.flights.get_mut(key as usize) else { return };
        let index = flight.index;
        let entry = &self.entries[index as usize];
        let is_probe = entry.next_out == flight.first;
        let is_over = entry.state == State::FinWait2 || flight.tries >= self.retries;
        if is_over {
            self.give_up(index);
            return;
        }
        flight.tries += 1;
        self.look_for_vanished(index, now);
        if is_probe {
            self.probe(index);
        } else {
            self.repeat(key);
        }
        self.set_alarm(key, now);
    }

    /// A peer that does not answer is told, in case that it listens, RFC 9293 section 3.8.3.
    fn give_up(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        if entry.state != State::SynSent {
            let seq = entry.next_out;
            self.wire.segment(index, entry, Bits::RST, seq, &[]);
        }
        self.fail(index, ErrorKind::TimedOut);
    }

    /// Asks for the window with a segment that is old news and has to be answered, RFC 9293 section 3.8.6.1.
    fn probe(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let seq = entry.next_out.wrapping_sub(1);
        self.wire.segment(index, entry, Bits::ACK, seq, &[]);
    }

    /// Sends the first segment that is not acknowledged again.
    pub(super) fn repeat(&mut self, key: u32) {
        let Some(flight) = self.flights.get_mut(key as usize) else { return };
        let entry = &mut self.entries[flight.index as usize];
        flight.recover = entry.next_out;
        self.wire.repeated += 1;
        if entry.state == State::SynSent {
            self.wire.segment(flight.index, entry, Bits::SYN, flight.first, &[]);
            return;
        }
        let bytes = flight.unacked.bytes();
        let sent = entry.next_out.wrapping_sub(flight.first);
        let len = usize::from(entry.mss).min(bytes.len()).min(sent as usize);
        let fin = flight.fin && len == bytes.len() && sent > cut(len);
        let bits = Bits::ACK.with_if(Bits::PSH, len == bytes.len()).with_if(Bits::FIN, fin);
        self.wire.segment(flight.index, entry, bits, flight.first, &bytes[..len]);
    }

    /// An answered probe counts as no failure, but they do not come more often for it.
    pub(super) fn tries_after_answer(&self, tries: u8) -> u8 {
        tries.min(PROBE_LEVEL_MAX).min(self.retries.saturating_sub(1))
    }
}
