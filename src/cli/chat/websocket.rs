//! A small blocking WebSocket client (RFC 6455): what a terminal needs, without extensions.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

use super::target::Target;

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The server answered, but with something else: the status, its name and what the body says.
    #[error("the server answered {0} {1}")]
    Status(u16, String, String),
    /// What answered is no WebSocket server.
    #[error("not a WebSocket server: {0}")]
    Broken(&'static str),
    /// Nothing came, or not all of it.
    #[error("no answer: {0}")]
    Io(#[from] io::Error),
}

/// How the conversation failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The connection went away.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server breaks the protocol: the close code to tell it, and why.
    #[error("the server breaks the protocol: {1}")]
    Protocol(u16, &'static str),
}

/// What a client sees.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Text(String),
    Binary(Vec<u8>),
    /// A pong with these bytes is due.
    Ping(Vec<u8>),
    /// The peer's last word.
    Close(Option<u16>, String),
}

const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 4 * 1024;
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Asks for a WebSocket and checks the answer. What came behind it is returned.
pub(super) fn handshake<S: Read + Write>(stream: &mut S, target: &Target) -> Result<Vec<u8>, HandshakeError> {
    let key = BASE64.encode([random(), random()].concat());
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Version: 13\r\nUser-Agent: holdline/{}\r\n\r\n",
        target.path,
        target.authority(),
        env!("CARGO_PKG_VERSION"),
    );
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    loop {
        if read_more(stream, &mut bytes)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(head) = check_head(&bytes, &key, stream)? {
            return Ok(bytes.split_off(head));
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(HandshakeError::Broken("its answer does not end"));
        }
    }
}

/// What the server has to prove that it read our key.
fn accept(key: &str) -> String {
    BASE64.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")))
}

/// The length of a good head, `None` while it is not whole.
fn check_head(bytes: &[u8], key: &str, stream: &mut impl Read) -> Result<Option<usize>, HandshakeError> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(HandshakeError::Broken("what it says is not HTTP")),
    };
    let status = response.code.unwrap_or(0);
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
    };
    if status != 101 {
        let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let body = read_body(&bytes[head..], length, stream);
        return Err(HandshakeError::Status(status, response.reason.unwrap_or_default().to_owned(), body));
    }
    let names = |name: &str, token: &str| {
        field(name).is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    if !names("upgrade", "websocket") || !names("connection", "upgrade") {
        return Err(HandshakeError::Broken("its answer lacks Upgrade: websocket"));
    }
    if field("sec-websocket-accept") != Some(accept(key).as_str()) {
        return Err(HandshakeError::Broken("its Sec-WebSocket-Accept does not belong to our key"));
    }
    if field("sec-websocket-extensions").is_some_and(|value| !value.is_empty()) {
        return Err(HandshakeError::Broken("it takes an extension that we did not offer"));
    }
    if field("sec-websocket-protocol").is_some() {
        return Err(HandshakeError::Broken("it takes a subprotocol that we did not offer"));
    }
    Ok(Some(head))
}

/// What an error's body says, as far as it is short and comes at once.
fn read_body(start: &[u8], length: usize, stream: &mut impl Read) -> String {
    let mut body = start.to_vec();
    while body.len() < length.min(BODY_BYTES_MAX) && matches!(read_more(stream, &mut body), Ok(1..)) {}
    body.truncate(length.min(BODY_BYTES_MAX));
    let text = String::from_utf8_lossy(&body);
    // {"error":{"code","message"}}: the message is enough for people.
    let message =
        text.split_once("\"message\":\"").and_then(|(_, rest)| rest.split_once('"')).map(|(message, _)| message);
    message.unwrap_or(&text).chars().take(200).collect()
}

fn read_more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 8192];
    loop {
        match stream.read(&mut chunk) {
            Ok(count) => {
                bytes.extend_from_slice(&chunk[..count]);
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Random enough for keys and masks: SipHash under a key from the system, over a count that never repeats.
fn random() -> [u8; 8] {
    RandomState::new().hash_one(std::time::Instant::now()).to_ne_bytes()
}

/// Frames of a client are masked.
pub(super) fn write_frame(stream: &mut impl Write, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
    let [a, b, c, d, ..] = random();
    let mask = [a, b, c, d];
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(0x80 | opcode as u8);
    match u16::try_from(payload.len()) {
        Ok(length @ 0..126) => frame.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    stream.write_all(&frame)
}

/// What a client sends.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Opcode {
    Text = 1,
    Close = 8,
    Pong = 10,
}

/// Reads what the server sends.
#[derive(Debug)]
pub(super) struct Reader<R> {
    stream: R,
    buf: Vec<u8>,
    /// The fragments so far, and whether they are text.
    message: Option<(bool, Vec<u8>)>,
}

struct Head {
    fin: bool,
    opcode: u8,
    length: usize,
    head: usize,
}

impl<R: Read> Reader<R> {
    /// A reader over a stream whose first bytes are already in `buf`.
    pub(super) fn new(stream: R, buf: Vec<u8>) -> Self {
        Self { stream, buf, message: None }
    }

    /// Waits for the next event. Pongs are passed over.
    pub(super) fn next(&mut self) -> Result<Event, Fault> {
        loop {
            let Some(head) = parse_head(&self.buf)? else {
                self.fill()?;
                continue;
            };
            let gathered = self.message.as_ref().map_or(0, |(_, bytes)| bytes.len());
            if head.length > MESSAGE_BYTES_MAX - gathered {
                return Err(Fault::Protocol(1009, "a message is over 16 MiB"));
            }
            let end = head.head + head.length;
            while self.buf.len() < end {
                self.fill()?;
            }
            let payload = self.buf[head.head..end].to_vec();
            self.buf.drain(..end);
            if let Some(event) = self.frame(&head, payload)? {
                return Ok(event);
            }
        }
    }

    fn fill(&mut self) -> Result<(), Fault> {
        match read_more(&mut self.stream, &mut self.buf)? {
            0 => Err(Fault::Io(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    fn frame(&mut self, head: &Head, payload: Vec<u8>) -> Result<Option<Event>, Fault> {
        match head.opcode {
            0 => {
                let (_, bytes) = self.message.as_mut().ok_or(Fault::Protocol(1002, "a continuation of nothing"))?;
                bytes.extend_from_slice(&payload);
            }
            1 | 2 => {
                if self.message.is_some() {
                    return Err(Fault::Protocol(1002, "a message inside a message"));
                }
                self.message = Some((head.opcode == 1, payload));
            }
            8 => return close(&payload).map(Some),
            9 => return Ok(Some(Event::Ping(payload))),
            // A pong; other opcodes do not get here.
            _ => return Ok(None),
        }
        match self.message.take_if(|_| head.fin) {
            Some((true, bytes)) => text(bytes).map(|text| Some(Event::Text(text))),
            Some((false, bytes)) => Ok(Some(Event::Binary(bytes))),
            None => Ok(None),
        }
    }
}

fn text(bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| Fault::Protocol(1007, "text that is not UTF-8"))
}

fn close(payload: &[u8]) -> Result<Event, Fault> {
    match payload {
        [] => Ok(Event::Close(None, String::new())),
        [_] => Err(Fault::Protocol(1002, "half a close code")),
        [high, low, reason @ ..] => Ok(Event::Close(Some(u16::from_be_bytes([*high, *low])), text(reason.to_vec())?)),
    }
}

fn parse_head(buf: &[u8]) -> Result<Option<Head>, Fault> {
    let [first, second, rest @ ..] = buf else { return Ok(None) };
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    if first & 0x70 != 0 {
        return Err(Fault::Protocol(1002, "a reserved bit"));
    }
    if second & 0x80 != 0 {
        return Err(Fault::Protocol(1002, "a masked frame"));
    }
    if !matches!(opcode, 0..=2 | 8..=10) {
        return Err(Fault::Protocol(1002, "a reserved opcode"));
    }
    if opcode >= 8 && (!fin || second & 0x7f > 125) {
        return Err(Fault::Protocol(1002, "a control frame that is too long or in parts"));
    }
    let (length, head) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 4),
        (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 10),
        (126 | 127, _) => return Ok(None),
        (length, _) => (u64::from(length), 2),
    };
    // What does not fit is over every limit as well.
    Ok(Some(Head { fin, opcode, length: usize::try_from(length).unwrap_or(usize::MAX), head }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    /// One byte at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut buf[..1])
        }
    }

    fn read_all(bytes: &[u8]) -> (Vec<Event>, Fault) {
        let mut reader = Reader::new(Drip(bytes), Vec::new());
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => events.push(event),
                Err(fault) => return (events, fault),
            }
        }
    }

    #[test]
    fn the_proof_is_that_of_the_rfc() {
        // RFC 6455 section 1.3.
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn fragments_are_put_together_around_control_frames() {
        let bytes = [
            &[0x01, 2][..],
            b"ab",
            &[0x89, 1],
            b"p",
            &[0x8a, 0],
            &[0x80, 1],
            b"c",
            &[0x82, 0],
            &[0x88, 3, 3, 0xe9, b'x'],
        ];
        let (events, fault) = read_all(&bytes.concat());
        let expected = [
            Event::Ping(b"p".to_vec()),
            Event::Text("abc".to_owned()),
            Event::Binary(Vec::new()),
            Event::Close(Some(1001), "x".to_owned()),
        ];
        assert_eq!(events, expected);
        assert!(matches!(fault, Fault::Io(_)));
    }

    #[test]
    fn what_breaks_the_protocol_is_told_with_its_code() {
        for (bytes, code) in [
            (&[0xc1, 0][..], 1002),
            (&[0x81, 0x80], 1002),
            (&[0x83, 0], 1002),
            (&[0x09, 0], 1002),
            (&[0x89, 126], 1002),
            (&[0x80, 0], 1002),
            (&[0x01, 0, 0x01, 0], 1002),
            (&[0x88, 1, 3], 1002),
            (&[0x81, 1, 0xff], 1007),
            (&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255], 1009),
        ] {
            let (_, fault) = read_all(bytes);
            assert!(matches!(fault, Fault::Protocol(found, _) if found == code), "{bytes:?}: {fault:?}");
        }
    }

    #[test]
    fn frames_are_masked_and_say_their_length() {
        for (length, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let (payload, mut frame) = (vec![7; length], Vec::new());
            write_frame(&mut frame, Opcode::Text, &payload).unwrap();
            assert_eq!((frame.len(), frame[0], frame[1] & 0x80), (head + 4 + length, 0x81, 0x80));
            let mask = &frame[head..head + 4];
            assert!(frame[head + 4..].iter().zip(mask.iter().cycle()).all(|(byte, mask)| byte ^ mask == 7));
        }
    }

    #[test]
    fn only_a_proven_handshake_is_taken() {
        let good = format!(
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
            accept("k")
        );
        let check = |text: &str| check_head(text.as_bytes(), "k", &mut io::empty());
        assert_eq!(check(&format!("{good}\r\nrest")).unwrap(), Some(good.len() + 2));
        assert_eq!(check(&good).unwrap(), None);
        assert!(check(&format!("{good}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")).is_err());
        assert!(
            check("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n")
                .is_err()
        );
        assert!(check("SSH-2.0-x\r\n").is_err());
        let error = check(
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 40\r\n\r\n{\"error\":{\"code\":\"c\",\"message\":\"not you\"}}",
        )
        .unwrap_err();
        assert!(matches!(error, HandshakeError::Status(403, _, body) if body == "not you"));
    }
}
