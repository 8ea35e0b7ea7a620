//! A crowd of clients on one device, and what each of them has heard.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdline::id::ConnId;
use holdline::io::tun::{Config, Namespace, Tun};
use holdline::io::{Backend, Completion, Dial, Ending, Out};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Client {
    pub connected: bool,
    pub received: Vec<u8>,
    pub ended: bool,
    pub failed: Option<ErrorKind>,
    pub closed: bool,
    /// What is left to send.
    pub unsent: Vec<u8>,
}

pub struct Crowd {
    pub tun: Tun,
    pub clients: Vec<Client>,
    generation: u32,
}

impl Crowd {
    pub fn new(namespace: &Namespace, config: Config) -> Self {
        let tun = Tun::new(namespace, config).unwrap_or_else(|error| panic!("this test needs a TUN device: {error}"));
        Self { tun, clients: Vec::new(), generation: 0 }
    }

    pub fn id(&self, index: usize) -> ConnId {
        ConnId::new(u32::try_from(index).unwrap(), self.generation)
    }

    /// Connects that many, and waits until all are connected.
    pub fn connect(&mut self, count: usize, to: SocketAddrV4, hello: &[u8]) {
        self.dial(count, to, hello);
        self.until("all are connected", |client| client.connected);
    }

    pub fn dial(&mut self, count: usize, to: SocketAddrV4, hello: &[u8]) {
        let hello = Arc::from(hello);
        self.generation += 1;
        self.clients = vec![Client::default(); count];
        for index in 0..count {
            self.tun.dial(self.id(index), to, &hello);
        }
    }

    pub fn send(&mut self, index: usize, bytes: &[u8]) {
        self.clients[index].unsent.extend_from_slice(bytes);
        self.push(index);
        self.settle();
    }

    pub fn close_all(&mut self, ending: impl Fn(usize) -> Ending) {
        for index in 0..self.clients.len() {
            self.tun.close(self.id(index), ending(index));
        }
        self.until("all are closed", |client| client.closed);
    }

    /// Waits until this is so of all clients.
    pub fn until(&mut self, what: &str, done: impl Fn(&Client) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let waiting: BTreeSet<_> = (0..self.clients.len()).filter(|index| !done(&self.clients[*index])).collect();
            if waiting.is_empty() {
                return;
            }
            let first = waiting.first().map(|index| (index, &self.clients[*index]));
            assert!(
                Instant::now() < deadline,
                "{what}: not so of {} of {}, {:?}; {:?}",
                waiting.len(),
                self.clients.len(),
                first.map(|(index, client)| (index, client.received.len(), client.unsent.len(), client.failed)),
                self.tun.counts(),
            );
            self.turn();
        }
    }

    /// One round.
    pub fn turn(&mut self) {
        self.tun.wait(Some(Duration::from_millis(100))).unwrap();
        while let Some(completion) = self.tun.next() {
            self.note(completion);
        }
        self.tun.flush();
        self.settle();
    }

    fn note(&mut self, completion: Completion) {
        match completion {
            Completion::Received(id, lease) => {
                assert_eq!(id.generation(), self.generation);
                let bytes = self.tun.bytes(&lease);
                self.clients[id.index() as usize].received.extend_from_slice(bytes);
                self.tun.release(lease);
            }
            Completion::Writable(id) => {
                let index = id.index() as usize;
                self.clients[index].connected = true;
                self.push(index);
            }
            Completion::PeerClosed(id) => self.clients[id.index() as usize].ended = true,
            Completion::Failed(id, kind) => self.clients[id.index() as usize].failed = Some(kind),
            Completion::Closed(id) => {
                let client = &mut self.clients[id.index() as usize];
                assert!(!client.closed, "{id} was closed already");
                client.closed = true;
            }
            other => panic!("{other:?} from clients that only dial"),
        }
    }

    fn push(&mut self, index: usize) {
        let id = self.id(index);
        let bytes = &self.clients[index].unsent;
        if !bytes.is_empty() {
            self.tun.send(id, Out::Bytes(bytes), id.index());
            // All were taken, unless a short says otherwise.
            self.tun.flush();
            let short = self.tun.next_short();
            let taken = short.map_or(Ok(bytes.len()), |short| short.sent);
            let taken = taken.unwrap_or(bytes.len());
            self.clients[index].unsent.drain(..taken);
            if !self.clients[index].unsent.is_empty() {
                self.tun.want_writable(id);
            }
        }
    }

    fn settle(&mut self) {
        assert!(self.tun.next_short().is_none());
    }
}
