//! What an idle connection costs: one [`Entry`].

use crate::id::ConnId;

/// Where a connection is, RFC 9293 section 3.3.2. We never listen, and do not wait out TIME-WAIT: the sequence numbers of
/// the next connection from this port begin beyond all that this one used, which is what that state is for.
///
/// ```text
///  Free -> SynSent -> Established -- FIN out -> FinWait1 -- acked --> FinWait2 -- FIN in --> Done
///             |            |                        |                                          |
///             |          FIN in                   FIN in                                       |
///             |            v                        v                                          |
///             |        CloseWait --- FIN out --> LastAck ---------- acked -------------------> |
///             v            v                                                                   v
///          Broken <---- reset, or no answer -----------------------------------------> close: Free
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// Nobody's. The last sequence number stays.
    #[default]
    Free,
    /// Waits for a SYN-ACK.
    SynSent,
    /// Open both ways.
    Established,
    /// Our FIN is out or waits behind data.
    FinWait1,
    /// Our FIN is acknowledged.
    FinWait2,
    /// The peer's FIN is here.
    CloseWait,
    /// Both; ours is not acknowledged yet. CLOSING is no state of its own, since nothing differs.
    LastAck,
    /// Both are acknowledged. Waits for the caller to close it.
    Done,
    /// A failure was told. Waits for the caller to close it.
    Broken,
}

/// One connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    /// SND.NXT.
    pub(super) next_out: u32,
    /// RCV.NXT.
    pub(super) next_in: u32,
    /// Key of its flight plus one; 0 is none.
    flight: u32,
    /// Generation in the upper 24 bits, flags in the lower eight.
    word: u32,
    /// SND.WND.
    pub(super) window: u16,
    /// The largest segment that the peer and the path take.
    pub(super) mss: u16,
    /// When it was established, in seconds that wrap.
    pub(super) since: u16,
    pub(super) state: State,
    /// Which target it is connected to.
    pub(super) target: u8,
}

// Sequence numbers 8, flight 4, generation and flags 4, window 2, segment size 2, age 2, state 1, target 1. Five million
// of them are 120 MB.
const _: () = assert!(size_of::<Entry>() == 24);

impl Entry {
    /// The caller does not want to receive: our window is 0.
    pub(super) const PAUSED: u32 = 1;
    /// The caller waits for room.
    pub(super) const WANTS_ROOM: u32 = 1 << 1;
    /// An ACK goes out with the next flush, unless data takes it along.
    pub(super) const OWES_ACK: u32 = 1 << 2;
    /// The caller has closed it; it hears only of the end.
    pub(super) const CLOSED: u32 = 1 << 3;
    /// Neither answers nor receives. Outlives the connection, so that its peer hears nothing afterwards either.
    pub(super) const VANISHED: u32 = 1 << 4;
    /// Bytes that came before their turn are held.
    pub(super) const HOLDS: u32 = 1 << 5;

    const FLAGS: u32 = 0xff;

    /// A connection that begins, in a slot that may have had others.
    pub(super) const fn begin(&mut self, id: ConnId, target: u8) {
        self.word = id.generation() << 8;
        self.flight = 0;
        self.window = 0;
        self.next_in = 0;
        self.state = State::SynSent;
        self.target = target;
    }

    /// The connection is over; sequence numbers and silence stay.
    pub(super) const fn end(&mut self) {
        self.word &= !(Self::FLAGS & !Self::VANISHED);
        self.state = State::Free;
    }

    pub(super) const fn id(&self, index: u32) -> ConnId {
        ConnId::new(index, self.word >> 8)
    }

    pub(super) fn is_of(&self, id: ConnId) -> bool {
        self.state != State::Free && self.word >> 8 == id.generation()
    }

    /// Whether any of these flags is set.
    pub(super) const fn has(&self, flags: u32) -> bool {
        self.word & flags != 0
    }

    pub(super) const fn set(&mut self, flags: u32) {
        self.word |= flags & Self::FLAGS;
    }

    pub(super) const fn clear(&mut self, flags: u32) {
        self.word &= !(flags & Self::FLAGS);
    }

    pub(super) const fn flight(&self) -> Option<u32> {
        self.flight.checked_sub(1)
    }

    pub(super) fn set_flight(&mut self, flight: Option<u32>) {
        self.flight = flight.map_or(0, |key| key + 1);
    }

    /// Whether the caller may hear of bytes or an end from the peer.
    pub(super) const fn receives(&self) -> bool {
        matches!(self.state, State::Established | State::FinWait1 | State::FinWait2)
    }

    /// Whether the caller may send.
    pub(super) const fn sends(&self) -> bool {
        matches!(self.state, State::Established | State::CloseWait)
    }
}
