//! TLS as a decorator of the port: [`Tls`] is a backend around a backend.
//!
//! Connections of listeners that speak TLS have their bytes opened on the way up and sealed on the way down; all others
//! are passed through at the price of one look into a table. So shards, sessions and applications know nothing of it, and
//! it works over every backend.
//!
//! - **Handshakes** are rustls' (its unbuffered API). Their steps are taken by a thread beside the shard's (`aside`), so that
//!   no open connection waits for one. A connection whose next step waits is not read meanwhile.
//! - **Records** are opened where the kernel put them and sealed where they are sent from (`record`). A lease brings the
//!   text of all its whole records; the rest of one that is not whole is kept, and only that. An idle connection has its
//!   keys and no buffer.
//! - **Sends** are taken up to a bound, and what was sealed was taken: when the kernel takes less, the rest waits here,
//!   sends are refused as short until it has left, and only then there is room. [`Backend::shutdown`] and
//!   [`Backend::close`] follow it, after a `close_notify`; a peer that takes nothing has [`Tls::LINGER`] for that.
//! - **Ends**: a peer's `close_notify` is its half close. A transport that ends without one is told as the same, and
//!   counted, since protocols above know themselves whether something is missing (RFC 8446 section 6.1 leaves it to them).
//!
//! - **Dials** ([`Dial`](super::Dial)) are made over TLS to the servers that [`Tls::calls`] was told of: to the dialler it
//!   stands when the handshake is done, and only then the hello follows (`dialling`).
//!
//! What is not here: early data (0-RTT), which can be replayed, and renegotiation; both are declined.

mod aside;
mod dialling;
mod greeting;
mod handshake;
mod incoming;
mod keys;
mod outgoing;
#[doc(hidden)]
pub mod pairs;
mod record;
mod session;
mod terms;
mod traffic;
mod trust;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::aside::Place;
pub use self::dialling::Asks;
use self::keys::Ready;
use self::outgoing::Batch;
use self::session::{Session, Stage, Table};
pub use self::terms::{Current, Setup, Speaks, Terms};
pub use self::trust::Trust;
use super::syn_filter::Source;
use super::{Accepted, Backend, Backlog, Completion, Ending, Lease, Out, Short, Wake};
use crate::id::{ConnId, ListenerId, ShardId};
use crate::metrics::ShardMetrics;
use crate::rate::TokenBucket;
use crate::rule::TlsFailure;

/// A backend whose connections may speak TLS.
pub struct Tls<B> {
    inner: B,
    listeners: Vec<Speaks>,
    current: Option<Arc<Current>>,
    /// Servers that are dialled over TLS.
    asks: Vec<Asks>,
    /// What is said first below TLS by those who dial.
    silence: Arc<[u8]>,
    /// What follows the completion that was just told, at once.
    next: Option<Completion>,
    /// The terms in force at the last wait, and their version.
    terms: Option<Arc<Terms>>,
    version: u64,
    metrics: Arc<ShardMetrics>,
    sessions: Table,
    ready: Ready,
    /// Completions of our own. Each connection has at most three in here: `Writable`, `PeerClosed` or `Failed`.
    done: VecDeque<Completion>,
    shorts: VecDeque<Short>,
    batch: Batch,
    /// Those that have more to do after a flush: each is in here once while its `LISTED` flag is set.
    after: VecDeque<ConnId>,
    /// Where steps of handshakes are taken.
    place: Place,
    /// Handshakes whose next step waits: each is in here once, while its `QUEUED` flag is set.
    waiting: VecDeque<ConnId>,
    /// Handshakes that have waited for their peers, those that did so first in front.
    halves: VecDeque<ConnId>,
    /// Bytes that handshakes keep.
    weight: usize,
    /// What steps that are taken here may still take before the next wait.
    ration: Duration,
    /// No step has been taken here since the last wait but one, and some should.
    overdue: bool,
    /// Since when handshakes are under way, and when closing connections must be gone.
    greeting: VecDeque<(Instant, ConnId)>,
    lingering: VecDeque<(Instant, ConnId)>,
    /// What of a lease is the inner backend's, to be given back.
    lent: Option<Lease>,
    /// Text that lies in no buffer of the inner backend: in lease [`Tls::OWN`].
    own: Vec<u8>,
    log: TokenBucket,
    began: Instant,
    /// Whose connections these are, for the log.
    shard: ShardId,
}

impl<B> Tls<B> {
    /// Time for what is pending to leave after a close.
    pub const LINGER: Duration = Duration::from_secs(10);
    /// What steps take of a turn when they are taken here.
    const RATION: Duration = Duration::from_millis(1);
    /// The buffer of a lease that is our own.
    const OWN: u32 = u32::MAX;
    /// Room for received text that is kept.
    const OWN_KEPT: usize = 64 * 1024;

    /// TLS around `inner`, for the listeners that the setup names.
    pub fn new(inner: B, setup: Setup) -> Self {
        let Setup { listeners, current, metrics } = setup;
        Self {
            listeners,
            terms: Some(current.terms()),
            version: current.version(),
            current: Some(current),
            place: Place::Unknown,
            ..Self::plain(inner, metrics)
        }
    }

    /// A decorator with nothing to decorate: every connection is passed through.
    pub fn plain(inner: B, metrics: Arc<ShardMetrics>) -> Self {
        Self {
            inner,
            listeners: Vec::new(),
            current: None,
            asks: Vec::new(),
            silence: Arc::from([]),
            next: None,
            terms: None,
            version: 0,
            metrics,
            sessions: Table::default(),
            ready: Ready::default(),
            done: VecDeque::new(),
            shorts: VecDeque::new(),
            batch: Batch::default(),
            after: VecDeque::new(),
            place: Place::Here,
            waiting: VecDeque::new(),
            halves: VecDeque::new(),
            weight: 0,
            ration: Duration::ZERO,
            overdue: false,
            greeting: VecDeque::new(),
            lingering: VecDeque::new(),
            lent: None,
            own: Vec::new(),
            log: TokenBucket::new(10, 50),
            began: Instant::now(),
            shard: ShardId(0),
        }
    }

    /// As the backend of this shard.
    #[must_use]
    pub fn of_shard(self, shard: ShardId) -> Self {
        Self { shard, ..self }
    }

    /// Takes terms over that were replaced, for the handshakes that begin from now on.
    fn follow(&mut self) {
        let Some(current) = &self.current else { return };
        if current.version() != self.version {
            self.version = current.version();
            self.terms = Some(current.terms());
        }
    }
}

impl<B: Backend> Tls<B> {
    /// Ends handshakes and farewells that take too long, and says how long nothing else will.
    fn expire(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        if self.greeting.is_empty() && self.lingering.is_empty() {
            return timeout;
        }
        let now = Instant::now();
        // They have come in this order, and a timeout that was changed is that of all of them.
        let patience = self.terms.as_ref().map_or(Duration::ZERO, |terms| terms.timeout);
        while let Some(id) = due(&mut self.greeting, patience, now) {
            self.give_up(id, TlsFailure::Timeout, io::ErrorKind::TimedOut);
        }
        while let Some(id) = due(&mut self.lingering, Duration::ZERO, now) {
            self.sever(id);
        }
        let nexts = [(&self.greeting, patience), (&self.lingering, Duration::ZERO)];
        let left = nexts
            .into_iter()
            .filter_map(|(line, patience)| line.front().map(|&(at, _)| (at + patience).saturating_duration_since(now)));
        let left = left.min();
        left.map_or(timeout, |left| Some(timeout.map_or(left, |timeout| timeout.min(left))))
    }

    /// Closes the transport of a closing connection whose farewell takes too long.
    fn sever(&mut self, id: ConnId) {
        if let Some(session) = self.sessions.get_mut(id)
            && session.has(Session::CLOSING)
            && !session.has(Session::CLOSED)
        {
            session.set(Session::CLOSED);
            drop_pending(session, &self.metrics);
            self.inner.close(id, Ending::Reset);
        }
    }

    /// The last completion of a connection: nothing is kept any more.
    fn forget(&mut self, id: ConnId) {
        if let Some(mut session) = self.sessions.remove(id) {
            drop_pending(&mut session, &self.metrics);
            self.weight -= session.weight as usize;
            self.metrics.tls_handshake_bytes.set(self.weight as u64);
            self.metrics.tls_connections.sub(1);
        }
    }

    /// Whether a completion of our own is still to be told.
    fn is_due(&mut self, completion: &Completion) -> bool {
        let (Completion::Received(id, _)
        | Completion::Writable(id)
        | Completion::PeerClosed(id)
        | Completion::Failed(id, _)) = completion
        else {
            return true;
        };
        self.sessions.get_mut(*id).is_some_and(|session| !session.has(Session::CLOSING))
    }

    /// What a completion of the inner backend's is to the shard.
    fn translate(&mut self, completion: Completion) -> Option<Completion> {
        match completion {
            Completion::Received(id, lease) => match self.sessions.get_mut(id) {
                None => Some(Completion::Received(id, lease)),
                Some(_) => self.received(id, lease),
            },
            Completion::Writable(id) => match self.sessions.get_mut(id) {
                None => Some(completion),
                Some(_) => self.room(id),
            },
            Completion::PeerClosed(id) => match self.sessions.get_mut(id) {
                None => Some(completion),
                Some(_) => self.cut(id),
            },
            Completion::Failed(id, kind) => match self.sessions.get_mut(id) {
                None => Some(completion),
                Some(_) => self.failed(id, kind),
            },
            Completion::Closed(id) => {
                self.forget(id);
                Some(completion)
            }
            Completion::Accepted(_) | Completion::AcceptFailed(..) | Completion::Proxied(..) => Some(completion),
        }
    }
}

/// Takes the first whose time has come: so long after what is noted.
fn due(line: &mut VecDeque<(Instant, ConnId)>, patience: Duration, now: Instant) -> Option<ConnId> {
    let &(at, id) = line.front()?;
    (at + patience <= now).then(|| line.pop_front()).map(|_| id)
}

/// Forgets what was not taken.
fn drop_pending(session: &mut Session, metrics: &ShardMetrics) {
    metrics.tls_pending_bytes.sub(session.pending.len() as u64);
    session.pending = Vec::new();
}

impl<B: Backend> Backend for Tls<B> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }

    fn listen(&mut self, id: ListenerId, socket: TcpListener) -> io::Result<()> {
        self.inner.listen(id, socket)
    }

    fn pause_accept(&mut self, paused: bool) {
        self.inner.pause_accept(paused);
    }

    fn stop_listening(&mut self, id: ListenerId, backlog: Backlog) {
        self.inner.stop_listening(id, backlog);
    }

    fn silence(&mut self, id: ListenerId, sources: &[Source]) -> io::Result<()> {
        self.inner.silence(id, sources)
    }

    fn is_listening(&self) -> bool {
        self.inner.is_listening()
    }

    fn attach(&mut self, accepted: Accepted, id: ConnId) {
        let speaks = self.listeners.get(usize::from(accepted.listener.0)).copied().unwrap_or(Speaks::Plain);
        if speaks != Speaks::Plain && self.terms.is_some() {
            self.greeting.push_back((Instant::now(), id));
            self.sessions.insert(Session::new(id, speaks == Speaks::Https));
            self.metrics.tls_connections.add(1);
        }
        self.inner.attach(accepted, id);
    }

    fn refuse(&mut self, accepted: Accepted) {
        self.inner.refuse(accepted);
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.current.is_none() && self.asks.is_empty() {
            return self.inner.wait(timeout);
        }
        if !self.batch.is_empty() || !self.after.is_empty() {
            self.flush_all();
        }
        self.follow();
        let timeout = self.expire(timeout);
        self.send_away();
        let steps = matches!(self.place, Place::Here) && !self.waiting.is_empty();
        self.overdue = steps && self.ration == Self::RATION;
        self.ration = Self::RATION;
        let has_work = steps || !self.done.is_empty() || self.next.is_some();
        self.inner.wait(if has_work { Some(Duration::ZERO) } else { timeout })
    }

    fn next(&mut self) -> Option<Completion> {
        if let Some(completion) = self.next.take() {
            if self.is_due(&completion) {
                return Some(completion);
            }
            if let Completion::Received(_, lease) = completion {
                self.release(lease);
            }
        }
        if mem::take(&mut self.overdue)
            && let Some(completion) = self.step_next()
        {
            return Some(completion);
        }
        loop {
            while let Some(completion) = self.done.pop_front() {
                if self.is_due(&completion) {
                    return Some(completion);
                }
            }
            let told = self.next_taken();
            if told.is_some() {
                return told;
            }
            let told = match self.inner.next() {
                Some(completion) => self.translate(completion),
                None if matches!(self.place, Place::Here) && !self.ration.is_zero() && !self.waiting.is_empty() => {
                    self.step_next()
                }
                None if self.done.is_empty() => return None,
                None => None,
            };
            if told.is_some() {
                return told;
            }
        }
    }

    fn bytes(&mut self, lease: &Lease) -> &mut [u8] {
        if lease.buffer == Self::OWN {
            return &mut self.own[lease.start as usize..][..lease.len as usize];
        }
        match &self.lent {
            // Where its text begins is counted from the beginning of the whole.
            Some(whole) => &mut self.inner.bytes(whole)[lease.start as usize..][..lease.len as usize],
            None => self.inner.bytes(lease),
        }
    }

    fn release(&mut self, lease: Lease) {
        if lease.buffer == Self::OWN {
            self.own.clear();
            self.own.shrink_to(Self::OWN_KEPT);
            return;
        }
        let whole = self.lent.take().unwrap_or(lease);
        self.inner.release(whole);
    }

    fn send(&mut self, id: ConnId, out: Out<'_>, tag: u32) {
        if self.sessions.get_mut(id).is_none() {
            return self.inner.send(id, out, tag);
        }
        match out {
            Out::Bytes(bytes) => self.seal(id, bytes, tag),
            Out::Shared(bytes, start, end) => self.seal(id, &bytes[start..end], tag),
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() && self.after.is_empty() {
            return self.inner.flush();
        }
        self.flush_all();
    }

    fn next_short(&mut self) -> Option<Short> {
        self.shorts.pop_front().or_else(|| if self.batch.is_empty() { self.inner.next_short() } else { None })
    }

    fn want_writable(&mut self, id: ConnId) {
        let Some(session) = self.sessions.get_mut(id) else { return self.inner.want_writable(id) };
        session.set(Session::WANTS_ROOM);
        if !session.has(Session::BLOCKED) && !session.is_greeting() {
            self.list(id);
        }
    }

    fn pause(&mut self, id: ConnId) {
        let Some(session) = self.sessions.get_mut(id) else { return self.inner.pause(id) };
        session.set(Session::PAUSED);
        // A handshake goes on: what the shard waits for may wait for it.
        if !session.is_greeting() {
            self.inner.pause(id);
        }
    }

    fn resume(&mut self, id: ConnId) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.take(Session::PAUSED);
            if session.has(Session::QUEUED) || matches!(session.stage, Stage::Broken) {
                return;
            }
        }
        self.inner.resume(id);
    }

    fn shutdown(&mut self, id: ConnId) {
        if self.sessions.get_mut(id).is_none() {
            return self.inner.shutdown(id);
        }
        // Within the handshake it is said when that is done.
        self.say_goodbye(id);
        if let Some(session) = self.sessions.get_mut(id) {
            session.set(Session::SHUT);
            self.list(id);
        }
    }

    fn close(&mut self, id: ConnId, ending: Ending) {
        if self.sessions.get_mut(id).is_none() {
            return self.inner.close(id, ending);
        }
        self.close_session(id, ending);
    }

    fn memory(&self) -> usize {
        self.inner.memory()
    }

    fn tls_memory(&self) -> usize {
        self.weight + self.sessions.memory() + self.ready.memory() + self.batch.memory() + self.own.capacity()
    }

    fn quieten(&mut self, id: ConnId) {
        self.inner.quieten(id);
    }
}
