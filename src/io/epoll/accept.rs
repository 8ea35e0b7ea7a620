//! Listeners, and the sockets they took that have no name yet.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};
use rustix::net::{SocketFlags, accept_with};
use slab::Slab;

use crate::id::ListenerId;
use crate::io::syn_filter::{self, Source};
use crate::io::{Accepted, Backlog, Completion};

/// How long to wait after the process ran out of descriptors or memory, unless a connection closes before.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// Marks a token as a listener's: connections use 56 bits.
const LISTENER: usize = 1 << 63;

/// The listener's place, if it is a listener's token.
pub(super) const fn key_of_listener(token: Token) -> Option<usize> {
    if token.0 & LISTENER != 0 { Some(token.0 & !LISTENER) } else { None }
}

#[derive(Debug)]
struct Listener {
    id: ListenerId,
    socket: mio::net::TcpListener,
    /// Its clients have addresses; those of a Unix socket have none.
    has_addresses: bool,
    /// There was an edge, and the queue has not been seen empty since.
    ready: bool,
    /// It closes when the queue is empty.
    closing: bool,
    /// It has a filter, and so have those who come from it.
    filtered: bool,
}

impl Listener {
    fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        if self.has_addresses {
            return self.socket.accept().map(|(stream, peer)| (stream.into(), Some(peer)));
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok((accept_with(&self.socket, flags)?.into(), None))
    }
}

/// All listeners of one backend.
#[derive(Debug)]
pub(super) struct Listeners {
    /// `None` where one has closed, so that the others keep their tokens.
    listeners: Vec<Option<Listener>>,
    /// Taken, neither attached nor refused.
    unnamed: Slab<TcpStream>,
    paused: bool,
    /// When to try again after the process ran out of something.
    retry_at: Option<Instant>,
    accepts_max: u32,
    /// Accepts left before the next wait.
    accepts_left: u32,
}

impl Listeners {
    pub(super) const fn new(accepts_max: u32) -> Self {
        let unnamed = Slab::new();
        Self { listeners: Vec::new(), unnamed, paused: false, retry_at: None, accepts_max, accepts_left: 0 }
    }

    pub(super) fn add(&mut self, registry: &Registry, id: ListenerId, socket: std::net::TcpListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        // Whoever had it before may have left it with a filter.
        let _ = syn_filter::clear(&socket);
        let has_addresses = socket.local_addr().is_ok();
        let mut socket = mio::net::TcpListener::from_std(socket);
        registry.register(&mut socket, Token(LISTENER | self.listeners.len()), Interest::READABLE)?;
        self.listeners.push(Some(Listener {
            id,
            socket,
            has_addresses,
            ready: false,
            closing: false,
            filtered: false,
        }));
        Ok(())
    }

    pub(super) const fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    pub(super) fn close(&mut self, registry: &Registry, id: ListenerId, backlog: Backlog) {
        for place in &mut self.listeners {
            let Some(listener) = place.as_mut().filter(|listener| listener.id == id) else { continue };
            match backlog {
                // Its queue may be empty already, and then there is no edge.
                Backlog::Take => (listener.ready, listener.closing) = (true, true),
                Backlog::Leave => close(registry, place),
            }
        }
    }

    pub(super) fn silence(&mut self, id: ListenerId, sources: &[Source]) -> io::Result<()> {
        for listener in self.listeners.iter_mut().flatten().filter(|listener| listener.id == id) {
            if listener.has_addresses && (listener.filtered || !sources.is_empty()) {
                syn_filter::set(&listener.socket, sources)?;
                listener.filtered = !sources.is_empty();
            }
        }
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.listeners.iter().any(Option::is_some)
    }

    pub(super) fn note_ready(&mut self, key: usize) {
        if let Some(Some(listener)) = self.listeners.get_mut(key) {
            listener.ready = true;
        }
    }

    /// Hands out a socket that is waiting for its name.
    pub(super) fn claim(&mut self, accepted: Accepted) -> Option<TcpStream> {
        self.unnamed.try_remove(usize::try_from(accepted.socket).ok()?)
    }

    /// Takes what an accepted socket has of its listener's filter off.
    pub(super) fn clear_filter(&self, listener: ListenerId, socket: &TcpStream) {
        if self.listeners.iter().flatten().any(|one| one.id == listener && one.filtered) {
            // It does no harm there.
            let _ = syn_filter::clear(socket);
        }
    }

    /// A descriptor has become free.
    pub(super) const fn retry_now(&mut self) {
        self.retry_at = None;
    }

    /// Allows the next accepts, and shortens a timeout so that a retry is not missed.
    pub(super) fn begin_round(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        self.accepts_left = self.accepts_max;
        let Some(retry_at) = self.retry_at.filter(|_| !self.paused) else { return timeout };
        let left = retry_at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.retry_at = None;
        }
        Some(timeout.map_or(left, |timeout| timeout.min(left)))
    }

    /// One that was refused is the last before the next wait: whoever is turned away comes again at once, and those who are
    /// served do not wait for more than one of these.
    pub(super) const fn end_round(&mut self) {
        self.accepts_left = 0;
    }

    /// Whether connections may be waiting that can be taken now.
    pub(super) fn has_work(&self) -> bool {
        self.can_accept() && self.listeners.iter().flatten().any(|listener| listener.ready)
    }

    const fn can_accept(&self) -> bool {
        !self.paused && self.retry_at.is_none()
    }

    /// Takes one connection from a listener that has some.
    pub(super) fn next(&mut self, registry: &Registry) -> Option<Completion> {
        if !self.can_accept() {
            return None;
        }
        let Self { listeners, unnamed, retry_at, accepts_left, .. } = self;
        for place in listeners {
            while *accepts_left > 0 {
                let Some(listener) = place.as_mut().filter(|listener| listener.ready) else { break };
                *accepts_left -= 1;
                match listener.accept() {
                    Ok((stream, peer)) => {
                        let socket = unnamed.insert(stream) as u64;
                        let listener = listener.id;
                        return Some(Completion::Accepted(Accepted { listener, socket, peer }));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        listener.ready = false;
                        if listener.closing {
                            close(registry, place);
                        }
                        break;
                    }
                    Err(error) if is_the_peers(error.kind()) => {}
                    // EMFILE, ENFILE, ENOBUFS, ENOMEM, or something new. The edge is kept: there is no other.
                    Err(error) => {
                        *retry_at = Some(Instant::now() + RETRY_AFTER);
                        return Some(Completion::AcceptFailed(listener.id, error.kind()));
                    }
                }
            }
        }
        None
    }
}

/// Closes a listener. Others may have the same socket, in this process or in another one, and then the kernel would go on
/// to tell of it.
fn close(registry: &Registry, place: &mut Option<Listener>) {
    if let Some(mut listener) = place.take() {
        let _ = registry.deregister(&mut listener.socket);
        // Where others have it and go on with it, they set their own.
        if listener.filtered && !listener.closing {
            let _ = syn_filter::clear(&listener.socket);
        }
    }
}

/// Whether one connection failed before it was taken, which says nothing about the next.
const fn is_the_peers(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use mio::Poll;

    use super::*;

    #[test]
    fn one_that_is_refused_is_the_last_before_the_next_wait() {
        let poll = Poll::new().unwrap();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let clients: Vec<_> = (0..6).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut listeners = Listeners::new(3);
        listeners.add(poll.registry(), ListenerId(0), socket).unwrap();
        listeners.note_ready(0);
        let take = |listeners: &mut Listeners| matches!(listeners.next(poll.registry()), Some(Completion::Accepted(_)));
        listeners.begin_round(None);
        assert_eq!([(); 4].map(|()| take(&mut listeners)), [true, true, true, false], "as many as a round has");
        listeners.begin_round(None);
        assert!(take(&mut listeners));
        listeners.end_round();
        assert!(!take(&mut listeners) && listeners.has_work(), "the others wait for the next round");
        listeners.begin_round(None);
        assert_eq!([(); 3].map(|()| take(&mut listeners)), [true, true, false], "and are taken then");
        drop(clients);
    }
}
