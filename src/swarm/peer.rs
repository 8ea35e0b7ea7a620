//! The client's side of each protocol: bytes of a server in, frames out, and back.
//!
//! No socket, no clock, and nothing kept per connection: what is not whole yet stays with the caller, who shows it again
//! with what came behind it. A server is not trusted; whatever it sends is a frame, a reason to wait, or [`Broken`].

use std::sync::Arc;

use super::target::{Protocol, Target};
use crate::codec::websocket::client::{self, BadAnswer, BadFrame, ServerHeader};
use crate::codec::websocket::close::{self, CloseError};
use crate::codec::websocket::frame::Opcode;
use crate::codec::websocket::handshake::{ACCEPT_BYTES, accept_key};
use crate::codec::{http1::response, length, line};

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A message.
    Message(&'a [u8]),
    /// A heartbeat: [`Client::pong`] is due, with these bytes.
    Ping(&'a [u8]),
    /// A sign of life that nobody has to answer.
    Pong,
    /// Good-bye: code and reason. [`Client::close`] answers.
    Close(Option<u16>, &'a str),
}

/// How a server is no server, or not for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Broken {
    /// It says no.
    #[error("the server answered {status} {}", response::phrase(*.status))]
    Declined {
        /// The HTTP status.
        status: u16,
        /// Seconds after which to come back.
        retry_after: Option<u32>,
    },
    /// It does not speak WebSocket.
    #[error("not a WebSocket server: {0}")]
    NotWebSocket(&'static str),
    /// A frame that no server may send.
    #[error("the server sent {0}")]
    Frame(#[from] BadFrame),
    /// A good-bye that is none.
    #[error("the server sent {0}")]
    Close(#[from] CloseError),
    /// A message in more than one frame.
    #[error("the server sent a message in fragments, which swarm does not put together")]
    Fragmented,
    /// A message over the limit that [`Client::new`] was given.
    #[error("the server sent a message of more than {0} bytes")]
    TooLong(usize),
}

impl Broken {
    /// How to mend it.
    #[must_use]
    pub const fn mend(&self) -> &'static str {
        match self {
            Self::Declined { status: 401 | 403, .. } => "the server lets only others in: check its origins and rules",
            Self::Declined { status: 404, .. } => "check the target's path",
            Self::Declined { status: 426, .. } | Self::Declined { status: 400, .. } => {
                "check the target's path and query"
            }
            Self::Declined { status: 429, .. } => "lower --rate",
            Self::Declined { status: 503, .. } => "the server is full or drains: raise its --max-connections",
            Self::Declined { .. } => "look into the server's log",
            Self::NotWebSocket(_) => "check the port; raw TCP listeners are tcp://HOST:PORT",
            Self::Frame(_) | Self::Close(_) | Self::Fragmented => "check that the target's protocol is the server's",
            Self::TooLong(_) => "check the target's framing, and that nobody else publishes to its topic",
        }
    }
}

impl From<BadAnswer> for Broken {
    fn from(bad: BadAnswer) -> Self {
        match bad {
            BadAnswer::Status(declined) => {
                Self::Declined { status: declined.status, retry_after: declined.retry_after }
            }
            BadAnswer::Broken(why) => Self::NotWebSocket(why),
        }
    }
}

/// What all clients of a target have in common.
#[derive(Clone, Debug)]
pub struct Client {
    protocol: Protocol,
    hello: Arc<[u8]>,
    accept: [u8; ACCEPT_BYTES],
    message_bytes_max: usize,
    /// The next mask. It need not be a secret, but a mask of zeros would be no work for the server.
    mask: u32,
}

impl Client {
    /// Clients that take messages of at most `message_bytes_max` bytes. All of them ask with the same key, which is
    /// `random`: so that they can share one request.
    #[must_use]
    pub fn new(target: &Target, random: [u8; 16], message_bytes_max: usize) -> Self {
        let key = client::key(random);
        let mut hello = Vec::new();
        match (target.protocol, &target.first_frame) {
            (Protocol::WebSocket, _) => client::write_request(&target.path, &target.host, &key, &mut hello),
            (Protocol::Line, Some(topic)) => line::encode(topic.as_bytes(), &mut hello),
            (Protocol::Length, Some(topic)) => length::encode(topic.as_bytes(), &mut hello),
            (Protocol::Line | Protocol::Length, None) => {}
        }
        // Xorshift stands still at zero.
        let mask = u32::from_ne_bytes([random[0], random[1], random[2], random[3]]) | 1;
        let (protocol, accept) = (target.protocol, accept_key(&key));
        Self { protocol, hello: hello.into(), accept, message_bytes_max, mask }
    }

    /// What a connection sends first; may be empty.
    #[must_use]
    pub const fn hello(&self) -> &Arc<[u8]> {
        &self.hello
    }

    /// Bytes of the welcome at the beginning of `bytes` when it is whole. Raw TCP has none: 0 at once.
    ///
    /// # Errors
    /// When it is no welcome.
    pub fn open(&self, bytes: &[u8]) -> Result<Option<usize>, Broken> {
        match self.protocol {
            Protocol::WebSocket => Ok(client::check_answer(bytes, &self.accept)?),
            Protocol::Line | Protocol::Length => Ok(Some(0)),
        }
    }

    /// The frame at the beginning of `bytes` and how many bytes it has; `None` while it is not whole.
    ///
    /// # Errors
    /// When no frame begins like that, or none that is short enough: the caller never has to keep more than
    /// [`Client::kept_bytes_max`].
    #[inline]
    pub fn next<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Broken> {
        match self.protocol {
            Protocol::WebSocket => self.next_websocket(bytes),
            Protocol::Line => self.next_line(bytes),
            Protocol::Length => self.next_length(bytes),
        }
    }

    /// Bytes for which [`Client::next`] may still say that they are not whole.
    #[must_use]
    pub const fn kept_bytes_max(&self) -> usize {
        let head = if matches!(self.protocol, Protocol::WebSocket) { client::HEAD_BYTES_MAX } else { 16 };
        if self.message_bytes_max + 16 > head { self.message_bytes_max + 16 } else { head }
    }

    fn next_websocket<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Broken> {
        let Some(header) = ServerHeader::parse(bytes)? else { return Ok(None) };
        if !header.fin || header.opcode == Opcode::Continuation {
            return Err(Broken::Fragmented);
        }
        let payload_bytes = self.check(usize::try_from(header.payload_bytes).unwrap_or(usize::MAX))?;
        let end = header.header_bytes + payload_bytes;
        let Some(payload) = bytes.get(header.header_bytes..end) else { return Ok(None) };
        let frame = match header.opcode {
            Opcode::Ping => Frame::Ping(payload),
            Opcode::Pong => Frame::Pong,
            Opcode::Close => Frame::Close(close::parse(payload)?, reason(payload)),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => Frame::Message(payload),
        };
        Ok(Some((frame, end)))
    }

    fn next_line<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Broken> {
        // A CR before the newline does not count.
        let window = &bytes[..bytes.len().min(self.message_bytes_max + 2)];
        let Some(newline) = memchr::memchr(b'\n', window) else {
            return if window.len() < bytes.len() { Err(Broken::TooLong(self.message_bytes_max)) } else { Ok(None) };
        };
        let payload = window[..newline].strip_suffix(b"\r").unwrap_or(&window[..newline]);
        self.check(payload.len())?;
        Ok(Some((bare(payload), newline + 1)))
    }

    fn next_length<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Broken> {
        let Some(declared) = length::declared(bytes) else { return Ok(None) };
        let end = length::HEADER_BYTES + self.check(declared)?;
        Ok(bytes.get(length::HEADER_BYTES..end).map(|payload| (bare(payload), end)))
    }

    fn check(&self, payload_bytes: usize) -> Result<usize, Broken> {
        let fits = payload_bytes <= self.message_bytes_max;
        fits.then_some(payload_bytes).ok_or(Broken::TooLong(self.message_bytes_max))
    }

    /// Appends a message, text over WebSocket. Over raw TCP it must not be empty, and as a line not have breaks in it.
    #[inline]
    pub fn message(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        match self.protocol {
            Protocol::WebSocket => client::write_frame(Opcode::Text, payload, self.next_mask(), out),
            Protocol::Line => line::encode(payload, out),
            Protocol::Length => length::encode(payload, out),
        }
    }

    /// Appends the answer to a heartbeat.
    pub fn pong(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        match self.protocol {
            Protocol::WebSocket => client::write_frame(Opcode::Pong, payload, self.next_mask(), out),
            Protocol::Line => line::encode(b"", out),
            Protocol::Length => length::encode(b"", out),
        }
    }

    /// Appends a good-bye, code 1000. Raw TCP has none: there the end of the stream is one.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.protocol == Protocol::WebSocket {
            client::write_frame(Opcode::Close, &1000_u16.to_be_bytes(), self.next_mask(), out);
        }
    }

    /// Xorshift (Marsaglia 2003).
    const fn next_mask(&mut self) -> [u8; 4] {
        self.mask ^= self.mask << 13;
        self.mask ^= self.mask >> 17;
        self.mask ^= self.mask << 5;
        self.mask.to_ne_bytes()
    }
}

/// A frame over raw TCP: an empty one is a heartbeat.
const fn bare(payload: &[u8]) -> Frame<'_> {
    if payload.is_empty() { Frame::Ping(payload) } else { Frame::Message(payload) }
}

/// The reason in a close frame that has been checked.
fn reason(payload: &[u8]) -> &str {
    payload.get(2..).and_then(|reason| std::str::from_utf8(reason).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use proptest::prelude::*;

    use super::*;
    use crate::codec::Kind;
    use crate::codec::websocket::frame::Header;
    use crate::swarm::plan::App;

    const LIMIT: usize = 300;

    fn target(protocol: Protocol, topic: Option<&str>) -> Target {
        Target {
            protocol,
            address: "127.0.0.1:8080".parse().unwrap(),
            host: "127.0.0.1:8080".to_owned(),
            path: "/topics/load".to_owned(),
            first_frame: topic.map(str::to_owned),
            app: App::Topic,
        }
    }

    fn client(protocol: Protocol) -> Client {
        Client::new(&target(protocol, None), [9; 16], LIMIT)
    }

    fn any_protocol() -> impl Strategy<Value = Protocol> {
        prop_oneof![Just(Protocol::WebSocket), Just(Protocol::Line), Just(Protocol::Length)]
    }

    /// What a server may say, with the bytes it says it in.
    #[derive(Clone, Debug)]
    enum Said {
        Message(String),
        Heartbeat,
        Pong,
        Close(u16, String),
    }

    fn any_said() -> impl Strategy<Value = Said> {
        prop_oneof![
            6 => "[ -~]{1,300}".prop_map(Said::Message),
            1 => Just(Said::Heartbeat),
            1 => Just(Said::Pong),
            1 => (3000_u16..5000, "[a-zä]{0,40}").prop_map(|(code, reason)| Said::Close(code, reason)),
        ]
    }

    fn encode(protocol: Protocol, said: &Said, out: &mut Vec<u8>) {
        let control = |opcode, payload: &[u8], out: &mut Vec<u8>| {
            out.extend_from_slice(Header::control(opcode, payload.len()).as_slice());
            out.extend_from_slice(payload);
        };
        match (protocol, said) {
            (Protocol::WebSocket, Said::Message(text)) => {
                out.extend_from_slice(Header::message(Kind::Text, text.len(), false).as_slice());
                out.extend_from_slice(text.as_bytes());
            }
            (Protocol::WebSocket, Said::Heartbeat) => control(Opcode::Ping, b"p", out),
            (Protocol::WebSocket, Said::Pong) => control(Opcode::Pong, b"", out),
            (Protocol::WebSocket, Said::Close(code, reason)) => {
                control(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat(), out);
            }
            (Protocol::Line, Said::Message(text)) => line::encode(text.as_bytes(), out),
            (Protocol::Line, _) => out.push(b'\n'),
            (Protocol::Length, Said::Message(text)) => length::encode(text.as_bytes(), out),
            (Protocol::Length, _) => length::encode(b"", out),
        }
    }

    fn expected(protocol: Protocol, said: &Said) -> String {
        format!(
            "{:?}",
            match (protocol, said) {
                (_, Said::Message(text)) => Frame::Message(text.as_bytes()),
                (Protocol::WebSocket, Said::Heartbeat) => Frame::Ping(b"p"),
                (Protocol::WebSocket, Said::Pong) => Frame::Pong,
                (Protocol::WebSocket, Said::Close(code, reason)) => Frame::Close(Some(*code), reason),
                (Protocol::Line | Protocol::Length, _) => Frame::Ping(b""),
            }
        )
    }

    /// What a client sees of pieces, as the engine reads them: what is not whole is kept.
    fn read(client: &Client, pieces: &[&[u8]]) -> (Vec<String>, Option<Broken>) {
        let (mut kept, mut seen) = (Vec::new(), Vec::new());
        for piece in pieces {
            kept.extend_from_slice(piece);
            let mut done = 0;
            loop {
                match client.next(&kept[done..]) {
                    Ok(Some((frame, bytes))) => {
                        assert!(bytes > 0 && bytes <= kept.len() - done, "a frame lies inside of what was shown");
                        seen.push(format!("{frame:?}"));
                        done += bytes;
                    }
                    Ok(None) => break,
                    Err(broken) => return (seen, Some(broken)),
                }
            }
            kept.drain(..done);
            assert!(kept.len() <= client.kept_bytes_max(), "{} bytes kept", kept.len());
        }
        (seen, None)
    }

    fn cut<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> =
            cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        places.sort_unstable();
        places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn wherever_it_is_cut_the_frames_are_the_same(
            protocol in any_protocol(),
            said in prop::collection::vec(any_said(), 0..12),
            cuts: Vec<prop::sample::Index>,
        ) {
            let mut bytes = Vec::new();
            said.iter().for_each(|said| encode(protocol, said, &mut bytes));
            let expected: Vec<String> = said.iter().map(|said| expected(protocol, said)).collect();
            prop_assert_eq!(read(&client(protocol), &cut(&bytes, &cuts)), (expected, None));
        }

        #[test]
        fn anything_is_survived_and_reads_the_same_in_pieces(
            protocol in any_protocol(),
            // Bytes that begin frames more often than chance would.
            bytes in prop::collection::vec(prop_oneof![
                any::<u8>(), prop::sample::select(&b"\x81\x82\x88\x89\x8a\x7e\x7f\0\n\r\x02\x01"[..])
            ], 0..2000),
            cuts: Vec<prop::sample::Index>,
        ) {
            let client = client(protocol);
            let whole = read(&client, &[&bytes]);
            let (seen, broken) = read(&client, &cut(&bytes, &cuts));
            prop_assert_eq!(&seen, &whole.0);
            prop_assert_eq!(broken.is_some(), whole.1.is_some());
            let _ = client.open(&bytes);
        }
    }

    #[test]
    fn what_a_client_sends_first() {
        let hello = |protocol, topic| Client::new(&target(protocol, topic), [1; 16], LIMIT).hello().to_vec();
        let request = String::from_utf8(hello(Protocol::WebSocket, None)).unwrap();
        assert!(request.starts_with("GET /topics/load HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"), "{request}");
        assert_eq!(hello(Protocol::Line, Some("load")), b"load\n");
        assert_eq!(hello(Protocol::Length, Some("load")), b"\0\0\0\x04load");
        assert_eq!(hello(Protocol::Line, None), b"");
    }

    #[test]
    fn only_the_proof_for_our_key_opens() {
        let client = client(Protocol::WebSocket);
        let welcome = |accept: &[u8]| {
            let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
            [&head[..], b"Sec-WebSocket-Accept: ", accept, b"\r\n\r\n"].concat()
        };
        let good = welcome(&accept_key(&client::key([9; 16])));
        for end in 0..good.len() {
            assert_eq!(client.open(&good[..end]), Ok(None));
        }
        assert_eq!(client.open(&[&good[..], b"\x81\x01a"].concat()), Ok(Some(good.len())));
        let bad = client.open(&welcome(&accept_key(&client::key([8; 16])))).unwrap_err();
        assert!(matches!(bad, Broken::NotWebSocket(_)), "{bad}");
        assert_eq!(self::client(Protocol::Line).open(b""), Ok(Some(0)));
    }

    #[test]
    fn a_no_is_told_with_its_status_and_a_way_out() {
        let client = client(Protocol::WebSocket);
        for (head, status, retry_after, said) in [
            ("503 X\r\nRetry-After: 3", 503, Some(3), "the server answered 503 Service Unavailable"),
            ("403 X", 403, None, "the server answered 403 Forbidden"),
            ("404 X", 404, None, "the server answered 404 Not Found"),
            ("426 X", 426, None, "the server answered 426 Upgrade Required"),
            ("200 X", 200, None, "the server answered 200 OK"),
        ] {
            let broken = client.open(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()).unwrap_err();
            assert_eq!(broken, Broken::Declined { status, retry_after });
            assert_eq!(broken.to_string(), said);
            assert!(!broken.mend().is_empty());
        }
    }

    #[test]
    fn what_no_server_may_send_is_told() {
        for (protocol, bytes, expected) in [
            (Protocol::WebSocket, &[0x81, 0x80][..], Broken::Frame(BadFrame::Masked)),
            (Protocol::WebSocket, &[0x01, 1, b'a'], Broken::Fragmented),
            (Protocol::WebSocket, &[0x80, 1, b'a'], Broken::Fragmented),
            (Protocol::WebSocket, &[0x88, 1, 3], Broken::Close(CloseError::HalfACode)),
            (Protocol::WebSocket, &[0x88, 2, 3, 0xed], Broken::Close(CloseError::BadCode(1005))),
            (Protocol::WebSocket, &[0x82, 126, 1, 45], Broken::TooLong(LIMIT)),
            (Protocol::WebSocket, &[0x82, 127, 127, 255, 255, 255, 255, 255, 255, 255], Broken::TooLong(LIMIT)),
            (Protocol::Length, &[0, 0, 1, 45], Broken::TooLong(LIMIT)),
            (Protocol::Length, &[255, 255, 255, 255], Broken::TooLong(LIMIT)),
            (Protocol::Line, &[b'a'; 303], Broken::TooLong(LIMIT)),
        ] {
            assert_eq!(client(protocol).next(bytes), Err(expected), "{bytes:?}");
        }
        assert_eq!(client(Protocol::Line).next(&[b'a'; 302]), Ok(None), "a CR and a newline may follow");
    }

    #[test]
    fn masks_differ_from_message_to_message() {
        let mut client = client(Protocol::WebSocket);
        let masks: std::collections::HashSet<Vec<u8>> = (0..1000)
            .map(|_| {
                let mut out = Vec::new();
                client.message(b"x", &mut out);
                out[2..6].to_vec()
            })
            .collect();
        assert_eq!(masks.len(), 1000);
        assert!(!masks.contains(&vec![0; 4]));
    }

    #[test]
    fn raw_tcp_has_heartbeats_and_no_good_bye() {
        for (protocol, empty) in [(Protocol::Line, &b"\n"[..]), (Protocol::Length, b"\0\0\0\0")] {
            let (mut client, mut out) = (client(protocol), Vec::new());
            assert_eq!(client.next(empty), Ok(Some((Frame::Ping(b""), empty.len()))));
            client.pong(b"", &mut out);
            client.close(&mut out);
            assert_eq!(out, empty);
        }
    }
}
