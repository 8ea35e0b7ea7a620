//! The other side of a shard: a table of names that dials a server of the standard library.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::{Arc, RwLockReadGuard};
use std::time::{Duration, Instant};

use holdline::id::ConnId;
use holdline::io::uring::{Config, Sources, Uring};
use holdline::io::{Backend, Completion, Dial, Ending, Out};

use super::os::in_company;

/// Long enough for the slowest machine; nothing waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(20);

/// What is known of a connection.
#[derive(Debug, Default)]
pub struct Known {
    pub writable: u32,
    pub failed: Option<ErrorKind>,
    pub peer_closed: bool,
    pub received: Vec<u8>,
}

/// A backend that dials, and the server it dials.
pub struct Caller {
    pub backend: Uring,
    pub server: TcpListener,
    pub open: BTreeMap<ConnId, Known>,
    pub closed: usize,
    free: Vec<ConnId>,
    next: u32,
    _turnstile: RwLockReadGuard<'static, ()>,
}

/// Sources that only this case has.
pub fn lane() -> Sources {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other runs of this suite at the same time are other processes.
    let process = (std::process::id() & 0x3ff) as u16;
    Sources::Loopback { lane: process << 6 | NEXT.fetch_add(1, Ordering::Relaxed) & 0x3f }
}

/// Rings of a few slots, and sources of their own.
pub fn small(connections_max: usize, slots: u32) -> Config {
    Config { slots_per_ring: Some(slots), sources: lane(), ..Config::new(connections_max) }
}

impl Caller {
    pub fn new(config: Config) -> Self {
        let turnstile = in_company();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let backend = Uring::new(config).unwrap();
        Self { backend, server, open: BTreeMap::new(), closed: 0, free: Vec::new(), next: 0, _turnstile: turnstile }
    }

    pub fn target(&self) -> SocketAddrV4 {
        let SocketAddr::V4(address) = self.server.local_addr().unwrap() else { panic!("IPv4 was asked for") };
        address
    }

    pub fn dial(&mut self, hello: &Arc<[u8]>) -> ConnId {
        self.dial_to(self.target(), hello)
    }

    pub fn dial_to(&mut self, to: SocketAddrV4, hello: &Arc<[u8]>) -> ConnId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            ConnId::new(self.next - 1, 0)
        });
        self.open.insert(id, Known::default());
        self.backend.dial(id, to, hello);
        id
    }

    /// The server's end of a connection, with nothing else in its queue.
    pub fn accept(&mut self) -> TcpStream {
        let mut stream = None;
        self.until("accepted", |caller| {
            stream = caller.server.accept().ok();
            stream.is_some()
        });
        let (stream, _) = stream.unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// Dials until it stands, and both ends of it.
    pub fn pair(&mut self, hello: &Arc<[u8]>) -> (ConnId, TcpStream) {
        let id = self.dial(hello);
        self.until("connected", |caller| caller.open[&id].writable == 1);
        let stream = self.accept();
        (id, stream)
    }

    pub fn send(&mut self, id: ConnId, bytes: &[u8]) {
        self.backend.send(id, Out::Bytes(bytes), 0);
        self.backend.flush();
        assert!(self.backend.next_short().is_none(), "an empty socket has room");
    }

    pub fn close(&mut self, id: ConnId, ending: Ending) {
        self.backend.close(id, ending);
    }

    pub fn close_and_wait(&mut self, id: ConnId, ending: Ending) {
        self.close(id, ending);
        self.until("closed", |caller| !caller.open.contains_key(&id));
    }

    pub fn close_all(&mut self, ending: Ending) {
        let ids: Vec<ConnId> = self.open.keys().copied().collect();
        ids.iter().for_each(|id| self.close(*id, ending));
        self.until("all closed", |caller| caller.open.is_empty());
    }

    /// The server's end reads exactly this.
    pub fn reads(&mut self, stream: &mut TcpStream, expected: &[u8]) {
        let (mut read, mut buffer) = (Vec::<u8>::new(), vec![0; 64 * 1024]);
        self.until("read", |_| {
            let left = (expected.len() - read.len()).min(buffer.len());
            match stream.read(&mut buffer[..left]) {
                Ok(count) => read.extend(&buffer[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            read.len() == expected.len()
        });
        assert!(read == expected, "other bytes were read than sent");
    }

    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}; {} open", self.open.len());
            self.turn();
        }
    }

    pub fn idle_turns(&mut self) {
        (0..25).for_each(|_| self.turn());
    }

    pub fn turn(&mut self) {
        self.backend.wait(Some(Duration::from_millis(1))).unwrap();
        for _ in 0..1000 {
            let Some(completion) = self.backend.next() else { break };
            self.note(completion);
        }
        self.backend.flush();
    }

    fn known(&mut self, id: ConnId) -> &mut Known {
        self.open.get_mut(&id).unwrap_or_else(|| panic!("{id} is not open"))
    }

    fn note(&mut self, completion: Completion) {
        match completion {
            Completion::Writable(id) => {
                let known = self.known(id);
                assert!(known.failed.is_none(), "{id} stands after it failed");
                known.writable += 1;
            }
            Completion::Failed(id, kind) => {
                assert!(self.known(id).failed.replace(kind).is_none(), "{id} fails once");
            }
            Completion::PeerClosed(id) => self.known(id).peer_closed = true,
            Completion::Received(id, lease) => {
                let bytes = self.backend.bytes(&lease).to_vec();
                self.backend.release(lease);
                let known = self.known(id);
                assert_eq!(known.writable, 1, "{id} receives before it stands");
                known.received.extend(bytes);
            }
            Completion::Closed(id) => {
                assert!(self.open.remove(&id).is_some(), "{id} is closed once");
                self.closed += 1;
                self.free.push(ConnId::new(id.index(), id.generation() + 1));
            }
            other => panic!("{other:?} without a listener"),
        }
    }
}
