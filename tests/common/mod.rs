//! A server in this process and plain blocking clients for it, for tests over real sockets.

#![allow(
    dead_code,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "each test uses a part of it; a test that cannot get what it needs has failed"
)]

pub mod operator;
pub mod wire;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdline::app::Router;
use holdline::close::CloseReason;
use holdline::config::{BackendChoice, Config, Listen};
use holdline::metrics::ShardMetrics;
use holdline::server::Server;
use ring::hmac;

use wire::{BINARY, CLOSE, FIN, PING, PONG, TEXT};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Both, when the kernel can.
pub fn backends() -> Vec<BackendChoice> {
    let uring = holdline::io::uring::probe().is_ok();
    let all = [(BackendChoice::Epoll, true), (BackendChoice::Uring, uring)];
    all.into_iter().filter_map(|(backend, there)| there.then_some(backend)).collect()
}

/// HTTP on a free port of this machine, nothing else.
pub fn config(backend: BackendChoice, shards: usize) -> Config {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config =
        Config { listeners: vec![Listen::http(address)], admin: None, backend, shards, ..Config::default() };
    config.limits.connections_max = 512;
    config
}

/// A listener of `url`, whose port should be 0.
pub fn listen(url: &str) -> Listen {
    Listen::parse(url).unwrap()
}

/// A JSON Web Token of these claims, signed with a secret (HS256).
pub fn token(secret: &[u8], claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// A socket with this address of this machine.
fn socket_from(source: Ipv4Addr) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket
}

/// A server that ends with its value.
pub struct Running {
    pub server: Server,
    /// Where its listeners are, in the order configured.
    pub at: Vec<SocketAddr>,
}

impl Running {
    pub fn start(config: &Config, router: Router) -> Self {
        let server = Server::start(config, router).unwrap();
        let address = |url: String| {
            let rest = url.split_once("://").unwrap().1;
            rest.split(['?', '/']).next().unwrap().parse().unwrap()
        };
        let at = server.listening().into_iter().map(address).collect();
        Self { server, at }
    }

    /// A WebSocket.
    pub fn websocket(&self, path: &str) -> Client {
        Client::websocket(self.at[0], path)
    }

    /// A bare connection to a listener.
    pub fn connect(&self, listener: usize) -> Client {
        Client::connect(self.at[listener])
    }

    /// Whether the kernel answers who connects from there.
    pub fn is_answered(&self, from: Ipv4Addr) -> bool {
        socket_from(from).connect_timeout(&self.at[0].into(), Duration::from_millis(100)).is_ok()
    }

    /// A number of all shards together.
    pub fn count(&self, field: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.server.metrics().total(field)
    }

    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.count(|shard| shard.closed(reason))
    }

    pub fn connections(&self) -> u64 {
        self.count(|shard| shard.connections.get())
    }
}

/// Looks until it is so.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, reserved bits, opcode.
    pub first: u8,
    pub payload: Vec<u8>,
}

/// The status line's number and the whole head.
pub struct Answer {
    pub status: u16,
    pub head: String,
}

/// A connection from the client's side.
pub struct Client {
    pub stream: TcpStream,
    buf: Vec<u8>,
    start: usize,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buf: Vec::new(), start: 0 }
    }

    /// A client whose kernel keeps little of what it does not read.
    pub fn with_small_window(address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into())
    }

    pub fn websocket(address: SocketAddr, path: &str) -> Self {
        Self::connect(address).upgraded(path, "")
    }

    /// A connection from another address of this machine.
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = socket_from(source);
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into())
    }

    /// Makes a WebSocket of it. `fields` are more lines of the request, each with its CRLF.
    pub fn upgraded(mut self, path: &str, fields: &str) -> Self {
        self.send_raw(wire::handshake(path, fields).as_bytes());
        let answer = self.answer();
        assert_eq!(answer.status, 101, "{}", answer.head);
        self
    }

    /// Reads the head of an answer and, with a Content-Length, throws the body away.
    pub fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.buf[self.start..].windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.fill(), "the end came instead of an answer");
        };
        let head = String::from_utf8(self.take(end)).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = wire::field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let body = self.exactly(length);
        assert_eq!(body.len(), length);
        Answer { status, head }
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends what may meet a connection that has been closed meanwhile.
    pub fn try_send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send_raw(&wire::masked(first, payload));
    }

    pub fn send_text(&mut self, text: &str) {
        self.send_frame(FIN | TEXT, text.as_bytes());
    }

    pub fn send_binary(&mut self, payload: &[u8]) {
        self.send_frame(FIN | BINARY, payload);
    }

    /// The next frame, whatever it is; `None` at the end.
    pub fn frame(&mut self) -> Option<Frame> {
        let first = *self.exactly(2).first_chunk::<2>()?;
        let length = match first[1] {
            126 => usize::from(u16::from_be_bytes(*self.exactly(2).first_chunk()?)),
            127 => usize::try_from(u64::from_be_bytes(*self.exactly(8).first_chunk()?)).unwrap(),
            length => {
                assert!(length < 126, "a server masked a frame");
                usize::from(length)
            }
        };
        let payload = self.exactly(length);
        (payload.len() == length).then_some(Frame { first: first[0], payload })
    }

    /// The next frame that is no ping; pings are answered.
    pub fn message(&mut self) -> Option<Frame> {
        loop {
            let frame = self.frame()?;
            if frame.first != FIN | PING {
                return Some(frame);
            }
            self.send_frame(FIN | PONG, &frame.payload);
        }
    }

    /// The next message, which is text.
    pub fn text(&mut self) -> String {
        let frame = self.message().expect("a message before the end");
        assert_eq!(frame.first, FIN | TEXT, "{frame:?}");
        String::from_utf8(frame.payload).unwrap()
    }

    /// Throws messages away until the close frame, and returns its code; `None` when the end comes without one.
    pub fn close_code(&mut self) -> Option<u16> {
        while let Some(frame) = self.frame() {
            if frame.first == FIN | CLOSE {
                return Some(frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)));
            }
        }
        None
    }

    /// The code and the words of the close frame that comes.
    pub fn close_words(&mut self) -> Option<(u16, String)> {
        while let Some(frame) = self.frame() {
            if frame.first == FIN | CLOSE {
                let (code, words) = frame.payload.split_first_chunk()?;
                return Some((u16::from_be_bytes(*code), String::from_utf8_lossy(words).into_owned()));
            }
        }
        None
    }

    /// Throws everything away until the end.
    pub fn end(&mut self) {
        while self.fill() {
            self.start = self.buf.len();
        }
    }

    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buf[self.start..]) {
                let line = self.take(end + 1);
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// A frame behind its length.
    pub fn length_frame(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_be_bytes(*self.exactly(4).first_chunk()?) as usize;
        Some(self.exactly(length)).filter(|payload| payload.len() == length)
    }

    /// The next byte, which stays.
    pub fn peek(&mut self) -> Option<u8> {
        if self.start == self.buf.len() && !self.fill() {
            return None;
        }
        self.buf.get(self.start).copied()
    }

    /// So many bytes, fewer at the end.
    pub fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        while self.buf.len() - self.start < bytes && self.fill() {}
        self.take(bytes.min(self.buf.len() - self.start))
    }

    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let taken = self.buf[self.start..self.start + bytes].to_vec();
        self.start += bytes;
        taken
    }

    /// Reads what is there; whether it was not the end.
    fn fill(&mut self) -> bool {
        self.buf.drain(..self.start);
        self.start = 0;
        let before = self.buf.len();
        self.buf.resize(before + 16 * 1024, 0);
        let read = match self.stream.read(&mut self.buf[before..]) {
            Ok(read) => read,
            // A read with a time-out is not begun anew by itself after a signal, or when the process was stopped.
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.buf.truncate(before);
                return self.fill();
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => 0,
            Err(error) => panic!("nothing came: {error}"),
        };
        self.buf.truncate(before + read);
        read > 0
    }
}

/// A connection that must go on while another misbehaves.
pub struct Neighbour {
    client: Client,
    said: u64,
}

impl Neighbour {
    pub fn new(running: &Running) -> Self {
        Self { client: running.websocket("/echo"), said: 0 }
    }

    /// Says something and hears it.
    pub fn is_well(&mut self) {
        self.said += 1;
        let text = format!("still here {}", self.said);
        self.client.send_text(&text);
        assert_eq!(self.client.text(), text);
    }
}
