//! How scripted peers read and write: plain codecs of their own, that share no code with the engine's, and strict.

use super::calls;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// WebSocket, with permessage-deflate or without.
    WebSocket { deflate: bool },
    /// Lines.
    Line,
    /// Lengths.
    Length,
    /// `holdline.v1.ServerFrame`s.
    Call,
    /// `holdline.v1.EchoMessage`s.
    EchoCall,
}

/// What a peer read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// A raw TCP frame, of no kind.
    Raw(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// A raw TCP frame without content.
    Heartbeat,
    /// A call's publication has its place.
    Ack(u32),
    /// Something of a call that says nothing to a peer.
    Aside,
}

/// Compression for all peers of a world.
#[derive(Default)]
pub(super) struct Zip {
    compress: Option<Compress>,
    decompress: Option<Decompress>,
}

const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

impl Zip {
    pub(super) fn deflate(&mut self, payload: &[u8]) -> Vec<u8> {
        let compress = self.compress.get_or_insert_with(|| Compress::new(Compression::fast(), false));
        compress.reset();
        let mut out = Vec::with_capacity(payload.len() + 64);
        let status = compress.compress_vec(payload, &mut out, FlushCompress::Sync);
        assert!(matches!(status, Ok(Status::Ok)) && out.ends_with(&TAIL), "room for all of it");
        out.truncate(out.len() - TAIL.len());
        out
    }

    fn inflate(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let decompress = self.decompress.get_or_insert_with(|| Decompress::new(false));
        decompress.reset(false);
        let mut out = Vec::with_capacity(64 * 1024);
        let input = [bytes, &TAIL].concat();
        let status = decompress.decompress_vec(&input, &mut out, FlushDecompress::Sync);
        let all = decompress.total_in() == input.len() as u64;
        match status {
            Ok(Status::Ok | Status::BufError) if all => Ok(out),
            other => Err(format!("a message that cannot be inflated: {other:?}")),
        }
    }
}

/// One frame as a client writes it.
pub(super) fn client_frame(first: u8, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    out.push(first);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | low_byte(len)),
        len @ 126..=0xffff => out.extend([0x80 | 126, low_byte(len >> 8), low_byte(len)]),
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}

fn low_byte(value: usize) -> u8 {
    value.to_le_bytes()[0]
}

/// The next frame, if all of it is there.
pub(super) fn next(format: Format, inbox: &mut Vec<u8>, zip: &mut Zip) -> Result<Option<Frame>, String> {
    let found = match format {
        Format::Call => return calls::frame(inbox),
        Format::EchoCall => return Ok(calls::hear_echo(inbox)?.map(Frame::Binary)),
        Format::Line => inbox.iter().position(|&byte| byte == b'\n').map(|end| (end + 1, raw(&inbox[..end]))),
        Format::Length => match inbox.first_chunk::<4>() {
            Some(len) => {
                let end = 4 + u32::from_be_bytes(*len) as usize;
                if end > 1 << 24 {
                    return Err(format!("a frame of {end} bytes"));
                }
                inbox.get(4..end).map(|payload| (end, raw(payload)))
            }
            None => None,
        },
        Format::WebSocket { deflate } => server_frame(inbox, deflate, zip)?,
    };
    Ok(found.map(|(used, frame)| {
        inbox.drain(..used);
        frame
    }))
}

fn raw(payload: &[u8]) -> Frame {
    if payload.is_empty() { Frame::Heartbeat } else { Frame::Raw(payload.to_vec()) }
}

fn server_frame(bytes: &[u8], deflate: bool, zip: &mut Zip) -> Result<Option<(usize, Frame)>, String> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    let (opcode, compressed) = (first & 0x0f, first & 0x40 != 0);
    if first & 0x80 == 0 || first & 0x30 != 0 || second & 0x80 != 0 || (compressed && !(deflate && opcode < 8)) {
        return Err(format!("a frame that begins with {first:#x} {second:#x}, deflate: {deflate}"));
    }
    let (start, len) = match second {
        126 => match bytes.get(2..4) {
            Some(len) => (4, len.iter().fold(0, |len, &byte| len << 8 | u64::from(byte))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(len) => (10, len.iter().fold(0, |len, &byte| len << 8 | u64::from(byte))),
            None => return Ok(None),
        },
        len => (2, u64::from(len)),
    };
    let shortest = match len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    if start != shortest || len > 1 << 24 || (opcode >= 8 && len > 125) {
        return Err(format!("a frame of {len} bytes with {start} bytes of header and the opcode {opcode}"));
    }
    let end = start + usize::try_from(len).unwrap_or(usize::MAX);
    let Some(payload) = bytes.get(start..end) else { return Ok(None) };
    let payload = if compressed { zip.inflate(payload)? } else { payload.to_vec() };
    let frame = match opcode {
        1 if str::from_utf8(&payload).is_err() => return Err("text that is not UTF-8".into()),
        1 => Frame::Text(payload),
        2 => Frame::Binary(payload),
        8 => Frame::Close(close_code(&payload)?),
        9 => Frame::Ping(payload),
        10 => Frame::Pong(payload),
        _ => return Err(format!("the opcode {opcode}")),
    };
    Ok(Some((end, frame)))
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, String> {
    match payload {
        [] => Ok(None),
        [_] => Err("half a close code".into()),
        [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) if str::from_utf8(reason).is_ok() => Ok(Some(code)),
            code => Err(format!("a close frame with {code} and {reason:?}")),
        },
    }
}

/// What a message's payload is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Style {
    Text,
    /// Text with line breaks inside.
    Lines,
    /// Never UTF-8.
    Binary,
}

/// A message, by who sent it and which of theirs it was. For chats the first is the joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    pub(super) publisher: u32,
    pub(super) sequence: u32,
}

impl Id {
    /// The sequence of a chat's good-bye.
    pub(super) const LEFT: u32 = u32::MAX;
}

/// A payload that says whose it is, of about so many bytes.
pub(super) fn payload(style: Style, id: Id, bytes: usize) -> Vec<u8> {
    let letter = match style {
        Style::Text => 'T',
        Style::Lines => 'N',
        Style::Binary => 'B',
    };
    let mut payload = format!("{letter}{}.{}.{bytes};", id.publisher, id.sequence).into_bytes();
    if style == Style::Binary {
        payload.push(0xff);
    }
    let salt = id.publisher as usize * 7 + id.sequence as usize;
    while payload.len() < bytes {
        let at = payload.len() + salt;
        payload.push(match style {
            Style::Lines if at.is_multiple_of(17) => b'\n',
            _ => b'a' + low_byte(at * at / 3 % 26),
        });
    }
    payload
}

/// Whose payload it is; an error unless it is exactly what was sent.
pub(super) fn identify(frame: &Frame) -> Result<Id, String> {
    let (bytes, raw) = match frame {
        Frame::Raw(bytes) => (bytes, true),
        Frame::Text(bytes) | Frame::Binary(bytes) => (bytes, false),
        other => return Err(format!("{other:?} is no message")),
    };
    let bad = || format!("a message that nobody sent: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
    let end = bytes.iter().position(|&byte| byte == b';').ok_or_else(bad)?;
    let head = str::from_utf8(&bytes[..end]).map_err(|_| bad())?;
    let (style, numbers) = head.split_at_checked(1).ok_or_else(bad)?;
    let style = match style {
        "T" => Style::Text,
        "N" => Style::Lines,
        "B" => Style::Binary,
        _ => return Err(bad()),
    };
    let mut numbers = numbers.split('.').map(|number| number.parse::<u32>().ok());
    let (Some(Some(publisher)), Some(Some(sequence)), Some(Some(len))) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        return Err(bad());
    };
    let id = Id { publisher, sequence };
    let sent = payload(style, id, len as usize);
    let spaced = |byte: &u8| if raw && *byte == b'\n' { b' ' } else { *byte };
    let is_kind = raw || matches!(frame, Frame::Binary(_)) == (style == Style::Binary);
    let is_same = *bytes == sent || (raw && sent.iter().map(spaced).eq(bytes.iter().copied()));
    if is_kind && is_same { Ok(id) } else { Err(format!("{}, which was changed on its way", bad())) }
}
