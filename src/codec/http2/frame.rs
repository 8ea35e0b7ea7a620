//! Frames: nine bytes, then a payload (RFC 9113 section 4.1).
//!
//! ```text
//!   length (24)  type (8)  flags (8)  reserved (1)  stream (31)  payload
//! ```

/// What a client says first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The part of [`PREFACE`] that HTTP/1.1 reads as a head.
pub const PREFACE_HEAD: &[u8; 18] = b"PRI * HTTP/2.0\r\n\r\n";

/// The number of a stream; 0 is the connection itself. Clients' are odd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The connection itself.
    pub const CONNECTION: Self = Self(0);
    /// The highest number: 31 bits.
    pub const MAX: u32 = (1 << 31) - 1;
}

/// Why a stream or a connection ends (RFC 9113 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ErrorCode {
    /// Nothing is wrong.
    NoError = 0,
    /// The peer broke the protocol.
    ProtocolError = 1,
    /// A fault of ours.
    InternalError = 2,
    /// The peer sent more than its window.
    FlowControlError = 3,
    /// The peer did not acknowledge our settings in time.
    SettingsTimeout = 4,
    /// A frame for a stream that is closed for it.
    StreamClosed = 5,
    /// A frame of a size that it cannot have.
    FrameSizeError = 6,
    /// The request was not looked at; it can be sent again.
    RefusedStream = 7,
    /// Nobody wants the stream any more.
    Cancel = 8,
    /// Compressed fields that cannot be read.
    CompressionError = 9,
    /// A tunnel's other end failed.
    ConnectError = 10,
    /// The peer makes too much work.
    EnhanceYourCalm = 11,
    /// The transport is not safe enough.
    InadequateSecurity = 12,
    /// HTTP/1.1 is needed.
    Http11Required = 13,
}

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 9;

/// Types of frames (RFC 9113 section 6). Others are ignored (section 4.1).
#[allow(missing_docs, reason = "the names are those of the RFC")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
#[allow(missing_docs, reason = "the names are those of the RFC")]
pub mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the payload.
    pub length: u32,
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// The stream, without the reserved bit.
    pub stream: StreamId,
}

impl Header {
    /// Reads one.
    #[must_use]
    pub const fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [a, b, c, kind, flags, d, e, f, g] = *bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: StreamId(u32::from_be_bytes([d, e, f, g]) & StreamId::MAX),
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [d, e, f, g] = self.stream.0.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    /// Whether a flag is set.
    #[must_use]
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame. The payload is below 2^24 bytes.
pub fn write(kind: u8, flags: u8, stream: StreamId, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    debug_assert!(length < 1 << 24);
    out.extend_from_slice(&Header { length, kind, flags, stream }.to_bytes());
    out.extend_from_slice(payload);
}

/// Appends the end of a stream, for this reason.
pub fn write_reset(stream: StreamId, code: ErrorCode, out: &mut Vec<u8>) {
    write(kind::RST_STREAM, 0, stream, &(code as u32).to_be_bytes(), out);
}

/// Appends a PING, or the answer to one.
pub fn write_ping(data: [u8; 8], is_ack: bool, out: &mut Vec<u8>) {
    write(kind::PING, if is_ack { flag::ACK } else { 0 }, StreamId::CONNECTION, &data, out);
}

/// Appends that the peer may send so much more.
pub fn write_window_update(stream: StreamId, bytes: u32, out: &mut Vec<u8>) {
    write(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes(), out);
}

/// Appends that no stream after `last` will be looked at.
pub fn write_go_away(last: StreamId, code: ErrorCode, debug: &str, out: &mut Vec<u8>) {
    let payload = [&last.0.to_be_bytes()[..], &(code as u32).to_be_bytes(), debug.as_bytes()].concat();
    write(kind::GOAWAY, 0, StreamId::CONNECTION, &payload, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_is_written() {
        let header =
            Header { length: 0x01_02_03, kind: kind::DATA, flags: flag::PADDED, stream: StreamId(0x7f00_0001) };
        assert_eq!(header.to_bytes(), [1, 2, 3, 0, 8, 0x7f, 0, 0, 1]);
        assert_eq!(Header::parse(&header.to_bytes()), header);
        assert_eq!(Header::parse(&[0, 0, 0, 0, 0, 0x80, 0, 0, 1]).stream, StreamId(1), "the reserved bit is ignored");
    }
}
