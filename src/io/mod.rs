//! The port: what the engine asks of a kernel, in the shape of completions.
//!
//! A shard owns one [`Backend`] and is compiled for it. There are three: [`crate::io::uring`], [`crate::io::epoll`]
//! (which turns readiness into completions inside itself) and [`crate::sim`]. `tests/backend.rs` holds one
//! conformance suite that all of them pass. A fourth, [`crate::io::tun`], has clients only and is no shard's.
//! [`crate::io::tls`] and [`crate::io::proxy`] go over any of them.
//!
//! The rules of the port:
//!
//! - A connection is named by the [`ConnId`] that the shard gave it in [`Backend::attach`]. Until then it is a socket
//!   in an [`Accepted`], which is attached or refused, never dropped.
//! - Received bytes are lent: [`Completion::Received`] carries a [`Lease`], [`Backend::bytes`] shows the bytes, mutable
//!   so that frames can be unmasked in place, and [`Backend::release`] ends the loan. At most one lease is out at a
//!   time. A lease is never empty.
//! - [`Backend::send`] hands over bytes of which the kernel takes what fits at once. At most one send per connection
//!   between two flushes. It may run at once or at the next [`Backend::flush`]; after the flush each send that was not
//!   taken whole has a [`Short`] waiting in [`Backend::next_short`], and all others were taken. The caller keeps what
//!   was not taken and asks for [`Backend::want_writable`].
//! - A backend reads from a connection whenever it can, except between [`Backend::pause`] and [`Backend::resume`].
//! - After [`Completion::PeerClosed`] nothing is received any more, but sends still work (half close).
//!   After [`Completion::Failed`] nothing works any more. Both ask for a [`Backend::close`], soon or late.
//! - After [`Backend::close`] only one completion comes for this id, [`Completion::Closed`]: then the kernel holds
//!   nothing of it and its table slot may be used again. Leftover completions of an older generation are dropped by
//!   the backend.

pub mod epoll;
pub mod proxy;
pub mod syn_filter;
pub(crate) mod sys;
pub mod tls;
pub mod tun;
pub mod uring;

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use self::syn_filter::Source;
use crate::codec::proxy::Fault;
use crate::id::{ConnId, ListenerId};

/// Bytes of a read from which on whoever sent them is served behind those who send less.
const BULK_BYTES_MIN: usize = 8 * 1024;
/// Reads of that kind between two looks at what else has come, each some 50 µs with the answer to it, and more where much is to
/// be done for each byte. A look costs a microsecond or two.
const BULK_READS_MAX: usize = 1;

/// A connection that a listener took and that has no place in the table yet.
#[derive(Debug)]
#[must_use = "attach it or refuse it"]
pub struct Accepted {
    /// Which listener took it.
    pub listener: ListenerId,
    /// The backend's own name for the socket.
    pub socket: u64,
    /// Who connects, as the kernel tells it; `None` where there is no address, or none that the kernel tells.
    pub peer: Option<SocketAddr>,
}

/// Received bytes on loan from the backend. Give it back with [`Backend::release`].
#[derive(Debug)]
#[must_use = "release it"]
pub struct Lease {
    /// The backend's own name for the buffer.
    pub buffer: u32,
    /// Where the bytes begin in that buffer.
    pub start: u32,
    /// How many there are, never 0.
    pub len: u32,
    /// Whether more bytes of this connection are likely to be the next completion, so that answers can wait for them.
    pub more: bool,
}

/// Something that happened.
#[derive(Debug)]
pub enum Completion {
    /// A listener took a connection.
    Accepted(Accepted),
    /// A listener could not take one (out of descriptors or memory). It goes on by itself.
    AcceptFailed(ListenerId, io::ErrorKind),
    /// The PROXY header of a connection has come, or something else in its place: who the client is, `None` where the proxy
    /// does not say. Only [`proxy::Proxy`] tells it.
    Proxied(ConnId, Result<Option<SocketAddr>, Fault>),
    /// Bytes arrived.
    Received(ConnId, Lease),
    /// The peer will send no more.
    PeerClosed(ConnId),
    /// There is room to send again, after [`Backend::want_writable`].
    Writable(ConnId),
    /// The transport is broken.
    Failed(ConnId, io::ErrorKind),
    /// The answer to [`Backend::close`], and the last word about this id.
    Closed(ConnId),
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub enum Out<'a> {
    /// Bytes that the caller may change after the call; a backend that sends later copies them.
    Bytes(&'a [u8]),
    /// Bytes that many connections share, from `start` to `end`; a backend that sends later keeps a reference.
    Shared(&'a Arc<[u8]>, usize, usize),
}

/// A send that was not taken whole.
#[derive(Debug)]
pub struct Short {
    /// The tag that the caller gave with the send.
    pub tag: u32,
    /// Bytes taken, fewer than asked for, or the error that says the transport is broken.
    pub sent: Result<usize, io::ErrorKind>,
}

/// How [`Backend::close`] ends the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The kernel delivers what it has taken, then says good-bye.
    Graceful,
    /// A reset: what was not delivered is gone.
    Reset,
}

/// What becomes of the connections that the kernel has completed and nobody has taken when a listener closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// They are handed out first.
    Take,
    /// They are left to others who have the same socket. Where nobody has, the kernel resets them.
    Leave,
}

/// Wakes a backend that waits, from any thread.
pub trait Wake: Send + Sync {
    /// Makes the current or the next [`Backend::wait`] return.
    fn wake(&self);
}

/// One shard's view of a kernel.
pub trait Backend {
    /// `"uring"`, `"epoll"`, `"tun"` or `"sim"`.
    fn name(&self) -> &'static str;

    /// What wakes this backend.
    fn waker(&self) -> Arc<dyn Wake>;

    /// Accepts from this socket (which is listening already) from now on. A listener may have several sockets.
    ///
    /// # Errors
    /// When the kernel refuses to watch it.
    fn listen(&mut self, id: ListenerId, socket: std::net::TcpListener) -> io::Result<()>;

    /// Stops (or starts again) taking connections; the kernel goes on queueing them.
    fn pause_accept(&mut self, paused: bool);

    /// Closes a listener, at once or when all who wait have been handed out. What was taken before is handed out anyway.
    fn stop_listening(&mut self, id: ListenerId, backlog: Backlog);

    /// Has the kernel drop connects to this listener from these sources, without an answer: those and no others from now on.
    /// Who is connected notices nothing. A backend without a kernel of the system's answers all.
    ///
    /// # Errors
    /// When the kernel does not do that. All are answered then, but those for whom it was said before.
    fn silence(&mut self, _id: ListenerId, _sources: &[Source]) -> io::Result<()> {
        Ok(())
    }

    /// Whether a listener is open, or may still hand out a connection.
    fn is_listening(&self) -> bool;

    /// Names an accepted connection and begins to receive from it.
    fn attach(&mut self, accepted: Accepted, id: ConnId);

    /// Drops an accepted connection with a reset.
    fn refuse(&mut self, accepted: Accepted);

    /// Waits until there is a completion, the waker was used, or `timeout` is over (`None`: no limit). Returns at once
    /// when completions are left from before.
    ///
    /// # Errors
    /// When the kernel's interface itself fails, which no peer can cause.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// The next completion, if any is there now. Does not wait.
    fn next(&mut self) -> Option<Completion>;

    /// The lent bytes.
    fn bytes(&mut self, lease: &Lease) -> &mut [u8];

    /// Ends the loan.
    fn release(&mut self, lease: Lease);

    /// Sends, see the rules above. `tag` comes back in a [`Short`].
    fn send(&mut self, id: ConnId, out: Out<'_>, tag: u32);

    /// Makes sure that all sends have run.
    fn flush(&mut self);

    /// The sends since the last flush that were not taken whole.
    fn next_short(&mut self) -> Option<Short>;

    /// Asks for one [`Completion::Writable`].
    fn want_writable(&mut self, id: ConnId);

    /// Stops receiving. Bytes that were received before may still be lent once.
    fn pause(&mut self, id: ConnId);

    /// Receives again.
    fn resume(&mut self, id: ConnId);

    /// Says that nothing more will be sent (FIN) and goes on receiving.
    fn shutdown(&mut self, id: ConnId);

    /// Ends the connection; [`Completion::Closed`] follows.
    fn close(&mut self, id: ConnId, ending: Ending);

    /// Bytes of user memory that it spends on buffers and tables, about: a look at sizes, for metrics.
    fn memory(&self) -> usize {
        0
    }

    /// Bytes of user memory that connections take because they speak TLS, likewise.
    fn tls_memory(&self) -> usize {
        0
    }

    /// A hint, given now and then (in the heartbeat pass), that this connection has been idle: the backend may take
    /// back what it spends on busy ones.
    fn quieten(&mut self, id: ConnId);
}

/// A backend that can open connections too: what a load generator needs beside the rest of the port.
///
/// Which address a connection comes from is the backend's business: it has a plan of addresses and ports, made for more
/// connections than one address has ports.
pub trait Dial: Backend {
    /// Opens a connection to `to` under this id and sends `hello`, which may be empty, as soon as it stands.
    ///
    /// [`Completion::Writable`] says that it stands, [`Completion::Failed`] that it will not; either way it is
    /// attached from now on, and [`Backend::close`] ends it. The `hello` belongs to few connections or to all: a backend
    /// may keep a reference to each that it has seen for as long as it lives.
    fn dial(&mut self, id: ConnId, to: SocketAddrV4, hello: &Arc<[u8]>);

    /// Ends a connection without a word to its peer, as if a cable had been cut; [`Completion::Closed`] is told as for
    /// any other end. Backends that cannot do that end it with a reset.
    fn vanish(&mut self, id: ConnId) {
        self.close(id, Ending::Reset);
    }
}
