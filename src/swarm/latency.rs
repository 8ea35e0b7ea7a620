//! Times, many of them, and what can be said of all.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A histogram of nanoseconds to an hour, exact to three digits, of a bounded size (some 270 KiB) however many it
/// counts.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    const MAX: u64 = 3_600_000_000_000;

    /// Without any.
    #[must_use]
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, Self::MAX, 3).expect("1 to an hour are bounds, and 3 digits are allowed"))
    }

    /// Counts one, in nanoseconds. What is over an hour counts as an hour.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.min(Self::MAX));
    }

    /// Counts those of another thread.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// The time within which this share (0 to 1) of them came; zero when there are none.
    #[must_use]
    pub fn at(&self, share: f64) -> Duration {
        // A bucket's upper end can be beyond the largest that was counted.
        Duration::from_nanos(if self.0.is_empty() { 0 } else { self.0.value_at_quantile(share).min(self.0.max()) })
    }

    /// The shortest; zero when there are none.
    #[must_use]
    pub fn first(&self) -> Duration {
        Duration::from_nanos(if self.0.is_empty() { 0 } else { self.0.min() })
    }

    /// The longest; zero when there are none.
    #[must_use]
    pub fn last(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }
}

/// Milliseconds with their fraction.
#[must_use]
pub fn millis(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e3)
}

/// Microseconds with their fraction.
#[must_use]
pub fn micros(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e6)
}

/// To three places: more are noise.
pub(super) fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_three_digits() {
        let (mut one, mut other) = (Latencies::new(), Latencies::new());
        (1..=500).for_each(|n| one.record(n * 1_000_000));
        (501..=1000).for_each(|n| other.record(n * 1_000_000));
        one.merge(&other);
        assert_eq!(one.count(), 1000);
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = millis(one.at(share));
            assert!((found / expected - 1.0).abs() < 0.002, "{share}: {found}");
        }
        assert!((millis(one.first()) - 1.0).abs() < 0.002 && (millis(one.last()) - 1000.0).abs() < 1.0);
        assert!(one.at(1.0) <= one.last());
    }

    #[test]
    fn none_are_zero_and_an_hour_is_the_most() {
        let mut latencies = Latencies::new();
        assert_eq!((latencies.at(0.5), latencies.first(), latencies.last()), Default::default());
        latencies.record(u64::MAX);
        latencies.record(0);
        assert_eq!(latencies.count(), 2);
        assert!(latencies.last() >= Duration::from_secs(3590) && latencies.last() <= Duration::from_secs(3610));
        latencies.clear();
        assert_eq!(latencies.count(), 0);
    }
}
