//! Hooks: the thread that gives what shards tell to the receiver.
//!
//! ```text
//!  shards -> desk: takes, settles, writes JSON -> queue -> courier: one batch after the other -> webhook: HTTP
//!                                                                                              \\-> nats: a stream
//! ```
//!
//! Both are tasks of one thread, which does nothing else: what TLS and JSON cost there delays neither shards nor the journal.
//! The desk takes what comes however slow the receiver is, and the queue drops what is too much. The courier has one batch in
//! hand until the receiver has taken it, so that events arrive in order, of each connection and of each topic.
//!
//! When the server ends, what is there has [`FLUSH`] to be delivered.

mod address;
mod courier;
mod desk;
mod nats;
mod running;
#[cfg(test)]
mod tests;
mod webhook;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

pub(super) use self::running::{Hooking, random};
use crate::config::Hooks;
use crate::hooks::{Batch, Counts, Queue};
use crate::metrics::{HooksMetrics, Undelivered};
use crate::shard::Control;
use crate::time::SystemClock;

/// Time that is left for what waits when the server ends.
const FLUSH: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 5 });

/// Why nothing can be told, in one line: what, where, how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum HooksError {
    /// Nobody vouches for any receiver.
    #[error(
        "cannot post to {0} over TLS: this system trusts no authority, hooks.url: install ca-certificates, or name a file with \
         hooks.ca_file"
    )]
    NoAuthorities(String),
    /// A certificate of the file.
    #[error("cannot trust a certificate: {0}, hooks.ca_file: name certificates of authorities")]
    BadAuthority(rustls::Error),
    /// TLS is not to be had.
    #[error("cannot speak TLS: {0}, hooks.url: please report it")]
    Tls(rustls::Error),
    /// No thread, or nothing to run on it.
    #[error("cannot start a thread for hooks: {0}, at the start: raise ulimit -u and ulimit -n")]
    Thread(std::io::Error),
}

/// Who is told. A webhook is one; what takes batches in another way is another.
trait Receiver {
    /// Who it is, for the log.
    fn origin(&self) -> String;

    /// Bytes that a batch may have, where it has more than one event.
    fn bytes_max(&self) -> usize {
        Batch::BYTES_MAX
    }

    /// Gives it a batch, within the time that there is for it. It may be given up at any time.
    async fn post(&mut self, batch: &Batch, hooks: &Hooks) -> Outcome;
}

/// What a receiver made of a batch.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Taken,
    /// It may take it later; it may have said when.
    Later(String, Option<Duration>),
    /// It never will.
    Never(String),
}

/// What the two tasks share.
struct Shared {
    queue: RefCell<Queue>,
    /// There is more in the queue than before, or nothing more will come.
    news: Notify,
    /// The desk has ended.
    is_closed: Cell<bool>,
    /// What the courier has in hand.
    in_hand: Cell<Counts>,
    metrics: Arc<HooksMetrics>,
    clock: SystemClock,
}

impl Shared {
    /// Says how much waits.
    fn measure(&self) {
        let (queue, in_hand) = (self.queue.borrow(), self.in_hand.get());
        self.metrics.queued.set(queue.len() as u64 + in_hand.total());
        self.metrics.queued_bytes.set(queue.bytes() as u64);
    }

    /// Nobody delivers any more what is left.
    fn conclude(&self) {
        let left = self.queue.borrow().len() as u64 + self.in_hand.get().total();
        self.metrics.lose(Undelivered::Ended, left);
        self.metrics.queued.set(0);
        self.metrics.queued_bytes.set(0);
        if left > 0 {
            tracing::warn!(events = left, "events that the receiver of hooks did not take in time are lost");
        }
    }
}

/// What is configured now.
struct Terms {
    control: Arc<Control>,
    version: u64,
    hooks: Arc<Hooks>,
}

impl Terms {
    fn new(control: Arc<Control>) -> Self {
        let (version, hooks) = (control.live_version(), Arc::clone(&control.live().hooks));
        Self { control, version, hooks }
    }

    fn now(&mut self) -> Arc<Hooks> {
        let version = self.control.live_version();
        if version != self.version {
            (self.version, self.hooks) = (version, Arc::clone(&self.control.live().hooks));
        }
        Arc::clone(&self.hooks)
    }
}
