//! What stands where in each topic, by what subscribers and publishers were told.

use std::sync::atomic::{AtomicU64, Ordering};

use super::publishers::{PUBLISHERS, Publishing};

/// Places of a topic that are recorded.
const PLACES: usize = 1 << 23;

pub struct Record {
    topics: Vec<Topic>,
    /// Messages that history holds.
    pub messages_max: u64,
}

struct Topic {
    /// By offset.
    messages: Vec<AtomicU64>,
    epoch: AtomicU64,
    end: AtomicU64,
}

impl Record {
    pub fn new(topics: usize, messages_max: u64) -> Self {
        let topic = || Topic {
            messages: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            epoch: AtomicU64::new(0),
            end: AtomicU64::new(u64::MAX),
        };
        Self { topics: (0..topics).map(|_| topic()).collect(), messages_max }
    }

    /// Whether history holds all that anybody could miss.
    pub fn is_long(&self) -> bool {
        self.messages_max > 1000
    }

    /// Somebody was told that this message stands there.
    pub fn stands(&self, topic: usize, (epoch, offset): (u64, u64), message: u64) {
        let record = &self.topics[topic];
        let same = |place: &AtomicU64, value: u64| {
            place.compare_exchange(0, value, Ordering::Relaxed, Ordering::Relaxed).unwrap_or_else(|other| other)
        };
        assert!([0, epoch].contains(&same(&record.epoch, epoch)), "another epoch");
        let other = same(&record.messages[usize::try_from(offset).unwrap()], message);
        assert!([0, message].contains(&other), "topic {topic}, {offset}: {message:x}, others saw {other:x}");
    }

    /// The topic's last message stands here.
    pub fn end(&self, topic: usize, offset: u64) {
        self.topics[topic].end.store(offset, Ordering::Release);
    }

    pub fn is_end(&self, topic: usize, offset: u64) -> bool {
        offset >= self.topics[topic].end.load(Ordering::Acquire)
    }

    /// Each publisher's messages are there, in its order, as far as anybody was told of them. Returns how many messages there
    /// are in all topics.
    pub fn assert_all_in_order(&self) -> u64 {
        let mut all = 0;
        for topic in &self.topics {
            let end = usize::try_from(topic.end.load(Ordering::Relaxed)).unwrap();
            all += end as u64;
            let mut last = [0; PUBLISHERS];
            let mut gap = false;
            for message in &topic.messages[1..end] {
                let message = message.load(Ordering::Relaxed);
                // Where all were told of a reset nobody knows what was there.
                gap |= message == 0;
                if message == 0 || message == Publishing::END {
                    continue;
                }
                let (publisher, number) = Publishing::parts(message);
                let follows = if gap { number > last[publisher] } else { number == last[publisher] + 1 };
                assert!(follows, "{number} of publisher {publisher} after {}", last[publisher]);
                last[publisher] = number;
            }
            assert!(!gap || !self.is_long(), "somebody saw everything");
        }
        all
    }
}
