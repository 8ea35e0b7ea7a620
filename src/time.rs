//! Time as the engine sees it: read once a turn, then passed along.
//!
//! Nothing below the server reads a clock. A shard gets [`Instant`]s from a [`Clock`], so that a simulation can run
//! the same code under a clock of its own.

use std::ops::Add;
use std::time::Duration;

/// Nanoseconds since the process (or the simulation) began. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The beginning.
    pub const ZERO: Self = Self(0);

    /// The instant that many nanoseconds after the beginning.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant that many milliseconds after the beginning.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the beginning.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the beginning.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Time from `earlier` to `self`, zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// An [`Instant`] in four bytes, for what must be small and is soon over: microseconds, which come round after 71 minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stamp(u32);

impl Stamp {
    /// No instant.
    pub const NONE: Self = Self(0);

    /// This instant; the one in 4 billion that would be none is a microsecond late.
    #[must_use]
    pub const fn of(instant: Instant) -> Self {
        let micros = (instant.0 / 1000) & 0xffff_ffff;
        Self(if micros == 0 { 1 } else { micros as u32 })
    }

    /// The stamp that [`Stamp::bits`] gave.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// All of it.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether it is none.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Nanoseconds from it until `now`: none when it is later, as another core's clock may have it.
    #[must_use]
    pub const fn nanos_until(self, now: Instant) -> u64 {
        let micros = Self::of(now).0.wrapping_sub(self.0);
        if micros > u32::MAX / 2 { 0 } else { micros as u64 * 1000 }
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Where a shard's turn gets its time from. The clocks of shards that serve together agree.
pub trait Clock {
    /// The monotonic time.
    fn now(&self) -> Instant;

    /// Milliseconds since the Unix epoch, for time stamps that people read.
    fn unix_ms(&self) -> u64;

    /// Lets the thread rest, where time passes by itself.
    fn rest(&self, duration: Duration);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// A clock that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::ZERO + self.start.elapsed()
    }

    fn unix_ms(&self) -> u64 {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    fn rest(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_what_has_passed_also_when_it_has_come_round() {
        for start in [0, 1, 5_000_000, (1 << 32) * 1000 - 7000, (1 << 32) * 1000, u64::from(u32::MAX) * 1000 * 1000] {
            let (start, later) = (Instant::from_nanos(start), Instant::from_nanos(start + 9_000_000));
            let nanos = Stamp::of(start).nanos_until(later);
            assert!((8_999_000..=9_001_000).contains(&nanos), "{start:?}: {nanos}");
            assert_eq!(Stamp::of(later).nanos_until(start), 0, "{start:?}: a clock that is behind");
            assert!(!Stamp::of(start).is_none());
            assert_eq!(Stamp::from_bits(Stamp::of(start).bits()), Stamp::of(start));
        }
        assert!(Stamp::NONE.is_none() && Stamp::NONE == Stamp::default());
    }
}
