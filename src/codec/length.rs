//! Frames behind a 4-byte big-endian length.

use bytes::{Buf, BufMut};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 4;

/// The length that the frame at the beginning of `bytes` declares for its payload; `None` while it is unfinished.
#[must_use]
pub fn declared(mut bytes: &[u8]) -> Option<usize> {
    let declared = bytes.try_get_u32().ok()?;
    // Where an address has fewer bits, a length that does not fit is over any limit.
    Some(usize::try_from(declared).unwrap_or(usize::MAX))
}

/// Appends the payload behind its length.
pub fn encode(payload: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(payload.len()).expect("no message is larger than the message limit, which fits 32 bits");
    out.reserve(HEADER_BYTES + payload.len());
    out.put_u32(len);
    out.put_slice(payload);
}

/// The payload behind its length.
#[must_use]
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(payload, &mut frame);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_declares_its_length() {
        let frame = frame(b"hello");
        assert_eq!(frame, b"\0\0\0\x05hello");
        assert_eq!(declared(&frame), Some(5));
        assert_eq!(declared(&frame[..3]), None);
        assert_eq!(declared(b"\xff\xff\xff\xff"), Some(u32::MAX as usize));
    }
}
