//! The backend over loopback, with the standard library's sockets as peers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod accepting;
mod crowds;
mod dialling;
mod ending;
mod receiving;
mod rings;
mod sending;

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::request::Done;
use super::ring::Filler;
use super::table::MULTI;
use super::*;

/// A backend with a listener, and what an engine would keep.
struct Shard {
    uring: Uring,
    address: SocketAddr,
    next_index: u32,
    free: Vec<ConnId>,
    open: HashSet<ConnId>,
    accepting: bool,
    /// Of those that were taken, in order.
    peers: Vec<Option<SocketAddr>>,
    echo: bool,
    received: HashMap<ConnId, Vec<u8>>,
    events: Vec<(ConnId, &'static str)>,
    shorts: Vec<Short>,
    longest: u32,
    accept_failures: Vec<ErrorKind>,
    /// Why the last of them failed that did.
    why: Option<ErrorKind>,
}

impl Shard {
    fn new(config: Config) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        // The standard library's queue is short for a storm.
        socket2::SockRef::from(&socket).listen(4096).unwrap();
        let address = socket.local_addr().unwrap();
        let mut uring = Uring::new(config).unwrap();
        uring.listen(ListenerId(0), socket).unwrap();
        Self {
            uring,
            address,
            next_index: 0,
            free: Vec::new(),
            open: HashSet::new(),
            accepting: true,
            peers: Vec::new(),
            echo: false,
            received: HashMap::new(),
            events: Vec::new(),
            shorts: Vec::new(),
            longest: 0,
            accept_failures: Vec::new(),
            why: None,
        }
    }

    fn echoing(config: Config) -> Self {
        Self { echo: true, ..Self::new(config) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn turn(&mut self) {
        self.uring.wait(Some(Duration::from_millis(2))).unwrap();
        while let Some(completion) = self.uring.next() {
            self.on(completion);
        }
        self.uring.flush();
        while let Some(short) = self.uring.next_short() {
            self.shorts.push(short);
        }
    }

    fn on(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted(accepted) if self.accepting => {
                let id = self.free.pop().map_or_else(
                    || {
                        self.next_index += 1;
                        ConnId::new(self.next_index - 1, 0)
                    },
                    |old| ConnId::new(old.index(), old.generation() + 1),
                );
                self.peers.push(accepted.peer);
                self.uring.attach(accepted, id);
                self.open.insert(id);
                self.events.push((id, "open"));
            }
            Completion::Accepted(accepted) => self.uring.refuse(accepted),
            Completion::Proxied(..) => panic!("no header was awaited"),
            Completion::AcceptFailed(_, kind) => self.accept_failures.push(kind),
            Completion::Received(id, lease) => {
                assert!(self.open.contains(&id) && lease.len > 0, "{id}");
                self.longest = self.longest.max(lease.len);
                let bytes = self.uring.bytes(&lease).to_vec();
                self.uring.release(lease);
                if self.echo {
                    self.uring.send(id, Out::Bytes(&bytes), id.index());
                    self.uring.flush();
                }
                self.received.entry(id).or_default().extend(bytes);
            }
            Completion::PeerClosed(id) => self.note(id, "peer closed"),
            Completion::Writable(id) => self.note(id, "writable"),
            Completion::Failed(id, kind) => {
                self.why = Some(kind);
                self.note(id, "failed");
            }
            Completion::Closed(id) => {
                assert!(self.open.remove(&id), "{id} is closed once");
                self.free.push(id);
                self.events.push((id, "closed"));
            }
        }
    }

    fn note(&mut self, id: ConnId, what: &'static str) {
        assert!(self.open.contains(&id), "{id}: {what}");
        self.events.push((id, what));
    }

    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < deadline, "in time; so far: {:?}", &self.events[self.events.len().min(20)..]);
            self.turn();
        }
    }

    fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn());
    }

    fn saw(&self, id: ConnId, what: &str) -> usize {
        self.events.iter().filter(|event| **event == (id, what)).count()
    }

    /// One connection, both ends.
    fn pair(&mut self) -> (TcpStream, ConnId) {
        let stream = self.connect();
        let before = self.events.len();
        self.until(|shard| shard.events[before..].iter().any(|event| event.1 == "open"));
        let id = self.events[before..].iter().find(|event| event.1 == "open").unwrap().0;
        (stream, id)
    }

    fn close(&mut self, id: ConnId, ending: Ending) {
        self.uring.close(id, ending);
        self.until(|shard| shard.saw(id, "closed") == 1);
    }

    fn ping(&mut self, stream: &mut TcpStream, message: &[u8]) {
        stream.write_all(message).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut back: Vec<u8> = Vec::new();
        let mut buffer = [0; 4096];
        self.until(|_| match stream.read(&mut buffer) {
            Ok(0) => panic!("closed"),
            Ok(count) => {
                back.extend(&buffer[..count]);
                back.len() >= message.len()
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        });
        stream.set_nonblocking(false).unwrap();
        assert_eq!(back, message);
    }

    fn slots_used(&self) -> u32 {
        self.uring.rings.iter().map(|ring| ring.used).sum()
    }

    fn multi(&mut self, id: ConnId) -> bool {
        self.uring.table.get(id).unwrap().has(MULTI)
    }

    fn all_buffers_back(&self) -> bool {
        self.uring.scratch.free_count() == Scratch::COUNT as usize
    }
}

fn small(connections: usize, slots: u32) -> Config {
    Config { slots_per_ring: Some(slots), ..Config::new(connections) }
}
