//! The formats that subscribers read, and frames in them.

use std::sync::Arc;

/// How a connection's frames look, so that a message is encoded once for all who read the same format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Wire {
    /// A WebSocket frame.
    WebSocket,
    /// A WebSocket frame compressed with permessage-deflate and a window of 15 bits.
    WebSocketDeflate,
    /// A WebSocket text frame with the message's JSON.
    WebSocketJson,
    /// Bytes up to a newline.
    Line,
    /// A length, then bytes.
    Length,
    /// A server-sent event of a stream of one topic.
    Sse,
    /// A server-sent event of a stream of several topics, without its id: that is each stream's own.
    SseMany,
    /// A chunk with a line of JSON.
    JsonStream,
    /// JSON without anything around it, an item of a long poll's array.
    Json,
    /// A line of JSON: `JsonStream` without a chunk around it, where frames are made elsewhere.
    JsonLines,
    /// A gRPC message: a `ServerFrame` of `holdline.v1`.
    Grpc,
}

impl Wire {
    /// How many there are.
    pub const COUNT: usize = 11;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::WebSocket,
        Self::WebSocketDeflate,
        Self::WebSocketJson,
        Self::Line,
        Self::Length,
        Self::Sse,
        Self::SseMany,
        Self::JsonStream,
        Self::Json,
        Self::JsonLines,
        Self::Grpc,
    ];

    /// Whether something of the connection's own stands around each message, so that it cannot be sent as it is.
    #[must_use]
    pub const fn is_private(self) -> bool {
        matches!(self, Self::SseMany | Self::Json)
    }
}

/// A set of [`Wire`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants(u16);

impl Wants {
    /// Nobody wants anything.
    pub const NONE: Self = Self(0);

    /// This set and `wire`.
    #[must_use]
    pub const fn with(self, wire: Wire) -> Self {
        Self(self.0 | 1 << wire as u16)
    }

    /// All that is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `wire` is in it.
    #[must_use]
    pub const fn has(self, wire: Wire) -> bool {
        self.0 & 1 << wire as u16 != 0
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Part of a shared allocation, ready to be sent.
#[derive(Clone, Debug)]
pub struct Image {
    /// The allocation.
    pub bytes: Arc<[u8]>,
    /// First byte.
    pub start: usize,
    /// Past the last byte.
    pub end: usize,
}

impl Image {
    /// The bytes to send.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end == self.start
    }
}

impl From<Vec<u8>> for Image {
    fn from(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Self { bytes: bytes.into(), start: 0, end }
    }
}
