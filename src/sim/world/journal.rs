//! The journal of a world in which some topics are durable: it takes its time, and never fails. What becomes of failures and
//! crashes is played in `tests/simulation/lives.rs`.

use std::sync::Arc;

use super::Random;
use crate::journal::port::{self, Append, JournalEnd, ShardEnd, Verdict};
use crate::mailbox::Doorbell;

/// The journal's end of all shards.
#[derive(Default)]
pub(super) struct Journal {
    /// And how many messages wait there.
    ends: Vec<(JournalEnd, u32)>,
    /// Messages that were written.
    pub(super) written: u64,
}

impl Journal {
    /// The end of a shard that has this doorbell.
    pub(super) fn join(&mut self, shard: Arc<Doorbell>) -> ShardEnd {
        let (here, there) = port::pair(shard, Arc::new(Doorbell::new()));
        self.ends.push((there, 0));
        here
    }

    /// Writes some of what shards have given, all when it is `calm`. Returns how many messages that were.
    pub(super) fn work(&mut self, random: &mut Random, calm: bool) -> u64 {
        let mut written = 0;
        for (end, waiting) in &mut self.ends {
            while let Some(append) = end.appends.try_recv() {
                *waiting += u32::from(matches!(append, Append::Message { .. }));
            }
            let is_slow = !calm && !random.chance(300);
            if *waiting == 0 || is_slow {
                continue;
            }
            let most = usize::try_from(*waiting).unwrap_or(usize::MAX);
            let count = if calm { *waiting } else { u32::try_from(random.within(1, most)).unwrap_or(1) };
            *waiting -= count;
            end.verdicts.push(Verdict::Committed { generation: 0, count });
            end.verdicts.flush();
            written += u64::from(count);
        }
        self.written += written;
        written
    }
}
