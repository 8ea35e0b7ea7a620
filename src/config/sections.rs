//! The sections for topics in a file: what they may say, and how they are read.

use toml::de::DeValue;

use super::loader::{Loader, Source, raw_of};
use super::nearest::nearest;
use super::pattern::Pattern;
use super::problem::{Place, Problem, Wrong, quote};
use super::settings::{GIB, hours, ms};
use super::topics::{Presence, Publishers, TopicRules, TopicSection};
use super::value::{Count, Format, Period, Raw, Rule, Size, Switch, Word};
use super::{Config, SlowConsumer};
use Rule::{Within, ZeroOr};
use toml::de::DeTable;

/// One thing that a section can say.
struct SectionSetting {
    /// Its path in the section.
    key: &'static str,
    doc: &'static [&'static str],
    /// Puts a value in its place, if it is one.
    set: fn(&mut TopicSection, &Raw<'_>) -> Result<(), Wrong>,
    /// What topics have that no section is about.
    show: fn(&Config) -> String,
    /// What it may be, where that is a range.
    range: fn() -> Option<String>,
}

macro_rules! section_settings {
    ($($(#[doc = $doc:literal])+ $key:literal => $field:ident or $($default:ident).+: $format:ty $(, $rule:expr)?;)+) => {
        static SETTINGS: &[SectionSetting] = &[$(SectionSetting {
            key: $key,
            doc: &[$($doc),+],
            set: |section, raw| {
                let value = <$format>::read(raw)?;
                $($rule.check::<$format>(&value)?;)?
                section.$field = Some(value);
                Ok(())
            },
            show: |config| <$format>::write(&config.$($default).+),
            range: || [$($rule.describe::<$format>())?].into_iter().next(),
        }),+];
    };
}

section_settings! {
    /// Messages that are kept for those who come later; 0: none.
    "history.messages_max" => messages_max or limits.history.messages_max: Count<usize>, Within(0, 1_000_000);
    /// Bytes of them; 0: none.
    "history.bytes_max" => bytes_max or limits.history.bytes_max: Size, Within(0, GIB);
    /// Age of a message that is kept; 0: none. The topic is forgotten after the same time without use.
    "history.age_max" => age_max or limits.history.age_max: Period, ZeroOr(ms(100), hours(24 * 7));
    /// What happens to a subscriber whose queue is full: close (with 4001), drop_oldest or keep_latest.
    "slow_consumer" => slow_consumer or slow_consumer: Word<SlowConsumer>;
    /// Who may publish, of those who connect: anyone, authenticated or nobody.
    "publish" => publish or publish: Word<Publishers>;
    /// Publications of each topic within a second; 0: no limit.
    "rate" => rate or topic_rate: Count<u32>, Within(0, 1_000_000);
    /// Whether its messages survive a crash: see [journal] and [cluster].
    "durable" => durable or durable: Switch;
    /// Whether other nodes of the cluster hold it too.
    "shared" => shared or shared: Switch;
    /// Whether it is kept who is there: off, count or members.
    "presence" => presence or presence: Word<Presence>;
}

/// A section as it can stand in a file, all of it as a comment, with what topics have anyway.
pub(super) fn example_section(config: &Config) -> String {
    let mut text = String::from(
        "\n# Sections say what differs for the topics that a pattern stands for, as many sections as you like. * is any text\n\
         # without a slash, ** any text at all: room/* is room/7, room/** also room/7/typing. Of the sections that fit a topic\n\
         # the first one counts. What it leaves out is as above and in [history]. They can stand in a file only.\n\
         #\n\
         # [topics.\"room/*\"]\n",
    );
    for setting in SETTINGS {
        setting.doc.iter().for_each(|line| text.push_str(&format!("# # {}\n", line.trim())));
        if let Some(range) = (setting.range)() {
            text.push_str(&format!("# # {range}.\n"));
        }
        text.push_str(&format!("# {} = {}\n", setting.key, (setting.show)(config)));
    }
    text
}

impl Loader {
    /// Takes a section of a file: `pattern` as it stands there, at `place`.
    pub(super) fn section(&mut self, source: &Source<'_>, pattern: &str, place: Place, table: &DeTable<'_>) {
        let key = format!("topics.{}", quote(pattern));
        if self.config.topics.len() == TopicRules::SECTIONS_MAX {
            let what = format!("{key} is one section for topics too many");
            let mend = format!("{} are enough: let patterns stand for more", TopicRules::SECTIONS_MAX);
            return self.problems.push(Problem { what, place, mend });
        }
        // What is wrong inside is told even if the pattern is none.
        let parsed = Pattern::parse(pattern);
        let stand_in = || Pattern::parse("*").expect("a pattern");
        let mut section = TopicSection::new(parsed.clone().unwrap_or_else(|_| stand_in()));
        self.section_table(source, &mut section, &key, "", table);
        match parsed {
            Ok(_) => {
                self.config.topics.push(section);
                self.section_places.push(place);
            }
            Err(error) => {
                let mend = "write a topic's name, with * for one level or ** for any number".to_owned();
                self.problems.push(Problem { what: format!("{key}: {error}"), place, mend });
            }
        }
    }

    fn section_table(
        &mut self,
        source: &Source<'_>,
        section: &mut TopicSection,
        of: &str,
        prefix: &str,
        table: &DeTable<'_>,
    ) {
        for (name, value) in super::loader::in_order(table) {
            let path = format!("{prefix}{}", name.get_ref());
            let place = source.place(name);
            let inside = format!("{path}.");
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == path) {
                let raw = raw_of(value);
                if let Err(wrong) = (setting.set)(section, &raw.as_raw()) {
                    self.problems.push(wrong.at(&format!("{of}.{path}"), place));
                }
            } else if let DeValue::Table(table) = value.get_ref()
                && SETTINGS.iter().any(|setting| setting.key.starts_with(&inside))
            {
                self.section_table(source, section, of, &inside, table);
            } else {
                let tables = SETTINGS.iter().filter_map(|setting| setting.key.split_once('.')).map(|(table, _)| table);
                let known = nearest(&path, tables.chain(SETTINGS.iter().map(|setting| setting.key))).unwrap_or("rate");
                let what = format!("unknown key {of}.{path}", path = quote_plain(&path));
                self.problems.push(Problem { what, place, mend: format!("did you mean {known}?") });
            }
        }
    }

    /// Finds sections that say nothing, since another one has all their topics.
    pub(super) fn check_sections(&mut self) {
        let topics = &self.config.topics;
        for (later, section) in topics.iter().enumerate() {
            if let Some(first) = topics[..later].iter().position(|first| first.hides(section)) {
                let (name, before) = (quote(section.pattern.as_str()), quote(topics[first].pattern.as_str()));
                let at = self.section_places.get(first).map_or_else(String::new, |place| format!(" ({place})"));
                let what = format!("topics.{name} never counts: topics.{before}{at} fits all its topics first");
                let mend = "put it before that one".to_owned();
                let place = self.section_places.get(later).cloned().unwrap_or(Place::Default);
                self.problems.push(Problem { what, place, mend });
            }
        }
    }
}

/// A key that may be anything, without quotes where it needs none.
fn quote_plain(key: &str) -> String {
    let is_plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) && key.len() <= 80;
    if is_plain { key.to_owned() } else { quote(key) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::time::Duration;

    use super::*;
    use crate::config::default_config;

    fn load(text: &str) -> Result<Config, Vec<String>> {
        let mut loader = Loader::new();
        loader.text("h.toml".as_ref(), text);
        loader.finish().map_err(|problems| problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn sections_come_in_the_order_of_the_file() {
        let text = "[topics.\"room/vip\"]\nrate = 5\nhistory.age_max = \"1m\"\n\
                    [topics]\nslow_consumer = \"drop_oldest\"\n\
                    \"room/*\" = { publish = \"nobody\", history = { messages_max = \"1k\" } }\n\
                    [topics.\"**\".history]\nbytes_max = \"2MiB\"\n";
        let config = load(text).unwrap();
        let patterns: Vec<_> = config.topics.iter().map(|section| section.pattern.as_str()).collect();
        assert_eq!(
            (patterns.as_slice(), config.slow_consumer),
            (&["room/vip", "room/*", "**"][..], SlowConsumer::DropOldest)
        );
        assert_eq!((config.topics[0].rate, config.topics[0].age_max), (Some(5), Some(Duration::from_secs(60))));
        assert_eq!((config.topics[1].messages_max, config.topics[1].rate), (Some(1000), None));
        assert_eq!(config.topics[1].publish, Some(Publishers::Nobody));
        assert_eq!(config.topics[2].bytes_max, Some(2 << 20));
    }

    #[test]
    fn every_fault_of_a_section_is_told_with_its_line() {
        let text = "[topics.\"room/*\"]\nhistroy.messages_max = 1\nhistory.mesages_max = 1\nhistory.bytes_max = \"2GiB\"\n\
                    publish = \"all\"\nrate = -1\nhistory.age_max = 5\n[topics.\"room/7\"]\nrate = 1\n\
                    [topics.\"a b\"]\nrat = 1\n[topics.x]\npublish = true\n";
        assert_eq!(
            load(text).unwrap_err(),
            [
                "unknown key topics.\"room/*\".histroy, h.toml line 2: did you mean history?",
                "unknown key topics.\"room/*\".history.mesages_max, h.toml line 3: did you mean history.messages_max?",
                "topics.\"room/*\".history.bytes_max is 2GiB, above 1GiB, h.toml line 4: write 0 to 1GiB",
                "topics.\"room/*\".publish is \"all\", h.toml line 5: write anyone or authenticated or nobody",
                "topics.\"room/*\".rate is \"-1\", h.toml line 6: write a whole number, such as 1000, 200k or 5M",
                "topics.\"room/*\".history.age_max is \"5\", without a unit, h.toml line 7: write a time with its unit, \
                 such as 250ms, 30s, 5m or 1h",
                "topics.\"a b\": the pattern \"a b\" has a space or a control character, which no topic has, h.toml \
                 line 10: write a topic's name, with * for one level or ** for any number",
                "unknown key topics.\"a b\".rat, h.toml line 11: did you mean rate?",
                "topics.\"x\".publish is a boolean, h.toml line 13: write anyone or authenticated or nobody",
                "topics.\"room/7\" never counts: topics.\"room/*\" (h.toml line 1) fits all its topics first, h.toml \
                 line 8: put it before that one",
            ]
        );
    }

    #[test]
    fn there_are_not_too_many() {
        let text: String = (0..300).map(|number| format!("[topics.\"t{number}\"]\nrate = 1\n")).collect();
        let problems = load(&text).unwrap_err();
        assert_eq!(problems.len(), 300 - TopicRules::SECTIONS_MAX);
        assert!(
            problems[0].starts_with("topics.\"t256\" is one section for topics too many, h.toml line 513: 256 are")
        );
    }

    #[test]
    fn durable_topics_need_a_journal() {
        let journal = "[journal]\ndir = \"/srv/journal\"\n";
        let config = load(&format!("[topics.\"log/*\"]\ndurable = true\n{journal}")).unwrap();
        let rules = TopicRules::new(&config);
        assert_eq!((rules.of("log/1").durable, rules.of("room/1").durable), (true, false));
        let config =
            load(&format!("[topics]\ndurable = true\n[topics.\"log/*\"]\ndurable = false\n{journal}")).unwrap();
        let rules = TopicRules::new(&config);
        assert_eq!((rules.of("log/1").durable, rules.of("room/1").durable), (false, true));
        for (text, key) in [
            ("[topics.\"log/*\"]\ndurable = true\n", "topics.\"log/*\".durable"),
            ("[topics]\ndurable = true\n", "topics.durable"),
        ] {
            let said = load(text).unwrap_err().remove(0);
            assert!(said.starts_with("journal.dir is not set"), "{said}");
            assert!(said.contains(&format!("{key} is true")), "{said}");
            assert!(said.ends_with(&format!("name a directory for the journal, or leave {key} out")), "{said}");
        }
    }

    #[test]
    fn durable_topics_that_are_shared_in_a_cluster_need_none() {
        let cluster = "[cluster]\nnats = [\"nats://127.0.0.1:4222\"]\n";
        let durable = "[topics]\ndurable = true\n";
        let config =
            load(&format!("{durable}[topics.\"mine/*\"]\ndurable = false\nshared = false\n{cluster}")).unwrap();
        let rules = TopicRules::new(&config);
        let seen = |topic| (rules.of(topic).durable, rules.of(topic).shared);
        assert_eq!((seen("log/1"), seen("mine/1")), ((true, true), (false, false)));
        for (text, said) in [
            (
                "[topics]\ndurable = true\n[topics.\"mine/*\"]\nshared = false\n",
                "topics.\"mine/*\".shared is false: there is nowhere to write its messages down",
            ),
            (
                "[topics]\nshared = false\n[topics.\"log/*\"]\ndurable = true\n",
                "topics.\"log/*\".durable is true: there is",
            ),
            ("[topics]\nshared = false\ndurable = true\n", "topics.durable is true: there is nowhere"),
        ] {
            let problem = load(&format!("{text}{cluster}")).unwrap_err().remove(0);
            assert!(problem.contains(said) && problem.contains("or share its topics, or leave"), "{problem}");
        }
    }

    #[test]
    fn the_printed_example_is_a_section_that_changes_nothing() {
        let printed = default_config();
        let example = printed.split("# [topics.\"room/*\"]").nth(1).unwrap();
        let example: Vec<_> = example.lines().skip(1).take_while(|line| line.starts_with("# ")).collect();
        let text: String = example.iter().map(|line| format!("{}\n", &line[2..])).collect();
        let config = load(&format!("[topics.\"room/*\"]\n{text}")).unwrap();
        assert_eq!(config.topics.len(), 1);
        let (rules, plain) = (TopicRules::new(&config), TopicRules::new(&Config::default()));
        let given = *rules.of("room/7");
        assert_eq!(given.slow_consumer, Some(SlowConsumer::Close), "{text}");
        assert_eq!(super::super::TopicRule { slow_consumer: None, ..given }, *plain.of("room/7"));
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), SETTINGS.len());
    }
}
