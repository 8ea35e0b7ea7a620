//! Log lines that peers cause, at a bounded rate.
//!
//! Each shard has its own [`PeerLog`], so that a flood costs it a few instructions per event and no lock, and what was
//! left out is counted.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use std::{fmt, io};

use tracing::Level;

use super::peers::Whence;
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
    pub(super) peer: Option<Whence>,
    /// The name that its token gave it.
    pub(super) user: Option<&'a str>,
    pub(super) reason: CloseReason,
    /// The layer's own error.
    pub(super) detail: &'a str,
}

/// What a shard says about its peers.
#[derive(Debug)]
pub(super) struct PeerLog {
    shard: ShardId,
    bucket: TokenBucket,
    silenced: TokenBucket,
    /// For each reason its own, so that a flood of one hides no other.
    closed: [TokenBucket; CloseReason::ALL.len()],
    /// Left out since the last line.
    suppressed: u64,
    /// Connections in a row without an address of the kernel's.
    nameless: u32,
}

impl PeerLog {
    const PER_SECOND: u32 = 10;
    const BURST: u32 = 50;

    /// The log of a shard.
    pub(super) fn new(shard: ShardId) -> Self {
        let closed = [const { TokenBucket::new(Self::PER_SECOND, Self::BURST) }; CloseReason::ALL.len()];
        let bucket = || TokenBucket::new(Self::PER_SECOND, Self::BURST);
        Self { shard, bucket: bucket(), silenced: bucket(), closed, suppressed: 0, nameless: 0 }
    }

    /// Whether it is of any use to tell of such an end.
    pub(super) fn hears_of(&self, reason: CloseReason) -> bool {
        if is_ordinary(reason) { tracing::enabled!(Level::DEBUG) } else { tracing::enabled!(Level::INFO) }
    }

    /// A connection ended.
    pub(super) fn closed(&mut self, now: Instant, metrics: &ShardMetrics, ended: &Ended<'_>) {
        let Ended { id, peer, user, reason, detail } = *ended;
        let connection = id.of(self.shard);
        if !self.closed[reason as usize].take(now) {
            return self.suppress(metrics);
        }
        let (shard, suppressed) = (self.shard.0, std::mem::take(&mut self.suppressed));
        let peer = peer.map(tracing::field::display);
        if is_ordinary(reason) {
            tracing::debug!(shard, %connection, peer, user, %reason, detail, suppressed, "connection closed");
        } else {
            tracing::info!(shard, %connection, peer, user, %reason, detail, suppressed, "connection closed");
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

    /// Notes whether a client has come with its address, at a listener where it should. Some are gone before the kernel is
    /// asked; when it is that for none, limits per address do nothing, which is said once.
    pub(super) fn came(&mut self, has_address: bool, url: &str) {
        const IN_A_ROW: u32 = 16;
        self.nameless = match (has_address, self.nameless) {
            // It has been said.
            (_, u32::MAX) => u32::MAX,
            (true, _) => 0,
            (false, count) => count + 1,
        };
        if self.nameless == IN_A_ROW {
            self.nameless = u32::MAX;
            let shard = self.shard.0;
            let what = "the kernel gives no addresses of the clients of this listener, so the limits per address hold for none \
                        of them; use --backend epoll, or a proxy that sends the PROXY protocol";
            tracing::warn!(shard, url, "{what}");
        }
    }

    /// An address is not answered any more for a while. That it was refused so often has used up the lines for that.
    pub(super) fn silenced(&mut self, now: Instant, metrics: &ShardMetrics, ip: IpAddr, time: Duration) {
        if !self.silenced.take(now) {
            return self.suppress(metrics);
        }
        let (shard, seconds) = (self.shard.0, time.as_secs());
        tracing::warn!(shard, %ip, seconds, "an address that comes again however often it is refused is not answered for a while");
    }

    /// The kernel does not do that.
    pub(super) fn not_silenced(&mut self, now: Instant, metrics: &ShardMetrics, url: &str, error: &io::Error) {
        if !self.silenced.take(now) {
            return self.suppress(metrics);
        }
        let shard = self.shard.0;
        tracing::warn!(shard, url, %error, "the kernel takes no filter for this listener, so addresses are refused and not silenced");
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
            self.suppress(metrics);
        }
        permitted
    }

    fn suppress(&mut self, metrics: &ShardMetrics) {
        self.suppressed += 1;
        metrics.log_lines_suppressed_total.add(1);
    }
}

/// An end that nobody need look into.
const fn is_ordinary(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::Normal | CloseReason::GoingAway | CloseReason::PeerClosed)
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

    #[test]
    fn a_flood_of_one_reason_hides_no_other() {
        let (mut log, metrics) = (PeerLog::new(ShardId(0)), ShardMetrics::default());
        let mut end = |reason| {
            let ended = Ended { id: ConnId::new(0, 1), peer: None, user: None, reason, detail: "" };
            log.closed(Instant::ZERO, &metrics, &ended);
            metrics.log_lines_suppressed_total.get()
        };
        assert_eq!((0..80).map(|_| end(CloseReason::BadHandshake)).last(), Some(30));
        assert_eq!(end(CloseReason::SlowConsumer), 30);
    }
}
