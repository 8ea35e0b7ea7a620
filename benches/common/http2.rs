//! The client's side of HTTP/2 (RFC 9113), as little of it as a load needs: frames, the head of a gRPC call, messages.
//!
//! Heads are sent without compression: literals and the static table. Answers' heads are looked at only as far as their
//! status. Windows are kept by whoever sends and receives; see [`WINDOW`].

use std::io;

use super::wire::bad;

/// Bytes of a frame's head.
pub(crate) const HEAD_BYTES: usize = 9;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

/// Of SETTINGS and PING.
pub(crate) const ACK: u8 = 0x1;
/// Of DATA and HEADERS.
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// Windows of a stream and of a connection before anything is said.
pub(crate) const WINDOW_DEFAULT: u32 = 65_535;
/// Windows that the server gets here, of each stream and of the connection; refilled when half is used.
pub(crate) const WINDOW: u32 = 1 << 20;

pub(crate) const SETTING_STREAMS_MAX: u16 = 3;
pub(crate) const SETTING_WINDOW: u16 = 4;

/// Largest frame that a server sends to a client that has not allowed more.
const FRAME_BYTES_MAX: usize = 16_384;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `:status: 200` in the static table.
const STATUS_OK: u8 = 0x88;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Bytes of its payload.
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// 0: the connection.
    pub(crate) stream: u32,
}

impl Frame {
    /// The first one of `bytes`.
    pub(crate) fn head(bytes: &[u8]) -> Option<Self> {
        let [high, middle, low, kind, flags, stream @ ..] = *bytes.first_chunk::<HEAD_BYTES>()?;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        Some(Self { length, kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) })
    }
}

/// A whole frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A frame that gives the other side `bytes` more of a window.
pub(crate) fn window_update(stream: u32, bytes: usize) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &(bytes as u32).to_be_bytes())
}

/// What a connection begins with: preface, settings (no pushes, the window of streams) and the connection's window.
pub(super) fn hello() -> Vec<u8> {
    let mut settings = vec![0, 2, 0, 0, 0, 0];
    settings.extend(SETTING_WINDOW.to_be_bytes());
    settings.extend(WINDOW.to_be_bytes());
    let settings = frame(SETTINGS, 0, 0, &settings);
    [PREFACE, &settings, &window_update(0, (WINDOW - WINDOW_DEFAULT) as usize)].concat()
}

/// Whether the server's first frame is there; it must be its settings.
pub(super) fn is_welcome(bytes: &[u8]) -> io::Result<bool> {
    match Frame::head(bytes) {
        None => Ok(false),
        Some(Frame { kind: SETTINGS, flags: 0, stream: 0, length }) if length <= FRAME_BYTES_MAX => {
            Ok(bytes.len() >= HEAD_BYTES + length)
        }
        Some(_) => Err(bad(&format!("not HTTP/2: {}", String::from_utf8_lossy(bytes)))),
    }
}

/// The frame that opens a call of gRPC, whose messages follow.
pub(crate) fn call(stream: u32, authority: &str, path: &str) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` by their number; then numbers of names with values, and names with values.
    let mut block = vec![0x83, 0x86];
    let mut field = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(u8::try_from(value.len()).unwrap_or(u8::MAX).min(126));
        block.extend(value.bytes().take(126));
    };
    field(&[0x04], path);
    field(&[0x01], authority);
    field(b"\x0f\x10", "application/grpc");
    field(b"\x00\x02te", "trailers");
    field(b"\x0f\x2b", "bench");
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// Checks the head of an answer that goes on.
pub(crate) fn check_answer(frame: Frame, block: &[u8]) -> io::Result<()> {
    // The compressor's table may be resized first.
    let mut fields = block.iter().skip_while(|first| *first >> 5 == 1);
    let is_served = fields.next() == Some(&STATUS_OK);
    if is_served && frame.flags & (END_STREAM | END_HEADERS) == END_HEADERS {
        return Ok(());
    }
    Err(bad(&format!("stream {}: not served: {frame:?} {}", frame.stream, String::from_utf8_lossy(block))))
}

/// The bytes of a DATA frame without its padding.
pub(crate) fn data(frame: Frame, payload: &[u8]) -> io::Result<&[u8]> {
    if frame.flags & PADDED == 0 {
        return Ok(payload);
    }
    let inside = payload.split_first().and_then(|(padding, rest)| {
        let length = rest.len().checked_sub(usize::from(*padding))?;
        rest.get(..length)
    });
    inside.ok_or_else(|| bad(&format!("stream {}: more padding than frame", frame.stream)))
}

/// Names and values of settings.
pub(crate) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload.as_chunks::<6>().0.iter().map(|[name_high, name_low, value @ ..]| {
        (u16::from_be_bytes([*name_high, *name_low]), u32::from_be_bytes(*value))
    })
}

/// A message of gRPC: 5 bytes of prefix, then protobuf with one field of bytes, number 1, of which the first 8 are a
/// sequence number.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    sequence_at: usize,
}

impl Message {
    /// One with `size` bytes in its field.
    pub(crate) fn new(size: usize) -> Self {
        assert!((8..1 << 14).contains(&size), "a field holds a sequence number and has a short length");
        let mut field = vec![0x0a];
        match size {
            0..128 => field.push(size as u8),
            _ => field.extend([size as u8 | 0x80, (size >> 7) as u8]),
        }
        let head_bytes = field.len();
        field.extend((0..size).map(|at| b'a' + (at % 26) as u8));
        let mut bytes = vec![0];
        bytes.extend((field.len() as u32).to_be_bytes());
        bytes.extend(field);
        Self { bytes, sequence_at: 5 + head_bytes }
    }

    /// Its bytes, with the prefix.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a DATA frame with it.
    pub(crate) fn write(&self, stream: u32, number: u64, out: &mut Vec<u8>) {
        out.extend(&(self.len() as u32).to_be_bytes()[1..]);
        out.extend([DATA, 0]);
        out.extend(stream.to_be_bytes());
        let at = out.len() + self.sequence_at;
        out.extend(&self.bytes);
        out[at..at + 8].copy_from_slice(&number.to_be_bytes());
    }

    /// Whether `bytes` are this one, with this number.
    pub(crate) fn is(&self, number: u64, bytes: &[u8]) -> bool {
        let behind = self.sequence_at + 8;
        bytes.len() == self.len()
            && bytes[..self.sequence_at] == self.bytes[..self.sequence_at]
            && bytes[self.sequence_at..behind] == number.to_be_bytes()
            && bytes[behind..] == self.bytes[behind..]
    }
}
