//! How much of it there shall be, and why there is none.

use std::io;

use super::probe::Missing;
use super::sources::Sources;

/// How much of it there shall be.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Connections at most, rounded up to whole rings with room for one more.
    pub connections_max: usize,
    /// Direct descriptors per ring; `None` for as many as RLIMIT_NOFILE allows.
    pub slots_per_ring: Option<u32>,
    /// Small receives without a [`quieten`](crate::io::Backend::quieten) between them after which a connection gets a
    /// multishot receive; more than 3 for never, which suits clients: a multishot receive costs 600 bytes of kernel memory
    /// more.
    pub promote_after: u32,
    /// Where dialled connections come from.
    pub sources: Sources,
}

impl Config {
    /// The defaults for this many connections.
    #[must_use]
    pub const fn new(connections_max: usize) -> Self {
        Self { connections_max, slots_per_ring: None, promote_after: 3, sources: Sources::Kernel }
    }
}

/// Why there is no backend.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The kernel lacks something.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// More than all rings can hold.
    #[error(
        "{asked} connections per shard are more than {rings} rings of {slots} descriptors can hold; raise the \
             limit on open files (ulimit -n) or use more shards"
    )]
    TooMany {
        /// The number asked for.
        asked: usize,
        /// Rings at most.
        rings: usize,
        /// Descriptors in each.
        slots: u32,
    },
    /// A ring or its memory was refused.
    #[error("io_uring cannot be set up: {0}")]
    Io(#[from] io::Error),
}
