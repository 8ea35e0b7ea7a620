//! The ways in which a peer can break the rules of a connection.

use crate::close::CloseReason;
use crate::codec::http2::ErrorCode;
use crate::codec::http2::hpack::BadBlock;
use crate::rule::Rule;

/// How a peer broke the rules of the connection: it ends, after GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not what a connection begins with (RFC 9113 section 3.4).
    #[error("the connection does not begin with HTTP/2's preface and SETTINGS")]
    Preface,
    /// A length that its type cannot have, or above our largest (section 4.2).
    #[error("a frame of a length that it cannot have")]
    FrameSize,
    /// A frame for a stream where it is for the connection or the other way round, or a number that no client may use
    /// (sections 5.1.1 and 6).
    #[error("a frame on a stream that it cannot be on")]
    StreamNumber,
    /// A frame for a stream that has not begun (section 5.1).
    #[error("a frame on a stream that has not begun")]
    IdleStream,
    /// A request or trailers on a stream that is closed (section 5.1).
    #[error("fields on a stream that is closed")]
    ClosedStream,
    /// As much padding as there is payload, or more (sections 6.1 and 6.2).
    #[error("more padding than the frame holds")]
    Padding,
    /// A CONTINUATION of nothing, or something else where one had to come (section 6.10).
    #[error("a block of fields in pieces that do not follow each other")]
    Continuation,
    /// A client's PUSH_PROMISE (section 8.4).
    #[error("a client cannot push")]
    Push,
    /// A stream that depends on itself, before it has begun (RFC 7540 section 5.3.1).
    #[error("a stream that depends on itself")]
    Priority,
    /// A setting with a value that it cannot have (section 6.5.2).
    #[error("a setting with a value that it cannot have")]
    Setting,
    /// A setting that would make a window too large (sections 6.5.2 and 6.9.2).
    #[error("a setting that makes a window too large")]
    SettingWindow,
    /// A window that grows by nothing (section 6.9).
    #[error("a window that grows by nothing")]
    WindowIncrement,
    /// A window over 2^31 - 1 bytes (section 6.9.1).
    #[error("a window that grows too large")]
    WindowOverflow,
    /// More DATA than the connection's window (section 6.9.1).
    #[error("more data than the connection's window")]
    WindowExceeded,
    /// Compressed fields that cannot be read (section 4.3).
    #[error("compressed fields that cannot be read")]
    Compression,
    /// Compressed fields that make more work than honest ones can.
    #[error("compressed fields that make too much work")]
    FieldWork,
    /// Streams were reset too often, by the peer (CVE-2023-44487) or because of it (CVE-2025-8671).
    #[error("too many streams that were reset")]
    Resets,
    /// Too many frames that carry no payload (CVE-2019-9512, 9515 and others).
    #[error("too many frames that carry nothing")]
    Frames,
    /// Too many empty DATA frames in a row (CVE-2019-9518).
    #[error("too many empty DATA frames in a row")]
    EmptyData,
    /// Too many tiny DATA frames that nobody has consumed yet (CVE-2019-9511).
    #[error("too many tiny DATA frames")]
    DataOverhead,
    /// A block of fields in too many frames, or too large (CVE-2024-27316).
    #[error("a block of fields that goes on and on")]
    Continuations,
}

impl Violation {
    /// What GOAWAY says.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::FrameSize => ErrorCode::FrameSizeError,
            Self::ClosedStream => ErrorCode::StreamClosed,
            Self::SettingWindow | Self::WindowOverflow | Self::WindowExceeded => ErrorCode::FlowControlError,
            Self::Compression => ErrorCode::CompressionError,
            Self::FieldWork
            | Self::Resets
            | Self::Frames
            | Self::EmptyData
            | Self::DataOverhead
            | Self::Continuations => ErrorCode::EnhanceYourCalm,
            _ => ErrorCode::ProtocolError,
        }
    }
}

impl From<BadBlock> for Violation {
    fn from(bad: BadBlock) -> Self {
        match bad {
            BadBlock::TooMuchWork => Self::FieldWork,
            _ => Self::Compression,
        }
    }
}

impl crate::session::Violation for Violation {
    fn rule(&self) -> Rule {
        match self {
            Self::Preface => Rule::Http2Preface,
            Self::FrameSize => Rule::Http2FrameSize,
            Self::StreamNumber => Rule::Http2StreamNumber,
            Self::IdleStream => Rule::Http2IdleStream,
            Self::ClosedStream => Rule::Http2ClosedStream,
            Self::Padding => Rule::Http2Padding,
            Self::Continuation => Rule::Http2Continuation,
            Self::Push => Rule::Http2Push,
            Self::Priority => Rule::Http2Priority,
            Self::Setting | Self::SettingWindow => Rule::Http2Setting,
            Self::WindowIncrement => Rule::Http2WindowIncrement,
            Self::WindowOverflow => Rule::Http2WindowOverflow,
            Self::WindowExceeded => Rule::Http2WindowExceeded,
            Self::Compression => Rule::Http2Compression,
            Self::FieldWork => Rule::Http2FieldWork,
            Self::Resets => Rule::Http2Resets,
            Self::Frames => Rule::Http2Frames,
            Self::EmptyData => Rule::Http2EmptyData,
            Self::DataOverhead => Rule::Http2DataOverhead,
            Self::Continuations => Rule::Http2Continuations,
        }
    }

    fn reason(&self) -> CloseReason {
        match self.code() {
            ErrorCode::EnhanceYourCalm => CloseReason::Policy,
            _ => CloseReason::ProtocolError,
        }
    }
}
