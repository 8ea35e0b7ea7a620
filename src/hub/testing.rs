//! What the hub's tests share.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::Group;
use crate::message::{Kind, Message, Offset, Topic};

pub(super) fn topic(name: &str) -> Topic {
    Topic::parse(name.as_bytes(), 255).unwrap()
}

pub(super) fn group(name: &str) -> Group {
    Group::parse(name.as_bytes()).unwrap()
}

pub(super) fn message(name: &str, offset: u64, payload: &[u8]) -> Message {
    let mut message = Message::new(topic(name), Kind::Text, payload, None);
    message.offset = Offset(offset);
    message
}

/// Xorshift (Marsaglia): the same numbers for the same seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}
