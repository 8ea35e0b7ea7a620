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

/// Appends what a stream of lines of JSON ends with when the server goes away: in how many milliseconds to come back. A body
/// without chunks is one of HTTP/2.
pub fn write_retry(millis: u64, is_chunked: bool, out: &mut Vec<u8>) {
    let write = |out: &mut Vec<u8>| {
        let _ = writeln!(out, "{{\"retry\":{millis}}}");
    };
    if is_chunked { write_chunk(write, out) } else { write(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_back_is_a_line() {
        let mut out = Vec::new();
        write_retry(1188, false, &mut out);
        write_retry(7, true, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "{\"retry\":1188}\n0000000c\r\n{\"retry\":7}\n\r\n");
    }

    #[test]
    fn a_chunk_has_its_length_in_hexadecimal() {
        let mut out = b"x".to_vec();
        write_chunk(|out| out.extend_from_slice(&[b'a'; 26]), &mut out);
        assert_eq!(out, [b"x0000001a\r\n", &[b'a'; 26][..], b"\r\n"].concat());
    }
}
