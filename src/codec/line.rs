//! Frames that end in a newline.

/// Whether a payload can be a line as it is: no line breaks inside.
#[must_use]
pub fn fits(payload: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', payload).is_none()
}

/// Appends the payload as one line. Line breaks inside become spaces: they would let a member of a topic forge the
/// frames that others read.
pub fn encode(payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(payload.len() + 1);
    let start = out.len();
    out.extend_from_slice(payload);
    if !fits(payload) {
        for byte in out[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
    }
    out.push(b'\n');
}

/// The payload as one line, likewise.
#[must_use]
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    encode(payload, &mut line);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_one_line_whatever_is_in_it() {
        assert_eq!(frame(b"hello"), b"hello\n");
        assert_eq!(frame(b""), b"\n");
        assert_eq!(frame(b"one\r\ntwo\rthree\n"), b"one  two three \n");
        assert!(fits(b"hello") && fits(b"") && !fits(b"a\n") && !fits(b"\ra"));
    }
}
