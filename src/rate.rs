//! Rates that may not be exceeded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

const SECOND: u64 = 1_000_000_000;

/// The time between two of so many per second, at most 10^9; at least a nanosecond.
const fn interval_ns(per_second: u64) -> u64 {
    let per_second = if per_second == 0 { 1 } else { per_second };
    if per_second > SECOND { 1 } else { SECOND / per_second }
}

/// So many things per second, and as many at once after a second of none.
///
/// It is the generic cell rate algorithm (ITU-T I.371): one number, the time at which all that was let through would have
/// come at an even pace. How many they are is said with each, so that it may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    even_ns: u64,
}

impl Rate {
    /// Lets one through, if it may.
    pub fn take(&mut self, now: Instant, per_second: u32) -> bool {
        let next = self.even_ns.max(now.as_nanos()).saturating_add(interval_ns(u64::from(per_second)));
        let may = next <= now.as_nanos().saturating_add(SECOND);
        if may {
            self.even_ns = next;
        }
        may
    }

    /// Counts so many that have come already. How long nothing more may come, for what there were too many.
    pub fn spend(&mut self, now: Instant, count: u64, per_second: u64) -> Duration {
        let cost = u128::from(count) * u128::from(SECOND) / u128::from(per_second.max(1));
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        self.even_ns = self.even_ns.max(now.as_nanos()).saturating_add(cost);
        Duration::from_nanos(self.even_ns.saturating_sub(now.as_nanos().saturating_add(SECOND)))
    }

    /// Whether it is as if nothing had ever come.
    #[must_use]
    pub const fn is_full(&self, now: Instant) -> bool {
        self.even_ns <= now.as_nanos()
    }
}

/// The same, shared by several threads.
#[derive(Debug, Default)]
pub struct SharedRate {
    even_ns: AtomicU64,
}

impl SharedRate {
    /// Lets one through, if it may.
    pub fn take(&self, now: Instant, per_second: u32) -> bool {
        let next = |even_ns: u64| {
            let mut rate = Rate { even_ns };
            rate.take(now, per_second).then_some(rate.even_ns)
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
        let rate = SharedRate::default();
        let taken = |ms| (0..100).filter(|_| rate.take(Instant::from_millis(ms), 10)).count();
        assert_eq!((taken(0), taken(99), taken(100), taken(350)), (10, 0, 1, 2));
        assert_eq!((taken(60_000), taken(59_000), taken(60_500)), (10, 0, 5));
        assert!(SharedRate::default().take(Instant::from_nanos(u64::MAX), u32::MAX));
        let rate = SharedRate::default();
        assert!(rate.take(Instant::ZERO, 1) && !rate.take(Instant::ZERO, 1));
    }

    #[test]
    fn what_came_already_is_paid_for_in_time() {
        let (mut rate, at) = (Rate::default(), Instant::from_millis);
        assert_eq!(rate.spend(at(1000), 100, 100), Duration::ZERO);
        assert_eq!(rate.spend(at(1000), 50, 100), Duration::from_millis(500));
        assert_eq!(rate.spend(at(1500), 1, 100), Duration::from_millis(10));
        assert!(!rate.is_full(at(2500)) && rate.is_full(at(2510)));
        assert_eq!(rate.spend(at(60_000), 1 << 30, 1 << 40), Duration::ZERO);
        assert_eq!(Rate::default().spend(at(0), u64::MAX, 0).as_secs(), u64::MAX / SECOND - 1);
    }

    #[test]
    fn a_clock_at_its_end_does_no_harm() {
        let mut bucket = TokenBucket::new(0, 0);
        assert!(bucket.take(Instant::from_nanos(u64::MAX)));
        assert!(!bucket.take(Instant::ZERO));
    }
}
