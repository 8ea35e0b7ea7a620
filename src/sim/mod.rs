//! A kernel that is not there: an in-memory network with faults, and a clock that stands still until it is moved.
//!
//! A simulation is one thread. It makes a [`Net`] from a seed, gives each shard a [`SimBackend`] and a [`ManualClock`],
//! and drives shards and scripted [`Client`]s in turn. Everything that happens by chance is drawn from the seed, in the
//! order of the calls; so the same seed and the same script replay exactly. There is no thread, no real clock, no hash
//! order and no address in it.
//!
//! The backend is also a judge. It panics when its caller breaks a rule of the port that the caller alone can break:
//! two sends of one connection between two flushes, an index named again before its `Closed` was seen, a completion
//! asked for while a lease is out.

mod backend;
mod client;
pub mod fuzz;
mod net;
mod random;
pub mod world;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

pub use self::backend::SimBackend;
pub use self::client::{Client, Peer};
pub use self::net::{Config, Faults, Net};
pub use self::random::Random;
use crate::time::{Clock, Instant};

/// Unix time at the beginning of every simulation: 2023-11-14 22:13:20 UTC.
const UNIX_START_MS: i64 = 1_700_000_000_000;

/// A clock that stands still until a test moves it. All clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug, Default)]
struct Hands {
    nanos: AtomicU64,
    /// What the wall clock was set forward by (or back), beyond the time that has passed.
    skew_ms: AtomicI64,
}

impl ManualClock {
    /// A clock at [`Instant::ZERO`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        let nanos = (self.now() + duration).as_nanos();
        self.0.nanos.store(nanos, Ordering::Relaxed);
    }

    /// Sets the wall clock, and only that one, forward or back.
    pub fn jump_unix(&self, by_ms: i64) {
        self.0.skew_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.nanos.load(Ordering::Relaxed))
    }

    fn unix_ms(&self) -> u64 {
        let passed_ms = i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX);
        let start_ms = UNIX_START_MS.saturating_add(self.0.skew_ms.load(Ordering::Relaxed));
        u64::try_from(start_ms.saturating_add(passed_ms)).unwrap_or(0)
    }

    fn rest(&self, _duration: Duration) {}
}

/// A clock for one turn in which everything takes long: each look at it, after the first few, shows it later by `step`.
#[derive(Debug)]
pub struct HurriedClock {
    clock: ManualClock,
    step: Duration,
    looks: Cell<u32>,
}

impl HurriedClock {
    /// Looks with which a turn finds out when it is.
    const LOOKS_BEFORE: u32 = 2;

    /// From the time that `clock` shows now.
    #[must_use]
    pub fn new(clock: &ManualClock, step: Duration) -> Self {
        Self { clock: clock.clone(), step, looks: Cell::new(0) }
    }
}

impl Clock for HurriedClock {
    fn now(&self) -> Instant {
        self.looks.set(self.looks.get().saturating_add(1));
        self.clock.now() + self.step * self.looks.get().saturating_sub(Self::LOOKS_BEFORE)
    }

    fn unix_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    fn rest(&self, _duration: Duration) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_only_when_told() {
        let clock = ManualClock::new();
        let twin = clock.clone();
        assert_eq!(clock.now(), Instant::ZERO);
        twin.advance(Duration::from_millis(1500));
        twin.jump_unix(-500);
        assert_eq!(clock.now(), Instant::from_millis(1500));
        assert_eq!(clock.unix_ms(), 1_700_000_001_000);
    }
}
