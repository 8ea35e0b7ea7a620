//! What a world came to, in numbers: whether it saw what it is for.

use super::World;
use super::peer::{Peer, Stage};
use super::plan::Role;
use crate::rule::Limit;

/// What a world came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Turns of all shards.
    pub turns: u64,
    /// Peers that were there.
    pub peers: usize,
    /// Messages that peers saw.
    pub seen: u64,
    /// Close codes that peers saw.
    pub codes: Vec<u16>,
    /// Times that something was rare enough to be counted: see [`Report::RARE`].
    pub rare: [u64; Report::RARE.len()],
    /// All bytes that moved, in their order: equal for equal histories.
    pub digest: u64,
    /// Whether the sabotage was done.
    pub sabotaged: bool,
}

impl Report {
    /// What `rare` counts.
    pub const RARE: [&str; 25] = [
        "mailbox_capacity",
        "publisher_paused_total",
        "reading_paused_total",
        "short_sends_total",
        "deliveries_dropped_total",
        "heartbeats_sent_total",
        "handler_panics_total",
        "subscriptions_max and topics_max",
        "refused_total",
        "resets_total",
        "replayed_total",
        "history_evicted_total",
        "history_expired_total",
        "topics_forgotten_total",
        "resets that readers saw",
        "messages that readers saw",
        "readers' connections that ended",
        "acknowledgements",
        "duplicates",
        "http2_streams_opened_total",
        "messages that callers saw",
        "subscriptions that ended and began again",
        "streams that the server reset",
        "intruders sent away",
        "messages that were written down",
    ];
}

impl World<'_> {
    pub(super) fn report(&self) -> Report {
        let [resets, seen, ends, acks, duplicates, called, returns, intruders] = self.crowd.counts();
        let rare = [
            self.metrics.total(|shard| shard.struck(Limit::MailboxCapacity)),
            self.metrics.total(|shard| shard.publisher_paused_total.get()),
            self.metrics.total(|shard| shard.reading_paused_total.get()),
            self.metrics.total(|shard| shard.short_sends_total.get()),
            self.metrics.total(|shard| shard.deliveries_dropped_total.get()),
            self.metrics.total(|shard| shard.heartbeats_sent_total.get()),
            self.metrics.total(|shard| shard.handler_panics_total.get()),
            self.metrics.total(|shard| shard.struck(Limit::SubscriptionsMax) + shard.struck(Limit::TopicsMax)),
            self.metrics.total(|shard| shard.refused_total.get()),
            self.metrics.total(|shard| shard.resets_total.get()),
            self.metrics.total(|shard| shard.replayed_total.get()),
            self.metrics.total(|shard| shard.history_evicted_total.get()),
            self.metrics.total(|shard| shard.history_expired_total.get()),
            self.metrics.total(|shard| shard.topics_forgotten_total.get()),
            resets,
            seen,
            ends,
            acks,
            duplicates,
            self.metrics.total(|shard| shard.http2_streams_opened_total.get()),
            called,
            returns,
            self.lines.resets(),
            intruders,
            self.journal.written,
        ];
        let echoes = |peer: &&Peer| peer.sketch.role == Role::Echo;
        let echoed: u64 = self.peers.iter().filter(echoes).map(|peer| u64::from(peer.sent)).sum();
        Report {
            turns: self.turns,
            peers: self.peers.iter().filter(|peer| peer.stage != Stage::Ahead).count(),
            seen: echoed + self.peers.iter().map(|peer| peer.seen.len() as u64).sum::<u64>(),
            codes: self.peers.iter().filter_map(|peer| peer.code).collect(),
            rare,
            digest: self.digest,
            sabotaged: self.options.sabotage.as_ref().is_some_and(|sabotage| sabotage.struck),
        }
    }
}
