//! What topics are allowed and given, by patterns of their names.
//!
//! A rule says all there is to say of a topic. It is put together from a section of the file, `[topics."room/*"]`, which
//! says what differs for the topics that its pattern stands for, and the defaults, which say the rest. Of several sections
//! that fit a name the first one counts, in the order of the file.

use std::time::Duration;

use super::{Config, Pattern, SlowConsumer};

named! {
    /// Who may publish to a topic, of those who connect. The program itself always may.
    Publishers {
        /// Whoever connects.
        #[default]
        Anyone = "anyone",
        /// Who has said who it is, and is allowed to.
        Authenticated = "authenticated",
        /// Nobody who connects.
        Nobody = "nobody",
    }
}

named! {
    /// Whether it is kept who is in a topic.
    Presence {
        /// Nothing is kept.
        #[default]
        Off = "off",
        /// How many they are.
        Count = "count",
        /// Who they are.
        Members = "members",
    }
}

/// How much of one topic's past is kept. A zero turns its history off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Messages.
    pub messages_max: usize,
    /// Bytes of them, with what it takes to keep them apart.
    pub bytes_max: usize,
    /// Age of a message. A topic without messages and subscribers is forgotten after the same time.
    pub age_max: Duration,
}

/// What a topic is allowed and given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicRule {
    /// What is kept of its past.
    pub history: Keep,
    /// What happens to its slow consumers; `None`: what their route says, and if that says nothing either, what
    /// [`TopicRules::slow_consumer`] says.
    pub slow_consumer: Option<SlowConsumer>,
    /// Who may publish to it.
    pub publish: Publishers,
    /// Publications a second, as many at once after a quiet second. Zero: no bound.
    pub rate: u32,
    /// Whether a publication is on the disk, or in the cluster's stream, before anybody hears of it.
    pub durable: bool,
    /// Whether other nodes hold it too, where there is a cluster.
    pub shared: bool,
    /// Whether it is kept who is there.
    pub presence: Presence,
}

/// A section of the file: what it says of the topics whose names fit, and nothing of what it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSection {
    /// Which topics.
    pub pattern: Pattern,
    /// [`Keep::messages_max`].
    pub messages_max: Option<usize>,
    /// [`Keep::bytes_max`].
    pub bytes_max: Option<usize>,
    /// [`Keep::age_max`].
    pub age_max: Option<Duration>,
    /// [`TopicRule::slow_consumer`].
    pub slow_consumer: Option<SlowConsumer>,
    /// [`TopicRule::publish`].
    pub publish: Option<Publishers>,
    /// [`TopicRule::rate`].
    pub rate: Option<u32>,
    /// [`TopicRule::durable`].
    pub durable: Option<bool>,
    /// [`TopicRule::shared`].
    pub shared: Option<bool>,
    /// [`TopicRule::presence`].
    pub presence: Option<Presence>,
}

impl TopicSection {
    /// A section that says nothing yet.
    #[must_use]
    pub const fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            messages_max: None,
            bytes_max: None,
            age_max: None,
            slow_consumer: None,
            publish: None,
            rate: None,
            durable: None,
            shared: None,
            presence: None,
        }
    }

    /// The rule for its topics, where `rest` is the rule for those that no section is about.
    #[must_use]
    pub fn over(&self, rest: TopicRule) -> TopicRule {
        TopicRule {
            history: Keep {
                messages_max: self.messages_max.unwrap_or(rest.history.messages_max),
                bytes_max: self.bytes_max.unwrap_or(rest.history.bytes_max),
                age_max: self.age_max.unwrap_or(rest.history.age_max),
            },
            slow_consumer: self.slow_consumer.or(rest.slow_consumer),
            publish: self.publish.unwrap_or(rest.publish),
            rate: self.rate.unwrap_or(rest.rate),
            durable: self.durable.unwrap_or(rest.durable),
            shared: self.shared.unwrap_or(rest.shared),
            presence: self.presence.unwrap_or(rest.presence),
        }
    }

    /// Whether no topic is left to a later section, since this one fits all that it stands for.
    pub(super) fn hides(&self, later: &Self) -> bool {
        // Names that the later one stands for, with bytes that no pattern has where its stars are: who fits these fits all.
        let stand_ins = [("", ""), ("\u{1}", "\u{1}"), ("\u{1}\u{2}", "\u{1}/\u{2}/")];
        stand_ins.iter().all(|(level, levels)| {
            let name = later.pattern.as_str().replace("**", "\u{3}").replace('*', level).replace('\u{3}', levels);
            self.pattern.matches(&name)
        })
    }
}

/// Names a rule of a [`TopicRules`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleKey(u16);

impl RuleKey {
    /// Its number: those of [`TopicRules::all`] are 0, 1, 2, ...
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The rules for all topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRules {
    /// What happens to slow consumers where neither their topic's rule nor their route says it.
    pub slow_consumer: SlowConsumer,
    /// Members of one topic that are listed where [`TopicRule::presence`] says so. Those beyond are counted.
    pub presence_members_max: usize,
    /// Bytes of all topics' messages in the process.
    pub history_bytes_total_max: usize,
    /// For what no pattern fits.
    rest: TopicRule,
    /// In the order of the file.
    rules: Box<[(Pattern, TopicRule)]>,
}

impl Default for TopicRules {
    fn default() -> Self {
        Self::new(&Config::default())
    }
}

impl TopicRules {
    /// Sections of a configuration at most: a topic's name is compared with all of them once.
    pub const SECTIONS_MAX: usize = 256;

    /// The rules of a configuration. Sections beyond [`TopicRules::SECTIONS_MAX`], which a file cannot have, are left out.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let history = config.limits.history;
        let rest = TopicRule {
            history: Keep {
                messages_max: history.messages_max,
                bytes_max: history.bytes_max,
                age_max: history.age_max,
            },
            slow_consumer: None,
            publish: config.publish,
            rate: config.topic_rate,
            durable: config.durable,
            shared: config.shared,
            presence: config.presence,
        };
        let sections = config.topics.iter().take(Self::SECTIONS_MAX);
        let rules = sections.map(|section| (section.pattern.clone(), section.over(rest))).collect();
        let (slow_consumer, presence_members_max) = (config.slow_consumer, config.presence_members_max);
        Self { slow_consumer, presence_members_max, history_bytes_total_max: history.bytes_total_max, rest, rules }
    }

    /// The rule for topics that no section is about.
    #[must_use]
    pub const fn rest(&self) -> TopicRule {
        self.rest
    }

    /// The rule for a topic.
    #[must_use]
    pub fn of(&self, topic: &str) -> &TopicRule {
        self.get(self.key(topic))
    }

    /// The name of the rule for a topic. It takes a microsecond where there are hundreds of sections: keep it.
    #[must_use]
    pub fn key(&self, topic: &str) -> RuleKey {
        let place = self.rules.iter().position(|(pattern, _)| pattern.matches(topic));
        RuleKey(place.and_then(|place| u16::try_from(place + 1).ok()).unwrap_or(0))
    }

    /// The rule of this name.
    #[must_use]
    pub fn get(&self, key: RuleKey) -> &TopicRule {
        let place = key.index().checked_sub(1);
        place.and_then(|place| self.rules.get(place)).map_or(&self.rest, |(_, rule)| rule)
    }

    /// Whether all topics have the same rule.
    #[must_use]
    pub const fn is_uniform(&self) -> bool {
        self.rules.is_empty()
    }

    /// All rules with their names.
    pub fn all(&self) -> impl Iterator<Item = (RuleKey, &TopicRule)> {
        (0..).map(RuleKey).zip(std::iter::once(&self.rest).chain(self.rules.iter().map(|(_, rule)| rule)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn section(pattern: &str) -> TopicSection {
        TopicSection::new(Pattern::parse(pattern).unwrap())
    }

    #[test]
    fn the_first_section_that_fits_counts_and_the_defaults_say_the_rest() {
        let topics = vec![
            TopicSection { rate: Some(5), ..section("room/vip") },
            TopicSection { messages_max: Some(7), publish: Some(Publishers::Nobody), ..section("room/*") },
            TopicSection { slow_consumer: Some(SlowConsumer::KeepLatest), ..section("**") },
        ];
        let rules = TopicRules::new(&Config { topics, topic_rate: 9, ..Config::default() });
        let seen = |topic: &str| {
            let rule = rules.of(topic);
            (rule.history.messages_max, rule.publish, rule.rate, rule.slow_consumer)
        };
        assert_eq!(seen("room/vip"), (256, Publishers::Anyone, 5, None));
        assert_eq!(seen("room/7"), (7, Publishers::Nobody, 9, None));
        assert_eq!(seen("news"), (256, Publishers::Anyone, 9, Some(SlowConsumer::KeepLatest)));
        let all: Vec<_> = rules.all().map(|(key, rule)| rules.get(key) == rule).collect();
        assert_eq!(all, [true; 4]);
    }

    #[test]
    fn without_sections_all_topics_are_alike() {
        let rules = TopicRules::new(&Config { publish: Publishers::Nobody, ..Config::default() });
        assert!(rules.is_uniform());
        assert_eq!((rules.of("any").publish, rules.key("any")), (Publishers::Nobody, RuleKey::default()));
        assert_eq!(*rules.of("any"), *rules.get(RuleKey(9)));
    }

    #[test]
    fn a_section_behind_one_that_takes_all_of_its_topics_is_found() {
        for (first, later) in
            [("room/*", "room/vip"), ("**", "room/*"), ("room/**", "room/*/x"), ("a", "a"), ("*", "x*"), ("a*", "a*b")]
        {
            assert!(section(first).hides(&section(later)), "{first} {later}");
        }
        for (first, later) in [
            ("room/vip", "room/*"),
            ("room/*", "room/**"),
            ("*", "**"),
            ("*/x", "room/*"),
            ("a*", "*a"),
            ("a?", "a*"),
            ("room/*", "rooms/*"),
        ] {
            assert!(!section(first).hides(&section(later)), "{first} {later}");
        }
    }
}
