//! Frame headers.

use super::deflate::Deflater;
use crate::message::Kind;

/// An encoded header of a server's frame: 2, 4 or 10 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; 10],
    len: u8,
}

impl Header {
    /// The header of a whole message in one frame.
    #[must_use]
    pub fn message(_kind: Kind, _payload_bytes: usize, _compressed: bool) -> Self {
        unimplemented!("stub")
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The whole message as one compressed frame, `None` when compression would not make it smaller.
#[must_use]
pub fn deflated(_kind: Kind, _payload: &[u8], _deflater: &mut Deflater) -> Option<Vec<u8>> {
    unimplemented!("stub")
}
