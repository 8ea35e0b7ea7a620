//! Segments on their way out.

use std::net::SocketAddrV4;

use super::super::outbox::Outbox;
use super::super::packet::{self, Bits, Checksums, HEADER_BYTES, Segment};
use super::super::plan::Block;
use super::entry::{Entry, State};

/// What we offer to receive. Nothing is kept here, so it is no promise of memory; without window scaling it is the most
/// that can be said.
pub(super) const WINDOW: u16 = u16::MAX;

/// Targets that one [`super::Tcp`] connects to: an entry has a byte for it.
const TARGETS_MAX: usize = 256;
/// Segment size of a peer that says none, RFC 9293 section 3.7.1.
const MSS_DEFAULT: u16 = 536;
/// The least that is taken at its word, so that no peer makes us send a header with each byte. It is what fits a path of
/// the smallest IPv4 MTU, RFC 791.
const MSS_MIN: u16 = 28;

/// Writes the segments of all connections.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) out: Outbox,
    pub(super) block: Block,
    pub(super) checksums: Checksums,
    /// Our segment size: what the path takes.
    mss: u16,
    targets: Vec<SocketAddrV4>,
    /// Segments sent again.
    pub(super) repeated: u64,
}

impl Wire {
    pub(super) const fn new(block: Block, mtu: u16, checksums: Checksums, prefix: &'static [u8]) -> Self {
        Self {
            out: Outbox::new(prefix),
            block,
            checksums,
            mss: mtu.saturating_sub(HEADER_BYTES),
            targets: Vec::new(),
            repeated: 0,
        }
    }

    /// The number of a target, `None` when there are too many.
    pub(super) fn target(&mut self, to: SocketAddrV4) -> Option<u8> {
        let known = self.targets.iter().position(|target| *target == to);
        let at = known.unwrap_or(self.targets.len());
        if known.is_none() && at < TARGETS_MAX {
            self.targets.push(to);
        }
        u8::try_from(at).ok()
    }

    /// Whether a connection goes to this address.
    pub(super) fn goes_to(&self, entry: &Entry, peer: SocketAddrV4) -> bool {
        self.targets.get(usize::from(entry.target)) == Some(&peer)
    }

    /// The segment size to use with a peer that said this.
    pub(super) fn mss(&self, theirs: Option<u16>) -> u16 {
        theirs.unwrap_or(MSS_DEFAULT).max(MSS_MIN).min(self.mss)
    }

    /// Writes a segment of a connection. It takes the acknowledgement along that is owed.
    pub(super) fn segment(&mut self, index: u32, entry: &mut Entry, bits: Bits, seq: u32, payload: &[u8]) {
        entry.clear(Entry::OWES_ACK);
        let Some(&to) = self.targets.get(usize::from(entry.target)).filter(|_| !entry.has(Entry::VANISHED)) else {
            return;
        };
        let is_first = entry.state == State::SynSent;
        let segment = Segment {
            from: self.block.source(index),
            to,
            seq,
            ack: if is_first { 0 } else { entry.next_in },
            bits: bits.with_if(Bits::ACK, !is_first),
            window: if entry.has(Entry::PAUSED) { 0 } else { WINDOW },
            mss: bits.has(Bits::SYN).then_some(self.mss),
        };
        let checksums = self.checksums;
        self.out.push(|out| packet::write(&segment, payload, checksums, out));
    }

    /// Acknowledges all that was received.
    pub(super) fn ack(&mut self, index: u32, entry: &mut Entry) {
        let seq = entry.next_out;
        self.segment(index, entry, Bits::ACK, seq, &[]);
    }

    /// Answers a segment of no connection, RFC 9293 section 3.10.7.1.
    pub(super) fn refuse(&mut self, segment: &Segment, len: u32) {
        if segment.bits.has(Bits::RST) {
            return;
        }
        let (seq, ack, bits) = if segment.bits.has(Bits::ACK) {
            (segment.ack, 0, Bits::RST)
        } else {
            (0, segment.seq.wrapping_add(len), Bits::RST.with(Bits::ACK))
        };
        let answer = Segment { from: segment.to, to: segment.from, seq, ack, bits, window: 0, mss: None };
        let checksums = self.checksums;
        self.out.push(|out| packet::write(&answer, &[], checksums, out));
    }
}
