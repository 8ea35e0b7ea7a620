//! Names for things that live in slabs.

use std::fmt;

/// A shard of this process, `0..shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A listener of this process, in the order they were configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// A connection of one shard: its index in the shard's table and the generation that tells it from those who had the
/// index before. 56 bits in all, so that a backend can add eight of its own in a completion's user data.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// Bits of a generation. It wraps; a slot is reused only after its last completion has returned, so two
    /// generations 2^24 apart never meet.
    pub const GENERATION_BITS: u32 = 24;

    /// The connection at `index` with the low 24 bits of `generation`.
    #[must_use]
    pub const fn new(index: u32, generation: u32) -> Self {
        let generation = (generation & ((1 << Self::GENERATION_BITS) - 1)) as u64;
        Self(generation << 32 | index as u64)
    }

    /// The 56 bits back from [`ConnId::bits`]; bits above are dropped.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << (32 + Self::GENERATION_BITS)) - 1))
    }

    /// All of it, in the low 56 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Index in the shard's table.
    #[must_use]
    pub const fn index(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// Generation, 24 bits.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl ConnId {
    /// What operators call it, in logs and in the admin API alike.
    #[must_use]
    pub const fn of(self, shard: ShardId) -> ConnName {
        ConnName(shard, self)
    }
}

/// A connection of this process, for people: `SHARD:INDEX:GENERATION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnName(ShardId, ConnId);

impl fmt::Display for ConnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0.0, self.1.index(), self.1.generation())
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_a_name_for_people() {
        assert_eq!(ConnId::new(7, 33).of(ShardId(1)).to_string(), "1:7:33");
    }

    #[test]
    fn an_id_survives_its_bits_and_leaves_eight_free() {
        let id = ConnId::new(u32::MAX, u32::MAX);
        assert_eq!(id.index(), u32::MAX);
        assert_eq!(id.generation(), (1 << 24) - 1);
        assert_eq!(id.bits() >> 56, 0);
        assert_eq!(ConnId::from_bits(id.bits() | 0xff << 56), id);
    }
}
