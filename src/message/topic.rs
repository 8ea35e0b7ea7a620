//! Names of topics.

use std::fmt;
use std::sync::Arc;

use crate::id::ShardId;

/// A topic's name: 1 to 255 bytes of UTF-8 without control characters or spaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// A name that cannot be a topic's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing there.
    #[error("a topic's name is empty; give it 1 to 255 bytes")]
    Empty,
    /// Over the limit, 255 bytes by default.
    #[error("a topic's name is too long: {0} bytes, the limit is {1}")]
    TooLong(usize, usize),
    /// Spaces and control characters are for framing.
    #[error("a topic's name has a space or a control character in it")]
    BadCharacter,
    /// Not text.
    #[error("a topic's name is not UTF-8")]
    NotUtf8,
}

impl Topic {
    /// What a name of usual length takes, with its counts.
    pub const NAME_BYTES: usize = 48;
    /// Bytes in a name by default and at most.
    pub const BYTES_MAX: usize = 255;

    /// Checks a name.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(name: &[u8], bytes_max: usize) -> Result<Self, TopicError> {
        let bytes_max = bytes_max.min(Self::BYTES_MAX);
        if name.is_empty() {
            return Err(TopicError::Empty);
        }
        if name.len() > bytes_max {
            return Err(TopicError::TooLong(name.len(), bytes_max));
        }
        let name = simdutf8::basic::from_utf8(name).map_err(|_| TopicError::NotUtf8)?;
        if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(TopicError::BadCharacter);
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// A number that most names have for their own, the same everywhere.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        // FNV-1a, 64 bit (Fowler, Noll, Vo), and SplitMix64's finish (Steele, Lea, Flood 2014): a name's last bytes hardly reach the
        // middle of the former, so that numbered names had one shard.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = self.0.bytes().fold(0xcbf2_9ce4_8422_2325_u64, step);
        let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ hash >> 31
    }

    /// The shard that orders this topic's messages, the same on every shard of the process.
    #[must_use]
    pub fn owner(&self, shards: u16) -> ShardId {
        let shard = (self.fingerprint() >> 32) % u64::from(shards.max(1));
        ShardId(u16::try_from(shard).unwrap_or(0))
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    /// Names that differ in their last bytes, as most do.
    #[test]
    fn numbered_names_are_spread_over_the_shards() {
        const NAMES: usize = 10_000;
        for (shards, form) in
            [2, 3, 4, 7, 16, 64].into_iter().flat_map(|n| ["room/*", "*/orders", "user:*:inbox"].map(|f| (n, f)))
        {
            let mut counts = vec![0_usize; usize::from(shards)];
            for number in 0..NAMES {
                let topic = Topic::parse(form.replace('*', &number.to_string()).as_bytes(), Topic::BYTES_MAX).unwrap();
                counts[usize::from(topic.owner(shards).0)] += 1;
            }
            // Six times the deviation that chance has.
            let mean = NAMES / usize::from(shards);
            let far = 6 * mean.isqrt();
            assert!(counts.iter().all(|count| count.abs_diff(mean) < far), "{form} on {shards}: {counts:?}");
        }
    }
}
