//! Events for a receiver elsewhere: who comes and goes, what is published, which topics are in use.
//!
//! ```text
//!   shards --Event--> port: bounded, never waits --> queue: JSON, bounded --> batch --> receiver
//!                        \__ what has no room is counted, by kind ____________/
//! ```
//!
//! A shard says an event and goes on. Its queue is bounded in events and in bytes; what finds no room is counted, and so is
//! what has waited too long or too much: the next batch says how many of each kind are missing. So a receiver that was told
//! nothing of missing events has heard all of them, at least once.
//!
//! Topics that are left and entered again within [`settle::GRACE`] are told as if they had been occupied all the time.
//!
//! This part knows no sockets and no clocks. [`port`] is how shards talk to the thread; the thread is the server's.

pub mod event;
pub mod pace;
pub mod port;
pub mod queue;
pub mod settle;
pub mod signature;
#[cfg(test)]
pub(crate) mod testing;

pub use self::event::{Address, Client, Event, Wanted, What};
pub use self::queue::{Batch, Queue};

use crate::config::HookKind;

/// How many events of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; HookKind::ALL.len()]);

impl Counts {
    /// Counts some of one kind.
    pub fn add(&mut self, kind: HookKind, events: u64) {
        let count = &mut self.0[kind as usize];
        *count = count.saturating_add(events);
    }

    /// Counts what another has counted.
    pub fn add_all(&mut self, others: &Self) {
        others.iter().for_each(|(kind, events)| self.add(kind, events));
    }

    /// Of this kind.
    #[must_use]
    pub const fn of(&self, kind: HookKind) -> u64 {
        self.0[kind as usize]
    }

    /// The kinds that there are some of.
    pub fn iter(&self) -> impl Iterator<Item = (HookKind, u64)> {
        HookKind::ALL.into_iter().zip(self.0).filter(|(_, events)| *events > 0)
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, events| sum.saturating_add(*events))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }
}
