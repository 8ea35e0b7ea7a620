//! Frames behind a 4-byte big-endian length.

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 4;

/// The payload behind its length.
#[must_use]
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("no message is larger than the message limit, which fits 32 bits");
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}
