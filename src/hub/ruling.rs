//! The rules of topics as an owner looks at them: in ticks, by number.

use std::sync::Arc;
use std::time::Duration;

use super::history::Bounds;
use crate::config::{Keep, Presence, RuleKey, TopicRule, TopicRules};
use crate::message::Topic;
use crate::wheel::{TICK, Tick, Wheel};

/// What a topic is allowed and given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ruling {
    pub(super) keep: Keep,
    pub(super) bounds: Bounds,
    /// Whether its messages are written down first.
    pub(super) durable: bool,
    /// Whether other nodes hold it too, where there are any.
    pub(super) shared: bool,
    /// Whether it is kept who is there.
    pub(super) presence: Presence,
    /// How long a topic stays after its last use.
    pub(super) linger_ticks: u32,
    /// The time that each publication of an even pace takes, zero for any pace.
    interval_ns: u64,
}

/// All rulings, and which version of the rules they are.
#[derive(Debug)]
pub(super) struct Rulings {
    rules: Arc<TopicRules>,
    /// By the number of the rule, never empty.
    all: Box<[Ruling]>,
    pub(super) version: u32,
}

/// Up to where a topic's rate is used up, as nanoseconds of the wheel's time: the time at which all publications would
/// have come at an even pace (generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spent(u64);

impl Ruling {
    /// How long a topic stays without use when there is no history.
    const LINGER: Duration = Duration::from_secs(10);
    const SECOND_NS: u64 = 1_000_000_000;

    fn new(rule: &TopicRule, wheel: &Wheel) -> Self {
        let keep = rule.history;
        let (messages_max, bytes_max) = (keep.messages_max, keep.bytes_max);
        let bounds = Bounds { messages_max, bytes_max, age_ticks: wheel.ticks_in(keep.age_max) };
        let linger = if bounds.is_off() { Self::LINGER } else { keep.age_max };
        let interval_ns = Self::SECOND_NS.checked_div(u64::from(rule.rate)).unwrap_or(0);
        let linger_ticks = wheel.ticks_in(linger);
        let TopicRule { durable, shared, presence, .. } = *rule;
        Self { keep, bounds, durable, shared, presence, linger_ticks, interval_ns }
    }

    /// Lets a publication through, if it may: so many within a second, as many at once after a quiet one.
    pub(super) fn admits(&self, spent: &mut Spent, now: Tick) -> bool {
        if self.interval_ns == 0 {
            return true;
        }
        let now = u64::from(now.0).saturating_mul(u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX));
        let next = spent.0.max(now).saturating_add(self.interval_ns);
        let is_in_time = next <= now.saturating_add(Self::SECOND_NS);
        if is_in_time {
            spent.0 = next;
        }
        is_in_time
    }
}

impl Rulings {
    pub(super) fn new(rules: Arc<TopicRules>, wheel: &Wheel, version: u32) -> Self {
        let all = rules.all().map(|(_, rule)| Ruling::new(rule, wheel)).collect();
        Self { rules, all, version }
    }

    /// Members of one topic that are listed.
    pub(super) fn presence_members_max(&self) -> usize {
        self.rules.presence_members_max
    }

    /// The number of the rule for a topic.
    pub(super) fn key(&self, topic: &Topic) -> RuleKey {
        self.rules.key(topic.as_str())
    }

    /// The rule of this number.
    pub(super) fn get(&self, key: RuleKey) -> &Ruling {
        self.all.get(key.index()).unwrap_or(&self.all[0])
    }

    /// The rule for a topic.
    pub(super) fn of(&self, topic: &Topic) -> &Ruling {
        self.get(self.key(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn ruling(topic_rate: u32) -> Ruling {
        let rules = TopicRules::new(&Config { topic_rate, ..Config::default() });
        Ruling::new(rules.of("any"), &Wheel::new(TICK))
    }

    #[test]
    fn a_rate_has_a_second_in_hand() {
        let (ten, mut spent) = (ruling(10), Spent::default());
        let mut taken = |tick| (0..100).filter(|_| ten.admits(&mut spent, Tick(tick))).count();
        assert_eq!((taken(0), taken(0), taken(1), taken(4), taken(1000)), (10, 0, 1, 3, 10));
    }

    #[test]
    fn zero_is_no_bound_and_another_rate_counts_at_once() {
        let mut spent = Spent::default();
        assert!((0..1000).all(|_| ruling(0).admits(&mut spent, Tick(5))));
        assert_eq!((0..100).filter(|_| ruling(50).admits(&mut spent, Tick(5))).count(), 50);
        assert!(!ruling(1).admits(&mut spent, Tick(5)));
        assert!((0..1000).all(|_| ruling(1_000_000).admits(&mut spent, Tick(15))));
        assert!(ruling(1).admits(&mut spent, Tick(u32::MAX)));
    }
}
