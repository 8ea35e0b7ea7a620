//! What an operator looks at while it is there: the busiest topics, the slowest consumers. A shard makes it when somebody
//! has asked for it since the last time, and never otherwise.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A topic that its owner shard knows of.
#[derive(Clone, Debug, PartialEq)]
pub struct TopTopic {
    /// Its name.
    pub name: Arc<str>,
    /// Publications a second of late, at most: a sketch guesses upwards.
    pub publications: f64,
    /// Subscribers on all shards.
    pub subscribers: u64,
}

/// A connection, or a stream, that takes less than it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowConsumer {
    /// `shard:index:generation`, as the API has it.
    pub id: String,
    /// What it speaks.
    pub protocol: &'static str,
    /// Where it comes from, if that is known: its address, or `unix`.
    pub address: Option<Box<str>>,
    /// Whose it is, where clients show tokens.
    pub user: Option<Box<str>>,
    /// Bytes in its outgoing queue.
    pub queued_bytes: u64,
}

/// A connection, or a stream, that was ended because it took less than it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostConsumer {
    /// As it was at its end.
    pub consumer: SlowConsumer,
    /// How long ago that was.
    pub age: Duration,
}

/// What one shard has to show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Glance {
    /// Topics with the most publications, the busiest first.
    pub busy: Vec<TopTopic>,
    /// Topics with the most subscribers, the largest first.
    pub crowded: Vec<TopTopic>,
    /// Connections with the deepest queues, the deepest first.
    pub slow: Vec<SlowConsumer>,
    /// Connections that were ended for it of late, the last first.
    pub lost: Vec<LostConsumer>,
}

/// Where a shard puts it. It is locked a few times a second while somebody looks.
#[derive(Debug, Default)]
pub struct Pane {
    wanted: AtomicBool,
    glance: Mutex<Glance>,
}

impl Pane {
    /// The newest; and another is asked for, which is there a tick later or, on a shard that sleeps, a second.
    #[must_use]
    pub fn look(&self) -> Glance {
        self.wanted.store(true, Ordering::Relaxed);
        self.glance.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody has looked since the last time.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Shows another one. Only the owning shard may call this. Whoever is looking at the moment keeps it as it is.
    pub fn show(&self, glance: Glance) {
        self.wanted.store(false, Ordering::Relaxed);
        if let Ok(mut shown) = self.glance.try_lock() {
            *shown = glance;
        }
    }
}
