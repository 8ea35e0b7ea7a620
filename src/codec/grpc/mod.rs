//! gRPC over HTTP/2: what stands around messages, and how a call ends.

pub mod status;

pub use status::{Code, Status};

/// Bytes in front of each message: whether it is compressed, and its length (32 bits, big endian).
pub const PREFIX_BYTES: usize = 5;

/// Appends a message as it is.
pub fn encode(payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.push(0);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(payload);
}
