//! Log lines that peers cause, at a bounded rate.
//!
//! Each shard has its own [`PeerLog`], so that a flood costs it a few instructions per event and no lock, and what was
//! left out is counted.

use std::fmt;
use std::net::SocketAddr;

use tracing::Level;

use crate::close::CloseReason;
use crate::id::{ConnId, ShardId};
use crate::metrics::ShardMetrics;
use crate::rate::TokenBucket;
use crate::rule::Limit;
use crate::time::Instant;

/// A connection that has ended.
pub(super) struct Ended<'a> {
    pub(super) id: ConnId,
    /// Who it was.
    pub(super) peer: Option<SocketAddr>,
    pub(super) reason: CloseReason,
    /// The layer's own error.
    pub(super) detail: &'a str,
}

/// What a shard says about its peers.
#[derive(Debug)]
pub(super) struct PeerLog {
    shard: ShardId,
    bucket: TokenBucket,
    /// Left out since the last line.
    suppressed: u64,
}

impl PeerLog {
    const PER_SECOND: u32 = 10;
    const BURST: u32 = 50;

    /// The log of a shard.
    pub(super) const fn new(shard: ShardId) -> Self {
        Self { shard, bucket: TokenBucket::new(Self::PER_SECOND, Self::BURST), suppressed: 0 }
    }

    /// A connection ended for a reason worth a line.
    pub(super) fn closed(&mut self, now: Instant, metrics: &ShardMetrics, ended: &Ended<'_>) {
        if tracing::enabled!(Level::INFO) && self.permit(now, metrics) {
            let (shard, suppressed) = (self.shard.0, std::mem::take(&mut self.suppressed));
            let Ended { id: connection, peer, reason, detail } = ended;
            let peer = peer.map(tracing::field::display);
            tracing::info!(shard, %connection, peer, %reason, detail, suppressed, "connection closed");
        }
    }

    /// A connection was turned away. What is the whole server's has a line of the server's.
    pub(super) fn refused(&mut self, now: Instant, metrics: &ShardMetrics, peer: Option<SocketAddr>, limit: Limit) {
        if limit.is_of_an_address() && tracing::enabled!(Level::INFO) && self.permit(now, metrics) {
            let (shard, suppressed) = (self.shard.0, std::mem::take(&mut self.suppressed));
            let (peer, limit) = (peer.map(tracing::field::display), limit.label());
            tracing::info!(shard, peer, limit, suppressed, "connection refused");
        }
    }

    /// Anything else that peers can bring about.
    pub(super) fn event(&mut self, now: Instant, metrics: &ShardMetrics, what: fmt::Arguments<'_>) {
        if tracing::enabled!(Level::WARN) && self.permit(now, metrics) {
            let (shard, suppressed) = (self.shard.0, std::mem::take(&mut self.suppressed));
            tracing::warn!(shard, suppressed, "{what}");
        }
    }

    /// Whether a line may be written now; counts it if not.
    fn permit(&mut self, now: Instant, metrics: &ShardMetrics) -> bool {
        let permitted = self.bucket.take(now);
        if !permitted {
            self.suppressed += 1;
            metrics.log_lines_suppressed_total.add(1);
        }
        permitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let (mut log, metrics) = (PeerLog::new(ShardId(0)), ShardMetrics::default());
        let permitted = (0..80).filter(|_| log.permit(Instant::ZERO, &metrics)).count();
        assert_eq!((permitted, metrics.log_lines_suppressed_total.get()), (50, 30));
        assert!(log.permit(Instant::from_millis(100), &metrics));
    }
}
