//! What a peer can make us do for next to nothing, counted per item: resets, frames without a payload, tiny DATA.

use super::violation::Violation;
use crate::config::Http2Limits;
use crate::wheel::{TICK, Tick};

/// Tokens are counted in thousandths, so that a rate of one per second is more than none per tick.
const TOKEN: u32 = 1000;

/// A DATA frame costs as much as one of so many bytes.
pub(super) const FRAME_WORTH: u32 = 256;

/// Two token buckets and two counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floods {
    last: Tick,
    resets: u32,
    frames: u32,
    /// What small DATA frames that nobody has consumed lack to [`FRAME_WORTH`].
    overhead: u32,
    /// Empty DATA frames in a row.
    empty: u16,
    /// A reset that there was no token for, outside of [`super::Http2::receive`].
    overdrawn: bool,
}

impl Floods {
    /// With full buckets.
    pub(super) const fn new(limits: &Http2Limits, now: Tick) -> Self {
        let (resets, frames) = (full(limits.resets_burst), full(limits.frames_burst));
        Self { last: now, resets, frames, overhead: 0, empty: 0, overdrawn: false }
    }

    /// Fills the buckets for the time that has passed.
    pub(super) fn refill(&mut self, limits: &Http2Limits, now: Tick) -> Result<(), Violation> {
        let ticks = now.0.saturating_sub(self.last.0);
        self.last = self.last.max(now);
        self.resets = filled(self.resets, limits.resets_rate, limits.resets_burst, ticks);
        self.frames = filled(self.frames, limits.frames_rate, limits.frames_burst, ticks);
        if self.overdrawn { Err(Violation::Resets) } else { Ok(()) }
    }

    /// A stream was reset, by the peer or because of it.
    pub(super) fn reset(&mut self) -> Result<(), Violation> {
        self.resets = self.resets.checked_sub(TOKEN).ok_or(Violation::Resets)?;
        Ok(())
    }

    /// The same while nothing is received: the next [`Floods::refill`] says so.
    pub(super) fn reset_aside(&mut self) {
        self.overdrawn |= self.reset().is_err();
    }

    /// So many frames came that carry no payload, or as much work as that.
    pub(super) fn frames(&mut self, count: u32) -> Result<(), Violation> {
        self.frames = self.frames.checked_sub(TOKEN.saturating_mul(count)).ok_or(Violation::Frames)?;
        Ok(())
    }

    /// A DATA frame was sent: the peer may answer with a WINDOW_UPDATE, or measure with a PING.
    pub(super) const fn sent(&mut self) {
        self.frames = self.frames.saturating_add(TOKEN);
    }

    /// A DATA frame that holds nothing and ends nothing.
    pub(super) fn empty_data(&mut self, limits: &Http2Limits) -> Result<(), Violation> {
        self.empty = self.empty.saturating_add(1);
        if u32::from(self.empty) > limits.empty_data_max { Err(Violation::EmptyData) } else { Ok(()) }
    }

    /// A DATA frame with this many bytes, above zero. Returns what it lacks.
    pub(super) fn data(&mut self, bytes: u32, limits: &Http2Limits) -> Result<u32, Violation> {
        self.empty = 0;
        let lack = FRAME_WORTH.saturating_sub(bytes);
        self.overhead = self.overhead.saturating_add(lack);
        if self.overhead > limits.data_overhead_max { Err(Violation::DataOverhead) } else { Ok(lack) }
    }

    /// That much of what frames lacked does not matter any more.
    pub(super) const fn forgive(&mut self, lack: u32) {
        self.overhead = self.overhead.saturating_sub(lack);
    }
}

const fn full(burst: u32) -> u32 {
    burst.saturating_mul(TOKEN)
}

/// A bucket, so many ticks later.
fn filled(tokens: u32, rate: u32, burst: u32, ticks: u32) -> u32 {
    let per_tick = u64::from(rate) * u64::from(TOKEN) * u64::from(TICK.subsec_millis()) / 1000;
    let tokens = u64::from(tokens).saturating_add(per_tick.saturating_mul(u64::from(ticks)));
    u32::try_from(tokens).unwrap_or(u32::MAX).min(full(burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Http2Limits = Http2Limits {
        streams_max: 0,
        stream_window: 0,
        connection_window: 0,
        settings_timeout: std::time::Duration::ZERO,
        resets_burst: 3,
        resets_rate: 20,
        frames_burst: 100,
        frames_rate: 1,
        empty_data_max: 2,
        data_overhead_max: 600,
        continuations_max: 0,
    };

    #[test]
    fn a_bucket_holds_a_burst_and_fills_with_time() {
        let mut floods = Floods::new(&LIMITS, Tick(7));
        assert_eq!([(); 4].map(|()| floods.reset().is_ok()), [true, true, true, false]);
        floods.refill(&LIMITS, Tick(8)).expect("there is enough");
        assert_eq!([(); 3].map(|()| floods.reset().is_ok()), [true, true, false], "20 a second are 2 a tick");
        floods.refill(&LIMITS, Tick(u32::MAX)).expect("there is enough");
        assert_eq!([(); 4].map(|()| floods.reset().is_ok()), [true, true, true, false], "and no more than a burst");
    }

    #[test]
    fn one_a_second_is_a_tenth_a_tick() {
        let mut floods = Floods::new(&LIMITS, Tick(0));
        floods.frames(100).expect("there is enough");
        floods.refill(&LIMITS, Tick(9)).expect("there is enough");
        assert_eq!(floods.frames(1), Err(Violation::Frames));
        floods.refill(&LIMITS, Tick(10)).expect("there is enough");
        assert_eq!(floods.frames(1), Ok(()));
        floods.sent();
        assert_eq!(floods.frames(1), Ok(()), "one for what was sent");
    }

    #[test]
    fn a_reset_of_ours_that_is_too_much_is_told_with_the_next_bytes() {
        let mut floods = Floods::new(&LIMITS, Tick(0));
        (0..3).for_each(|_| floods.reset_aside());
        floods.refill(&LIMITS, Tick(0)).expect("there is enough");
        floods.reset_aside();
        assert_eq!(floods.refill(&LIMITS, Tick(1)), Err(Violation::Resets));
    }

    #[test]
    fn empty_frames_count_in_a_row_and_tiny_ones_until_they_are_consumed() {
        let mut floods = Floods::new(&LIMITS, Tick(0));
        assert_eq!([(); 2].map(|()| floods.empty_data(&LIMITS)), [Ok(()), Ok(())]);
        assert_eq!(floods.data(1000, &LIMITS), Ok(0));
        assert_eq!([(); 2].map(|()| floods.empty_data(&LIMITS)), [Ok(()), Ok(())]);
        assert_eq!(floods.empty_data(&LIMITS), Err(Violation::EmptyData));
        assert_eq!([(); 2].map(|()| floods.data(1, &LIMITS)), [Ok(255), Ok(255)]);
        floods.forgive(255);
        assert_eq!([(); 2].map(|()| floods.data(1, &LIMITS)), [Ok(255), Err(Violation::DataOverhead)]);
    }
}
