//! What a shard and the journal's thread say to each other: two bounded queues for each shard.
//!
//! A durable publication gets its place at its topic's owner, waits there, and goes to the journal. When its commit is on the
//! disk, a verdict comes back, and only then is it kept, handed out and acknowledged: nobody hears of what a crash could take
//! back. Commits of one shard end in the order of its appends, so a verdict is a number of them.
//!
//! When a write fails, all that is on its way has failed: places have been given out behind it. The shard refuses what waits,
//! takes the places back and begins a new *generation*; appends of an older one are passed over by the thread, and verdicts of
//! an older one by the shard.

use std::sync::Arc;

use crate::mailbox::{self, Doorbell, Outlet, Receiver};
use crate::message::{Cursor, Message, Offset, Topic};

/// Appends of one shard that may be on their way.
pub const APPENDS_MAX: usize = 4096;

/// From a shard to the journal.
#[derive(Debug)]
pub enum Append {
    /// A message with its place.
    Message {
        /// The shard's generation.
        generation: u32,
        /// The message, with epoch, offset and time.
        message: Message,
        /// The idempotency key that it was published with.
        key: Option<Arc<str>>,
        /// The oldest message of the topic that its history still keeps, or its own offset: what is before is not needed.
        first_kept: Offset,
    },
    /// A topic's messages up to here are not needed any more (it is forgotten, or they are too old); its place is. With another
    /// epoch than the topic's messages have, their past has ended, and after a restart it goes on here; unless messages follow.
    Forget(Topic, Cursor),
}

/// From the journal to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next so many messages of this generation are on the disk.
    Committed {
        /// Of these appends.
        generation: u32,
        /// So many.
        count: u32,
    },
    /// None of this generation that has had no verdict will be. Durable publishing is off until [`Verdict::Working`].
    Failed {
        /// Of these appends.
        generation: u32,
    },
    /// The disk can be written again.
    Working,
}

/// A shard's end.
#[derive(Debug)]
pub struct ShardEnd {
    /// Its appends. Flushed, and so rung, at most once a turn.
    pub appends: Outlet<Append>,
    /// What became of them. Rings the shard's doorbell.
    pub verdicts: Receiver<Verdict>,
}

/// The journal's end of one shard.
#[derive(Debug)]
pub struct JournalEnd {
    /// What the shard wants written.
    pub appends: Receiver<Append>,
    /// What became of it. Never full while verdicts are summed up by generation: one waits at most for each.
    pub verdicts: Outlet<Verdict>,
}

/// Two ends: the shard's doorbell is rung by verdicts, the journal's by appends.
#[must_use]
pub fn pair(shard: Arc<Doorbell>, journal: Arc<Doorbell>) -> (ShardEnd, JournalEnd) {
    let (appends, to_write) = mailbox::channel(APPENDS_MAX, journal);
    let (verdicts, from_disk) = mailbox::channel(64, shard);
    (
        ShardEnd { appends: Outlet::new(appends), verdicts: from_disk },
        JournalEnd { appends: to_write, verdicts: Outlet::new(verdicts) },
    )
}
