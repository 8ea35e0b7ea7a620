//! The proof in the opening handshake, RFC 6455 section 4.2.2, that both sides speak WebSocket.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Bytes of a `Sec-WebSocket-Key`: 16 random ones in base64.
pub const KEY_BYTES: usize = 24;

/// Bytes of a `Sec-WebSocket-Accept`: a SHA-1 in base64.
pub const ACCEPT_BYTES: usize = 28;

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a `Sec-WebSocket-Key` is 16 bytes in base64. The four bits that pad the last byte may be anything: some
/// clients fill them with noise and no one reads them.
#[must_use]
pub fn is_key(key: &[u8]) -> bool {
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == KEY_BYTES && key[..22].iter().all(base64) && &key[22..] == b"=="
}

/// The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
#[must_use]
pub fn accept_key(key: &[u8]) -> [u8; ACCEPT_BYTES] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT_BYTES];
    let written = STANDARD.encode_slice(digest, &mut accept);
    debug_assert!(written.is_ok_and(|written| written == ACCEPT_BYTES), "20 bytes are 28 in base64");
    accept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_1_3_the_sample_nonce() {
        assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_16_bytes_in_base64() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(is_key(b"AAAAAAAAAAAAAAAAAAAAAB=="), "noise in the padding");
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZQAA",
        ] {
            assert!(!is_key(key.as_bytes()), "{key}");
        }
        assert!(!is_key(b"dGhlIHNhbXBs SBub25jZQ=="));
        assert!(!is_key(b"dGhlIHNhbXBs-SBub25jZQ=="));
    }
}
