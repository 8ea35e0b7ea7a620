//! What hostile clients do. Each runs on a thread of its own until it is told to stop, with plain sockets that do not
//! block, from addresses of this machine that are not the neighbour's. What the server refuses is tried again.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress};
use socket2::{Domain, Socket, Type};

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
}

impl Attack {
    pub(crate) const ALL: [Self; 7] = [
        Self::Slowloris,
        Self::SlowRead,
        Self::PingFlood,
        Self::ConnectionFlood,
        Self::HandshakeFlood,
        Self::CompressionBomb,
        Self::OversizedHeaders,
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
        }
    }

    /// Runs it, and counts what it did in `done`.
    pub(crate) fn run(self, to: SocketAddr, stop: &AtomicBool, done: &AtomicU64) {
        let step = |did: bool| {
            if did {
                done.fetch_add(1, Ordering::Relaxed);
            }
            !stop.load(Ordering::Relaxed)
        };
        match self {
            Self::Slowloris => slowloris(to, step),
            Self::SlowRead => crowd(to, 100, &slow_request(), step),
            Self::PingFlood => {
                crowd(to, 16, &[handshake(""), frame(0x89, b"are you there?").repeat(500)].concat(), step)
            }
            Self::ConnectionFlood => one_by_one(to, &[], step),
            Self::HandshakeFlood => one_by_one(to, &handshake(""), step),
            Self::CompressionBomb => one_by_one(to, &[handshake(OFFER), frame(0xc2, &bomb())].concat(), step),
            Self::OversizedHeaders => one_by_one(to, &oversized(), step),
        }
    }
}

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

/// Requests for a page, many of them, and messages that come back: more than a small window ever takes.
fn slow_request() -> Vec<u8> {
    [handshake(""), frame(0x82, &[7; 60_000]).repeat(8)].concat()
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
    socket.connect(&to.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether an error is no end.
fn is_full(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

/// A thousand half requests of ten addresses, each a byte longer every second or so.
fn slowloris(to: SocketAddr, step: impl Fn(bool) -> bool) {
    const COUNT: usize = 1000;
    let mut half: Vec<Option<TcpStream>> = (0..COUNT).map(|_| None).collect();
    while step(false) {
        for (number, slot) in half.iter_mut().enumerate() {
            let Some(stream) = slot else {
                *slot = connect(to, number % 10).ok();
                if let Some(stream) = slot {
                    let _ = stream.write_all(b"GET /echo HTTP/1.1\r\nHost: a\r\nX-Slow: ");
                }
                if !step(slot.is_some()) {
                    return;
                }
                continue;
            };
            let gone = stream.write(b"y").is_err_and(|error| !is_full(&error));
            if gone || stream.read(&mut [0; 512]).is_ok() {
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
fn crowd(to: SocketAddr, count: usize, bytes: &[u8], step: impl Fn(bool) -> bool) {
    let again = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
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
            let end = if *at < again { again } else { bytes.len() };
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

/// Connects, says something, takes what comes for a moment, and does it again; a few at a time.
fn one_by_one(to: SocketAddr, bytes: &[u8], step: impl Fn(bool) -> bool) {
    const AT_ONCE: usize = 32;
    let mut all: Vec<Option<(TcpStream, usize, u32)>> = (0..AT_ONCE).map(|_| None).collect();
    while step(false) {
        for slot in &mut all {
            let Some((stream, at, rounds)) = slot else {
                // Of one address.
                *slot = connect(to, 0).ok().map(|stream| (stream, 0, 0));
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
