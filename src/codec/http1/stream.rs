//! Bodies without an end: chunks, RFC 9112 section 7.1, and what a stream of events begins with.

use std::io::Write;

/// The end of a body in chunks.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends one chunk with what `write` appends, which must not be nothing: that would be the end.
pub fn write_chunk(write: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    // The length stands before what is not there yet: room for 8 digits, of which leading zeros may stay.
    const DIGITS: usize = 8;
    let start = out.len();
    out.extend_from_slice(b"00000000\r\n");
    let data = out.len();
    write(out);
    let length = out.len() - data;
    debug_assert!(length > 0 && length >> (4 * DIGITS) == 0);
    let mut digits = [0; DIGITS];
    let _ = write!(&mut digits[..], "{length:08x}");
    out[start..start + DIGITS].copy_from_slice(&digits);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_its_length_in_hexadecimal() {
        let mut out = b"x".to_vec();
        write_chunk(|out| out.extend_from_slice(&[b'a'; 26]), &mut out);
        assert_eq!(out, [b"x0000001a\r\n", &[b'a'; 26][..], b"\r\n"].concat());
    }
}
