//! Those who hear what is published: has every one heard every message, once, in order, and when?

use hashbrown::HashSet;

use super::super::crowd::{Heard, Member};
use super::super::latency::Latencies;
use super::super::stamp::Stamp;
use super::super::tally::Count;
use crate::time::Instant;

/// Deliveries that were passed over, for which it is remembered whose they are. Of more it is only known how many.
const HOLES_MAX: usize = 64 * 1024;
/// Messages that have their own figures, of 270 KiB each; of more there are only the overall ones.
const DETAILED_MAX: usize = 128;

/// One thread's share of what was heard.
#[derive(Debug)]
pub(in crate::swarm) struct Subscribers {
    run: u32,
    /// The first message that is measured; those before are calls of the roll.
    first: u32,
    /// The last one: who has heard it was there until the end.
    last_number: u32,
    /// Passed over, by connection and number.
    holes: HashSet<(u32, u32)>,
    /// Nanoseconds from the intended time to the delivery.
    pub(in crate::swarm) overall: Latencies,
    /// When the last delivery came.
    pub(in crate::swarm) last: Instant,
    /// By number, from `first` on.
    pub(in crate::swarm) messages: Vec<Latencies>,
}

impl Subscribers {
    pub(in crate::swarm) fn new(run: u32) -> Self {
        Self {
            run,
            first: u32::MAX,
            last_number: u32::MAX,
            holes: HashSet::new(),
            overall: Latencies::new(),
            last: Instant::ZERO,
            messages: Vec::new(),
        }
    }

    /// Measures from this message on, to that one.
    pub(in crate::swarm) fn measure(&mut self, first: u32, last: u32) {
        (self.first, self.last_number) = (first, last);
    }

    /// One delivery.
    #[inline]
    pub(in crate::swarm) fn hear(&mut self, index: u32, member: &mut Member, payload: &[u8], heard: &mut Heard<'_>) {
        let Some(stamp) = Stamp::read(payload).filter(|stamp| stamp.run == self.run && stamp.number > 0) else {
            heard.tally.one(Count::Foreign);
            return;
        };
        let number = stamp.number;
        if number == member.next {
            // Nearly always.
            member.next = number.wrapping_add(1);
        } else if member.next == 0 {
            heard.tally.one(Count::Called);
            // Who comes while the roll is called cannot know of earlier calls, but of all that is measured.
            self.pass_over(index, self.first.min(number), number, heard);
            member.next = number.wrapping_add(1);
        } else if number > member.next {
            self.pass_over(index, member.next, number, heard);
            member.next = number.wrapping_add(1);
        } else if self.holes.remove(&(index, number)) {
            heard.tally.one(Count::Reordered);
        } else {
            heard.tally.one(Count::Duplicates);
            return;
        }
        heard.tally.one(Count::Heard);
        if number >= self.first {
            heard.tally.one(Count::Measured);
            heard.tally.add(Count::Last, u64::from(number == self.last_number));
            self.record(stamp, heard.now);
        }
    }

    fn record(&mut self, stamp: Stamp, now: Instant) {
        let latency_ns = now.as_nanos().saturating_sub(stamp.due.as_nanos());
        self.overall.record(latency_ns);
        self.last = self.last.max(now);
        let at = (stamp.number - self.first) as usize;
        if at >= DETAILED_MAX {
            return;
        }
        while self.messages.len() <= at {
            self.messages.push(Latencies::new());
        }
        self.messages[at].record(latency_ns);
    }

    fn pass_over(&mut self, index: u32, from: u32, to: u32, heard: &mut Heard<'_>) {
        heard.tally.add(Count::Skipped, u64::from(to.saturating_sub(from)));
        let room = HOLES_MAX.saturating_sub(self.holes.len());
        self.holes.extend((from..to).take(room).map(|number| (index, number)));
    }

    /// Adds what another thread has heard.
    pub(in crate::swarm) fn merge(&mut self, other: &Self) {
        self.overall.merge(&other.overall);
        self.last = self.last.max(other.last);
        for (at, message) in other.messages.iter().enumerate() {
            match self.messages.get_mut(at) {
                Some(mine) => mine.merge(message),
                None => self.messages.push(message.clone()),
            }
        }
    }
}
