//! Log lines that peers cause, at a bounded rate.
//!
//! Each shard has its own [`PeerLog`], so that a flood costs it a few instructions per event and no lock, and what was
//! left out is counted.

use std::fmt;

use tracing::Level;

use crate::close::CloseReason;
use crate::id::{ConnId, ShardId};
use crate::metrics::ShardMetrics;
use crate::time::Instant;

/// Lets so many things through at once, and so many more per second.
#[derive(Debug)]
pub struct TokenBucket {
    /// What may be spent now, as time: a token is `token_ns` of it.
    saved_ns: u64,
    token_ns: u64,
    full_ns: u64,
    last: Instant,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens into which `per_second` more fall. Zero is taken for one.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second };
        let burst = if burst == 0 { 1 } else { burst };
        let token_ns = 1_000_000_000 / per_second as u64;
        // At most 2^30 * 2^32: fits in 64 bits.
        let full_ns = token_ns * burst as u64;
        Self { saved_ns: full_ns, token_ns, full_ns, last: Instant::ZERO }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.as_nanos().saturating_sub(self.last.as_nanos());
        self.last = now;
        self.saved_ns = self.saved_ns.saturating_add(passed).min(self.full_ns);
        let enough = self.saved_ns >= self.token_ns;
        if enough {
            self.saved_ns -= self.token_ns;
        }
        enough
    }
}

/// What a shard says about its peers.
#[derive(Debug)]
pub struct PeerLog {
    shard: ShardId,
    bucket: TokenBucket,
    /// Left out since the last line.
    suppressed: u64,
}

impl PeerLog {
    const PER_SECOND: u32 = 10;
    const BURST: u32 = 50;

    /// The log of a shard.
    #[must_use]
    pub const fn new(shard: ShardId) -> Self {
        Self { shard, bucket: TokenBucket::new(Self::PER_SECOND, Self::BURST), suppressed: 0 }
    }

    /// A connection ended for a reason worth a line. `detail` is the layer's own error; it is formatted only if the
    /// line is written.
    pub fn closed(
        &mut self,
        now: Instant,
        metrics: &ShardMetrics,
        connection: ConnId,
        reason: CloseReason,
        detail: &dyn fmt::Display,
    ) {
        if tracing::enabled!(Level::WARN) && self.permit(now, metrics) {
            let (shard, suppressed) = (self.shard.0, std::mem::take(&mut self.suppressed));
            tracing::warn!(shard, ?connection, %reason, suppressed, "connection ended: {detail}");
        }
    }

    /// Anything else that a peer brought about: a refused request, a full table.
    pub fn event(&mut self, now: Instant, metrics: &ShardMetrics, what: fmt::Arguments<'_>) {
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
    fn a_burst_then_a_rate() {
        let mut bucket = TokenBucket::new(10, 3);
        let taken = |bucket: &mut TokenBucket, ms| (0..100).filter(|_| bucket.take(Instant::from_millis(ms))).count();
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, 99), 0);
        assert_eq!(taken(&mut bucket, 100), 1);
        assert_eq!(taken(&mut bucket, 350), 2);
        assert_eq!(taken(&mut bucket, 1_000_000), 3);
    }

    #[test]
    fn a_clock_at_its_end_does_no_harm() {
        let mut bucket = TokenBucket::new(0, 0);
        assert!(bucket.take(Instant::from_nanos(u64::MAX)));
        assert!(!bucket.take(Instant::ZERO));
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let (mut log, metrics) = (PeerLog::new(ShardId(0)), ShardMetrics::default());
        let permitted = (0..80).filter(|_| log.permit(Instant::ZERO, &metrics)).count();
        assert_eq!((permitted, metrics.log_lines_suppressed_total.get()), (50, 30));
        assert!(log.permit(Instant::from_millis(100), &metrics));
    }
}
