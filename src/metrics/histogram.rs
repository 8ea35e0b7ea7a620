//! How values are spread: how many were no greater than each of some fixed bounds.
//!
//! As a [`Counter`] is, a histogram is a plain load and store on memory that one shard alone writes. Nothing is
//! allocated, and what an observation costs is a walk over fewer than twenty bounds.

use super::Counter;

/// Bounds of buckets, and what the values are.
#[derive(Debug)]
pub struct Scale {
    /// Upper bounds, each greater than the one before, [`Scale::BOUNDS_MAX`] at most. Nanoseconds, or bytes.
    pub bounds: &'static [u64],
    /// How many of a value are one of what is exported: 1e9 makes seconds of nanoseconds.
    pub divisor: f64,
}

impl Scale {
    /// As many bounds as a histogram has room for.
    pub const BOUNDS_MAX: usize = 15;
    const NANOS: f64 = 1e9;

    /// Turns of an event loop: ten milliseconds are long.
    pub const TURN: Self = Self {
        bounds: &[100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 100_000_000],
        divisor: Self::NANOS,
    };

    /// What messages wait: 100 µs to 10 s.
    pub const LATENCY: Self = Self {
        bounds: &[
            100_000,
            250_000,
            500_000,
            1_000_000,
            2_500_000,
            5_000_000,
            10_000_000,
            25_000_000,
            50_000_000,
            100_000_000,
            250_000_000,
            500_000_000,
            1_000_000_000,
            2_500_000_000,
            10_000_000_000,
        ],
        divisor: Self::NANOS,
    };

    /// What handshakes take, across a network: 1 ms to 10 s, the time that they have.
    pub const HANDSHAKE: Self = Self {
        bounds: &[
            1_000_000,
            2_500_000,
            5_000_000,
            10_000_000,
            25_000_000,
            50_000_000,
            100_000_000,
            250_000_000,
            500_000_000,
            1_000_000_000,
            2_500_000_000,
            5_000_000_000,
            10_000_000_000,
        ],
        divisor: Self::NANOS,
    };

    /// Bytes of a queue: 256 B to 16 MiB.
    pub const BYTES: Self =
        Self { bounds: &[256, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24], divisor: 1.0 };

    /// How many of something are done together: 1 to 65,536.
    pub const COUNT: Self = Self { bounds: &[1, 4, 16, 64, 256, 1 << 10, 1 << 12, 1 << 14, 1 << 16], divisor: 1.0 };
}

const _: () = {
    let scales = [Scale::TURN, Scale::LATENCY, Scale::HANDSHAKE, Scale::BYTES, Scale::COUNT];
    let mut scale = 0;
    while scale < scales.len() {
        let bounds = scales[scale].bounds;
        assert!(bounds.len() <= Scale::BOUNDS_MAX);
        let mut place = 1;
        while place < bounds.len() {
            assert!(bounds[place - 1] < bounds[place]);
            place += 1;
        }
        scale += 1;
    }
};

/// Counts of values by their size, with one writer.
#[derive(Debug)]
pub struct Histogram {
    scale: &'static Scale,
    /// Values up to each bound and above the one before; behind the last bound those above it.
    buckets: [Counter; Scale::BOUNDS_MAX + 1],
    sum: Counter,
}

impl Histogram {
    /// Nothing counted.
    #[must_use]
    pub fn new(scale: &'static Scale) -> Self {
        Self { scale, buckets: std::array::from_fn(|_| Counter::default()), sum: Counter::default() }
    }

    /// Counts a value. Only the owning shard may call this.
    pub fn observe(&self, value: u64) {
        self.observe_many(value, 1);
    }

    /// Counts the same value so many times.
    pub fn observe_many(&self, value: u64, times: u64) {
        let bucket = self.scale.bounds.iter().take_while(|bound| value > **bound).count();
        self.buckets[bucket].add(times);
        self.sum.add(value.wrapping_mul(times));
    }

    /// What has been counted so far.
    #[must_use]
    pub fn spread(&self) -> Spread {
        let counts = std::array::from_fn(|bucket| self.buckets[bucket].get());
        Spread { scale: self.scale, counts, sum: self.sum.get() }
    }
}

/// What a [`Histogram`] had counted at some time, or several had together.
#[derive(Clone, Debug)]
pub struct Spread {
    /// The bounds.
    pub scale: &'static Scale,
    counts: [u64; Scale::BOUNDS_MAX + 1],
    /// All values together.
    pub sum: u64,
}

impl Spread {
    /// Nothing.
    #[must_use]
    pub const fn empty(scale: &'static Scale) -> Self {
        Self { scale, counts: [0; Scale::BOUNDS_MAX + 1], sum: 0 }
    }

    /// Values by bucket: up to each bound and above the one before, and those above the last.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts[..=self.scale.bounds.len()]
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Both together; they have the same scale.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.counts.iter_mut().zip(other.counts).for_each(|(own, other)| *own += other);
        self.sum = self.sum.wrapping_add(other.sum);
        self
    }

    /// How many values are above this bound, which must be one of the scale's.
    #[must_use]
    pub fn above(&self, bound: u64) -> u64 {
        let below = self.scale.bounds.iter().take_while(|one| **one <= bound).count();
        self.counts[below..].iter().sum()
    }

    /// The value that a share of all, 0 to 1, does not exceed: as it is guessed from buckets, evenly spread inside of
    /// each. What is above the last bound is said to be at it. `None` when nothing was counted.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a guess")]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = self.count() as f64 * share;
        let (mut below, mut low) = (0.0, 0.0);
        for (bound, count) in self.scale.bounds.iter().zip(self.counts) {
            let (high, count) = (*bound as f64, count as f64);
            if count > 0.0 && below + count >= rank {
                return Some((low + (high - low) * ((rank - below) / count).clamp(0.0, 1.0)) / self.scale.divisor);
            }
            (below, low) = (below + count, high);
        }
        (self.count() > 0).then_some(low / self.scale.divisor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_value_at_a_bound_belongs_below_it() {
        let histogram = Histogram::new(&Scale::BYTES);
        for (value, bucket) in [(0, 0), (256, 0), (257, 1), (1024, 1), (1025, 2), (1 << 24, 8), (u64::MAX, 9)] {
            let before = histogram.spread();
            histogram.observe(value);
            let after = histogram.spread();
            let changed: Vec<_> =
                (0..after.counts().len()).filter(|&n| after.counts()[n] > before.counts()[n]).collect();
            assert_eq!(changed, [bucket], "{value}");
        }
        assert_eq!((histogram.spread().counts().len(), histogram.spread().count()), (10, 7));
        assert_eq!((histogram.spread().above(1 << 24), histogram.spread().above(1024)), (1, 3));
    }

    #[test]
    fn quantiles_lie_inside_of_their_buckets() {
        let near = |spread: &Spread, share, expected: f64| {
            let got = spread.quantile(share).unwrap();
            assert!((got - expected).abs() < expected * 1e-9, "{share}: {got}, not {expected}");
        };
        let histogram = Histogram::new(&Scale::TURN);
        assert_eq!(histogram.spread().quantile(0.5), None);
        histogram.observe_many(700_000, 90);
        histogram.observe_many(7_000_000, 10);
        let spread = histogram.spread();
        near(&spread, 0.45, 0.000_75);
        near(&spread, 0.95, 0.007_5);
        near(&spread, 1.0, 0.01);
        assert_eq!((spread.sum, spread.count()), (90 * 700_000 + 10 * 7_000_000, 100));
        let all = spread.clone().plus(&spread);
        assert_eq!((all.sum, all.count()), (2 * spread.sum, 200));
        near(&all, 0.45, 0.000_75);
        histogram.observe_many(u64::MAX / 1000, 900);
        near(&histogram.spread(), 0.99, 0.1);
    }
}
