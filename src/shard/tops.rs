//! The busiest topics and the slowest consumers of a shard, found without a look at all of them.
//!
//! Busy topics are found by a sketch that always has the most frequent ones ("space saving", Metwally, Agrawal and El Abbadi
//! 2005): whoever is not in it takes the place of the rarest and its count. Of many publications it is shown one in
//! [`Tops::SAMPLE`], so that it costs a publication next to nothing. Crowded topics are noted when their owner hears of
//! subscribers, and deep queues when something is added to them. A queue that fills up is there for a moment only: whoever
//! was ended for it is remembered for a minute.

use std::collections::VecDeque;
use std::time::Duration;

use super::connection::Flags;
use super::core::Core;
use crate::id::ConnId;
use crate::message::Topic;
use crate::metrics::{Glance, LostConsumer, SlowConsumer, TopTopic};
use crate::time::Instant;

/// A topic in the sketch.
#[derive(Debug)]
struct Busy {
    hash: u64,
    topic: Topic,
    /// Publications, and what was taken over from whoever had the place before.
    count: u64,
    subscribers: u64,
}

/// What a shard remembers.
#[derive(Debug)]
pub(super) struct Tops {
    busy: Vec<Busy>,
    /// Publications in this tick.
    published: u32,
    /// When the counts were halved.
    halved: Instant,
    crowded: Vec<(Topic, u64)>,
    slow: Vec<(ConnId, usize)>,
    /// Those who were ended for being slow, and when: the last ones.
    lost: VecDeque<(SlowConsumer, Instant)>,
    /// A queue that is not deeper than this is not noted.
    slow_above: usize,
}

impl Tops {
    /// Topics that the sketch has room for.
    const BUSY: usize = 32;
    /// Topics and connections that are kept of the other kinds.
    const FEW: usize = 16;
    /// So many publications of a tick are counted one by one.
    const EACH: u32 = 16;
    /// Of the others one in so many, for all of them.
    const SAMPLE: u32 = 16;
    /// A shorter queue is nobody's concern.
    const SLOW_BYTES: usize = 4 * 1024;
    /// How long counts stand before they are halved, so that they tell of late and not of ever.
    const HALF_LIFE: Duration = Duration::from_secs(4);
    /// How long it is told who was ended for being slow.
    const LOST_KEPT: Duration = Duration::from_secs(60);

    pub(super) fn new() -> Self {
        Self {
            busy: Vec::with_capacity(Self::BUSY),
            published: 0,
            halved: Instant::ZERO,
            crowded: Vec::with_capacity(Self::FEW),
            slow: Vec::with_capacity(Self::FEW),
            lost: VecDeque::with_capacity(Self::FEW),
            slow_above: Self::SLOW_BYTES,
        }
    }

    /// Notes a publication, perhaps.
    pub(super) fn published(&mut self, topic: &Topic, subscribers: u64) {
        self.published = self.published.wrapping_add(1);
        if self.published <= Self::EACH {
            self.count(topic, subscribers, 1);
        } else if self.published.is_multiple_of(Self::SAMPLE) {
            self.count(topic, subscribers, u64::from(Self::SAMPLE));
        }
    }

    fn count(&mut self, topic: &Topic, subscribers: u64, times: u64) {
        let hash = topic.fingerprint();
        if let Some(known) = self.busy.iter_mut().find(|busy| busy.hash == hash && busy.topic == *topic) {
            known.count += times;
            known.subscribers = subscribers;
        } else if self.busy.len() < Self::BUSY {
            self.busy.push(Busy { hash, topic: topic.clone(), count: times, subscribers });
        } else if let Some(rarest) = self.busy.iter_mut().min_by_key(|busy| busy.count) {
            *rarest = Busy { hash, topic: topic.clone(), count: rarest.count + times, subscribers };
        }
    }

    /// Notes how many subscribers a topic has.
    pub(super) fn crowd(&mut self, topic: &Topic, subscribers: u64) {
        let place = self.crowded.iter().position(|(name, _)| name == topic);
        match (place, subscribers) {
            (Some(place), 0) => {
                self.crowded.swap_remove(place);
            }
            (Some(place), _) => self.crowded[place].1 = subscribers,
            (None, 0) => {}
            (None, _) if self.crowded.len() < Self::FEW => self.crowded.push((topic.clone(), subscribers)),
            (None, _) => {
                let least = self.crowded.iter_mut().min_by_key(|(_, count)| *count);
                least.filter(|(_, count)| *count < subscribers).into_iter().for_each(|place| {
                    *place = (topic.clone(), subscribers);
                });
            }
        }
    }

    /// Notes how deep a queue has become.
    pub(super) fn deep(&mut self, id: ConnId, bytes: usize) {
        if bytes <= self.slow_above {
            return;
        }
        if let Some(known) = self.slow.iter_mut().find(|(known, _)| *known == id) {
            known.1 = bytes;
        } else if self.slow.len() < Self::FEW {
            self.slow.push((id, bytes));
        } else if let Some(least) = self.slow.iter_mut().min_by_key(|(_, bytes)| *bytes) {
            *least = (id, bytes);
        }
        if self.slow.len() == Self::FEW {
            self.slow_above = self.slow.iter().map(|(_, bytes)| *bytes).min().unwrap_or(0).max(Self::SLOW_BYTES);
        }
    }

    /// Notes that a consumer is ended for being slow.
    fn lost(&mut self, consumer: SlowConsumer, now: Instant) {
        if self.lost.len() == Self::FEW {
            self.lost.pop_front();
        }
        self.lost.push_back((consumer, now));
    }

    /// Forgets what is no more: half of the counts after a while, and queues that are short now.
    fn fade(&mut self, now: Instant, mut depth: impl FnMut(ConnId) -> usize) {
        self.published = 0;
        if now.since(self.halved) >= Self::HALF_LIFE {
            self.halved = now;
            self.busy.iter_mut().for_each(|busy| busy.count /= 2);
            self.busy.retain(|busy| busy.count > 0);
        }
        self.slow.retain_mut(|(id, bytes)| {
            *bytes = depth(*id);
            *bytes > Self::SLOW_BYTES
        });
        if self.slow.len() < Self::FEW {
            self.slow_above = Self::SLOW_BYTES;
        }
        while self.lost.front().is_some_and(|(_, at)| now.since(*at) >= Self::LOST_KEPT) {
            self.lost.pop_front();
        }
    }

    /// Publications a second of a count: what was left of the last halving is as much as one half life brings.
    #[allow(clippy::cast_precision_loss, reason = "a guess")]
    fn rate(&self, count: u64, now: Instant) -> f64 {
        let seconds = now.since(self.halved).min(Self::HALF_LIFE) + Self::HALF_LIFE.min(now.since(Instant::ZERO));
        count as f64 / seconds.as_secs_f64().max(0.1)
    }
}

impl Core {
    /// Topics and connections that are shown.
    const SHOWN: usize = 16;

    /// Once a tick: forgets what is over, and shows the rest when somebody wants to see it.
    pub(super) fn note_tops(&mut self) {
        let table = &self.table;
        self.tops.fade(self.now, |id| {
            // Of who is ended, his last words may wait.
            let connection = table.get(id).filter(|connection| !connection.flags.has(Flags::CLOSING));
            connection.and_then(|connection| connection.outbox.as_deref()).map_or(0, |outbox| outbox.bytes())
        });
        if self.metrics.pane.is_wanted() {
            self.metrics.pane.show(self.glance());
        }
    }

    /// Notes that subscribers of an owned topic came or went.
    pub(super) fn note_crowd(&mut self, topic: &Topic) {
        let subscribers = self.topics.subscribers(topic);
        self.tops.crowd(topic, subscribers);
    }

    /// Notes that a connection is ended for being slow, while what it has queued is still there.
    pub(super) fn note_lost(&mut self, id: ConnId) {
        let outbox = self.table.get(id).and_then(|connection| connection.outbox.as_deref());
        let bytes = outbox.map_or(0, |outbox| outbox.bytes());
        if let Some(consumer) = self.slow_consumer_at(id, bytes) {
            self.tops.lost(consumer, self.now);
        }
    }

    fn slow_consumer_at(&self, id: ConnId, bytes: usize) -> Option<SlowConsumer> {
        Some(SlowConsumer {
            id: id.of(self.id).to_string(),
            protocol: self.table.get(id)?.protocol.counted().label(),
            address: self.whence(id).map(|whence| whence.to_string().into()),
            user: self.user(id).map(Box::from),
            queued_bytes: bytes as u64,
        })
    }

    fn glance(&self) -> Glance {
        let tops = &self.tops;
        let topic =
            |topic: &Topic, publications, subscribers| TopTopic { name: topic.name(), publications, subscribers };
        let mut busy: Vec<_> =
            tops.busy.iter().map(|one| topic(&one.topic, tops.rate(one.count, self.now), one.subscribers)).collect();
        busy.sort_by(|one, other| other.publications.total_cmp(&one.publications));
        busy.truncate(Self::SHOWN);
        let rate_of = |name: &Topic| {
            let known = tops.busy.iter().find(|busy| busy.topic == *name);
            known.map_or(0.0, |busy| tops.rate(busy.count, self.now))
        };
        let mut crowded: Vec<_> = tops.crowded.iter().map(|(name, count)| topic(name, rate_of(name), *count)).collect();
        crowded.sort_by_key(|topic| std::cmp::Reverse(topic.subscribers));
        let slow = tops.slow.iter().filter_map(|(id, bytes)| self.slow_consumer_at(*id, *bytes));
        let mut slow: Vec<_> = slow.collect();
        slow.sort_by_key(|consumer| std::cmp::Reverse(consumer.queued_bytes));
        let lost = tops.lost.iter().rev();
        let lost = lost.map(|(consumer, at)| LostConsumer { consumer: consumer.clone(), age: self.now.since(*at) });
        Glance { busy, crowded, slow, lost: lost.collect() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::parse(name.as_bytes(), Topic::BYTES_MAX).unwrap()
    }

    #[test]
    fn the_busiest_are_found_among_many() {
        let mut tops = Tops::new();
        let names: Vec<Topic> = (0..1000).map(|number| topic(&format!("rare/{number}"))).collect();
        let (often, less) = (topic("often"), topic("less"));
        for round in 0..20_000_usize {
            tops.published(&often, 7);
            tops.published(&names[round * 7919 % 1000], 1);
            if round % 3 == 0 {
                tops.published(&less, 2);
            }
        }
        let mut busy: Vec<_> =
            tops.busy.iter().map(|busy| (busy.count, busy.topic.as_str(), busy.subscribers)).collect();
        busy.sort_unstable_by_key(|one| std::cmp::Reverse(one.0));
        assert_eq!((busy[0].1, busy[0].2, busy[1].1), ("often", 7, "less"));
        assert!((15_000..35_000).contains(&busy[0].0), "{busy:?}");
        assert_eq!(tops.busy.len(), Tops::BUSY);
        for second in (0..400).step_by(4) {
            tops.fade(Instant::from_millis(second * 1000), |_| 0);
        }
        assert!(tops.busy.is_empty(), "what is long ago is forgotten");
    }

    #[test]
    fn few_publications_are_all_counted() {
        let mut tops = Tops::new();
        (0..3).for_each(|_| tops.published(&topic("one"), 1));
        tops.published(&topic("two"), 1);
        let counts: Vec<_> = tops.busy.iter().map(|busy| (busy.topic.as_str(), busy.count)).collect();
        assert_eq!(counts, [("one", 3), ("two", 1)]);
    }

    #[test]
    fn the_most_crowded_stay_and_the_empty_go() {
        let mut tops = Tops::new();
        (1..=100).for_each(|count| tops.crowd(&topic(&format!("t{count}")), count));
        assert_eq!(tops.crowded.len(), Tops::FEW);
        assert!(tops.crowded.iter().all(|(_, count)| *count > 100 - 16));
        tops.crowd(&topic("t100"), 0);
        tops.crowd(&topic("t3"), 3);
        assert!(tops.crowded.iter().any(|(name, _)| name.as_str() == "t3"), "there is room again");
    }

    #[test]
    fn the_deepest_queues_stay_until_they_are_empty() {
        let mut tops = Tops::new();
        let id = |number| ConnId::new(number, 1);
        (0..100).for_each(|number| tops.deep(id(number), number as usize * 1000));
        assert_eq!(tops.slow.len(), Tops::FEW);
        assert!(tops.slow.iter().all(|(_, bytes)| *bytes >= 84_000), "{:?}", tops.slow);
        tops.deep(id(3), 5000);
        assert!(tops.slow.iter().all(|(slow, _)| *slow != id(3)), "others are deeper");
        tops.fade(Instant::ZERO, |one| if one == id(99) { 99_000 } else { 0 });
        assert_eq!(tops.slow, [(id(99), 99_000)]);
        tops.deep(id(3), 5000);
        assert_eq!(tops.slow.len(), 2);
    }

    #[test]
    fn who_was_too_slow_is_told_for_a_minute() {
        let mut tops = Tops::new();
        let consumer = |number: u64| SlowConsumer {
            id: format!("0:{number}:1"),
            protocol: "websocket",
            address: None,
            user: None,
            queued_bytes: number,
        };
        (0..20).for_each(|second| tops.lost(consumer(second), Instant::from_millis(second * 1000)));
        let told = |tops: &Tops| tops.lost.iter().map(|(lost, _)| lost.queued_bytes).collect::<Vec<_>>();
        assert_eq!(told(&tops), (4..20).collect::<Vec<_>>(), "the last ones");
        tops.fade(Instant::from_millis(70_000), |_| 0);
        assert_eq!(told(&tops), (11..20).collect::<Vec<_>>());
        tops.fade(Instant::from_millis(79_000), |_| 0);
        assert!(tops.lost.is_empty());
    }
}
