//! The other end: a connection as a test's script has it.

use super::net::{Net, Server, State};

/// What a client can tell of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It may say more.
    Open,
    /// It has said all, and all of that was read.
    Finished,
    /// The connection is broken.
    Reset,
}

/// A client's end of a connection. Dropping it closes it. A client that reads slowly is one that reads seldom, or few
/// bytes at a time.
#[derive(Debug)]
pub struct Client {
    net: Net,
    key: u64,
}

impl Client {
    pub(super) const fn new(net: Net, key: u64) -> Self {
        Self { net, key }
    }

    /// Writes what fits, and says how much that was.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let mut state = self.net.0.borrow_mut();
        let State { random, config, links, .. } = &mut *state;
        let Some(link) = links.get_mut(&self.key) else { return 0 };
        if link.broken || link.up.finished {
            return 0;
        }
        if link.server == Server::Left {
            // Nobody is there to take it, and the answer is a reset.
            link.break_off(false);
            return 0;
        }
        let taken = bytes.len().min(config.upstream_bytes.saturating_sub(link.up.bytes.len()));
        if taken == 0 {
            return 0;
        }
        link.up.bytes.extend(&bytes[..taken]);
        if random.chance(config.faults.delays) {
            link.held_back = random.within(1, 8);
        }
        state.touch(self.key);
        taken
    }

    /// Reads what has arrived.
    pub fn read(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.read_into(&mut bytes, usize::MAX);
        bytes
    }

    /// Reads what has arrived but no more than `bytes_max`, behind what is in `into`, and says how much.
    pub fn read_into(&mut self, into: &mut Vec<u8>, bytes_max: usize) -> usize {
        let mut state = self.net.0.borrow_mut();
        let State { random, config, links, .. } = &mut *state;
        let Some(link) = links.get_mut(&self.key) else { return 0 };
        let mut arrived = link.down.bytes.len().min(bytes_max);
        if random.chance(config.faults.delays) {
            arrived = random.below(arrived);
        }
        let start = into.len();
        into.resize(start + arrived, 0);
        link.down.read(&mut into[start..]);
        if arrived > 0 && link.wants_room {
            state.touch(self.key);
        }
        arrived
    }

    /// Bytes that have arrived.
    #[must_use]
    pub fn available(&self) -> usize {
        self.net.0.borrow().links.get(&self.key).map_or(0, |link| link.down.bytes.len())
    }

    /// What is known of the server.
    #[must_use]
    pub fn peer(&self) -> Peer {
        let state = self.net.0.borrow();
        match state.links.get(&self.key) {
            Some(link) if !link.broken && link.down.finished && link.down.bytes.is_empty() => Peer::Finished,
            Some(link) if !link.broken => Peer::Open,
            _ => Peer::Reset,
        }
    }

    /// Whether the server has taken leave of the connection, whatever of its last words has been read.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.net.0.borrow().links.get(&self.key).is_none_or(|link| link.server == Server::Left)
    }

    /// Says that nothing more will be written (FIN), and goes on reading.
    pub fn shutdown_write(&mut self) {
        let mut state = self.net.0.borrow_mut();
        if let Some(link) = state.links.get_mut(&self.key) {
            link.up.finished = true;
        }
        state.touch(self.key);
    }

    /// Ends the connection. As with Linux this is a reset when something has arrived that was not read.
    pub fn close(self) {}

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.net.0.borrow_mut().break_off(self.key);
    }

    /// The shard that has the other end.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.net.0.borrow().links.get(&self.key).map_or(0, |link| link.shard)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut state = self.net.0.borrow_mut();
        let Some(link) = state.links.get_mut(&self.key) else { return };
        link.client = false;
        link.up.finished = true;
        if !link.down.bytes.is_empty() {
            state.break_off(self.key);
        }
        state.touch(self.key);
        state.forget_if_left(self.key);
    }
}

impl State {
    /// Breaks a connection in the middle, with a coin for what had arrived.
    pub(super) fn break_off(&mut self, key: u64) {
        let keep_upstream = self.random.below(2) == 0;
        if let Some(link) = self.links.get_mut(&key) {
            link.break_off(keep_upstream);
        }
        self.touch(key);
    }
}
