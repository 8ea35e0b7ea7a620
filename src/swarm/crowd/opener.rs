//! How fast connections are opened: at a rate, with a bounded number of handshakes in flight, and again when it failed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::member::Role;
use crate::id::ConnId;
use crate::time::Instant;

/// The first pause before another try; it doubles with each.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A server's `Retry-After` counts for so long at most.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// The longest pause before another try: half as much again, by the place.
pub(in crate::swarm) const PAUSE_LONGEST: Duration = Duration::from_secs(RETRY_AFTER_MAX.as_secs() * 3 / 2);

/// What to open, and when.
#[derive(Debug)]
pub(super) struct Opener {
    /// Handshakes in flight at most.
    pub(super) window: usize,
    pub(super) in_flight: usize,
    timeout: Duration,
    is_stopped: bool,
    goals: VecDeque<Goal>,
    /// Who is dialled again, and when: at most one entry for each place.
    again: BinaryHeap<Reverse<(Instant, u32)>>,
    /// Who has until when to open, earliest first. Those that have opened stay until they are at the front.
    deadlines: VecDeque<(Instant, ConnId)>,
}

/// So many of a kind.
#[derive(Debug)]
struct Goal {
    role: Role,
    left: usize,
    /// Time between two; zero: as fast as the window lets them.
    gap: Duration,
    next: Instant,
}

/// What is to be dialled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A new connection, and when it was due.
    New(Role, Instant),
    /// One that failed before.
    Again(u32),
}

impl Opener {
    pub(super) const fn new(window: usize, timeout: Duration) -> Self {
        Self {
            window,
            in_flight: 0,
            timeout,
            is_stopped: false,
            goals: VecDeque::new(),
            again: BinaryHeap::new(),
            deadlines: VecDeque::new(),
        }
    }

    /// Adds `count` connections to what is to be opened, one per `gap`.
    pub(super) fn want(&mut self, role: Role, count: usize, gap: Duration, now: Instant) {
        self.goals.push_back(Goal { role, left: count, gap, next: now });
    }

    /// Opens no more.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        self.goals.clear();
        self.again.clear();
    }

    /// Who is to be dialled now, if anybody is.
    pub(super) fn next(&mut self, now: Instant) -> Option<Next> {
        if self.in_flight >= self.window {
            return None;
        }
        if self.again.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            return self.again.pop().map(|Reverse((_, index))| Next::Again(index));
        }
        let goal = self.goals.front_mut()?;
        if goal.next > now {
            return None;
        }
        // Without a rate it is due when there is room.
        let due = if goal.gap.is_zero() { now } else { goal.next };
        goal.next = goal.next + goal.gap;
        goal.left = goal.left.saturating_sub(1);
        let role = goal.role;
        if goal.left == 0 {
            self.goals.pop_front();
        }
        Some(Next::New(role, due))
    }

    /// When [`Opener::next`] or [`Opener::late`] has something, when nothing else happens.
    pub(super) fn due(&self) -> Option<Instant> {
        let has_room = self.in_flight < self.window;
        let again = self.again.peek().map(|Reverse((due, _))| *due).filter(|_| has_room);
        let goal = self.goals.front().map(|goal| goal.next).filter(|_| has_room);
        let late = self.deadlines.front().map(|(due, _)| *due);
        [again, goal, late].into_iter().flatten().min()
    }

    /// Notes that it was dialled.
    pub(super) fn dialled(&mut self, id: ConnId, now: Instant) {
        self.in_flight += 1;
        self.deadlines.push_back((now + self.timeout, id));
    }

    /// Somebody who has to open by now or before; the caller knows whether it has.
    pub(super) fn late(&mut self, now: Instant, is_opening: impl Fn(ConnId) -> bool) -> Option<ConnId> {
        while let Some((due, id)) = self.deadlines.front().copied() {
            let opening = is_opening(id);
            if opening && due > now {
                return None;
            }
            self.deadlines.pop_front();
            if opening {
                return Some(id);
            }
        }
        None
    }

    /// Tries it again after a pause, of `floor` at least; `tries` is how often it was tried.
    pub(super) fn try_again(&mut self, index: u32, tries: u8, floor: Duration, now: Instant) {
        let pause = PAUSE.saturating_mul(1 << u32::from(tries.saturating_sub(1)).min(16)).min(PAUSE_MAX).max(floor);
        // Spread by the place, so that those who failed together do not come together.
        let spread = pause.mul_f64(f64::from(index % 64) / 128.0);
        if !self.is_stopped {
            self.again.push(Reverse((now + pause + spread, index)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_is_kept_and_made_up_for() {
        let mut opener = Opener::new(100, SECOND);
        opener.want(Role::Holder, 10, SECOND / 10, Instant::ZERO);
        let dial = |opener: &mut Opener, ms| std::iter::from_fn(|| opener.next(Instant::from_millis(ms))).count();
        assert_eq!(dial(&mut opener, 0), 1);
        assert_eq!(opener.due(), Some(Instant::from_millis(100)));
        assert_eq!(dial(&mut opener, 99), 0);
        assert_eq!(dial(&mut opener, 450), 4);
        assert_eq!(dial(&mut opener, 5000), 5);
        assert_eq!(opener.due(), None);
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        let mut opener = Opener::new(2, SECOND);
        opener.want(Role::Holder, 10, Duration::ZERO, Instant::ZERO);
        for index in 0..2 {
            assert_eq!(opener.next(Instant::ZERO), Some(Next::New(Role::Holder, Instant::ZERO)));
            opener.dialled(ConnId::new(index, 0), Instant::ZERO);
        }
        assert_eq!(opener.next(Instant::ZERO), None);
        assert_eq!(opener.due(), Some(Instant::from_millis(1000)), "when the first is late");
        opener.in_flight -= 1;
        assert!(opener.next(Instant::ZERO).is_some());
    }

    #[test]
    fn only_those_who_still_open_are_late() {
        let mut opener = Opener::new(10, SECOND);
        (0..3).for_each(|index| opener.dialled(ConnId::new(index, 0), Instant::from_millis(u64::from(index))));
        let opening = |id: ConnId| id.index() != 0;
        assert_eq!(opener.late(Instant::from_millis(999), opening), None);
        assert_eq!(opener.late(Instant::from_millis(1001), opening), Some(ConnId::new(1, 0)));
        assert_eq!(opener.late(Instant::from_millis(1001), opening), None);
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut opener = Opener::new(10, SECOND);
        for tries in [1, 2, 200] {
            opener.try_again(0, tries, Duration::ZERO, Instant::ZERO);
        }
        let dues: Vec<_> = std::iter::from_fn(|| opener.again.pop()).map(|Reverse((due, _))| due.as_millis()).collect();
        assert_eq!(dues, [50, 100, 2000]);
        opener.try_again(0, 1, Duration::from_secs(5), Instant::ZERO);
        assert_eq!(opener.due(), Some(Instant::from_millis(5000)), "as the server asked");
        opener.stop();
        opener.is_stopped = false;
        opener.try_again(63, 200, RETRY_AFTER_MAX, Instant::ZERO);
        assert!(opener.due() <= Some(Instant::ZERO + PAUSE_LONGEST) && RETRY_AFTER_MAX >= PAUSE_MAX);
    }
}
