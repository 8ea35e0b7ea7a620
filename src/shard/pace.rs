//! How long a turn may take, and how it is shared out.
//!
//! Nearly all of a turn's time is the kernel's, and what a send or a close costs there differs tenfold between machines
//! and between peers. So each phase has a part of the turn that is measured with the clock, and whoever is not served in
//! it is served first in the next turn. What a backend does later than it is asked (io_uring submits many requests at
//! once) is kept short by a bound on what may be owed, see `Shard::pay`.

use std::time::Duration;

use crate::time::{Clock, Instant};

/// A phase's part of a turn. Most phases of most turns have next to nothing to do: until the first look the clock is left
/// alone, and then the part begins.
pub(super) struct Pace<'a, C> {
    clock: &'a C,
    part: Part,
    end: Option<Instant>,
    /// What the clock said at the last look.
    seen: Option<Instant>,
    steps: u32,
}

/// Which part of a turn a phase has.
#[derive(Clone, Copy)]
pub(super) struct Part {
    time: Duration,
    /// Steps at most, whatever the clock says: it may stand still.
    steps_max: u32,
}

impl Part {
    const fn of(micros: u64) -> Self {
        Self { time: Duration::from_micros(micros), steps_max: 4096 }
    }

    /// What the backend brings.
    pub(super) const INGRESS: Self = Self::of(1500);
    /// What other shards sent.
    pub(super) const MAIL: Self = Self::of(500);
    /// What the disk has, or has not.
    pub(super) const VERDICTS: Self = Self::of(400);
    /// What other nodes say.
    pub(super) const CLUSTER: Self = Self::of(400);
    /// Heartbeats, deadlines, the drain.
    pub(super) const TIMERS: Self = Self::of(1000);
    /// The same while messages are being handed out and no deadline is long past.
    pub(super) const TIMERS_ASIDE: Self = Self { steps_max: 8, ..Self::TIMERS };
    /// What operators want.
    pub(super) const ORDERS: Self = Self::of(200);
    /// History that is too old, and topics without use.
    pub(super) const FORGET: Self = Self::of(200);
    /// Owners that are told how many subscribers there are.
    pub(super) const TELL: Self = Self::of(200);
    /// Publications of this shard's connections.
    pub(super) const PUBLISH: Self = Self::of(500);
    /// Streams that end. Each takes about a microsecond, and nobody waits for it; one whose connection breaks with many
    /// of them must not be felt.
    pub(super) const UNLOAD: Self = Self { steps_max: Self::UNLOAD_MAX, ..Self::of(100) };
    /// So many of them in a turn.
    pub(super) const UNLOAD_MAX: u32 = 48;
    /// Deliveries.
    pub(super) const FAN_OUT: Self = Self::of(1000);
    /// Files on their way: some 20 slices.
    pub(super) const TRANSFERS: Self = Self::of(400);
    /// What waited in outboxes, and endings.
    pub(super) const EGRESS: Self = Self::of(1000);
}

// 7.4 ms. Each phase may end late by what is owed then, about 1 ms, but hardly two of them do: far below 10 ms.
const _: () = {
    let [a, b, c, d] = [Part::INGRESS, Part::MAIL, Part::TIMERS, Part::FORGET];
    let [e, f, g, h] = [Part::TELL, Part::PUBLISH, Part::FAN_OUT, Part::EGRESS];
    let first = a.time.as_micros() + b.time.as_micros() + c.time.as_micros() + d.time.as_micros();
    let second = e.time.as_micros() + f.time.as_micros() + g.time.as_micros() + h.time.as_micros();
    let third = Part::TRANSFERS.time.as_micros() + Part::ORDERS.time.as_micros() + Part::VERDICTS.time.as_micros();
    let fourth = Part::CLUSTER.time.as_micros() + Part::UNLOAD.time.as_micros();
    assert!(first + second + third + fourth < 7500);
};

impl<'a, C: Clock> Pace<'a, C> {
    /// Steps between two looks at the clock, which costs some 30 ns; most steps take a microsecond or more.
    const STEPS_PER_LOOK: u32 = 4;

    /// A phase that begins now.
    pub(super) fn new(clock: &'a C, part: Part) -> Self {
        Self { clock, part, end: None, seen: None, steps: 0 }
    }

    /// The clock that it goes by.
    pub(super) const fn clock(&self) -> &'a C {
        self.clock
    }

    /// Whether there is time for one more step. The first few always have it, so that every phase gets on.
    pub(super) fn more(&mut self) -> bool {
        self.steps = self.steps.saturating_add(1);
        if self.steps.is_multiple_of(Self::STEPS_PER_LOOK) {
            self.look();
        }
        !self.is_over()
    }

    /// Looks at the clock now: the last step was a long one.
    pub(super) fn look(&mut self) {
        let now = self.clock.now();
        self.seen = Some(now);
        if now >= *self.end.get_or_insert(now + self.part.time) {
            self.steps = self.part.steps_max + 1;
        }
    }

    /// The time at the last look, if there was one.
    pub(super) const fn seen(&self) -> Option<Instant> {
        self.seen
    }

    /// Whether the part is used up.
    pub(super) const fn is_over(&self) -> bool {
        self.steps > self.part.steps_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::ManualClock;

    #[test]
    fn a_phase_ends_when_its_time_is_over() {
        let clock = ManualClock::new();
        let mut pace = Pace::new(&clock, Part::of(100));
        let mut steps = 0;
        while pace.more() {
            steps += 1;
            clock.advance(Duration::from_micros(5));
        }
        assert!((20..=24).contains(&steps), "{steps}");
        assert!(pace.is_over() && !pace.more());
    }

    #[test]
    fn a_phase_ends_though_the_clock_stands_still_and_begins_though_it_is_late() {
        let clock = ManualClock::new();
        let mut pace = Pace::new(&clock, Part::of(100));
        assert_eq!((0..10_000).filter(|_| pace.more()).count(), 4096);
        let mut pace = Pace::new(&clock, Part::of(0));
        assert_eq!((0..100).filter(|_| pace.more()).count(), 3);
    }
}
