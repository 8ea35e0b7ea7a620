//! The io_uring backend.
//!
//! A shard has one primary ring, in which it waits, and as many others as its connections need: the limit of
//! RLIMIT_NOFILE applies to each ring's table of direct descriptors, not to their sum. A connection lives in the ring
//! that accepted it or from which it was dialled; a ring is for the one or for the other. The other rings signal an
//! eventfd that the primary ring polls (polling a ring's own descriptor does not wake with DEFER_TASKRUN), and the flag
//! in their submission queue tells which of them have work.
//!
//! ```text
//!   wait:   receives for the readable -> submit -> handle completions -> nothing to tell? sleep in the primary ring
//!   next:   one completion from the queue that handling has filled
//!   flush:  sends, receives for the readable, everything else queued -> one submission per ring -> handle completions
//! ```
//!
//! A busy shard makes one system call per turn: the flush also runs the kernel's deferred work, so that the next wait
//! finds completions and returns at once. An idle connection costs eight bytes here and a multishot poll in the kernel;
//! a ring costs about 100 KiB for its queues, five bytes for each of 20,000 connections.
//!
//! What it leaves out: SQPOLL (burns a core per ring), zero-copy sends (slower below 8 KiB).
//!
//! Invariants:
//! - Memory that a request points to belongs to the backend (`buffers`) or is held by it (`Uring::held`).
//! - Each request that may wait has its flag in the connection's entry, set when it is queued and cleared by its last
//!   completion; a connection is forgotten only when all flags are clear.
//! - Sends and receives never wait (MSG_DONTWAIT), so they have completed when their submission returns. The one that
//!   may wait is the hello of a dial, which is kept until it has come back.

#![allow(unsafe_code, reason = "requests carry pointers; each block says why the memory outlives them")]

mod accept;
mod buffers;
mod close;
mod config;
mod dial;
mod peer;
mod probe;
mod receive;
mod request;
mod ring;
mod send;
mod sources;
mod table;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::accept::Listener;
use self::buffers::{Arena, BufferRing, Lent, Scratch, Sink};
pub use self::config::{Config, SetupError};
use self::dial::Dials;
use self::peer::Names;
pub use self::probe::{Missing, probe};
use self::request::Kind;
use self::ring::Ring;
pub use self::sources::Sources;
use self::table::Table;
use crate::id::{ConnId, ListenerId};
use crate::io::syn_filter::Source;
use crate::io::sys::{self, Eventfd};
use crate::io::{Accepted, BULK_READS_MAX, Backend, Backlog, Completion, Ending, Lease, Out, Short, Wake};

/// One shard's rings. It belongs to the thread that made it.
pub struct Uring {
    /// First, so that the rings are gone before the memory they know of.
    rings: Vec<Ring>,
    rings_max: usize,
    slots: u32,
    promote_after: u32,
    table: Table,
    /// What [`Backend::next`] will hand out.
    done: VecDeque<Completion>,
    shorts: VecDeque<Short>,
    /// Cancellations that found nothing.
    missed: Vec<(Kind, ConnId)>,
    /// Readable connections that wait for a scratch buffer.
    ready: VecDeque<ConnId>,
    /// The same of those whose last receive brought much.
    bulk: VecDeque<ConnId>,
    /// How many of `bulk` have their turn before the next wait.
    bulk_turns: usize,
    /// Rings with something to submit.
    listed: Vec<usize>,
    listeners: Vec<Listener>,
    first_listener: usize,
    /// Accepted, and asked for their addresses.
    names: Names,
    accept_paused: bool,
    accept_changed: bool,
    /// Connections that were taken and not handed out yet.
    untold: usize,
    doorbell: Arc<Eventfd>,
    /// The doorbell rang since the last wait.
    rung: bool,
    /// Signalled by all rings but the primary.
    kick: Eventfd,
    /// Another ring than the primary may have work.
    kicked: bool,
    /// The primary ring's deferred work was run since the last wait.
    fresh: bool,
    /// All that was queued was submitted since the last wait.
    flushed: bool,
    /// The interface itself has failed.
    broken: Option<io::ErrorKind>,
    dials: Dials,
    held: Vec<Arc<[u8]>>,
    scratch: Scratch,
    arena: Arena,
    sink: Sink,
}

/// Where the shard waits.
const PRIMARY: usize = 0;

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("rings", &self.rings.len()).field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Uring {
    /// Sets up the primary ring. Call it on the thread that will use it.
    ///
    /// # Errors
    /// When the kernel lacks something or refuses memory, or `config` asks for more than it can give.
    pub fn new(config: Config) -> Result<Self, SetupError> {
        let limit = u32::try_from(sys::descriptors_max()).unwrap_or(u32::MAX).min(table::SLOTS_MAX);
        let slots = config.slots_per_ring.unwrap_or(limit).clamp(1, limit);
        // One slot more than places, so that the engine sees who comes too late and can refuse.
        let rings_max = config.connections_max.saturating_add(1).div_ceil(slots as usize);
        if rings_max > table::RINGS_MAX {
            let (asked, rings) = (config.connections_max, table::RINGS_MAX);
            return Err(SetupError::TooMany { asked, rings, slots });
        }
        let primary = Ring::new(slots, None).map_err(|error| probe().err().unwrap_or_else(|| probe::why(&error)))?;
        if config.sources != Sources::Kernel {
            primary.can_bind()?;
        }
        let mut uring = Self {
            rings: vec![primary],
            rings_max,
            slots,
            promote_after: config.promote_after.max(1),
            table: Table::new(config.connections_max),
            done: VecDeque::new(),
            shorts: VecDeque::new(),
            missed: Vec::new(),
            ready: VecDeque::new(),
            bulk: VecDeque::new(),
            bulk_turns: 0,
            listed: Vec::new(),
            listeners: Vec::new(),
            first_listener: 0,
            names: Names::new()?,
            accept_paused: false,
            accept_changed: false,
            untold: 0,
            doorbell: Arc::new(Eventfd::new()?),
            rung: false,
            kick: Eventfd::new()?,
            kicked: false,
            fresh: false,
            flushed: false,
            broken: None,
            dials: Dials::new(config.sources),
            held: Vec::new(),
            scratch: Scratch::new()?,
            arena: Arena::new()?,
            sink: Sink::new()?,
        };
        uring.poll_eventfd(Kind::Doorbell);
        uring.poll_eventfd(Kind::Kick);
        Ok(uring)
    }
}

impl Backend for Uring {
    fn name(&self) -> &'static str {
        "uring"
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::<Eventfd>::clone(&self.doorbell)
    }

    fn listen(&mut self, id: ListenerId, socket: std::net::TcpListener) -> io::Result<()> {
        self.add_listener(id, socket);
        Ok(())
    }

    fn pause_accept(&mut self, paused: bool) {
        self.accept_paused = paused;
        self.accept_changed = true;
        self.balance();
        // At once, so that nobody is taken who comes after this call.
        self.submit_all();
    }

    fn stop_listening(&mut self, id: ListenerId, backlog: Backlog) {
        self.close_listener(id, backlog);
        self.submit_all();
    }

    fn silence(&mut self, id: ListenerId, sources: &[Source]) -> io::Result<()> {
        self.filter_listener(id, sources)
    }

    fn is_listening(&self) -> bool {
        self.untold > 0 || self.listeners.iter().any(Listener::is_open)
    }

    fn attach(&mut self, accepted: Accepted, id: ConnId) {
        self.clear_filter(&accepted);
        let (ring, slot) = accept::place(accepted.socket);
        self.table.attach(id, u32::try_from(ring).unwrap_or(0), slot);
        self.settle(id);
    }

    fn refuse(&mut self, accepted: Accepted) {
        self.refuse_socket(accepted.socket);
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.bulk_turns = BULK_READS_MAX;
        let mut news = self.work();
        if !news {
            let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            let mut over = false;
            while !news && !over && self.broken.is_none() {
                self.sleep(deadline)?;
                over = !self.has_turns() && deadline.is_some_and(|deadline| deadline <= Instant::now());
                news = self.work();
            }
        }
        self.rung = false;
        self.broken.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn next(&mut self) -> Option<Completion> {
        loop {
            let Some(completion) = self.done.pop_front() else {
                if self.refill() {
                    continue;
                }
                return None;
            };
            if self.keeps(&completion) {
                let is_new = matches!(completion, Completion::Accepted(_));
                self.untold = self.untold.saturating_sub(usize::from(is_new));
                return Some(completion);
            }
            if let Completion::Received(_, lease) = completion {
                self.release(lease);
            }
        }
    }

    fn bytes(&mut self, lease: &Lease) -> &mut [u8] {
        match Lent::of(lease) {
            Lent::Scratch(buffer) => buffers::scratch_bytes(&mut self.scratch, buffer, lease),
            Lent::OfRing { ring, buffer } => match self.rings[ring].buffers.as_mut() {
                Some(buffers) => buffers::ring_bytes(buffers, buffer, lease),
                None => &mut [],
            },
        }
    }

    fn release(&mut self, lease: Lease) {
        self.give(Lent::of(&lease));
    }

    fn send(&mut self, id: ConnId, out: Out<'_>, tag: u32) {
        self.push_send(id, out, tag);
    }

    fn flush(&mut self) {
        self.service();
        self.balance();
        if !self.listed.is_empty() {
            self.submit_all();
        }
        self.flushed = true;
    }

    fn next_short(&mut self) -> Option<Short> {
        self.shorts.pop_front()
    }

    fn want_writable(&mut self, id: ConnId) {
        self.poll_out(id);
    }

    fn pause(&mut self, id: ConnId) {
        self.pause_receive(id);
    }

    fn resume(&mut self, id: ConnId) {
        self.resume_receive(id);
    }

    fn shutdown(&mut self, id: ConnId) {
        self.shutdown_send(id);
    }

    fn close(&mut self, id: ConnId, ending: Ending) {
        self.begin_close(id, ending);
    }

    fn memory(&self) -> usize {
        let ring = usize::from(BufferRing::COUNT) * BufferRing::BYTES as usize;
        let rings = self.rings.iter().filter(|ring| ring.buffers.is_some()).count() * ring;
        rings + Scratch::COUNT as usize * Scratch::BYTES as usize + Arena::BYTES + self.table.memory()
    }

    fn quieten(&mut self, id: ConnId) {
        self.demote(id);
    }
}
