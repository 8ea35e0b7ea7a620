//! What is asked of a topic's past, and the answers.

use crate::config::Keep;
use crate::message::{Cursor, Message, Offset};

/// How much of the past a new subscriber asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Nothing.
    #[default]
    Now,
    /// What came after this.
    Since(Cursor),
    /// So many messages, or all that are kept if those are fewer.
    Last(u32),
}

/// What a new subscriber gets before the live stream.
#[derive(Debug, Default)]
pub struct Past {
    /// After this the live stream goes on: the topic's newest message, or one that has still to come here from its stream.
    pub cursor: Cursor,
    /// In order, the last one at `cursor`.
    pub messages: Vec<Message>,
    /// Some of what was asked for is not kept any more, or never was: there are no messages then.
    pub reset: bool,
}

/// Part of a topic's history.
#[derive(Debug, Default)]
pub struct Page {
    /// After this the next page begins; `None` when there is no such topic.
    pub cursor: Option<Cursor>,
    /// In order.
    pub messages: Vec<Message>,
    /// More follows.
    pub more: bool,
    /// Some of what was asked for is not kept any more, or never was: there are no messages then.
    pub reset: bool,
}

/// What is known of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its newest message; `None` when there is no such topic.
    pub cursor: Option<Cursor>,
    /// Subscribers, those of groups included.
    pub subscribers: u64,
    /// Messages that are kept.
    pub messages: usize,
    /// What they keep in memory, about.
    pub bytes: usize,
    /// The oldest of them.
    pub first: Option<Offset>,
    /// How much is kept at most.
    pub bounds: Keep,
}
