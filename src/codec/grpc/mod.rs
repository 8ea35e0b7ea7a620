//! gRPC over HTTP/2: what stands around messages, the frames of `holdline.v1`, and how a call ends.

pub mod client;
pub mod frame;
pub mod generated;
pub mod gzip;
pub mod metadata;
pub mod status;

pub use frame::{write_message, write_reset, write_subscribed};
pub use metadata::{Encoding, parse_timeout};
pub use status::{Code, Status};

/// Bytes in front of each message: whether it is compressed, and its length (32 bits, big endian).
pub const PREFIX_BYTES: usize = 5;

/// Appends a message as it is.
pub fn encode(payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(PREFIX_BYTES + payload.len());
    write_prefix(payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends what stands in front of an uncompressed message of so many bytes.
fn write_prefix(bytes: usize, out: &mut Vec<u8>) {
    let bytes = u32::try_from(bytes).expect("no message is larger than the message limit, which fits 32 bits");
    out.push(0);
    out.extend_from_slice(&bytes.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stands_behind_its_length() {
        let mut out = Vec::new();
        encode(b"hello", &mut out);
        encode(b"", &mut out);
        assert_eq!(out, b"\0\0\0\0\x05hello\0\0\0\0\0");
    }
}
