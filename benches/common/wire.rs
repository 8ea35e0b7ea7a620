//! The client's side of the wire: upgrade request, masked frames and their replies, length-prefixed messages, HTTP
//! requests and their answers, frames of HTTP/2.
//!
//! Every message but those of HTTP starts with a sequence number of 8 bytes, so that a lost, doubled or misplaced one is noticed.

use std::io;

use super::http2;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const HEAD_BYTES_MAX: usize = 4096;

/// Answer to every upgrade request of this client; what the bare accept loop sends.
pub(crate) const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                                   Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// 4 bytes of big-endian length, then the message. A bare loop need not understand it to echo it.
    Raw,
    /// RFC 6455 after an upgrade, binary messages.
    WebSocket,
    /// HTTP/1.1 with keep-alive: a message is the body of an answer with status 200.
    Http,
    /// HTTP/2 by prior knowledge: a message is a frame of it, head and all, but for pings. See [`http2`].
    Http2,
}

impl Protocol {
    /// The first bytes on a new connection; the connection is open when their answer is complete.
    pub(crate) fn hello(self, path: &str) -> Vec<u8> {
        match self {
            Self::Raw => Template::new(self, 12, 1).patch(1, u64::MAX).to_vec(),
            Self::WebSocket => format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            .into_bytes(),
            Self::Http => get(path),
            Self::Http2 => http2::hello(),
        }
    }

    /// Bytes of the answer to [`Protocol::hello`], or `None` while it is incomplete.
    pub(crate) fn welcome(self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Raw | Self::Http => Ok(self.next(bytes)?.map(|(_, used)| used)),
            Self::WebSocket => {
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                    return if bytes.len() > HEAD_BYTES_MAX { Err(bad("endless response head")) } else { Ok(None) };
                };
                let head = String::from_utf8_lossy(&bytes[..end]);
                if head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT) {
                    Ok(Some(end + 4))
                } else {
                    Err(bad(&format!("not upgraded: {}", head.lines().next().unwrap_or(""))))
                }
            }
            // The settings that it begins with are a frame like others, and are handed out.
            Self::Http2 => http2::is_welcome(bytes).map(|welcome| welcome.then_some(0)),
        }
    }

    /// The first whole frame of `bytes` and its length on the wire.
    pub(crate) fn next(self, bytes: &[u8]) -> io::Result<Option<(Frame<'_>, usize)>> {
        let Some((kind, start, end)) = (match self {
            Self::Raw => raw_bounds(bytes),
            Self::WebSocket => frame_bounds(bytes)?,
            Self::Http => answer_bounds(bytes)?,
            Self::Http2 => http2_bounds(bytes),
        }) else {
            return Ok(None);
        };
        let Some(payload) = bytes.get(start..end) else { return Ok(None) };
        let frame = match kind {
            Kind::Message => Frame::Message(payload),
            Kind::Ping => Frame::Ping(payload),
            Kind::Close => return Err(bad(&format!("the server closed the connection: {payload:?}"))),
        };
        Ok(Some((frame, end)))
    }

    /// The answer to a ping, where one is wanted.
    pub(crate) fn pong(self, payload: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::WebSocket => Some(pong(payload)),
            Self::Http2 => Some(http2::frame(http2::PING, http2::ACK, 0, payload)),
            Self::Raw | Self::Http => None,
        }
    }
}

/// One frame from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Message(&'a [u8]),
    /// Wants a [pong](Protocol::pong); with [`Protocol::Raw`] an empty message, which wants nothing.
    Ping(&'a [u8]),
}

enum Kind {
    Message,
    Ping,
    Close,
}

fn raw_bounds(bytes: &[u8]) -> Option<(Kind, usize, usize)> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    Some((if length == 0 { Kind::Ping } else { Kind::Message }, 4, 4 + length))
}

fn frame_bounds(bytes: &[u8]) -> io::Result<Option<(Kind, usize, usize)>> {
    let Some(&[first, second]) = bytes.first_chunk() else { return Ok(None) };
    let kind = match first {
        0x81 | 0x82 => Kind::Message,
        0x89 => Kind::Ping,
        0x88 => Kind::Close,
        other => return Err(bad(&format!("unexpected first byte of a frame: {other:#04x}"))),
    };
    let extended = bytes.get(2..).unwrap_or(&[]);
    Ok(match second {
        length @ 0..=125 => Some((kind, 2, 2 + usize::from(length))),
        126 => extended.first_chunk().map(|length| (kind, 4, 4 + usize::from(u16::from_be_bytes(*length)))),
        127 => extended.first_chunk().map(|length| (kind, 10, 10 + u64::from_be_bytes(*length) as usize)),
        _ => return Err(bad("masked frame from the server")),
    })
}

fn http2_bounds(bytes: &[u8]) -> Option<(Kind, usize, usize)> {
    let frame = http2::Frame::head(bytes)?;
    let end = http2::HEAD_BYTES + frame.length;
    Some(match frame.kind {
        http2::GOAWAY => (Kind::Close, http2::HEAD_BYTES, end),
        http2::PING if frame.flags & http2::ACK == 0 => (Kind::Ping, http2::HEAD_BYTES, end),
        _ => (Kind::Message, 0, end),
    })
}

fn answer_bounds(bytes: &[u8]) -> io::Result<Option<(Kind, usize, usize)>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Err(bad("endless response head")) } else { Ok(None) };
    };
    let (head, start) = (&bytes[..end], end + 4);
    let line = |head: &[u8]| String::from_utf8_lossy(head).lines().next().unwrap_or_default().to_owned();
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(bad(&format!("not served: {}", line(head))));
    }
    let name = b"\r\nContent-Length: ";
    let at = memchr::memmem::find(head, name).ok_or_else(|| bad("an answer without a length"))?;
    let length = line(&head[at + name.len()..]);
    let length: usize = length.parse().map_err(|_| bad(&format!("not a length: {length}")))?;
    Ok(Some((Kind::Message, start, start + length)))
}

/// A request for a file.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n").into_bytes()
}

/// A request that sends a body.
pub(crate) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// The sequence number that a message of this client starts with.
pub(crate) fn sequence(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// A masked pong.
fn pong(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x8a, 0x80 | (payload.len() & 0x7f) as u8];
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Messages built once, back to back, of which only the sequence numbers change.
pub(crate) struct Template {
    bytes: Vec<u8>,
    frame_bytes: usize,
    sequence_at: usize,
    mask: u64,
    /// Bytes of a message as the receiver hands it out.
    pub(crate) payload_bytes: usize,
}

impl Template {
    /// `count` messages of `size` bytes: payload of a WebSocket message, whole of a raw one. HTTP has none.
    pub(crate) fn new(protocol: Protocol, size: usize, count: usize) -> Self {
        assert!(size >= 12, "a message holds its length and a sequence number");
        let fill = |length: usize| (0..length).map(|at| b'a' + (at % 26) as u8);
        let (frame, sequence_at, mask, payload_bytes) = match protocol {
            Protocol::Raw | Protocol::Http | Protocol::Http2 => {
                let mut frame = ((size - 4) as u32).to_be_bytes().to_vec();
                frame.extend(fill(size - 4));
                (frame, 4, [0; 4], size - 4)
            }
            Protocol::WebSocket => {
                let mut frame = vec![0x82];
                match size {
                    0..=125 => frame.push(0x80 | size as u8),
                    126..=0xffff => {
                        frame.push(0x80 | 126);
                        frame.extend((size as u16).to_be_bytes());
                    }
                    _ => {
                        frame.push(0x80 | 127);
                        frame.extend((size as u64).to_be_bytes());
                    }
                }
                frame.extend(MASK);
                let start = frame.len();
                frame.extend(fill(size).zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
                (frame, start, MASK, size)
            }
        };
        let mask = u64::from(u32::from_be_bytes(mask));
        Self {
            frame_bytes: frame.len(),
            bytes: frame.repeat(count),
            sequence_at,
            mask: mask << 32 | mask,
            payload_bytes,
        }
    }

    /// The first `count` messages, numbered from `first`.
    pub(crate) fn patch(&mut self, count: usize, first: u64) -> &[u8] {
        for index in 0..count {
            let at = index * self.frame_bytes + self.sequence_at;
            let number = first.wrapping_add(index as u64) ^ self.mask;
            self.bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
        }
        &self.bytes[..count * self.frame_bytes]
    }
}

/// An error in what the other side sent.
pub(crate) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
