//! What may change while shards run.
//!
//! It is one value that never changes. Whoever reloads the configuration makes another and gives it to
//! [`Control::replace`](super::Control::replace); each shard takes it over between two turns, so that nothing sees half of
//! a change.

use std::sync::Arc;

use super::core::Core;
use crate::config::{Config, Limits, Networks, TopicRules};
use crate::session::http::UpgradePolicy;

/// What shards read in every turn and an operator can replace. What a limit has reserved room for at the start (tables,
/// mailboxes) keeps its size, whatever stands here.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Every bound.
    pub limits: Arc<Limits>,
    /// Who may upgrade, and to what.
    pub policy: UpgradePolicy,
    /// Whose headers of the PROXY protocol are believed.
    pub proxies: Networks,
    /// What topics are allowed and given.
    pub rules: Arc<TopicRules>,
}

impl Live {
    /// These limits, with the defaults of all else.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::of(&Config { limits, ..Config::default() })
    }

    /// What a configuration says of it.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let policy = UpgradePolicy {
            origins: config.origins.clone(),
            subprotocols: config.subprotocols.clone(),
            deflate: config.deflate,
        };
        Self {
            limits: Arc::new(config.limits.clone()),
            policy,
            proxies: config.proxies.clone(),
            rules: Arc::new(TopicRules::new(config)),
        }
    }
}

impl Core {
    /// Takes over what was replaced since the last turn.
    pub(super) fn follow_live(&mut self) {
        let version = self.control.live_version();
        if version != self.live_version {
            self.live_version = version;
            self.live = self.control.live();
            self.limits = Arc::clone(&self.live.limits);
            self.rulings.forget();
            self.members.set_topics_max(self.limits.topics_max);
            self.topics.follow(&self.live.rules, &self.limits, self.shards);
        }
    }
}
