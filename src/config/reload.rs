//! From one configuration to another while the server runs: what can follow, and what waits for the next start.

use super::fitting::check;
use super::settings::SETTINGS;
use super::{Config, Place, Problem, TopicSection, quote};

/// Keys that a running server cannot follow.
const AT_START: &[&str] = &[
    // Sockets, threads and their kernel's interface.
    "listen",
    "admin",
    "backend",
    "shards",
    "upgrade.socket",
    "public",
    "log.format",
    "otel.endpoint",
    // Files that are open.
    "journal.dir",
    "journal.segment_bytes",
    "journal.bytes_max",
    "journal.age_max",
    // The connection, and what others know this node by.
    "cluster.nats",
    "cluster.credentials",
    "cluster.ca_file",
    "cluster.name",
    "cluster.prefix",
    "cluster.replicas",
    "cluster.storage",
    "cluster.lease",
    // Shards have their way to the thread that posts, or none.
    "hooks.url",
    "hooks.nats",
    // Tables and queues have their size.
    "limits.connections_max",
    "limits.mailbox_capacity",
    // Clients were told, and connections do not keep what they were told.
    "http2.streams_max",
];

/// What is different about another configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys that are followed at once; sections for topics as `topics."room/*"`.
    pub changed: Vec<String>,
    /// Keys that are followed at the next start.
    pub at_start: Vec<&'static str>,
}

impl Difference {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.at_start.is_empty()
    }
}

impl Config {
    /// What runs when this configuration is taken on by a server that has been started with another one: that one's where
    /// it cannot follow.
    ///
    /// # Errors
    /// When the two do not fit together.
    pub fn over(mut self, running: &Self) -> Result<(Self, Difference), Vec<Problem>> {
        let mut difference = Difference::default();
        for setting in SETTINGS {
            if (setting.is_same)(&self, running) {
                continue;
            }
            if AT_START.contains(&setting.key) {
                difference.at_start.push(setting.key);
                (setting.keep)(&mut self, running);
            } else {
                difference.changed.push(setting.key.to_owned());
            }
        }
        difference.changed.extend(changed_sections(&self.topics, &running.topics));
        let wrongs = check(&self);
        if wrongs.is_empty() {
            return Ok((self, difference));
        }
        let problem = |(key, wrong): (&str, super::Wrong)| {
            let mut problem = wrong.at(key, Place::Running);
            problem.mend = format!("restart the server with it, or {}", problem.mend);
            problem
        };
        Err(wrongs.into_iter().map(problem).collect())
    }
}

/// The names of sections that are new, different or gone; all of them where their order is another one.
fn changed_sections(new: &[TopicSection], old: &[TopicSection]) -> Vec<String> {
    if new == old {
        return Vec::new();
    }
    let name = |section: &TopicSection| format!("topics.{}", quote(section.pattern.as_str()));
    let but = |of: &[TopicSection], others: &[TopicSection]| -> Vec<String> {
        of.iter().filter(|section| !others.contains(section)).map(name).collect()
    };
    let mut names = but(new, old);
    for gone in but(old, new) {
        if !names.contains(&gone) {
            names.push(gone);
        }
    }
    if names.is_empty() { new.iter().map(name).collect() } else { names }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::config::{Limits, Loader, Pattern};

    fn load(text: &str) -> Config {
        let mut loader = Loader::new();
        loader.text("h.toml".as_ref(), text);
        loader.finish().unwrap()
    }

    #[test]
    fn what_cannot_follow_stays_and_is_told() {
        let running = load("drain = \"1s\"\nshards = 2\n");
        let wanted = load(
            "shards = 3\nlisten = [\"http://127.0.0.1:1\"]\n[heartbeat]\ninterval = \"5s\"\n[limits]\n\
             connections_max = 5\nsubscriptions_max = 5\n",
        );
        let (effective, difference) = wanted.clone().over(&running).unwrap();
        assert_eq!(difference.changed, ["drain", "heartbeat.interval", "limits.subscriptions_max"]);
        assert_eq!(difference.at_start, ["listen", "shards", "limits.connections_max"]);
        let Limits { connections_max, subscriptions_max, .. } = effective.limits;
        assert_eq!((effective.shards, connections_max, subscriptions_max), (2, 10_000, 5));
        assert_eq!((&effective.listeners, effective.drain), (&running.listeners, wanted.drain));
        assert!(running.clone().over(&running).unwrap().1.is_empty());
    }

    #[test]
    fn sections_are_told_by_their_names() {
        let sections = |text: &str| load(text).topics;
        let old = sections("[topics.a]\nrate = 1\n[topics.b]\nrate = 1\n[topics.c]\nrate = 1\n");
        let new = sections("[topics.a]\nrate = 2\n[topics.b]\nrate = 1\n[topics.d]\nrate = 1\n");
        assert_eq!(changed_sections(&new, &old), ["topics.\"a\"", "topics.\"d\"", "topics.\"c\""]);
        let mut turned = old.clone();
        turned.swap(0, 1);
        assert_eq!(changed_sections(&turned, &old).len(), 3);
        assert_eq!(old[0].pattern, Pattern::parse("a").unwrap());
    }

    #[test]
    fn what_would_run_must_fit_together_too() {
        let running = load("listen = [\"http://0.0.0.0:1\"]\ninsecure = true\n");
        let wanted = load("listen = [\"http://127.0.0.1:1\"]\n");
        let problems = wanted.over(&running).unwrap_err();
        let said = problems[0].to_string();
        assert!(said.starts_with("listen is 0.0.0.0:1, open to other machines"), "{said}");
        assert!(said.contains(", what would run then: restart the server with it, or configure [auth]"), "{said}");
    }

    #[test]
    fn the_documentation_names_all_that_wait() {
        let page = include_str!("../../docs/operations.md");
        let (_, list) = page.split_once("which wait for the next start:").unwrap();
        let (list, _) = list.split_once(". A configuration").unwrap();
        let named: Vec<&str> = list.split(',').map(|word| word.trim().trim_matches('`')).collect();
        let is_named = |key: &str| {
            let table = key.split_once('.').map(|(table, _)| format!("{table}.*"));
            named.contains(&key) || table.is_some_and(|table| named.contains(&&*table))
        };
        for setting in SETTINGS {
            assert_eq!(is_named(setting.key), AT_START.contains(&setting.key), "{}", setting.key);
        }
        for name in named {
            let is_key = name.ends_with(".*") || SETTINGS.iter().any(|setting| setting.key == name);
            assert!(is_key, "{name}");
        }
    }

    #[test]
    fn keys_that_wait_are_keys() {
        assert!(AT_START.iter().all(|key| SETTINGS.iter().any(|setting| setting.key == *key)));
    }
}
