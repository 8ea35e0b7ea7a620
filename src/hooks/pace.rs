//! When to try again: longer after each failure, and not at the same moment as all others.

use std::time::Duration;

/// After the first failure; it doubles with each.
const FIRST: Duration = Duration::from_millis(250);
/// At most.
const LAST: Duration = Duration::from_secs(30);

/// How often it has failed in a row.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    failures: u32,
    random: u64,
}

impl Pace {
    /// Without failures. Two processes have different seeds.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // A generator that begins with zero stays there.
        Self { failures: 0, random: seed | 1 }
    }

    /// It went well.
    pub const fn succeed(&mut self) {
        self.failures = 0;
    }

    /// It failed. How long to wait: a random part, at least half, of a time that doubles; and not less than was asked for.
    pub fn fail(&mut self, asked: Option<Duration>) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LAST);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        let part = half.mul_f64(f64::from(self.next_random()) / f64::from(u32::MAX));
        (half + part).max(asked.unwrap_or_default())
    }

    /// xorshift64 (Marsaglia, 2003): its upper half.
    const fn next_random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_anew() {
        let mut pace = Pace::new(7);
        for whole_ms in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let wait = pace.fail(None);
            let whole = Duration::from_millis(whole_ms);
            assert!((whole / 2..=whole).contains(&wait), "{wait:?} of {whole:?}");
        }
        pace.succeed();
        assert!(pace.fail(None) <= FIRST);
        (0..100).for_each(|_| assert!(pace.fail(None) <= LAST));
    }

    #[test]
    fn a_receiver_that_names_a_time_has_it() {
        assert_eq!(Pace::new(7).fail(Some(Duration::from_secs(90))), Duration::from_secs(90));
        assert!(Pace::new(7).fail(Some(Duration::from_millis(1))) >= FIRST / 2);
    }

    #[test]
    fn processes_do_not_come_together() {
        assert_ne!(Pace::new(0x9e37_79b9_7f4a_7c15).fail(None), Pace::new(0x2545_f491_4f6c_dd1d).fail(None));
    }
}
