//! The network: what lies between clients and backends, and what goes wrong there.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::backend::SimBackend;
use super::client::Client;
use super::random::Random;
use crate::id::{ConnId, ListenerId};

/// How often each thing goes wrong, in a thousand chances to do so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A receive that brings less than is there, down to one byte.
    pub partial_reads: u16,
    /// A send that is taken in part, down to nothing, though there is room.
    pub short_writes: u16,
    /// Bytes that arrive some turns later.
    pub delays: u16,
    /// A connection that breaks by itself, once per turn in which something happens to it.
    pub resets: u16,
    /// A receive that has no buffer now.
    pub no_buffers: u16,
    /// An accept that fails.
    pub accept_failures: u16,
    /// A `Writable` without room.
    pub spurious_writables: u16,
    /// A `Closed` that comes some turns later.
    pub late_closes: u16,
    /// A send that runs at the flush instead of at once.
    pub late_sends: u16,
    /// A turn in which one connection is served out of order.
    pub reorders: u16,
}

impl Faults {
    /// All goes well.
    pub const NONE: Self = Self {
        partial_reads: 0,
        short_writes: 0,
        delays: 0,
        resets: 0,
        no_buffers: 0,
        accept_failures: 0,
        spurious_writables: 0,
        late_closes: 0,
        late_sends: 0,
        reorders: 0,
    };

    /// All that loses no connection, often.
    pub const HARSH: Self = Self {
        partial_reads: 300,
        short_writes: 200,
        delays: 100,
        resets: 0,
        no_buffers: 100,
        accept_failures: 100,
        spurious_writables: 100,
        late_closes: 300,
        late_sends: 500,
        reorders: 300,
    };

    /// A little or a lot of each, as the seed has it. Resets in one of two networks.
    #[must_use]
    pub fn draw(random: &mut Random) -> Self {
        let mut some = |most: usize| u16::try_from(random.below(most)).unwrap_or(0);
        Self {
            partial_reads: some(600),
            short_writes: some(400),
            delays: some(200),
            resets: some(20).saturating_sub(10),
            no_buffers: some(200),
            accept_failures: some(200),
            spurious_writables: some(200),
            late_closes: some(500),
            late_sends: some(1000),
            reorders: some(500),
        }
    }
}

/// What a network is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What goes wrong.
    pub faults: Faults,
    /// Bytes on their way from a client to its server before the client's writes are taken no more.
    pub upstream_bytes: usize,
    /// Bytes on their way from a server to its client before the server's sends go short.
    pub downstream_bytes: usize,
    /// Size of a backend's receive buffer.
    pub buffer_bytes: usize,
    /// Connections that wait for each listener before more are turned away.
    pub backlog_max: usize,
    /// Connections that a backend accepts in one turn.
    pub accepts_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            faults: Faults::NONE,
            upstream_bytes: 64 * 1024,
            downstream_bytes: 64 * 1024,
            buffer_bytes: 16 * 1024,
            backlog_max: 4096,
            accepts_max: 64,
        }
    }
}

/// A network in memory. Clones are the same network.
#[derive(Clone, Debug)]
pub struct Net(pub(super) Rc<RefCell<State>>);

impl Net {
    /// A network whose faults follow from `seed`.
    #[must_use]
    pub fn new(seed: u64, config: Config) -> Self {
        let random = Random::new(seed);
        let state = State { random, config, next_link: 0, links: BTreeMap::new(), shards: Vec::new() };
        Self(Rc::new(RefCell::new(state)))
    }

    /// One more shard's view of it.
    #[must_use]
    pub fn backend(&self) -> SimBackend {
        let shard = self.0.borrow_mut().shards.len();
        self.0.borrow_mut().shards.push(Side::default());
        SimBackend::new(self.clone(), shard)
    }

    /// Connects to one of the shards that have this listener, as SO_REUSEPORT would. `None`: refused.
    #[must_use]
    pub fn connect(&self, listener: ListenerId) -> Option<Client> {
        let mut state = self.0.borrow_mut();
        let listening = state.shards.iter().filter(|side| side.backlog(listener).is_some()).count();
        let nth = state.random.below(listening);
        let of_listener = |(_, side): &(usize, &Side)| side.backlog(listener).is_some();
        let (shard, _) = state.shards.iter().enumerate().filter(of_listener).nth(nth)?;
        state.connect(shard, listener).map(|key| Client::new(self.clone(), key))
    }

    /// Connects to this shard, in the order that backends were made. `None`: refused.
    #[must_use]
    pub fn connect_to(&self, shard: usize, listener: ListenerId) -> Option<Client> {
        let key = self.0.borrow_mut().connect(shard, listener)?;
        Some(Client::new(self.clone(), key))
    }

    /// Changes what goes wrong from now on, for instance to nothing so that a test can come to its end.
    pub fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().config.faults = faults;
    }

    /// Connections that a server has accepted and not closed.
    #[must_use]
    pub fn held_by_servers(&self) -> usize {
        self.0.borrow().links.values().filter(|link| link.server == Server::Has).count()
    }

    /// Connections that are known to either side.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.borrow().links.len()
    }
}

/// Where the server's end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// In a backlog.
    Waits,
    /// Accepted.
    Has,
    /// Closed.
    Left,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    /// The writer will write no more.
    pub(super) finished: bool,
}

impl Pipe {
    /// Copies bytes out of it, and says how many.
    pub(super) fn read(&mut self, into: &mut [u8]) -> usize {
        let wanted = into.len().min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let from_front = front.len().min(wanted);
        into[..from_front].copy_from_slice(&front[..from_front]);
        into[from_front..wanted].copy_from_slice(&back[..wanted - from_front]);
        self.bytes.drain(..wanted);
        wanted
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) shard: usize,
    pub(super) server: Server,
    pub(super) id: Option<ConnId>,
    /// Whether the client's handle is there.
    pub(super) client: bool,
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    /// Broken: nothing gets through any more, in either direction.
    pub(super) broken: bool,
    /// Turns for which nothing of it arrives at the server.
    pub(super) held_back: usize,
    /// In the shard's `ready`.
    pub(super) queued: bool,
    /// The server's wishes.
    pub(super) paused: bool,
    pub(super) wants_room: bool,
    /// What the server was told.
    pub(super) told_end: bool,
    pub(super) told_broken: bool,
    /// Sent since the last flush.
    pub(super) sent: bool,
}

impl Link {
    fn new(shard: usize) -> Self {
        Self {
            shard,
            server: Server::Waits,
            id: None,
            client: true,
            up: Pipe::default(),
            down: Pipe::default(),
            broken: false,
            held_back: 0,
            queued: false,
            paused: false,
            wants_room: false,
            told_end: false,
            told_broken: false,
            sent: false,
        }
    }

    /// Breaks it. What the server has not read by now may or may not have arrived; what the client has not is lost.
    pub(super) fn break_off(&mut self, keep_upstream: bool) {
        self.broken = true;
        self.down.bytes.clear();
        if !keep_upstream {
            self.up.bytes.clear();
        }
    }
}

/// A shard's part of the network: what has happened that it has not seen.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// Per listener, connections that wait to be accepted.
    pub(super) listeners: Vec<(ListenerId, VecDeque<u64>)>,
    /// Those whose listener has closed and who are handed out all the same.
    pub(super) last: VecDeque<(ListenerId, u64)>,
    pub(super) ready: VecDeque<u64>,
}

impl Side {
    fn backlog(&self, listener: ListenerId) -> Option<&VecDeque<u64>> {
        self.listeners.iter().find(|(id, _)| *id == listener).map(|(_, backlog)| backlog)
    }
}

/// Everything that clients and backends share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) random: Random,
    pub(super) config: Config,
    next_link: u64,
    /// By number, in the order of their connects; a number is never used twice.
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) shards: Vec<Side>,
}

impl State {
    fn connect(&mut self, shard: usize, listener: ListenerId) -> Option<u64> {
        let side = self.shards.get_mut(shard)?;
        let (_, backlog) = side.listeners.iter_mut().find(|(id, _)| *id == listener)?;
        if backlog.len() >= self.config.backlog_max {
            return None;
        }
        let key = self.next_link;
        self.next_link += 1;
        backlog.push_back(key);
        self.links.insert(key, Link::new(shard));
        Some(key)
    }

    /// Lets the server look at this connection in its next turn.
    pub(super) fn touch(&mut self, key: u64) {
        let Some(link) = self.links.get_mut(&key) else { return };
        if link.server == Server::Has && link.id.is_some() && !link.queued {
            link.queued = true;
            self.shards[link.shard].ready.push_back(key);
        }
    }

    /// Forgets a connection that nobody has any more.
    pub(super) fn forget_if_left(&mut self, key: u64) {
        if self.links.get(&key).is_some_and(|link| !link.client && link.server == Server::Left) {
            self.links.remove(&key);
        }
    }

    /// Room for the server's next bytes, all of it or nothing: like Linux, not before a third is free.
    pub(super) fn has_room(&self, link: &Link) -> bool {
        let capacity = self.config.downstream_bytes;
        link.down.bytes.len() <= capacity - capacity.div_ceil(3)
    }
}
