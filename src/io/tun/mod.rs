//! Clients without sockets: the port over a TCP of our own that speaks through a TUN device.
//!
//! A client socket costs the kernel as much as the server's does. To load a server with more connections than pairs fit
//! into one machine, its clients are entries of 24 bytes here, and the packets that they send and receive go through a
//! device inside a network namespace, where the server listens:
//!
//! ```text
//!        this process                          network namespace
//!  +----------------------+   read, write   +----------+      +--------------------+
//!  | Tun: Tcp <-> Link    | <=============> | holdline0| <--> | server, 198.18.0.1 |
//!  | clients 198.19.0.0/20|                 +----------+      +--------------------+
//!  | Tun: Tcp <-> Link    | <=============> | holdline1| <-->
//!  +----------------------+
//! ```
//!
//! - [`Namespace`] makes the namespace and runs a [`Server`] in it. All of it goes with this process.
//! - [`Tun`] is one device with its clients, for one thread. It dials; it cannot listen. Addresses follow from the index
//!   of a connection, see [`SERVER`] and [`CONNECTIONS_MAX`].
//! - [`Path`] makes the way long or bad: round-trip time, jitter, reordering, loss, and clients that vanish.
//!
//! ```no_run
//! use holdline::io::tun::{Config, Namespace, Tun};
//!
//! let namespace = Namespace::new(1_000_000)?;
//! let command = ["holdline", "serve", "--insecure", "--listen", "tcp://198.18.0.1:0"].map(String::from);
//! let server = namespace.spawn_server(&command)?;
//! let tun = Tun::new(&namespace, Config::new(1_000_000))?;
//! # let _ = (server.urls(), tun);
//! # Ok::<(), holdline::io::tun::SetupError>(())
//! ```
//!
//! Checksums are left out on both sides: the kernel does not compute those of packets that go to the device, and takes
//! our word for ours.

mod inbox;
mod link;
mod log;
mod namespace;
mod outbox;
mod packet;
mod plan;
mod processes;
mod server;
mod tcp;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{SocketAddrV4, TcpListener};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use self::inbox::Inbox;
use self::link::Link;
pub use self::link::Path;
use self::namespace::Taken;
pub use self::namespace::{Namespace, SetupError};
use self::packet::{Checksums, HEADER_BYTES};
use self::plan::Block;
pub use self::plan::{CONNECTIONS_MAX, DEVICES_MAX, SERVER};
pub use self::server::{Launch, Server};
use self::tcp::Tcp;
use super::sys::Eventfd;
use super::{Accepted, Backend, Backlog, Completion, Dial, Ending, Lease, Out, Short, Wake};
use crate::id::{ConnId, ListenerId};
use crate::time::{Clock, Instant, SystemClock};

/// What precedes each packet that we write, a `virtio_net_hdr` (virtio 1.2, section 5.1.6): a checksum is needed from
/// byte 20 on, at byte 16 from there, which makes the kernel take the packet as good and compute none.
const PREFIX: &[u8] = &[1, 0, 0, 0, 0, 0, 20, 0, 16, 0];
const _: () = assert!(cfg!(target_endian = "little"), "the fields above have the byte order of the machine");

/// The buffer of a lease that is not in the inbox.
const HELD: u32 = u32::MAX;
/// Alarms between two waits.
const ALARMS_IN_A_ROW: usize = 4096;
/// Room for headers and some bytes: RFC 791 has every path take this.
const MTU_MIN: u16 = 68;
const _: () = assert!(HEADER_BYTES < MTU_MIN);

/// What a [`Tun`] needs to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Connections that may be open at a time, at most [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// Bytes of a packet at most, at least 68.
    pub mtu: u16,
    /// Packets of the server that may wait in the device, or fewer if the kernel says so. A burst beyond is lost, and
    /// TCP has to mend it.
    pub queue: u32,
    /// How long to wait for an acknowledgement before anything is sent again, beside the path's own time. Linux may
    /// delay an acknowledgement by 200 ms. A connect waits twice as long. Each further try doubles the time, up to 128
    /// times.
    pub retransmit_after: Duration,
    /// How many tries there are until a connection fails with [`ErrorKind::TimedOut`].
    pub retries: u8,
    /// What is wrong with the path.
    pub path: Path,
}

impl Config {
    /// The defaults for this many connections, and a perfect path.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        Self {
            connections_max,
            mtu: 1500,
            queue: 1 << 19,
            retransmit_after: Duration::from_millis(400),
            retries: 8,
            path: Path::default(),
        }
    }
}

/// Counts since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets read from the device.
    pub packets_in: u64,
    /// Packets written to it.
    pub packets_out: u64,
    /// Packets that it did not take.
    pub refused: u64,
    /// Packets that the path lost.
    pub lost: u64,
    /// Segments that were sent again.
    pub repeated: u64,
    /// Connections that vanished.
    pub vanished: u64,
    /// Connections with something unacknowledged right now.
    pub in_flight: u64,
}

/// One device and its clients.
#[derive(Debug)]
pub struct Tun {
    device: File,
    tcp: Tcp,
    link: Option<Link>,
    inbox: Inbox,
    /// Bytes that are lent, and came before their turn.
    held: Box<[u8]>,
    /// Whether a place of the inbox is lent, or those.
    lent: bool,
    shorts: VecDeque<Short>,
    waker: Arc<Eventfd>,
    clock: SystemClock,
    now: Instant,
    counts: Counts,
    /// Behind the device, so that it is given back after the device is gone.
    _taken: Taken,
}

impl Tun {
    /// A device in this namespace, with nobody connected.
    ///
    /// # Errors
    /// When the configuration is out of range, or the kernel does not make the device.
    pub fn new(namespace: &Namespace, config: Config) -> Result<Self, SetupError> {
        if config.connections_max > CONNECTIONS_MAX as usize {
            return Err(SetupError::TooManyConnections { asked: config.connections_max });
        }
        if config.mtu < MTU_MIN {
            return Err(SetupError::Config("an MTU has at least 68 bytes"));
        }
        if !config.path.is_valid() {
            return Err(SetupError::Config("shares of packets and connections are between 0 and 1"));
        }
        let waker = Eventfd::new().map_err(SetupError::Tun)?;
        let taken = namespace.take_block()?;
        let block = taken.block();
        let queue = i32::try_from(config.queue).unwrap_or(i32::MAX);
        let made = namespace.run(move || namespace::make_device(block, config.mtu, queue));
        let device = made.map_err(SetupError::Tun).flatten()?;
        let tcp = tcp::Config {
            block: Block::new(block),
            connections_max: config.connections_max,
            mtu: config.mtu,
            checksums: Checksums::Offloaded,
            prefix: PREFIX,
            retransmit_after: config.retransmit_after + config.path.rtt + config.path.jitter * 2,
            retries: config.retries,
            vanish: config.path.vanish(),
        };
        Ok(Self {
            device,
            tcp: Tcp::new(tcp),
            link: Link::new(&config.path),
            inbox: Inbox::new(config.mtu, PREFIX.len()),
            held: Box::default(),
            lent: false,
            shorts: VecDeque::new(),
            waker: Arc::new(waker),
            clock: SystemClock::new(),
            now: Instant::ZERO,
            counts: Counts::default(),
            _taken: taken,
        })
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            lost: self.link.as_ref().map_or(0, Link::lost),
            repeated: self.tcp.repeated(),
            vanished: self.tcp.vanished(),
            in_flight: self.tcp.in_flight() as u64,
            ..self.counts
        }
    }

    fn lend(&mut self, id: ConnId, buffer: u32, part: Range<usize>, more: bool) -> Completion {
        self.lent = true;
        Completion::Received(id, Lease { buffer, start: number(part.start), len: number(part.len()), more })
    }

    fn has_work(&self) -> bool {
        self.tcp.has_news() || !self.inbox.is_empty()
    }

    /// Takes what is there and does what is due.
    fn turn(&mut self) -> io::Result<()> {
        self.now = self.clock.now();
        if self.inbox.is_empty() && !self.lent {
            self.inbox.restart();
            self.read()?;
        }
        self.tcp.tick(self.now, ALARMS_IN_A_ROW);
        self.write();
        Ok(())
    }

    /// Fills the inbox, through the path if there is one.
    fn read(&mut self) -> io::Result<()> {
        let Some(link) = &mut self.link else {
            while !self.inbox.is_full() && self.inbox.read(&self.device)? {}
            self.counts.packets_in += self.inbox.len() as u64;
            return Ok(());
        };
        for _ in 0..Inbox::PACKETS {
            if !self.inbox.read(&self.device)? {
                break;
            }
            if let Some(packet) = self.inbox.pop() {
                self.counts.packets_in += 1;
                link.inward.push(packet, self.now);
            }
        }
        while !self.inbox.is_full() {
            let Some(packet) = link.inward.pop(self.now) else { break };
            self.inbox.push(&packet);
        }
        Ok(())
    }

    /// Empties the outbox, through the path if there is one.
    fn write(&mut self) {
        let out = self.tcp.out();
        if let Some(link) = &mut self.link {
            out.packets().for_each(|packet| link.outward.push(packet, self.now));
            while let Some(packet) = link.outward.pop(self.now) {
                put(&self.device, &packet, &mut self.counts);
            }
        } else {
            out.packets().for_each(|packet| put(&self.device, packet, &mut self.counts));
        }
        out.clear();
    }

    /// Keeps the outbox from growing while its caller goes on.
    fn write_if_full(&mut self) {
        if self.tcp.out().is_full() {
            self.write();
        }
    }

    /// Waits for a packet, the waker, or whatever is due first.
    fn sleep(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let due = [self.tcp.due(), self.link.as_ref().and_then(Link::due)].into_iter().flatten().min();
        let until_due = due.map(|due| due.since(self.clock.now()));
        let timeout = [timeout, until_due].into_iter().flatten().min();
        // A time that does not fit is as good as none.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut sources =
            [PollFd::new(&self.device, PollFlags::IN), PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN)];
        match poll(&mut sources, timeout.as_ref()) {
            Err(error) if error != Errno::INTR => return Err(error.into()),
            _ => {}
        }
        if sources[1].revents().contains(PollFlags::IN) {
            self.waker.drain();
        }
        Ok(())
    }
}

/// For places of the inbox and lengths of packets.
fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Writes a packet. One that is not taken is lost, as on any path.
fn put(device: &File, packet: &[u8], counts: &mut Counts) {
    match rustix::io::write(device, packet) {
        Ok(_) => counts.packets_out += 1,
        Err(_) => counts.refused += 1,
    }
}

impl Backend for Tun {
    fn name(&self) -> &'static str {
        "tun"
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::<Eventfd>::clone(&self.waker)
    }

    /// Clients do not listen.
    ///
    /// # Errors
    /// Always.
    fn listen(&mut self, _id: ListenerId, _socket: TcpListener) -> io::Result<()> {
        Err(io::Error::new(ErrorKind::Unsupported, "a TUN device has clients only"))
    }

    fn pause_accept(&mut self, _paused: bool) {}

    fn stop_listening(&mut self, _id: ListenerId, _backlog: Backlog) {}

    fn is_listening(&self) -> bool {
        false
    }

    /// Nothing is ever accepted, so there is nothing to attach but what belongs to another backend.
    fn attach(&mut self, _accepted: Accepted, id: ConnId) {
        debug_assert!(false, "{id} was not accepted here");
        self.tcp.fail_at_once(id, ErrorKind::Unsupported);
    }

    fn refuse(&mut self, _accepted: Accepted) {
        debug_assert!(false, "it was not accepted here");
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.flush();
        self.turn()?;
        if !self.has_work() {
            self.sleep(timeout)?;
            self.turn()?;
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Completion> {
        debug_assert!(!self.lent, "a lease is out");
        loop {
            if let Some(completion) = self.tcp.next() {
                return Some(completion);
            }
            if let Some((id, bytes, old)) = self.tcp.next_held() {
                self.held = bytes;
                return Some(self.lend(id, HELD, old..self.held.len(), true));
            }
            let (place, packet) = self.inbox.take()?;
            if let Some((id, payload)) = self.tcp.receive(packet, self.now) {
                let more = self.inbox.is_followed();
                return Some(self.lend(id, number(place), payload, more));
            }
        }
    }

    fn bytes(&mut self, lease: &Lease) -> &mut [u8] {
        let start = lease.start as usize;
        let part = start..start + lease.len as usize;
        if lease.buffer == HELD { &mut self.held[part] } else { self.inbox.part(lease.buffer as usize, part) }
    }

    fn release(&mut self, _lease: Lease) {
        self.lent = false;
    }

    fn send(&mut self, id: ConnId, out: Out<'_>, tag: u32) {
        let len = match out {
            Out::Bytes(bytes) => bytes.len(),
            Out::Shared(_, start, end) => end - start,
        };
        let sent = self.tcp.send(id, out, self.now);
        if sent != Ok(len) {
            self.shorts.push_back(Short { tag, sent });
        }
        self.write_if_full();
    }

    fn flush(&mut self) {
        self.now = self.clock.now();
        self.tcp.acknowledge();
        self.write();
    }

    fn next_short(&mut self) -> Option<Short> {
        self.shorts.pop_front()
    }

    fn want_writable(&mut self, id: ConnId) {
        self.tcp.want_writable(id, self.now);
    }

    fn pause(&mut self, id: ConnId) {
        self.tcp.pause(id);
    }

    fn resume(&mut self, id: ConnId) {
        self.tcp.resume(id);
    }

    fn shutdown(&mut self, id: ConnId) {
        self.tcp.shutdown(id, self.now);
        self.write_if_full();
    }

    fn close(&mut self, id: ConnId, ending: Ending) {
        self.tcp.close(id, ending, self.now);
        self.write_if_full();
    }

    fn quieten(&mut self, _id: ConnId) {}
}

impl Dial for Tun {
    fn dial(&mut self, id: ConnId, to: SocketAddrV4, hello: &Arc<[u8]>) {
        self.tcp.dial(id, to, hello, self.now);
        self.write_if_full();
    }

    fn vanish(&mut self, id: ConnId) {
        self.tcp.vanish(id);
    }
}
