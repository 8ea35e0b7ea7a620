//! What the server tells all shards, and what they share: a few atomics that are off the messages' way.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// It serves.
    Running = 0,
    /// It takes nobody in and asks everybody to leave.
    Draining = 1,
    /// It ends at once.
    Ending = 2,
}

/// Shared by the server and its shards.
#[derive(Debug)]
pub struct Control {
    phase: AtomicU8,
    drain_ms: AtomicU64,
    connections: AtomicUsize,
    connections_max: usize,
}

impl Control {
    /// A running server that holds so many connections.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Running as u8),
            drain_ms: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            connections_max,
        }
    }

    /// Where the server is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Ending,
        }
    }

    /// Begins to drain; all connections are told to leave within `period`. Ring the doorbells afterwards.
    pub fn drain(&self, period: Duration) {
        self.drain_ms.store(u64::try_from(period.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
        self.phase.fetch_max(Phase::Draining as u8, Ordering::AcqRel);
    }

    /// Ends at once. Ring the doorbells afterwards.
    pub fn end(&self) {
        self.phase.store(Phase::Ending as u8, Ordering::Release);
    }

    /// The period of the drain.
    #[must_use]
    pub fn drain_period(&self) -> Duration {
        Duration::from_millis(self.drain_ms.load(Ordering::Acquire))
    }

    /// Whether nobody is left to hear anything, nor will be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.phase() {
            Phase::Running => false,
            Phase::Draining => self.connections() == 0,
            Phase::Ending => true,
        }
    }

    /// Counts a connection in, if the process has room for it.
    pub(super) fn admit(&self) -> bool {
        let admitted = self.connections.fetch_add(1, Ordering::Relaxed) < self.connections_max;
        if !admitted {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
        admitted
    }

    /// Connections of all shards.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Counts a connection out. Returns whether it was the last one.
    pub(super) fn release(&self) -> bool {
        self.connections.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
