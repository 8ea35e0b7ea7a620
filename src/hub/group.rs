//! Groups of subscribers who share a topic's messages between them.

use std::fmt;
use std::sync::Arc;

use crate::message::{Topic, TopicError};

/// A group's name, by the rules of a topic's: 1 to 255 bytes of UTF-8 without control characters or spaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(Arc<str>);

impl Group {
    /// Checks a name.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(name: &[u8]) -> Result<Self, TopicError> {
        let name = Topic::parse(name, Topic::BYTES_MAX)?;
        Ok(Self(name.as_str().into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_name_is_like_a_topics() {
        assert_eq!(Group::parse(b"workers").expect("a name").as_str(), "workers");
        assert_eq!(Group::parse(b""), Err(TopicError::Empty));
        assert_eq!(Group::parse(b"a b"), Err(TopicError::BadCharacter));
        assert_eq!(Group::parse(&[b'a'; 256]), Err(TopicError::TooLong(256, 255)));
    }
}
