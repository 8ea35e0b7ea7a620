//! What an [`Epoll`](super::Epoll) needs to know, and why there is none.

use std::io;

/// What an [`Epoll`](super::Epoll) needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Connections that may be open at a time, at least as many as the shard's table has places.
    pub connections_max: usize,
    /// Size of the scratch buffer, which is the most that one [`Completion::Received`](crate::io::Completion::Received) carries.
    pub buffer_bytes: u32,
    /// Events that one call of `epoll_wait` fetches.
    pub events_max: usize,
    /// Connections taken from the kernel between two waits: some ten microseconds each, which all who are open wait.
    pub accepts_max: u32,
}

impl Config {
    /// The defaults for this many connections.
    #[must_use]
    pub const fn new(connections_max: usize) -> Self {
        Self { connections_max, buffer_bytes: 64 * 1024, events_max: 1024, accepts_max: 4 }
    }
}

/// Why there is no [`Epoll`](super::Epoll).
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Every connection is a descriptor, and there are not enough of them.
    #[error(
        "RLIMIT_NOFILE is {limit}, but {asked} connections with epoll need {needed} descriptors: \
         raise it with `ulimit -n {needed}` (systemd: LimitNOFILE={needed}), or ask for fewer connections"
    )]
    DescriptorLimit {
        /// The soft limit in force.
        limit: u64,
        /// Connections asked for.
        asked: u64,
        /// Descriptors for them and for all else.
        needed: u64,
    },
    /// The kernel gives no epoll instance or no waker.
    #[error("epoll: {0}")]
    Kernel(#[from] io::Error),
}
