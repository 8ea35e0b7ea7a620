//! A backend that does what a test says.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{ConnId, ListenerId};
use crate::io::{Accepted, Backend, Backlog, Completion, Dial, Ending, Lease, Out, Short, Wake};

/// Happens what it is told, and writes down what it is asked for.
#[derive(Default)]
pub(in crate::swarm) struct Script {
    happens: VecDeque<Happens>,
    lent: Vec<u8>,
    pub(in crate::swarm) dialled: Vec<ConnId>,
    pub(in crate::swarm) closed: Vec<(ConnId, Ending)>,
    /// Whose end of the stream was closed.
    pub(in crate::swarm) shut: Vec<ConnId>,
    /// What each send brought, in order.
    pub(in crate::swarm) sent: Vec<(ConnId, Vec<u8>)>,
    pub(in crate::swarm) wanted: Vec<ConnId>,
    /// Bytes that the next send takes.
    pub(in crate::swarm) room: Option<usize>,
    shorts: VecDeque<Short>,
    since_flush: Vec<ConnId>,
    is_lent: bool,
}

enum Happens {
    Plain(Completion),
    Bytes(ConnId, Vec<u8>),
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

impl Script {
    pub(in crate::swarm) fn stands(&mut self, id: ConnId) {
        self.happens.push_back(Happens::Plain(Completion::Writable(id)));
    }

    pub(in crate::swarm) fn fails(&mut self, id: ConnId, kind: io::ErrorKind) {
        self.happens.push_back(Happens::Plain(Completion::Failed(id, kind)));
    }

    pub(in crate::swarm) fn ends(&mut self, id: ConnId) {
        self.happens.push_back(Happens::Plain(Completion::PeerClosed(id)));
    }

    pub(in crate::swarm) fn says(&mut self, id: ConnId, bytes: &[u8]) {
        self.happens.push_back(Happens::Bytes(id, bytes.to_vec()));
    }
}

impl Backend for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(Nobody)
    }

    fn listen(&mut self, _id: ListenerId, _socket: std::net::TcpListener) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn pause_accept(&mut self, _paused: bool) {}

    fn stop_listening(&mut self, _id: ListenerId, _backlog: Backlog) {}

    fn is_listening(&self) -> bool {
        false
    }

    fn attach(&mut self, _accepted: Accepted, _id: ConnId) {}

    fn refuse(&mut self, _accepted: Accepted) {}

    fn wait(&mut self, _timeout: Option<Duration>) -> io::Result<()> {
        assert!(!self.is_lent, "a lease is out");
        Ok(())
    }

    fn next(&mut self) -> Option<Completion> {
        assert!(!self.is_lent, "a lease is out");
        match self.happens.pop_front()? {
            Happens::Plain(completion) => Some(completion),
            Happens::Bytes(id, bytes) => {
                let len = u32::try_from(bytes.len()).unwrap();
                self.lent = bytes;
                self.is_lent = true;
                Some(Completion::Received(id, Lease { buffer: 0, start: 0, len, more: false }))
            }
        }
    }

    fn bytes(&mut self, _lease: &Lease) -> &mut [u8] {
        &mut self.lent
    }

    fn release(&mut self, _lease: Lease) {
        self.is_lent = false;
    }

    fn send(&mut self, id: ConnId, out: Out<'_>, tag: u32) {
        assert!(!self.since_flush.contains(&id), "one send between two flushes");
        self.since_flush.push(id);
        let bytes = match out {
            Out::Bytes(bytes) => bytes,
            Out::Shared(bytes, start, end) => &bytes[start..end],
        };
        let taken = self.room.take().map_or(bytes.len(), |room| room.min(bytes.len()));
        if taken < bytes.len() {
            self.shorts.push_back(Short { tag, sent: Ok(taken) });
        }
        self.sent.push((id, bytes[..taken].to_vec()));
    }

    fn flush(&mut self) {
        self.since_flush.clear();
    }

    fn next_short(&mut self) -> Option<Short> {
        self.shorts.pop_front()
    }

    fn want_writable(&mut self, id: ConnId) {
        self.wanted.push(id);
    }

    fn pause(&mut self, _id: ConnId) {}

    fn resume(&mut self, _id: ConnId) {}

    fn shutdown(&mut self, id: ConnId) {
        self.shut.push(id);
    }

    fn close(&mut self, id: ConnId, ending: Ending) {
        self.closed.push((id, ending));
        self.happens.push_back(Happens::Plain(Completion::Closed(id)));
    }

    fn quieten(&mut self, _id: ConnId) {}
}

impl Dial for Script {
    fn dial(&mut self, id: ConnId, _to: SocketAddrV4, _hello: &Arc<[u8]>) {
        self.dialled.push(id);
    }
}
