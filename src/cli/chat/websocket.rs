//! A small blocking WebSocket client: the codec's client side on a stream, and fragments put together.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};

use super::target::Target;
use crate::codec::websocket::client::{self, BadAnswer, BadFrame, Declined, ServerHeader};
pub(super) use crate::codec::websocket::frame::Opcode;
use crate::codec::websocket::handshake::{ACCEPT_BYTES, accept_key};

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
    /// The server breaks the protocol: the close code for it, and why.
    #[error("the server breaks the protocol: {1}")]
    Protocol(u16, &'static str),
    /// Likewise, in a single frame.
    #[error("the server breaks the protocol: {0}")]
    Frame(#[from] BadFrame),
}

impl Fault {
    /// The close code to tell the server, when it still listens.
    pub(super) const fn code(&self) -> Option<u16> {
        match self {
            Self::Io(_) => None,
            Self::Protocol(code, _) => Some(*code),
            Self::Frame(_) => Some(1002),
        }
    }
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

const BODY_BYTES_MAX: usize = 4 * 1024;
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Asks for a WebSocket and checks the answer. What came behind it is returned.
pub(super) fn handshake<S: Read + Write>(stream: &mut S, target: &Target) -> Result<Vec<u8>, HandshakeError> {
    let mut random_bytes = [0; 16];
    random_bytes[..8].copy_from_slice(&random());
    random_bytes[8..].copy_from_slice(&random());
    let key = client::key(random_bytes);
    let (mut request, accept) = (Vec::new(), accept_key(&key));
    client::write_request(&target.path, &target.authority(), &key, &mut request);
    stream.write_all(&request)?;
    let mut bytes = Vec::new();
    loop {
        if read_more(stream, &mut bytes)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(head) = check_head(&bytes, &accept, stream)? {
            return Ok(bytes.split_off(head));
        }
    }
}

/// The length of a good head, `None` while it is not whole.
fn check_head(
    bytes: &[u8],
    accept: &[u8; ACCEPT_BYTES],
    stream: &mut impl Read,
) -> Result<Option<usize>, HandshakeError> {
    client::check_answer(bytes, accept).map_err(|bad| match bad {
        BadAnswer::Status(Declined { status, phrase, head_bytes, body_bytes, .. }) => {
            HandshakeError::Status(status, phrase, read_body(&bytes[head_bytes..], body_bytes, stream))
        }
        BadAnswer::Broken(why) => HandshakeError::Broken(why),
    })
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
    let mut frame = Vec::new();
    client::write_frame(opcode, payload, [a, b, c, d], &mut frame);
    stream.write_all(&frame)
}

/// Reads what the server sends.
#[derive(Debug)]
pub(super) struct Reader<R> {
    stream: R,
    buf: Vec<u8>,
    /// The fragments so far, and whether they are text.
    message: Option<(bool, Vec<u8>)>,
}

impl<R: Read> Reader<R> {
    /// A reader over a stream whose first bytes are already in `buf`.
    pub(super) fn new(stream: R, buf: Vec<u8>) -> Self {
        Self { stream, buf, message: None }
    }

    /// Waits for the next event. Pongs are passed over.
    pub(super) fn next(&mut self) -> Result<Event, Fault> {
        loop {
            let Some(header) = ServerHeader::parse(&self.buf)? else {
                self.fill()?;
                continue;
            };
            let gathered = self.message.as_ref().map_or(0, |(_, bytes)| bytes.len());
            let length = usize::try_from(header.payload_bytes).ok().filter(|n| *n <= MESSAGE_BYTES_MAX - gathered);
            let length = length.ok_or(Fault::Protocol(1009, "a message is over 16 MiB"))?;
            let end = header.header_bytes + length;
            while self.buf.len() < end {
                self.fill()?;
            }
            let payload = self.buf[header.header_bytes..end].to_vec();
            self.buf.drain(..end);
            if let Some(event) = self.frame(&header, payload)? {
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

    fn frame(&mut self, header: &ServerHeader, payload: Vec<u8>) -> Result<Option<Event>, Fault> {
        match header.opcode {
            Opcode::Continuation => {
                let (_, bytes) = self.message.as_mut().ok_or(Fault::Protocol(1002, "a continuation of nothing"))?;
                bytes.extend_from_slice(&payload);
            }
            Opcode::Text | Opcode::Binary => {
                if self.message.is_some() {
                    return Err(Fault::Protocol(1002, "a message inside a message"));
                }
                self.message = Some((header.opcode == Opcode::Text, payload));
            }
            Opcode::Close => return close(&payload).map(Some),
            Opcode::Ping => return Ok(Some(Event::Ping(payload))),
            Opcode::Pong => return Ok(None),
        }
        match self.message.take_if(|_| header.fin) {
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
            (&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255], 1002),
            (&[0x82, 127, 127, 255, 255, 255, 255, 255, 255, 255], 1009),
        ] {
            let (_, fault) = read_all(bytes);
            assert_eq!(fault.code(), Some(code), "{bytes:?}: {fault:?}");
        }
    }

    #[test]
    fn what_an_error_says_is_read_from_its_body() {
        let check = |text: &str| check_head(text.as_bytes(), &accept_key(b"k"), &mut io::empty());
        let error = check(
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 40\r\n\r\n{\"error\":{\"code\":\"c\",\"message\":\"not you\"}}",
        )
        .unwrap_err();
        assert!(matches!(error, HandshakeError::Status(403, _, body) if body == "not you"));
        assert!(matches!(check("SSH-2.0-x\r\n"), Err(HandshakeError::Broken(_))));
    }
}
