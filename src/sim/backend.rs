//! The port over a simulated network.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::net::{Faults, Link, Net, Server, Side, State};
use crate::id::{ConnId, ListenerId};
use crate::io::{Accepted, Backend, Backlog, Completion, Ending, Lease, Out, Short, Wake};

/// One shard's view of a [`Net`]. It never waits.
#[derive(Debug)]
pub struct SimBackend {
    net: Net,
    shard: usize,
    /// By the index in the ids.
    names: Vec<Option<Name>>,
    /// Completions that are due in some turn, in that order.
    later: BTreeMap<(u64, u64), Completion>,
    /// Of `later`, so that those due in the same turn keep their order.
    sequence: u64,
    turn: u64,
    /// How many of the ready connections have their turn before the next wait.
    turns: usize,
    accept_paused: bool,
    accepts_left: usize,
    shorts: VecDeque<Short>,
    /// Sends that wait for the flush.
    unsent: Vec<(ConnId, Vec<u8>, u32)>,
    /// Connections that have sent since the last flush.
    senders: Vec<u64>,
    buffer: Box<[u8]>,
    lent: bool,
    woken: Arc<Flag>,
}

/// Where a client seems to come from: one address each, of the network for benchmarks (RFC 2544).
fn address(link: u64) -> SocketAddr {
    let [.., high, middle, low] = link.to_be_bytes();
    SocketAddr::from(([198, 18 + (high & 1), middle, low], 50_000))
}

/// Who has an index.
#[derive(Clone, Copy, Debug)]
struct Name {
    id: ConnId,
    link: u64,
}

impl SimBackend {
    pub(super) fn new(net: Net, shard: usize) -> Self {
        let buffer_bytes = net.0.borrow().config.buffer_bytes.max(1);
        Self {
            net,
            shard,
            names: Vec::new(),
            later: BTreeMap::new(),
            sequence: 0,
            turn: 0,
            turns: 0,
            accept_paused: false,
            accepts_left: 0,
            shorts: VecDeque::new(),
            unsent: Vec::new(),
            senders: Vec::new(),
            buffer: vec![0; buffer_bytes].into_boxed_slice(),
            lent: false,
            woken: Arc::new(Flag::default()),
        }
    }

    /// Listens without a socket.
    pub fn open(&mut self, id: ListenerId) {
        self.net.0.borrow_mut().shards[self.shard].listeners.push((id, VecDeque::new()));
    }

    /// Whether a turn would do anything: a completion is there or on its way, or the waker was used.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let state = self.net.0.borrow();
        let side = &state.shards[self.shard];
        let backlog = side.listeners.iter().any(|(_, backlog)| !backlog.is_empty());
        let backlog = backlog || !side.last.is_empty();
        !self.later.is_empty()
            || !side.ready.is_empty()
            || (backlog && !self.accept_paused)
            || self.woken.0.load(Ordering::Acquire)
    }

    fn link_of(&self, id: ConnId) -> Option<u64> {
        let name = self.names.get(id.index() as usize).copied().flatten().filter(|name| name.id == id)?;
        let state = self.net.0.borrow();
        state.links.get(&name.link).filter(|link| link.server == Server::Has).map(|_| name.link)
    }

    /// Lets `change` have a connection that is open, and serves it in the next turn.
    fn change(&mut self, id: ConnId, change: impl FnOnce(&mut Link)) {
        let Some(key) = self.link_of(id) else { return };
        let mut state = self.net.0.borrow_mut();
        if let Some(link) = state.links.get_mut(&key) {
            change(link);
        }
        state.touch(key);
    }

    fn tell_later(&mut self, turns: u64, completion: Completion) {
        self.sequence += 1;
        self.later.insert((self.turn + turns, self.sequence), completion);
    }

    fn next_due(&mut self) -> Option<Completion> {
        let first = self.later.first_entry().filter(|first| first.key().0 <= self.turn)?;
        let completion = first.remove();
        if let Completion::Closed(id) = completion {
            self.names[id.index() as usize] = None;
        }
        Some(completion)
    }

    /// The connection's turn: what it has to tell, one thing at a time.
    fn serve(&mut self, key: u64) -> Option<Completion> {
        let mut state = self.net.0.borrow_mut();
        let room = state.links.get(&key).is_some_and(|link| state.has_room(link));
        let State { random, config, links, .. } = &mut *state;
        let faults = config.faults;
        let link = links.get_mut(&key)?;
        link.queued = false;
        let id = link.id.filter(|_| link.server == Server::Has)?;
        if link.held_back > 0 {
            link.held_back -= 1;
            state.touch(key);
            return None;
        }
        if random.chance(faults.resets) {
            link.break_off(random.below(2) == 0);
        }
        let readable = !link.paused && !link.told_end && !link.up.bytes.is_empty();
        let completion = if link.wants_room && (room || link.broken || random.chance(faults.spurious_writables)) {
            link.wants_room = false;
            Some(Completion::Writable(id))
        } else if readable && random.chance(faults.no_buffers) {
            None
        } else if readable {
            let mut bytes_max = self.buffer.len().min(link.up.bytes.len());
            if random.chance(faults.partial_reads) {
                bytes_max = random.within(1, bytes_max);
            }
            let read = link.up.read(&mut self.buffer[..bytes_max]);
            self.lent = true;
            let len = u32::try_from(read).unwrap_or(u32::MAX);
            Some(Completion::Received(id, Lease { buffer: 0, start: 0, len, more: len % 2 == 0 }))
        } else if link.broken && !link.told_broken {
            link.told_broken = true;
            link.told_end = true;
            Some(Completion::Failed(id, ErrorKind::ConnectionReset))
        } else if !link.broken && link.up.finished && !link.paused && !link.told_end {
            link.told_end = true;
            Some(Completion::PeerClosed(id))
        } else {
            return None;
        };
        state.touch(key);
        completion
    }

    fn next_accepted(&mut self) -> Option<Completion> {
        if self.accept_paused || self.accepts_left == 0 {
            return None;
        }
        let mut state = self.net.0.borrow_mut();
        let State { random, config, links, shards, .. } = &mut *state;
        let Side { listeners, last, .. } = &mut shards[self.shard];
        let open = listeners.iter_mut().find(|(_, backlog)| !backlog.is_empty());
        let listener = last.front().map(|(id, _)| *id).or(open.as_ref().map(|(id, _)| *id))?;
        self.accepts_left -= 1;
        if random.chance(config.faults.accept_failures) {
            self.accepts_left = 0;
            return Some(Completion::AcceptFailed(listener, ErrorKind::OutOfMemory));
        }
        let waiting = last.pop_front().map(|(_, socket)| socket);
        let socket = waiting.or_else(|| open?.1.pop_front())?;
        if let Some(link) = links.get_mut(&socket) {
            link.server = Server::Has;
        }
        Some(Completion::Accepted(Accepted { listener, socket, peer: Some(address(socket)) }))
    }

    /// Hands bytes to the network.
    fn send_now(&mut self, id: ConnId, bytes: &[u8], tag: u32) {
        let sent = match self.link_of(id) {
            Some(key) => take(&mut self.net.0.borrow_mut(), key, bytes),
            None => Err(ErrorKind::NotConnected),
        };
        if sent != Ok(bytes.len()) {
            self.shorts.push_back(Short { tag, sent });
        }
    }

    /// Takes leave of a connection.
    fn leave(&mut self, key: u64, ending: Ending) {
        let mut state = self.net.0.borrow_mut();
        let Some(link) = state.links.get_mut(&key) else { return };
        link.server = Server::Left;
        link.down.finished = true;
        if ending == Ending::Reset {
            link.break_off(false);
        }
        state.forget_if_left(key);
    }
}

/// What the network takes of a send.
fn take(state: &mut State, key: u64, bytes: &[u8]) -> Result<usize, ErrorKind> {
    let State { random, config, links, .. } = state;
    let link = links.get_mut(&key).ok_or(ErrorKind::NotConnected)?;
    if link.broken {
        return Err(ErrorKind::ConnectionReset);
    }
    if link.down.finished {
        return Err(ErrorKind::BrokenPipe);
    }
    if !link.client {
        // The client's kernel takes it, finds nobody, and answers with a reset.
        link.break_off(true);
        state.touch(key);
        return Ok(bytes.len());
    }
    let mut taken = bytes.len().min(config.downstream_bytes.saturating_sub(link.down.bytes.len()));
    if random.chance(config.faults.short_writes) {
        taken = random.below(taken);
    }
    link.down.bytes.extend(&bytes[..taken]);
    Ok(taken)
}

impl Backend for SimBackend {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::<Flag>::clone(&self.woken)
    }

    /// Listens as [`SimBackend::open`] does; the socket is of no use here and is closed.
    fn listen(&mut self, id: ListenerId, socket: TcpListener) -> io::Result<()> {
        drop(socket);
        self.open(id);
        Ok(())
    }

    fn pause_accept(&mut self, paused: bool) {
        self.accept_paused = paused;
    }

    fn stop_listening(&mut self, id: ListenerId, backlog: Backlog) {
        let mut state = self.net.0.borrow_mut();
        let Side { listeners, last, .. } = &mut state.shards[self.shard];
        let closed: Vec<_> = listeners.extract_if(.., |(listener, _)| *listener == id).collect();
        let waiting = closed.into_iter().flat_map(|(_, waiting)| waiting);
        if backlog == Backlog::Take {
            return last.extend(waiting.map(|key| (id, key)));
        }
        drop(state);
        waiting.for_each(|key| self.leave(key, Ending::Reset));
    }

    fn is_listening(&self) -> bool {
        let side = &self.net.0.borrow().shards[self.shard];
        !side.listeners.is_empty() || !side.last.is_empty()
    }

    fn attach(&mut self, accepted: Accepted, id: ConnId) {
        let index = id.index() as usize;
        if index >= self.names.len() {
            self.names.resize(index + 1, None);
        }
        assert!(self.names[index].is_none(), "{id} is named before its index was free");
        self.names[index] = Some(Name { id, link: accepted.socket });
        let mut state = self.net.0.borrow_mut();
        if let Some(link) = state.links.get_mut(&accepted.socket) {
            debug_assert_eq!(link.shard, self.shard);
            link.id = Some(id);
        }
        state.touch(accepted.socket);
    }

    fn refuse(&mut self, accepted: Accepted) {
        self.leave(accepted.socket, Ending::Reset);
    }

    fn wait(&mut self, _timeout: Option<Duration>) -> io::Result<()> {
        self.turn += 1;
        self.woken.0.store(false, Ordering::Release);
        let mut state = self.net.0.borrow_mut();
        let State { random, config, shards, .. } = &mut *state;
        let ready = &mut shards[self.shard].ready;
        if ready.len() > 1 && random.chance(config.faults.reorders) {
            ready.swap(0, random.below(ready.len()));
        }
        self.turns = ready.len();
        self.accepts_left = config.accepts_max;
        Ok(())
    }

    fn next(&mut self) -> Option<Completion> {
        if let Some(completion) = self.next_due() {
            return Some(completion);
        }
        assert!(!self.lent, "a lease is out");
        while self.turns > 0 {
            self.turns -= 1;
            let key = self.net.0.borrow_mut().shards[self.shard].ready.pop_front()?;
            if let Some(completion) = self.serve(key) {
                return Some(completion);
            }
        }
        self.next_accepted()
    }

    fn bytes(&mut self, lease: &Lease) -> &mut [u8] {
        assert!(self.lent, "the lease has ended");
        &mut self.buffer[lease.start as usize..][..lease.len as usize]
    }

    fn release(&mut self, _lease: Lease) {
        assert!(self.lent, "no lease is out");
        self.lent = false;
    }

    fn send(&mut self, id: ConnId, out: Out<'_>, tag: u32) {
        let bytes = match out {
            Out::Bytes(bytes) => bytes,
            Out::Shared(bytes, start, end) => &bytes[start..end],
        };
        let mut late = false;
        if let Some(key) = self.link_of(id) {
            let mut state = self.net.0.borrow_mut();
            let Faults { late_sends, .. } = state.config.faults;
            late = state.random.chance(late_sends);
            if let Some(link) = state.links.get_mut(&key) {
                assert!(!link.sent, "{id} sends twice between two flushes");
                link.sent = true;
            }
            self.senders.push(key);
        }
        if late {
            self.unsent.push((id, bytes.to_vec(), tag));
        } else {
            self.send_now(id, bytes, tag);
        }
    }

    fn flush(&mut self) {
        for (id, bytes, tag) in std::mem::take(&mut self.unsent) {
            self.send_now(id, &bytes, tag);
        }
        let mut state = self.net.0.borrow_mut();
        for key in self.senders.drain(..) {
            if let Some(link) = state.links.get_mut(&key) {
                link.sent = false;
            }
        }
    }

    fn next_short(&mut self) -> Option<Short> {
        self.shorts.pop_front()
    }

    fn want_writable(&mut self, id: ConnId) {
        self.change(id, |link| link.wants_room = true);
    }

    fn pause(&mut self, id: ConnId) {
        self.change(id, |link| link.paused = true);
    }

    fn resume(&mut self, id: ConnId) {
        self.change(id, |link| link.paused = false);
    }

    fn shutdown(&mut self, id: ConnId) {
        self.send_unsent_of(id);
        self.change(id, |link| link.down.finished = true);
    }

    fn close(&mut self, id: ConnId, ending: Ending) {
        let Some(key) = self.link_of(id) else { return };
        self.send_unsent_of(id);
        self.leave(key, ending);
        let mut turns = 0;
        {
            let State { random, config, .. } = &mut *self.net.0.borrow_mut();
            if random.chance(config.faults.late_closes) {
                turns = random.within(1, 8) as u64;
            }
        }
        self.tell_later(turns, Completion::Closed(id));
    }

    fn quieten(&mut self, _id: ConnId) {}
}

impl SimBackend {
    /// Runs the connection's send that waits for the flush, since what comes next must not overtake it.
    fn send_unsent_of(&mut self, id: ConnId) {
        if let Some(at) = self.unsent.iter().position(|(sender, ..)| *sender == id) {
            let (id, bytes, tag) = self.unsent.remove(at);
            self.send_now(id, &bytes, tag);
        }
    }
}

/// A backend that goes away takes its connections with it, as a process that ends does.
impl Drop for SimBackend {
    fn drop(&mut self) {
        let side = std::mem::take(&mut self.net.0.borrow_mut().shards[self.shard]);
        let last = side.last.into_iter().map(|(_, key)| key);
        last.chain(side.listeners.into_iter().flat_map(|(_, keys)| keys))
            .for_each(|key| self.leave(key, Ending::Reset));
        for name in std::mem::take(&mut self.names).into_iter().flatten() {
            self.leave(name.link, Ending::Reset);
        }
    }
}

#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}
