//! The client's side: the request, the check of the answer, a server's frames to read and a client's to write.
//!
//! Without extensions and subprotocols: what a terminal or a load generator needs. Which frame may follow which is the
//! caller's, as it is the session's on the other side.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::frame::{BadHeader, FIN, Header, MASKED, Opcode, RSV1, parse_first, split_length};
use super::handshake::{ACCEPT_BYTES, KEY_BYTES};
use super::mask;

/// Bytes of an answer's head at most; what is longer is no answer to an upgrade.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

const FIELDS_MAX: usize = 64;

/// The `Sec-WebSocket-Key` for 16 random bytes.
#[must_use]
pub fn key(random: [u8; 16]) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    let written = STANDARD.encode_slice(random, &mut key);
    debug_assert!(written.is_ok_and(|written| written == KEY_BYTES), "16 bytes are 24 in base64");
    key
}

/// Appends the request for a WebSocket. `path` and `authority` (host and port) must not contain spaces or control
/// characters.
pub fn write_request(path: &str, authority: &str, key: &[u8; KEY_BYTES], out: &mut Vec<u8>) {
    for part in [
        "GET ".as_bytes(),
        path.as_bytes(),
        b" HTTP/1.1\r\nHost: ",
        authority.as_bytes(),
        b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ",
        key,
        b"\r\nSec-WebSocket-Version: 13\r\nUser-Agent: holdline/",
        env!("CARGO_PKG_VERSION").as_bytes(),
        b"\r\n\r\n",
    ] {
        out.extend_from_slice(part);
    }
}

/// An answer that opens no WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// A server that says no.
    #[error("the server answered {} {}", .0.status, .0.phrase)]
    Status(Declined),
    /// Something else than a WebSocket server.
    #[error("not a WebSocket server: {0}")]
    Broken(&'static str),
}

/// A server's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// The HTTP status.
    pub status: u16,
    /// Its name, as the server says it.
    pub phrase: String,
    /// Seconds after which to come back.
    pub retry_after: Option<u32>,
    /// Bytes of the head; the body follows it.
    pub head_bytes: usize,
    /// Bytes of the body, as announced.
    pub body_bytes: usize,
}

/// Checks the answer at the beginning of `bytes`, of which `accept` is the proof that belongs to the key: the bytes of
/// its head, `None` while that is not whole.
///
/// # Errors
/// When it opens no WebSocket.
pub fn check_answer(bytes: &[u8], accept: &[u8; ACCEPT_BYTES]) -> Result<Option<usize>, BadAnswer> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(&bytes[..bytes.len().min(HEAD_BYTES_MAX)]) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() >= HEAD_BYTES_MAX => {
            return Err(BadAnswer::Broken("its answer does not end"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadAnswer::Broken("what it says is not HTTP")),
    };
    if response.code != Some(101) {
        return Err(BadAnswer::Status(declined(&response, head)));
    }
    let field = |name| field(&response, name);
    let names = |name, token: &str| {
        field(name).is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    if !names("upgrade", "websocket") || !names("connection", "upgrade") {
        return Err(BadAnswer::Broken("its answer lacks Upgrade: websocket"));
    }
    if field("sec-websocket-accept").map(str::as_bytes) != Some(accept) {
        return Err(BadAnswer::Broken("its Sec-WebSocket-Accept does not belong to our key"));
    }
    if field("sec-websocket-extensions").is_some_and(|value| !value.is_empty()) {
        return Err(BadAnswer::Broken("it takes an extension that we did not offer"));
    }
    if field("sec-websocket-protocol").is_some() {
        return Err(BadAnswer::Broken("it takes a subprotocol that we did not offer"));
    }
    Ok(Some(head))
}

pub(in crate::codec) fn field<'a>(response: &httparse::Response<'_, 'a>, name: &str) -> Option<&'a str> {
    let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    found.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
}

fn declined(response: &httparse::Response<'_, '_>, head_bytes: usize) -> Declined {
    Declined {
        status: response.code.unwrap_or(0),
        phrase: response.reason.unwrap_or_default().to_owned(),
        // A date is a form of it, too; nobody waits that long.
        retry_after: field(response, "retry-after").and_then(|after| after.parse().ok()),
        head_bytes,
        body_bytes: field(response, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0),
    }
}

/// A frame that no server may send to a client without extensions, RFC 6455 section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadFrame {
    /// What neither side may send.
    #[error(transparent)]
    Header(#[from] BadHeader),
    /// Servers do not mask.
    #[error("a frame with a mask")]
    Masked,
}

/// The header of a server's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHeader {
    /// The last frame of its message.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// Bytes of payload, below 2^63: what the server says, not what is there.
    pub payload_bytes: u64,
    /// Bytes of the header itself.
    pub header_bytes: usize,
}

impl ServerHeader {
    /// Reads the header at the beginning of `bytes`, `None` while it is not whole. What is wrong is told as soon as its
    /// byte is there.
    ///
    /// # Errors
    /// When no header of a server begins like that.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let opcode = parse_first(first)?;
        if first & RSV1 != 0 {
            return Err(BadHeader::ReservedBit.into());
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & MASKED != 0 {
            return Err(BadFrame::Masked);
        }
        if opcode.is_control() && second > 125 {
            return Err(BadHeader::LongControl.into());
        }
        let Some((payload_bytes, rest)) = split_length(second, &bytes[2..])? else { return Ok(None) };
        Ok(Some(Self { fin: first & FIN != 0, opcode, payload_bytes, header_bytes: bytes.len() - rest.len() }))
    }
}

/// Appends a client's frame, a whole message or a control frame, under this mask.
pub fn write_frame(opcode: Opcode, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    let header = Header::new(FIN | opcode as u8, payload.len());
    let start = out.len();
    out.reserve(header.as_slice().len() + key.len() + payload.len());
    out.extend_from_slice(header.as_slice());
    out[start + 1] |= MASKED;
    out.extend_from_slice(&key);
    let body = out.len();
    out.extend_from_slice(payload);
    mask::unmask(&mut out[body..], key, 0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::codec::websocket::frame::{ClientHeader, Parsed};
    use crate::codec::websocket::handshake::{accept_key, is_key};

    fn answer(head: &str) -> Result<Option<usize>, BadAnswer> {
        check_answer(head.as_bytes(), &accept_key(b"k"))
    }

    fn good() -> String {
        let accept = String::from_utf8(accept_key(b"k").to_vec()).unwrap();
        format!("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n")
    }

    #[test]
    fn a_request_asks_as_section_4_1_says() {
        let (key, mut out) = (key([7; 16]), Vec::new());
        assert!(is_key(&key));
        write_request("/echo?a=b", "h:1", &key, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("GET /echo?a=b HTTP/1.1\r\nHost: h:1\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        assert!(text.contains("\r\nSec-WebSocket-Key: BwcHBwcHBwcHBwcHBwcHBw==\r\n"), "{text}");
    }

    #[test]
    fn only_a_proven_handshake_is_taken() {
        let good = good();
        assert_eq!(answer(&format!("{good}\r\nrest")), Ok(Some(good.len() + 2)));
        for cut in 0..good.len() {
            assert_eq!(answer(&good[..cut]), Ok(None), "{cut}");
        }
        assert!(answer(&format!("{good}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")).is_err());
        assert!(answer(&format!("{good}Sec-WebSocket-Protocol: x\r\n\r\n")).is_err());
        let other = good.replace("Accept: ", "Accept: x");
        assert!(answer(&format!("{other}\r\n")).unwrap_err().to_string().contains("does not belong to our key"));
        assert!(answer(&format!("{}\r\n", good.replace("Upgrade: w", "Upgrade: h2c-w"))).is_err());
        assert!(answer("SSH-2.0-x\r\n").is_err());
    }

    #[test]
    fn a_head_that_does_not_end_is_given_up() {
        let endless = format!("HTTP/1.1 101 X\r\nA: {}", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(answer(&endless), Err(BadAnswer::Broken("its answer does not end")));
    }

    #[test]
    fn a_no_says_when_to_come_back() {
        let head = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 3\r\n\r\n";
        let Err(BadAnswer::Status(declined)) = answer(&format!("{head}no\n")) else { panic!("a no") };
        assert_eq!((declined.status, declined.retry_after), (503, Some(7)));
        assert_eq!((declined.head_bytes, declined.body_bytes), (head.len(), 3));
        let Err(BadAnswer::Status(plain)) = answer("HTTP/1.1 403 F\r\nRetry-After: soon\r\n\r\n") else { panic!() };
        assert_eq!((plain.status, plain.retry_after, plain.body_bytes), (403, None, 0));
    }

    #[test]
    fn a_servers_header_is_read_wherever_it_is_cut() {
        for (bytes, opcode, payload_bytes) in [
            (&[0x81, 5][..], Opcode::Text, 5),
            (&[0x82, 126, 1, 0], Opcode::Binary, 256),
            (&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], Opcode::Binary, 65_536),
            (&[0x89, 0], Opcode::Ping, 0),
            (&[0x88, 2], Opcode::Close, 2),
        ] {
            for cut in 0..bytes.len() {
                assert_eq!(ServerHeader::parse(&bytes[..cut]), Ok(None));
            }
            let header = ServerHeader { fin: true, opcode, payload_bytes, header_bytes: bytes.len() };
            assert_eq!(ServerHeader::parse(&[bytes, b"more"].concat()), Ok(Some(header)));
        }
    }

    #[test]
    fn section_5_what_no_server_may_send() {
        for (bytes, expected) in [
            (&[0x81, 0x85][..], BadFrame::Masked),
            (&[0xc1], BadHeader::ReservedBit.into()),
            (&[0xa1], BadHeader::ReservedBit.into()),
            (&[0x83], BadHeader::ReservedOpcode.into()),
            (&[0x09], BadHeader::FragmentedControl.into()),
            (&[0x89, 126], BadHeader::LongControl.into()),
            (&[0x82, 126, 0, 1], BadHeader::LengthForm.into()),
            (&[0x82, 127, 255, 0, 0, 0, 0, 0, 0, 0], BadHeader::LengthOverflow.into()),
        ] {
            assert_eq!(ServerHeader::parse(bytes), Err(expected), "{bytes:x?}");
        }
    }

    #[test]
    fn what_a_client_writes_a_server_reads() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let (payload, mut out) = (vec![7; length], b"before".to_vec());
            write_frame(Opcode::Text, &payload, [1, 2, 3, 4], &mut out);
            let frame = &mut out[6..];
            let Ok(Parsed::Header(header)) = ClientHeader::parse(frame) else { panic!("a header") };
            assert_eq!((header.fin, header.opcode, header.key), (true, Opcode::Text, [1, 2, 3, 4]));
            assert_eq!(header.payload_bytes, length as u64);
            mask::unmask(&mut frame[header.header_bytes..], header.key, 0);
            assert_eq!(frame[header.header_bytes..], payload[..]);
        }
    }
}
