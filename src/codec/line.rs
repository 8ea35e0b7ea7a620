//! Frames that end in a newline.

/// Whether a payload can be a line as it is: no line breaks inside.
#[must_use]
pub fn fits(payload: &[u8]) -> bool {
    memchr::memchr2(b'\n', b'\r', payload).is_none()
}

/// The payload as one line. Line breaks inside become spaces: they would let a member of a topic forge the frames that
/// others read.
#[must_use]
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut line: Vec<u8> =
        payload.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect();
    line.push(b'\n');
    line
}
