//! Places in a topic.

use std::fmt;

/// A place of a message in its topic: 1, 2, 3, ... in one order for all subscribers. 0 is "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

/// Which past of a topic its offsets count in. It changes when the past is lost: when the topic is forgotten, or the
/// process starts anew. Milliseconds of Unix time at which that past began, made greater than all before on its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A place in a topic, for as long as its past is there: `epoch:offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The past that the offset counts in.
    pub epoch: Epoch,
    /// Everything up to this one has been seen.
    pub offset: Offset,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch.0, self.offset.0)
    }
}

/// What is no [`Cursor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a place in a topic is EPOCH:OFFSET, two numbers")]
pub struct BadCursor;

impl std::str::FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        // Digits only: `parse` alone would take a plus sign.
        let number = |part: &str| {
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten().ok_or(BadCursor)
        };
        let (epoch, offset) = text.split_once(':').ok_or(BadCursor)?;
        Ok(Self { epoch: Epoch(number(epoch)?), offset: Offset(number(offset)?) })
    }
}
