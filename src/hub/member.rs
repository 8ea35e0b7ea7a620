//! One subscriber of one topic, in 8 bytes.

use crate::message::Offset;

/// One subscriber of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Index of the connection, below 2^30, and two flags above it.
    connection: u32,
    /// Low bits of the offset after which it takes part.
    after: u32,
}

impl Member {
    /// It does not want its own messages.
    const NO_ECHO: u32 = 1 << 31;
    /// It waits for its past, and takes nothing until that has come.
    const PENDING: u32 = 1 << 30;
    const FLAGS: u32 = Self::NO_ECHO | Self::PENDING;

    pub(super) fn new(connection: u32, echo: bool, pending: bool, after: Offset) -> Self {
        debug_assert!(connection & Self::FLAGS == 0);
        let flags = if echo { 0 } else { Self::NO_ECHO } | if pending { Self::PENDING } else { 0 };
        Self { connection: connection | flags, after: low_bits(after) }
    }

    /// Index of the connection in the shard's table.
    #[must_use]
    pub const fn connection(self) -> u32 {
        self.connection & !Self::FLAGS
    }

    /// Whether it wants its own messages too.
    #[must_use]
    pub const fn echo(self) -> bool {
        self.connection & Self::NO_ECHO == 0
    }

    /// Whether it waits for its past.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        self.connection & Self::PENDING != 0
    }

    /// Whether a message with this offset is for it: it came after it joined, or after its past. Offsets are compared by
    /// their low 32 bits, modulo 2^32; `Local::refresh` keeps `after` within 2^31 of what is compared.
    #[must_use]
    pub const fn takes(self, offset: Offset) -> bool {
        low_bits(offset).wrapping_sub(self.after).wrapping_sub(1) < 1 << 31 && !self.is_pending()
    }

    /// It has its past and takes part after this offset.
    pub(super) const fn begin(&mut self, after: Offset) {
        self.connection &= !Self::PENDING;
        self.after = low_bits(after);
    }

    /// Brings `after` forward, closer to what it is compared with.
    pub(super) const fn refresh(&mut self, after: Offset) {
        self.after = low_bits(after);
    }

    /// Whether it joined, or began, where nothing was known to come before.
    pub(super) const fn is_from_the_start(self) -> bool {
        self.after == 0
    }
}

const _: () = assert!(size_of::<Member>() == 8);

#[allow(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
const fn low_bits(offset: Offset) -> u32 {
    offset.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_compared_modulo_32_bits() {
        assert!(Member::new(0, true, false, Offset(u64::from(u32::MAX))).takes(Offset(1 << 32)));
        assert!(!Member::new(0, true, false, Offset(1 << 32)).takes(Offset(u64::from(u32::MAX))));
    }

    #[test]
    fn a_pending_member_takes_nothing_until_it_begins() {
        let mut member = Member::new((1 << 30) - 1, false, true, Offset(0));
        assert!(member.is_pending() && !member.takes(Offset(1)) && !member.echo());
        member.begin(Offset(7));
        assert!(!member.is_pending() && !member.takes(Offset(7)) && member.takes(Offset(8)) && !member.echo());
        assert_eq!(member.connection(), (1 << 30) - 1);
    }
}
