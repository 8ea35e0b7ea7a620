//! What a connection costs here: 24 bytes, and 128 more for one that speaks in a call.

use crate::codec::event_stream::Body;
use crate::id::ConnId;
use crate::session::caller::{Hearing, Speaking};
use crate::time::Instant;

/// Where a connection is.
///
/// ```text
///  Free -> Dialing -> Greeting -> Open -> Leaving -> Closing -> Free
///             |          |         |                   ^  |
///             +----------+---------+-------------------+  +--> Waiting -> Dialing
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::swarm) enum Phase {
    /// Nobody is here.
    #[default]
    Free,
    /// It will be tried again.
    Waiting,
    /// The transport does not stand yet.
    Dialing,
    /// The server's welcome is not complete.
    Greeting,
    /// Messages come and go.
    Open,
    /// We said good-bye.
    Leaving,
    /// The backend is asked to end it.
    Closing,
}

/// What a connection is there for. Each role has one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::swarm) enum Role {
    /// Holds the target, and hears what is published there.
    #[default]
    Holder,
    /// Sends messages that come back.
    Echo,
    /// Comes and goes.
    Guest,
    /// Publishes to holders that cannot, and is none of those that are counted.
    Publisher,
}

impl Role {
    pub(in crate::swarm) const COUNT: usize = 4;

    /// Whether it is one of the connections that the run is about, and stays.
    pub(in crate::swarm) const fn stays(self) -> bool {
        matches!(self, Self::Holder | Self::Echo)
    }
}

/// What does not fit into a member, which is hardly ever there.
#[derive(Debug)]
pub(super) enum Spill {
    /// The beginning of a frame whose end has not come.
    Bytes(Vec<u8>),
    /// A call in which something is cut, or of a member that speaks.
    Call(Hearing, Option<Speaking>),
}

const _: () = assert!(size_of::<Spill>() <= 112, "64 of a hearing, 40 of a speaking, and a tag");

/// One connection.
#[derive(Debug, Default)]
pub(in crate::swarm) struct Member {
    pub(super) spill: Option<Box<Spill>>,
    /// The number of the next message to come, 0 while none has come.
    pub(in crate::swarm) next: u32,
    /// Messages sent. With [`Member::DUE`]: when its first dial was due, in units of [`Member::UNIT_NS`]. In a stream of
    /// events, where nothing is sent, its [`Body`], and in a call in which it only hears what [`Hearing::used`] says.
    pub(in crate::swarm) sent: u32,
    pub(super) generation: u32,
    pub(super) phase: Phase,
    pub(super) role: Role,
    /// Times it was dialled in vain.
    pub(super) tries: u8,
    flags: u8,
}

const _: () = assert!(size_of::<Member>() <= 24, "8 of the spill, 3 * 4 of numbers, 4 * 1");

impl Member {
    /// It was sent to since the last flush.
    pub(super) const SENT: u8 = 1;
    /// Bytes wait for room.
    pub(super) const BACKLOG: u8 = 2;
    /// It is dialled again when it has closed.
    pub(super) const AGAIN: u8 = 4;
    /// It does not read.
    pub(super) const PAUSED: u8 = 8;
    /// It has brought data.
    pub(super) const HEARD: u8 = 16;
    /// It has not sent anything that is counted.
    const DUE: u8 = 32;
    /// The server has not been told that it is gone.
    pub(super) const VANISHED: u8 = 64;
    /// 32 bits of 10 µs are 11 hours.
    const UNIT_NS: u64 = 10_000;

    pub(in crate::swarm) const fn role(&self) -> Role {
        self.role
    }

    /// Whether we said good-bye.
    pub(in crate::swarm) fn is_leaving(&self) -> bool {
        self.phase == Phase::Leaving
    }

    /// Whether bytes wait until it has room, or its call has.
    pub(in crate::swarm) fn holds_back(&self) -> bool {
        let waits = |spill: &Spill| matches!(spill, Spill::Call(_, Some(speaking)) if speaking.waiting() > 0);
        self.has(Self::BACKLOG) || self.spill.as_deref().is_some_and(waits)
    }

    /// The speaking half of its call.
    pub(in crate::swarm) fn speaking(&mut self) -> Option<&mut Speaking> {
        match self.spill.as_deref_mut() {
            Some(Spill::Call(_, speaking)) => speaking.as_mut(),
            _ => None,
        }
    }

    /// The hearing half of its call, until it is put back. With `speaks` there is another half, which stays.
    pub(super) fn take_hearing(&mut self, speaks: bool) -> Hearing {
        if let Some(Spill::Call(hearing, _)) = self.spill.as_deref_mut() {
            return std::mem::take(hearing);
        }
        if speaks {
            self.spill = Some(Box::new(Spill::Call(Hearing::default(), Some(Speaking::new()))));
        }
        if self.phase == Phase::Greeting { Hearing::default() } else { Hearing::resumed(self.sent) }
    }

    /// Puts it back. Of one that is at rest a number is left, unless the member speaks.
    pub(super) fn put_hearing(&mut self, hearing: Hearing) {
        match self.spill.as_deref_mut() {
            Some(Spill::Call(place, Some(_))) => *place = hearing,
            _ if hearing.is_at_rest() => {
                self.spill = None;
                self.clear(Self::DUE);
                self.sent = hearing.used();
            }
            Some(Spill::Call(place, None)) => *place = hearing,
            _ => self.spill = Some(Box::new(Spill::Call(hearing, None))),
        }
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) const fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }

    pub(super) const fn clear(&mut self, flag: u8) {
        self.flags &= !flag;
    }

    pub(in crate::swarm) const fn id(&self, index: u32) -> ConnId {
        ConnId::new(index, self.generation)
    }

    /// Begins anew, as somebody else whose dial is due then.
    pub(super) fn begin(&mut self, role: Role, due: Instant) {
        self.role = role;
        self.tries = 0;
        self.flags = Self::DUE;
        // Wraps, and so does the difference.
        self.sent = units(due);
    }

    /// It is dialled, perhaps again: that takes nothing from the time that it has waited.
    pub(super) fn dialled(&mut self, now: Instant) {
        self.phase = Phase::Dialing;
        if !self.has(Self::DUE) {
            self.sent = units(now);
        }
        self.flags = Self::DUE;
        self.next = 0;
    }

    /// Nanoseconds since its first dial was due, with a resolution of 10 µs. Only before it sends.
    pub(super) fn age_ns(&self, now: Instant) -> u64 {
        u64::from(units(now).wrapping_sub(self.sent)) * Self::UNIT_NS
    }

    /// Begins to count what it sends, and waits for number 1.
    pub(in crate::swarm) const fn count_anew(&mut self) {
        self.clear(Self::DUE);
        (self.sent, self.next) = (0, 1);
    }

    /// Where its stream of events is, once it is open.
    pub(super) fn body(&self) -> Body {
        Body::unpack(self.sent)
    }

    pub(super) const fn set_body(&mut self, body: Body) {
        self.clear(Self::DUE);
        self.sent = body.pack();
    }

    /// Whether bytes that come are of interest.
    pub(super) const fn is_read(&self) -> bool {
        matches!(self.phase, Phase::Greeting | Phase::Open | Phase::Leaving) && !self.has(Self::PAUSED)
    }

    pub(super) const fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Dialing | Phase::Greeting)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "it wraps after 11 hours")]
const fn units(now: Instant) -> u32 {
    (now.as_nanos() / Member::UNIT_NS) as u32
}
