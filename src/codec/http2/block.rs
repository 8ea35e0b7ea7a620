//! Frames that carry a block of fields: HEADERS, and CONTINUATION for what does not fit.

use super::StreamId;
use super::frame::{HEADER_BYTES, Header, flag, kind};
use super::hpack;

/// What every peer takes in one frame (RFC 9113 section 4.2).
const FRAME_BYTES: usize = 1 << 14;

/// Appends HEADERS with the block that `write` appends. `ends`: the stream ends with it.
pub(super) fn write(stream: StreamId, ends: bool, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    write(out);
    let block_bytes = out.len() - start - HEADER_BYTES;
    let end_stream = if ends { flag::END_STREAM } else { 0 };
    let end_headers = if block_bytes <= FRAME_BYTES { flag::END_HEADERS } else { 0 };
    put_header(out, start, block_bytes.min(FRAME_BYTES), kind::HEADERS, end_stream | end_headers, stream);
    if block_bytes > FRAME_BYTES {
        split(stream, out, start + HEADER_BYTES + FRAME_BYTES);
    }
}

/// Makes CONTINUATION frames of what stands from `start` on.
fn split(stream: StreamId, out: &mut Vec<u8>, start: usize) {
    let rest = out.split_off(start);
    let mut chunks = rest.chunks(FRAME_BYTES).peekable();
    while let Some(chunk) = chunks.next() {
        let flags = if chunks.peek().is_none() { flag::END_HEADERS } else { 0 };
        super::frame::write(kind::CONTINUATION, flags, stream, chunk, out);
    }
}

fn put_header(out: &mut [u8], at: usize, bytes: usize, kind: u8, flags: u8, stream: StreamId) {
    let length = u32::try_from(bytes).unwrap_or(0);
    out[at..at + HEADER_BYTES].copy_from_slice(&Header { length, kind, flags, stream }.to_bytes());
}

/// Appends a field of ours: blanks at the ends of its value, and control characters anywhere, are left out.
pub(super) fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    if value.iter().any(u8::is_ascii_control) {
        let clean: Vec<u8> = value.iter().copied().filter(|byte| !byte.is_ascii_control()).collect();
        hpack::encode(name, clean.trim_ascii(), out);
    } else {
        hpack::encode(name, value.trim_ascii(), out);
    }
}
