//! What is measured of a shard's work, without a look at the clock of its own: a turn is timed at its beginning and its
//! end, and what was done in it is done when all of it was given to the kernel.

use super::connection::Flags;
use super::core::Core;
use crate::id::ConnId;
use crate::metrics::{self, Purpose, ShardMetrics};
use crate::session::Protocol;
use crate::time::{Instant, Stamp};

/// Fan-outs and deliveries that end with this turn, by when they began.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    fan_outs: Began,
    deliveries: Began,
}

/// Instants and how many things began then. What comes together ends together, so that few places do for many.
#[derive(Debug, Default)]
struct Began {
    places: [(Stamp, u64); Began::PLACES],
    used: usize,
    /// Those that found no place: they are said to have begun when the last one did.
    more: u64,
}

impl Began {
    const PLACES: usize = 32;

    fn note(&mut self, stamp: Stamp) {
        if stamp.is_none() {
            return;
        }
        match self.places[..self.used].last_mut() {
            Some((last, times)) if *last == stamp => *times += 1,
            _ if self.used == Self::PLACES => self.more += 1,
            _ => {
                self.places[self.used] = (stamp, 1);
                self.used += 1;
            }
        }
    }

    /// Tells what all of them took, and forgets them.
    fn end(&mut self, now: Instant, observe: impl Fn(u64, u64)) {
        let Some((last, times)) = self.places[..self.used].last_mut() else { return };
        *times += self.more;
        debug_assert!(!last.is_none());
        self.places[..self.used].iter().for_each(|(stamp, times)| observe(stamp.nanos_until(now), *times));
        (self.used, self.more) = (0, 0);
    }
}

impl Latencies {
    /// A fan-out that began then is over.
    pub(super) fn fan_out(&mut self, began: Stamp) {
        self.fan_outs.note(began);
    }

    /// A publication that came in then has been given to the last of its subscribers here.
    pub(super) fn delivery(&mut self, taken: Stamp) {
        self.deliveries.note(taken);
    }

    /// The turn is over.
    pub(super) fn end(&mut self, now: Instant, metrics: &ShardMetrics) {
        self.fan_outs.end(now, |nanos, times| metrics.fanout_seconds.observe_many(nanos, times));
        self.deliveries.end(now, |nanos, times| metrics.publish_to_last_delivery_seconds.observe_many(nanos, times));
    }
}

/// Members that were served, by what they speak.
#[derive(Debug, Default)]
pub(super) struct Heads([u32; metrics::Protocol::ALL.len()]);

impl Heads {
    pub(super) const fn count(&mut self, protocol: Protocol) {
        self.0[protocol.counted() as usize] += 1;
    }

    /// Counts that each was sent so many messages.
    pub(super) fn note(&self, metrics: &ShardMetrics, messages: u32) {
        for (protocol, heads) in metrics::Protocol::ALL.iter().zip(self.0).filter(|(_, heads)| *heads > 0) {
            metrics.count_sent(*protocol, u64::from(heads) * u64::from(messages));
        }
    }
}

impl Core {
    /// Notes what a connection or stream speaks from now on.
    pub(super) fn speak(&mut self, id: ConnId, protocol: Protocol) {
        let Some(connection) = self.table.get_mut(id) else { return };
        let before = std::mem::replace(&mut connection.protocol, protocol);
        if !connection.flags.has(Flags::SHED) {
            self.metrics.speaks(Some(before.counted()), Some(protocol.counted()));
        }
    }

    /// Notes how long a connection took to open, if this is what its first request or frame asked for. One that is open as
    /// soon as it is accepted has nothing to be measured.
    pub(super) fn note_handshake(&mut self, id: ConnId) {
        let Some(connection) = self.table.get_mut(id) else { return };
        let is_first = connection.state == 0;
        let is_asked = connection.protocol == Protocol::Http || connection.flags.has(Flags::NAMELESS);
        let arrived = connection.take_arrived();
        if is_first && is_asked && !arrived.is_none() {
            self.metrics.handshake_seconds.observe(arrived.nanos_until(self.now));
        }
    }

    /// Notes what memory is spent on: sizes that are known without a look at any connection.
    pub(super) fn note_memory(&self) {
        let waiting = self.members.waiting_bytes() + self.members.group_bytes();
        for (purpose, bytes) in [
            (Purpose::Table, self.table.memory()),
            (Purpose::Queues, self.queued),
            (Purpose::Unfinished, self.partials.bytes()),
            (Purpose::History, self.topics.counts().bytes),
            (Purpose::Topics, self.topics.memory()),
            (Purpose::Subscriptions, self.members.memory()),
            (Purpose::Waiting, waiting),
            (Purpose::Staged, self.staged_bytes + self.batches.bytes()),
            (Purpose::Wheel, self.wheel.memory()),
            (Purpose::Mailboxes, self.mail.memory()),
            (Purpose::Files, self.files_memory()),
        ] {
            self.metrics.set_memory(purpose, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_together_is_measured_together_and_nothing_is_lost() {
        let at = |micros: u64| Instant::from_nanos(micros * 1000);
        let metrics = ShardMetrics::default();
        let mut latencies = Latencies::default();
        latencies.end(at(9), &metrics);
        assert_eq!(metrics.publish_to_last_delivery_seconds.spread().count(), 0);
        for micros in [100, 100, 100, 400, 0] {
            latencies.delivery(if micros == 0 { Stamp::NONE } else { Stamp::of(at(micros)) });
        }
        latencies.end(at(1000), &metrics);
        let spread = metrics.publish_to_last_delivery_seconds.spread();
        assert_eq!((spread.count(), spread.sum), (4, (3 * 900 + 600) * 1000));
        (1..=1000).for_each(|micros| latencies.fan_out(Stamp::of(at(micros))));
        latencies.end(at(2000), &metrics);
        assert_eq!(metrics.fanout_seconds.spread().count(), 1000);
        latencies.end(at(3000), &metrics);
        assert_eq!(metrics.fanout_seconds.spread().count(), 1000, "each is measured once");
    }
}
