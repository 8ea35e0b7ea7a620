//! The journal of durable topics: its files and the task on the control thread that writes them.
//!
//! ```text
//!  shards -> appends -> desk: encodes a batch -> pen: one write, one fdatasync -> desk: verdicts -> shards
//!                         \__ the next batch meanwhile
//!  keeper: removes and joins segments that are not needed, beside, also while a full disk takes nothing else
//! ```
//!
//! A batch is all that shards have in their queues. While it is on its way to the disk the next one gathers, so the more
//! is published the more a commit has, and the disk is never asked for more than one at a time. Within a shard verdicts come
//! in the order of appends.
//!
//! What has failed once is not written or synced again: after a failed `fdatasync` nobody knows which pages are on the disk.
//! Everything that is on its way is refused, and a new segment begins as soon as one can be had; its header says up to
//! where the one before it is good.

mod desk;
mod disk;
mod keeper;
mod names;
mod open;
mod pen;
mod repair;
mod room;
mod running;
mod shared;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::desk::Desk;
use self::disk::Ring;
use self::keeper::Keeper;
use self::open::Owned;
use self::pen::Pen;
pub(super) use self::running::{Begun, Keeping, can_follow};
use super::control::{Ending, Job};
use super::ring;
use crate::config::{Journal as JournalConfig, TopicRules};
use crate::hub::topics::Legacy;
use crate::journal::census::{Bounds, Census};
use crate::journal::port::JournalEnd;
use crate::journal::replay::Corrupt;
use crate::mailbox::Doorbell;
use crate::message::Epoch;
use crate::metrics::JournalMetrics;

/// Why there is no journal, in one line: what, where, how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory cannot be made, read or written.
    #[error("cannot keep a journal: {error}, {}: name a directory in journal.dir that this user can write", path.display())]
    Directory {
        /// The directory, or a file in it.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Another process has it.
    #[error(
        "cannot keep a journal: another process has this directory, {}: end that one, or give each its own journal.dir",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read the journal: {error}, {}: mend what keeps this user from it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A file is not what was written.
    #[error(
        "the journal is corrupt: {what}, {}: put a good copy of the file back, or go on without what is lost with \
         --journal-repair",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: Corrupt,
    },
    /// A file that cannot be read has been put aside as often as may be.
    #[error(
        "cannot repair the journal: a file was put aside too often, {}: remove some of its copies that end with .damaged",
        path.display()
    )]
    Aside {
        /// The file.
        path: PathBuf,
    },
    /// A file is gone.
    #[error(
        "the journal is corrupt: a file is missing, {}: put it back, or go on without what is lost with --journal-repair",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
}

/// How a journal is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening {
    /// Unix time.
    pub now_ms: u64,
    /// Whether to go on where something in it is wrong.
    pub repair: bool,
    /// How long another process may have it still.
    pub wait: Duration,
}

/// A journal that has been read and is this process's own until the value, or the task of it, is gone.
#[derive(Debug)]
pub struct Journal {
    owned: Owned,
    bounds: Bounds,
    census: Census,
    /// The topics that it has, in no order, for the shards.
    pub topics: Vec<Legacy>,
    /// The newest epoch that any topic ever had.
    pub epoch: Epoch,
}

impl Journal {
    /// Takes a directory, reads what is in it, and says so in the log.
    ///
    /// # Errors
    /// When that cannot be had, or is not what was written.
    pub fn open(
        directory: &Path,
        config: &JournalConfig,
        rules: &TopicRules,
        how: Opening,
    ) -> Result<Self, JournalError> {
        let owned = Owned::take(directory, how.wait)?;
        let past = owned.read(rules, how.now_ms, how.repair)?;
        let seconds = past.took.as_secs_f64();
        let (segments, messages, torn_bytes) = (past.segments, past.messages, past.torn);
        let (directory, topics) = (directory.display(), past.found.topics.len());
        if torn_bytes > 0 {
            tracing::warn!(
                %directory, torn_bytes,
                "the journal's last commit cannot be read whole and is cut: it did not reach the disk, and nobody was told of it, \
                 if the disk has what it said was safe"
            );
        }
        tracing::info!(%directory, segments, messages, topics, torn_bytes, seconds, "the journal was read");
        let bounds = Bounds {
            segment_bytes: config.segment_bytes as u64,
            bytes_max: config.bytes_max as u64,
            age_max_ms: u64::try_from(config.age_max.as_millis()).unwrap_or(u64::MAX),
        };
        let found = past.found;
        Ok(Self { owned, bounds, census: found.census, topics: found.topics, epoch: found.epoch })
    }

    /// Whether a journal that another process writes could be taken over from it, as far as its files say. Nothing is changed.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written.
    pub fn look(directory: &Path, rules: &TopicRules, now_ms: u64) -> Result<(), JournalError> {
        Owned::look(directory, rules, now_ms)
    }

    /// The task that writes what comes through these ends. `doorbell` is the one that they ring.
    #[must_use]
    pub fn job(self, ends: Vec<JournalEnd>, doorbell: Arc<Doorbell>, metrics: Arc<JournalMetrics>) -> Job {
        let Self { owned, bounds, census, .. } = self;
        Box::new(move |ending| {
            Box::pin(async move {
                let desk = Desk::new(ends, doorbell, metrics, census, bounds);
                match Ring::open(owned.path.clone()).await {
                    Ok(ring) => write(desk, ring, owned, ending).await,
                    Err(error) => {
                        tracing::error!(%error, directory = %owned.path.display(), "cannot open the journal's directory")
                    }
                }
            })
        })
    }
}

/// Writes and keeps house until it is told to end.
async fn write(desk: Desk, ring: Ring, owned: Owned, ending: Ending) {
    let shared = desk.shared();
    let keeper = ring::spawn(Keeper::new(ring.clone(), shared, ending.clone()).run());
    let directory = owned.path.clone();
    desk.run(Pen::new(ring), ending, &directory).await;
    let _ = keeper.await;
    drop(owned);
}

/// Unix time in milliseconds.
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
