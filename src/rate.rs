//! Rates that may not be exceeded.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// A rate that several threads share: so many things per second, and as many at once after a second of none.
///
/// It is the generic cell rate algorithm (ITU-T I.371): one number, the time at which all that was let through would have
/// come at an even pace.
#[derive(Debug)]
pub struct SharedRate {
    even_ns: AtomicU64,
    interval_ns: u64,
}

impl SharedRate {
    const SECOND: u64 = 1_000_000_000;

    /// So many per second, at most 10^9; `None` for zero.
    #[must_use]
    pub fn new(per_second: u32) -> Option<Self> {
        let interval_ns = Self::SECOND.checked_div(u64::from(per_second))?.max(1);
        Some(Self { even_ns: AtomicU64::new(0), interval_ns })
    }

    /// Lets one through, if it may.
    pub fn take(&self, now: Instant) -> bool {
        let next = |even: u64| {
            let next = even.max(now.as_nanos()).saturating_add(self.interval_ns);
            (next <= now.as_nanos().saturating_add(Self::SECOND)).then_some(next)
        };
        self.even_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
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
    fn a_shared_rate_has_a_second_in_hand() {
        let rate = SharedRate::new(10).expect("not zero");
        let taken = |ms| (0..100).filter(|_| rate.take(Instant::from_millis(ms))).count();
        assert_eq!((taken(0), taken(99), taken(100), taken(350)), (10, 0, 1, 2));
        assert_eq!((taken(60_000), taken(59_000), taken(60_500)), (10, 0, 5));
        assert!(SharedRate::new(0).is_none());
        assert!(SharedRate::new(u32::MAX).is_some_and(|rate| rate.take(Instant::from_nanos(u64::MAX))));
        assert!(SharedRate::new(1).is_some_and(|rate| rate.take(Instant::ZERO) && !rate.take(Instant::ZERO)));
    }

    #[test]
    fn a_clock_at_its_end_does_no_harm() {
        let mut bucket = TokenBucket::new(0, 0);
        assert!(bucket.take(Instant::from_nanos(u64::MAX)));
        assert!(!bucket.take(Instant::ZERO));
    }
}
