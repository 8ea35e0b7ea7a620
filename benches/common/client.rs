//! Many client connections on one thread: each is a direct descriptor of one ring, with a multishot receive armed.
//!
//! Connections therefore do not count against RLIMIT_NOFILE, and one system call serves all that is ready, so that the
//! client costs less than the server that it loads.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::ring::{Ring, Sizes, Socket};
use super::wire::{Frame, Protocol, bad};

/// Time without any progress after which a run is given up.
const STALL: Duration = Duration::from_secs(20);
const SENT: u64 = 1 << 32;

/// Where and how to connect.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddrV4,
    pub(crate) protocol: Protocol,
    pub(crate) path: String,
}

/// State of one connection: 32 bytes, of which the spill is empty unless a frame was cut.
#[derive(Default)]
struct Connection {
    open: bool,
    spill: Vec<u8>,
}

/// A thread's connections to one endpoint.
pub(crate) struct Client {
    ring: Ring,
    endpoint: Endpoint,
    hello: &'static [u8],
    connections: Vec<Connection>,
    open: usize,
    pings: u64,
    pongs: Vec<Vec<u8>>,
    progress: Instant,
}

impl Client {
    /// A client for at most `connections` connections whose reads bring at most `read_bytes` at a time.
    pub(crate) fn new(endpoint: &Endpoint, connections: usize, read_bytes: usize) -> io::Result<Self> {
        let slots = u32::try_from(connections).map_err(|_| bad("too many connections for one ring"))?;
        let buffers = connections.next_power_of_two().clamp(512, 16_384) as u16;
        let completions = slots.next_power_of_two().clamp(8_192, 65_536);
        let ring = Ring::new(Sizes { completions, slots, buffers, buffer_bytes: read_bytes })?;
        // One short string per client, which every dial points to: never freed.
        let hello = Box::leak(endpoint.protocol.hello(&endpoint.path).into_boxed_slice());
        let connections = Vec::with_capacity(connections);
        let endpoint = endpoint.clone();
        let progress = Instant::now();
        Ok(Self { ring, endpoint, hello, connections, open: 0, pings: 0, pongs: Vec::new(), progress })
    }

    /// Connections that are upgraded and not closed.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Heartbeats seen so far; those that want an answer get one.
    pub(crate) fn pings(&self) -> u64 {
        self.pings
    }

    /// Opens `count` connections, at most `window` at a time, and returns when the last one is open.
    pub(crate) fn open_more(&mut self, count: usize, window: usize) -> io::Result<()> {
        self.open_with(count, window, |_, _| Ok(()))
    }

    /// The same, and hands out the messages that come meanwhile.
    pub(crate) fn open_with(
        &mut self,
        count: usize,
        window: usize,
        mut on_message: impl FnMut(usize, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let goal = self.connections.len() + count;
        while self.open < goal {
            while self.connections.len() < goal && self.connections.len() - self.open < window {
                self.dial()?;
            }
            self.turn(None, &mut on_message)?;
        }
        Ok(())
    }

    fn dial(&mut self) -> io::Result<()> {
        let slot = self.connections.len() as u32;
        self.connections.push(Connection::default());
        self.ring.dial(slot, next_source(), self.endpoint.address, self.hello, u64::from(slot))
    }

    /// Sends queued bytes, waits for something to happen, and hands out every message that came, by connection.
    /// With a timeout returns after it at the latest; without one fails when nothing happens for long.
    pub(crate) fn turn(
        &mut self,
        timeout: Option<Duration>,
        mut on_message: impl FnMut(usize, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.ring.enter(1, Some(timeout.unwrap_or(STALL)))?;
        self.pongs.clear();
        if timeout.is_none() && self.ring.completions() == 0 && self.progress.elapsed() >= STALL {
            return Err(bad(&format!("nothing came for {STALL:?} on {} open connections", self.open)));
        }
        self.progress = Instant::now();
        for index in 0..self.ring.completions() {
            self.complete(index, &mut on_message)?;
        }
        Ok(())
    }

    fn complete(
        &mut self,
        index: usize,
        on_message: &mut impl FnMut(usize, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let completion = self.ring.completion(index);
        let at = (completion.tag & (SENT - 1)) as usize;
        if completion.tag & SENT != 0 {
            return Err(bad(&format!("connection {at} takes no more bytes ({})", completion.result)));
        }
        match (completion.result, completion.buffer()) {
            (received @ 1.., Some(buffer)) => {
                let bytes = self.ring.bytes(buffer, received as usize);
                let connection = &mut self.connections[at];
                let was_open = connection.open;
                let (pings, pongs) = (&mut self.pings, &mut self.pongs);
                let before = pongs.len();
                connection.feed(self.endpoint.protocol, bytes, |frame| match frame {
                    Frame::Message(payload) => on_message(at, payload),
                    Frame::Ping(payload) => {
                        *pings += 1;
                        pongs.extend(self.endpoint.protocol.pong(payload));
                        Ok(())
                    }
                })?;
                self.open += usize::from(connection.open && !was_open);
                self.ring.recycle(buffer);
                for pong in &self.pongs[before..] {
                    self.ring.send(Socket::Direct(at as u32), pong, at as u64 | SENT)?;
                }
            }
            (0, _) => return Err(bad(&format!("connection {at} was closed by the server"))),
            (result, _) => match -result {
                libc::ENOBUFS => {}
                // A link after the one that failed, which has a completion of its own.
                libc::ECANCELED => return Ok(()),
                errno => return Err(io::Error::from_raw_os_error(errno)),
            },
        }
        if completion.more() { Ok(()) } else { self.ring.receive(Socket::Direct(at as u32), at as u64) }
    }

    /// Queues bytes; they must stay as they are until the next [`Client::turn`] returns.
    pub(crate) fn send(&mut self, connection: usize, bytes: &[u8]) -> io::Result<()> {
        self.ring.send(Socket::Direct(connection as u32), bytes, connection as u64 | SENT)
    }
}

impl Connection {
    /// Takes bytes as they came and hands out whole frames; the rest waits for more.
    fn feed(
        &mut self,
        protocol: Protocol,
        bytes: &[u8],
        on_frame: impl FnMut(Frame<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.spill.is_empty() {
            let used = self.parse(protocol, bytes, on_frame)?;
            self.spill.extend_from_slice(&bytes[used..]);
        } else {
            let mut spill = std::mem::take(&mut self.spill);
            spill.extend_from_slice(bytes);
            let used = self.parse(protocol, &spill, on_frame)?;
            spill.drain(..used);
            self.spill = spill;
        }
        Ok(())
    }

    fn parse(
        &mut self,
        protocol: Protocol,
        bytes: &[u8],
        mut on_frame: impl FnMut(Frame<'_>) -> io::Result<()>,
    ) -> io::Result<usize> {
        let mut used = 0;
        if !self.open {
            let Some(head) = protocol.welcome(bytes)? else { return Ok(0) };
            self.open = true;
            used = head;
        }
        while let Some((frame, length)) = protocol.next(&bytes[used..])? {
            on_frame(frame)?;
            used += length;
        }
        Ok(used)
    }
}

/// Client addresses out of 127.0.0.0/24 in turn, so that ports do not run out: 28,000 for each.
pub(super) fn next_source() -> SocketAddrV4 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let last = 2 + NEXT.fetch_add(1, Ordering::Relaxed) % 250;
    SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last as u8), 0)
}
