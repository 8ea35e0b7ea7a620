//! A shard reduced to a table of names, which checks the rules of the port in every turn.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use holdline::id::ConnId;
use holdline::io::{Accepted, Backend, Completion, Ending, Out};

use super::harness::{Client, Harness, Peer, Setup};

/// Long enough for the slowest machine; nothing waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the backend said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Accepted(ConnId),
    Refused,
    AcceptFailed,
    Received(ConnId, usize),
    PeerClosed(ConnId),
    Writable(ConnId),
    Failed(ConnId),
    Closed(ConnId),
}

/// What is known of a connection.
#[derive(Debug, Default)]
pub struct Known {
    /// Who it is, as the backend says.
    pub peer: Option<SocketAddr>,
    pub received: Vec<u8>,
    pub peer_closed: bool,
    pub failed: bool,
    pub writable: u32,
    pub wanted_writable: bool,
    /// Bytes of an echo that wait for room.
    outgoing: Vec<u8>,
    closing: bool,
}

pub struct World<H: Harness> {
    pub harness: H,
    pub log: Vec<Said>,
    pub open: BTreeMap<ConnId, Known>,
    pub closed: usize,
    /// Connections beyond this are refused.
    pub connections_max: usize,
    /// Sends back what it gets, each byte plus one.
    pub echo: bool,
    free: Vec<u32>,
    generations: Vec<u32>,
    tag: u32,
}

impl<H: Harness> World<H> {
    pub fn new(setup: Setup) -> Self {
        let mut world = Self::over(H::new(setup));
        world.connections_max = setup.connections_max as usize;
        world
    }

    pub fn over(harness: H) -> Self {
        Self {
            harness,
            log: Vec::new(),
            open: BTreeMap::new(),
            closed: 0,
            connections_max: 1024,
            echo: false,
            free: Vec::new(),
            generations: Vec::new(),
            tag: 0,
        }
    }

    pub fn backend(&mut self) -> &mut H::Backend {
        self.harness.backend()
    }

    pub fn known(&self, id: ConnId) -> &Known {
        &self.open[&id]
    }

    /// A client, and the name of its connection.
    pub fn pair(&mut self) -> (ConnId, H::Client) {
        let mut client = self.harness.try_connect().expect("the listener is there");
        let id = self.accepted();
        self.until("agreed", |_| client.settle());
        (id, client)
    }

    /// A client that may still have to agree with the server.
    pub fn try_connect(&mut self) -> H::Client {
        self.harness.try_connect().expect("the listener is there")
    }

    /// The next connection that is accepted.
    pub fn accepted(&mut self) -> ConnId {
        let seen = self.log.len();
        let said_id = |said: &Said| if let Said::Accepted(id) = said { Some(*id) } else { None };
        self.until("accepted", |world| world.log[seen..].iter().any(|said| said_id(said).is_some()));
        self.log[seen..].iter().find_map(said_id).unwrap()
    }

    /// Turns until something is true.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}; {:?}", self.tail());
            self.turn();
        }
    }

    fn tail(&self) -> &[Said] {
        &self.log[self.log.len().saturating_sub(20)..]
    }

    /// Some turns in which nothing is expected.
    pub fn idle_turns(&mut self) {
        for _ in 0..25 {
            self.turn();
        }
    }

    pub fn turn(&mut self) {
        self.turn_within(Duration::from_millis(1));
    }

    pub fn turn_within(&mut self, timeout: Duration) {
        self.backend().wait(Some(timeout)).unwrap();
        // A bound, as a shard has one: what is left comes after the next wait.
        for _ in 0..1000 {
            let Some(completion) = self.backend().next() else { break };
            self.note(completion);
        }
    }

    fn note(&mut self, completion: Completion) {
        let said = match completion {
            Completion::Accepted(accepted) => self.name(accepted),
            Completion::AcceptFailed(..) => Said::AcceptFailed,
            Completion::Proxied(..) => panic!("no header was awaited"),
            Completion::Received(id, lease) => {
                assert!(lease.len > 0, "an empty lease");
                let bytes = self.backend().bytes(&lease);
                assert_eq!(bytes.len(), lease.len as usize);
                let before = bytes.to_vec();
                bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
                let after = self.backend().bytes(&lease).to_vec();
                self.backend().release(lease);
                let known = self.expect_open(id);
                assert!(!known.peer_closed && !known.failed, "{id} receives after its end");
                known.received.extend(&before);
                if self.echo {
                    self.open.get_mut(&id).unwrap().outgoing.extend(after);
                    self.pump(id);
                }
                Said::Received(id, before.len())
            }
            Completion::PeerClosed(id) => {
                let known = self.expect_open(id);
                assert!(!std::mem::replace(&mut known.peer_closed, true), "{id} told twice of its peer's end");
                assert!(!known.failed, "{id} told of its peer's end after it failed");
                Said::PeerClosed(id)
            }
            Completion::Writable(id) => {
                let known = self.expect_open(id);
                assert!(std::mem::take(&mut known.wanted_writable), "{id} did not ask for room");
                known.writable += 1;
                self.pump(id);
                Said::Writable(id)
            }
            Completion::Failed(id, _) => {
                let known = self.expect_open(id);
                assert!(!std::mem::replace(&mut known.failed, true), "{id} failed twice");
                Said::Failed(id)
            }
            Completion::Closed(id) => {
                let known = self.open.remove(&id).unwrap_or_else(|| panic!("{id} closed, but is not open"));
                assert!(known.closing, "{id} closed by itself");
                self.free.push(id.index());
                self.closed += 1;
                Said::Closed(id)
            }
        };
        self.log.push(said);
    }

    /// Sends what an echo owes.
    fn pump(&mut self, id: ConnId) {
        let known = self.open.get_mut(&id).unwrap();
        if known.outgoing.is_empty() || known.wanted_writable {
            return;
        }
        let outgoing = std::mem::take(&mut known.outgoing);
        // Who is broken is told to be, now or later.
        let Ok(sent) = self.send(id, &outgoing) else { return };
        if sent < outgoing.len() {
            self.open.get_mut(&id).unwrap().outgoing = outgoing[sent..].to_vec();
            self.want_writable(id);
        }
    }

    fn expect_open(&mut self, id: ConnId) -> &mut Known {
        let known = self.open.get_mut(&id).unwrap_or_else(|| panic!("{id} is not open"));
        assert!(!known.closing, "{id} has been closed, only `Closed` may follow");
        known
    }

    fn name(&mut self, accepted: Accepted) -> Said {
        if self.open.len() == self.connections_max {
            self.backend().refuse(accepted);
            return Said::Refused;
        }
        // The index that was free last, so that an old name's successor comes at once.
        let index = self.free.pop().unwrap_or_else(|| {
            self.generations.push(0);
            u32::try_from(self.generations.len() - 1).unwrap()
        });
        self.generations[index as usize] += 1;
        let id = ConnId::new(index, self.generations[index as usize]);
        self.open.insert(id, Known { peer: accepted.peer, ..Known::default() });
        self.backend().attach(accepted, id);
        Said::Accepted(id)
    }

    /// Sends, and says how much was taken.
    pub fn send(&mut self, id: ConnId, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.send_out(id, Out::Bytes(bytes), bytes.len())
    }

    /// Sends, all of it, however often the way is blocked.
    pub fn send_all(&mut self, id: ConnId, bytes: &[u8]) {
        let mut sent = 0;
        while sent < bytes.len() {
            sent += self.send(id, &bytes[sent..]).unwrap();
            if sent < bytes.len() {
                self.wait_for_room(id);
            }
        }
    }

    pub fn send_out(&mut self, id: ConnId, out: Out<'_>, len: usize) -> Result<usize, ErrorKind> {
        self.tag += 1;
        let tag = self.tag;
        self.backend().send(id, out, tag);
        self.backend().flush();
        let Some(short) = self.backend().next_short() else { return Ok(len) };
        assert_eq!(short.tag, tag);
        assert!(short.sent.is_err() || short.sent.is_ok_and(|sent| sent < len), "short, but {:?} of {len}", short.sent);
        assert!(self.backend().next_short().is_none());
        short.sent
    }

    pub fn want_writable(&mut self, id: ConnId) {
        self.open.get_mut(&id).unwrap().wanted_writable = true;
        self.backend().want_writable(id);
    }

    pub fn wait_for_room(&mut self, id: ConnId) {
        let before = self.known(id).writable;
        self.want_writable(id);
        self.until("room", |world| world.known(id).writable > before);
    }

    /// Closes, and does not wait for it.
    pub fn close(&mut self, id: ConnId, ending: Ending) {
        self.open.get_mut(&id).unwrap().closing = true;
        self.backend().close(id, ending);
    }

    pub fn close_and_wait(&mut self, id: ConnId, ending: Ending) {
        self.close(id, ending);
        self.until("closed", |world| !world.open.contains_key(&id));
    }

    /// Closes whoever failed, or has ended and got the whole echo.
    pub fn close_ended(&mut self) {
        let is_over = |known: &Known| known.failed || (known.peer_closed && known.outgoing.is_empty());
        let over = self.open.iter().filter(|(_, known)| !known.closing && is_over(known));
        let ids: Vec<ConnId> = over.map(|(id, _)| *id).collect();
        for id in ids {
            self.close(id, Ending::Graceful);
        }
    }

    /// Closes all that are open and waits for it.
    pub fn close_all(&mut self, ending: Ending) {
        let ids: Vec<ConnId> = self.open.iter().filter(|(_, known)| !known.closing).map(|(id, _)| *id).collect();
        for id in ids {
            self.close(id, ending);
        }
        self.until("all closed", |world| world.open.is_empty());
    }

    pub fn received(&mut self, id: ConnId, expected: &[u8]) {
        self.until("received", |world| world.known(id).received.len() >= expected.len());
        assert!(self.known(id).received == expected, "other bytes were received than written");
    }

    /// The client writes all of it.
    pub fn write_all(&mut self, client: &mut H::Client, bytes: &[u8]) {
        let mut written = 0;
        self.until("written", |_| {
            written += client.write(&bytes[written..]);
            written == bytes.len()
        });
    }

    /// The client reads exactly this.
    pub fn reads(&mut self, client: &mut H::Client, expected: &[u8]) {
        let mut read = Vec::new();
        self.until("read", |_| {
            let left = expected.len() - read.len();
            client.read(&mut read, left);
            read.len() == expected.len()
        });
        assert!(read == expected, "other bytes were read than sent");
    }

    /// The client reads to the end and finds this one; says what was read.
    pub fn reads_until(&mut self, client: &mut H::Client, peer: Peer) -> Vec<u8> {
        let mut read = Vec::new();
        self.until("the server's end", |_| client.read(&mut read, usize::MAX) == 0 && client.peer() != Peer::Open);
        assert_eq!(client.peer(), peer);
        read
    }
}

/// Bytes without a pattern that a mistake could fit into.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = holdline::sim::Random::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(random.bits().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
