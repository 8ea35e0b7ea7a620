//! The port over epoll, through mio: readiness goes in, completions come out.
//!
//! A connection costs one table entry of eight bytes beside the kernel's socket, and all connections of a shard read into
//! one scratch buffer, which is what a [`Lease`] lends. Sockets are watched edge-triggered. An edge is remembered as a
//! flag in the entry, and the connection's id waits in a line, where [`Epoll::next`] serves it in turn: a bounded
//! number of reads for each, then the next one.
//!
//! How few system calls a message needs is the whole point of this file. An echo takes one `recv` and one `send`, and
//! its share of one `epoll_wait`:
//!
//! - A read that leaves room in the buffer has drained the socket, so no second one follows to see `EAGAIN`. Bytes that
//!   come later make a new edge, and an edge that said "hung up" is read to its end. (Urgent data makes the kernel stop
//!   short of its mark. A peer that sends it may wait for an answer until it sends more. No other connection notices.)
//! - A send runs at once. Nothing is registered for it: a connection is watched for room from its first short send
//!   on, and from then on for life, see [`Epoll::want_writable`].
//! - Closing a socket takes it out of epoll, since nothing else holds its descriptor.

mod accept;
mod config;
mod entry;
mod limit;
mod line;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};
use socket2::SockRef;

use self::accept::{Listeners, key_of_listener};
pub use self::config::{Config, SetupError};
use self::entry::{Entry, Table};
pub use self::limit::{DESCRIPTORS_RESERVED, check_descriptor_limit};
use self::line::Line;
use super::syn_filter::Source;
use super::{Accepted, Backend, Backlog, Completion, Ending, Lease, Out, Short, Wake};
use crate::id::{ConnId, ListenerId};

/// Reads of one connection in a row while others wait.
const READS_IN_A_ROW: u32 = 4;
/// Reads that throw away what a closing peer sent, see [`Epoll::close`].
const READS_TO_DISCARD: u32 = 4;
/// The waker's token, which no listener and no connection has.
const WAKER: Token = Token(usize::MAX);

/// Places beyond those asked for, for connections that are being turned away.
#[expect(clippy::cast_possible_truncation, reason = "a usize has 64 bits, asserted below")]
const RESERVED: usize = DESCRIPTORS_RESERVED as usize;

// A token holds a whole id.
const _: () = assert!(usize::BITS == 64);

/// One shard's view of the kernel, through epoll.
#[derive(Debug)]
pub struct Epoll {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    table: Table,
    listeners: Listeners,
    /// Completions that need no system call any more. Each connection has at most two in here: `Failed` and `Closed`.
    done: VecDeque<Completion>,
    /// Connections with an edge to serve. Each is in here once while its `QUEUED` flag is set.
    line: Line,
    /// Reads of the first in line in this turn.
    reads: u32,
    shorts: VecDeque<Short>,
    buffer: Box<[u8]>,
    /// Whether the buffer is lent.
    lent: bool,
}

impl Epoll {
    /// A backend without listeners and connections.
    ///
    /// # Errors
    /// When the process may not have that many descriptors, or the kernel gives none.
    pub fn new(config: Config) -> Result<Self, SetupError> {
        check_descriptor_limit(config.connections_max)?;
        let poll = Poll::new()?;
        limit::reserve(config.connections_max);
        let waker = Arc::new(Waker(mio::Waker::new(poll.registry(), WAKER)?));
        Ok(Self {
            poll,
            events: Events::with_capacity(config.events_max.max(1)),
            waker,
            table: Table::with_capacity(config.connections_max.saturating_add(RESERVED)),
            listeners: Listeners::new(config.accepts_max.max(1)),
            done: VecDeque::new(),
            line: Line::default(),
            reads: 0,
            shorts: VecDeque::new(),
            // Zeroed pages: none is touched before the first bytes arrive.
            buffer: vec![0; config.buffer_bytes.max(1) as usize].into_boxed_slice(),
            lent: false,
        })
    }

    /// Notes what `epoll_wait` told.
    fn note_events(&mut self) {
        for event in &self.events {
            if event.token() == WAKER {
                continue;
            }
            if let Some(listener) = key_of_listener(event.token()) {
                self.listeners.note_ready(listener);
                continue;
            }
            let id = ConnId::from_bits(event.token().0 as u64);
            let Some(entry) = self.table.get_mut(id) else { continue };
            if event.is_writable() {
                entry.clear(Entry::BLOCKED);
            }
            if event.is_readable() {
                entry.set(Entry::READABLE);
            }
            if event.is_read_closed() || event.is_error() {
                entry.set(Entry::READABLE | Entry::HUNG_UP);
            }
            // Whoever is not read from must hear of a reset all the same.
            if event.is_error() && entry.has(Entry::PAUSED | Entry::ENDED) {
                self.done.extend(broken(id, entry));
            }
            enqueue(&mut self.line, id, entry);
        }
    }

    /// Serves the first in line. `None`: it has nothing more, or has to wait for its next turn.
    fn serve(&mut self, id: ConnId) -> Option<Completion> {
        let Some(entry) = self.table.get_mut(id) else {
            self.next_in_line();
            return None;
        };
        if entry.has(Entry::WANTS_ROOM) && !entry.has(Entry::BLOCKED) {
            entry.clear(Entry::WANTS_ROOM);
            return Some(Completion::Writable(id));
        }
        if !entry.wants_read() {
            entry.clear(Entry::QUEUED);
            self.next_in_line();
            return None;
        }
        if self.reads == READS_IN_A_ROW {
            self.next_in_line();
            self.line.push(id);
            return None;
        }
        self.reads += 1;
        self.read(id)
    }

    /// One `recv`, and what it means. Drained or ended, there is nothing to read before the next edge.
    fn read(&mut self, id: ConnId) -> Option<Completion> {
        let entry = self.table.get_mut(id)?;
        let (mut is_drained, mut is_much) = (true, false);
        let completion = match net::recv(entry.stream()?, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => {
                entry.set(Entry::ENDED);
                Some(Completion::PeerClosed(id))
            }
            Ok((read, _)) => {
                is_drained = read < self.buffer.len() && !entry.has(Entry::HUNG_UP);
                is_much = self.line.note(id, read);
                self.lent = true;
                let len = u32::try_from(read).unwrap_or(u32::MAX);
                Some(Completion::Received(id, Lease { buffer: 0, start: 0, len, more: !is_drained }))
            }
            Err(Errno::AGAIN) => None,
            Err(Errno::INTR) => return None,
            Err(error) => {
                entry.set(Entry::ENDED);
                Some(Completion::Failed(id, error.kind()))
            }
        };
        if is_drained {
            entry.clear(Entry::READABLE | Entry::QUEUED);
            self.next_in_line();
        } else if is_much {
            self.next_in_line();
            self.line.push(id);
        }
        completion
    }

    /// The first in line has had its turn.
    fn next_in_line(&mut self) {
        self.line.pass();
        self.reads = 0;
    }

    fn has_work(&self) -> bool {
        !self.done.is_empty() || !self.line.is_empty() || self.listeners.has_work()
    }
}

impl Backend for Epoll {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::<Waker>::clone(&self.waker)
    }

    fn listen(&mut self, id: ListenerId, socket: TcpListener) -> io::Result<()> {
        self.listeners.add(self.poll.registry(), id, socket)
    }

    fn pause_accept(&mut self, paused: bool) {
        self.listeners.pause(paused);
    }

    fn stop_listening(&mut self, id: ListenerId, backlog: Backlog) {
        self.listeners.close(self.poll.registry(), id, backlog);
    }

    fn silence(&mut self, id: ListenerId, sources: &[Source]) -> io::Result<()> {
        self.listeners.silence(id, sources)
    }

    fn is_listening(&self) -> bool {
        self.listeners.is_open()
    }

    fn attach(&mut self, accepted: Accepted, id: ConnId) {
        let listener = accepted.listener;
        let Some(stream) = self.listeners.claim(accepted) else {
            self.done.push_back(Completion::Failed(id, ErrorKind::NotFound));
            return;
        };
        self.listeners.clear_filter(listener, &stream);
        let token = Token(index(id.bits()));
        let watched = self.poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), token, Interest::READABLE);
        self.line.forget(id);
        let entry = self.table.insert(id, stream);
        if let Err(error) = watched {
            entry.set(Entry::ENDED);
            self.done.push_back(Completion::Failed(id, error.kind()));
        }
    }

    fn refuse(&mut self, accepted: Accepted) {
        if let Some(stream) = self.listeners.claim(accepted) {
            reset(&stream);
        }
        self.listeners.end_round();
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = self.listeners.begin_round(timeout);
        let timeout = if self.has_work() { Some(Duration::ZERO) } else { timeout };
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => self.note_events(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.line.begin();
        self.reads = 0;
        Ok(())
    }

    fn next(&mut self) -> Option<Completion> {
        if let Some(completion) = self.done.pop_front() {
            return Some(completion);
        }
        debug_assert!(!self.lent, "a lease is out");
        while let Some(id) = self.line.first() {
            if let Some(completion) = self.serve(id) {
                return Some(completion);
            }
        }
        self.listeners.next(self.poll.registry())
    }

    fn bytes(&mut self, lease: &Lease) -> &mut [u8] {
        &mut self.buffer[lease.start as usize..][..lease.len as usize]
    }

    fn release(&mut self, _lease: Lease) {
        self.lent = false;
    }

    fn send(&mut self, id: ConnId, out: Out<'_>, tag: u32) {
        let bytes = match out {
            Out::Bytes(bytes) => bytes,
            Out::Shared(bytes, start, end) => &bytes[start..end],
        };
        let Some(entry) = self.table.get_mut(id) else {
            self.shorts.push_back(Short { tag, sent: Err(ErrorKind::NotConnected) });
            return;
        };
        let sent = match entry.stream().map(|stream| net::send(stream, bytes, SendFlags::NOSIGNAL)) {
            Some(Ok(sent)) if sent == bytes.len() => return,
            Some(Ok(sent)) => Ok(sent),
            Some(Err(error)) if is_for_later(error.kind()) => Ok(0),
            Some(Err(error)) => Err(error.kind()),
            None => Err(ErrorKind::NotConnected),
        };
        if sent.is_ok() {
            entry.set(Entry::BLOCKED);
        }
        self.shorts.push_back(Short { tag, sent });
    }

    fn flush(&mut self) {}

    fn next_short(&mut self) -> Option<Short> {
        self.shorts.pop_front()
    }

    /// Watches for room from the first time that there is none, and goes on watching. Being watched costs nothing:
    /// room makes an edge only after a send was short, and readable edges come anyway. Watching for it from the start
    /// would wake the shard once more for each new connection, since an empty socket has room; setting it anew each
    /// time costs two `epoll_ctl`.
    fn want_writable(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.set(Entry::WANTS_ROOM);
        if entry.has(Entry::BLOCKED) && !entry.has(Entry::WATCHED_FOR_ROOM) {
            entry.set(Entry::WATCHED_FOR_ROOM);
            let Some(descriptor) = entry.stream().map(AsRawFd::as_raw_fd) else { return };
            let interest = Interest::READABLE | Interest::WRITABLE;
            // The kernel looks again when interests change, so that no room that came meanwhile is missed.
            let token = Token(index(id.bits()));
            if let Err(error) = self.poll.registry().reregister(&mut SourceFd(&descriptor), token, interest) {
                entry.set(Entry::ENDED);
                self.done.push_back(Completion::Failed(id, error.kind()));
            }
        }
        enqueue(&mut self.line, id, entry);
    }

    fn pause(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.set(Entry::PAUSED);
        if entry.has(Entry::HUNG_UP) && !entry.has(Entry::ENDED) {
            self.done.extend(broken(id, entry));
        }
    }

    fn resume(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.clear(Entry::PAUSED);
        enqueue(&mut self.line, id, entry);
    }

    fn shutdown(&mut self, id: ConnId) {
        if let Some(stream) = self.table.get_mut(id).and_then(|entry| entry.stream()) {
            // It fails when the transport is broken, which is reported elsewhere.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, id: ConnId, ending: Ending) {
        let Some((stream, ended)) = self.table.remove(id) else { return };
        match ending {
            Ending::Reset => reset(&stream),
            // The kernel answers unread bytes with a reset, which can overtake what was sent. So what is there is read.
            Ending::Graceful if !ended => discard(&stream, &mut self.buffer),
            Ending::Graceful => {}
        }
        drop(stream);
        self.listeners.retry_now();
        self.done.push_back(Completion::Closed(id));
    }

    fn memory(&self) -> usize {
        self.table.memory() + self.line.memory() + self.buffer.len()
    }

    fn quieten(&mut self, _id: ConnId) {}
}

/// Wakes an [`Epoll`] through its eventfd.
#[derive(Debug)]
struct Waker(mio::Waker);

impl Wake for Waker {
    fn wake(&self) {
        // It fails only when the counter is full, and then the backend is about to wake anyway.
        let _ = self.0.wake();
    }
}

/// Puts a connection in line when it has something to be served, once.
fn enqueue(line: &mut Line, id: ConnId, entry: &mut Entry) {
    if entry.has_work() && !entry.has(Entry::QUEUED) {
        entry.set(Entry::QUEUED);
        line.push(id);
    }
}

/// The error that a socket has, once.
fn broken(id: ConnId, entry: &mut Entry) -> Option<Completion> {
    let error = entry.stream()?.take_error().ok()??;
    entry.set(Entry::ENDED);
    Some(Completion::Failed(id, error.kind()))
}

/// Makes the coming close a reset.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// The kernel throws away what it would have copied (`MSG_TRUNC`, tcp(7)); a Unix socket's it copies.
fn discard(stream: &TcpStream, buffer: &mut [u8]) {
    for _ in 0..READS_TO_DISCARD {
        match net::recv(stream, &mut buffer[..], RecvFlags::TRUNC) {
            Ok((_, read)) if read == buffer.len() => {}
            _ => return,
        }
    }
}

/// Whether a send that failed so may succeed when there is room.
fn is_for_later(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[expect(clippy::cast_possible_truncation, reason = "a usize has 64 bits, asserted above")]
const fn index(bits: u64) -> usize {
    bits as usize
}
