//! Who may publish what. All publications of connections come through here, in whatever protocol: their publisher's shard
//! asks whether it may publish, their topic's owner whether that is too fast.

use hashbrown::HashMap;

use super::connection::Connection;
use super::core::Core;
use super::mail::{Answered, Publication, Terms};
use crate::app::NotPublished;
use crate::close::CloseReason;
use crate::config::{Publishers, RuleKey, SlowConsumer, TopicRule, TopicRules};
use crate::id::ConnId;
use crate::message::{Message, Publisher, Topic};
use crate::rule::{Limit, Rule};
use crate::time::Stamp;

/// The rules of topics that were asked for lately, so that a name is compared with the patterns once.
#[derive(Debug, Default)]
pub(super) struct Rulings(HashMap<Topic, RuleKey>);

impl Rulings {
    /// Topics in it at most. It begins anew when they are more.
    const KEPT_MAX: usize = 4096;

    fn of<'r>(&mut self, rules: &'r TopicRules, topic: &Topic) -> &'r TopicRule {
        if rules.is_uniform() {
            return rules.get(RuleKey::default());
        }
        if let Some(key) = self.0.get(topic) {
            return rules.get(*key);
        }
        if self.0.len() >= Self::KEPT_MAX {
            self.0.clear();
        }
        let key = rules.key(topic.as_str());
        self.0.insert(topic.clone(), key);
        rules.get(key)
    }

    /// There are other rules from now on.
    pub(super) fn forget(&mut self) {
        self.0 = HashMap::new();
    }
}

impl Core {
    /// The rule for a topic.
    pub(super) fn rule(&mut self, topic: &Topic) -> &TopicRule {
        self.rulings.of(&self.live.rules, topic)
    }

    /// What happens to a slow consumer of a topic: what a section for the topic says, else its route, else the defaults.
    pub(super) fn slow_consumer(&mut self, id: ConnId, topic: &Topic) -> SlowConsumer {
        let ruled = self.rule(topic).slow_consumer;
        let route = self.table.get(id).map(|connection| connection.route);
        let routed = || route.and_then(|route| self.router.slow_consumer(route));
        ruled.or_else(routed).unwrap_or(self.live.rules.slow_consumer)
    }

    /// Whether a connection may publish to a topic: the topic's rule must let it, and its token, where it was asked for one.
    pub(super) fn permits_publish(&mut self, id: ConnId, topic: &Topic) -> Result<(), NotPublished> {
        let ruled = self.rule(topic).publish;
        let grant = self.table.get(id).and_then(Connection::grant);
        let is_known = grant.is_some_and(|grant| !grant.is_anonymous);
        match ruled {
            Publishers::Nobody => return Err(NotPublished::Forbidden),
            Publishers::Authenticated if !is_known => return Err(NotPublished::Unauthenticated),
            Publishers::Authenticated | Publishers::Anyone => {}
        }
        let Some(grant) = grant.filter(|grant| !grant.may_publish(topic.as_str())) else { return Ok(()) };
        self.metrics.count_refused(grant.refusal());
        Err(if is_known { NotPublished::Forbidden } else { NotPublished::Unauthenticated })
    }

    /// Publishes what a client has said.
    ///
    /// # Errors
    /// When it may not, which ends its connection.
    pub(super) fn publish_said(&mut self, id: ConnId, message: Message) -> Result<(), NotPublished> {
        if let Err(why) = self.permits_publish(id, &message.topic) {
            self.count_refused(why);
            return Err(why);
        }
        self.stage(id, Publication { is_said: true, ..message.into() });
        Ok(())
    }

    /// Publishes what an application says about a client. Where the client may not publish nobody hears it.
    pub(super) fn publish_about(&mut self, id: ConnId, message: Message) {
        match self.permits_publish(id, &message.topic) {
            Ok(()) => self.stage(id, message.into()),
            Err(why) => self.count_refused(why),
        }
    }

    /// Publishes for a connection that is told what became of it.
    pub(super) fn publish_for(&mut self, id: ConnId, message: Message, key: Option<Box<str>>, number: u32) {
        let asker = Publisher { shard: self.id, connection: id };
        if let Err(why) = self.permits_publish(id, &message.topic) {
            self.count_refused(why);
            return self.reply(asker, message.topic, Answered::NotPublished(number, why));
        }
        let terms = Some(Box::new(Terms { asker, key, number }));
        self.stage(id, Publication { terms, is_said: true, ..message.into() });
    }

    fn stage(&mut self, id: ConnId, mut publication: Publication) {
        publication.grant = self.hook_grant(id);
        publication.message.taken = Stamp::of(self.now);
        publication.message.time_ms = self.unix_ms;
        self.staged_bytes += publication.message.memory();
        self.staged.push_back(publication);
    }

    /// As a topic's owner: tells whoever published a message that it is refused.
    pub(super) fn refuse_publication(&mut self, publication: Publication, why: NotPublished) {
        let Publication { message, terms, is_said, .. } = publication;
        self.count_refused(why);
        match (terms, message.publisher) {
            (Some(terms), _) => self.reply(terms.asker, message.topic, Answered::NotPublished(terms.number, why)),
            (None, Some(publisher)) if is_said => self.reply(publisher, message.topic, Answered::Refused(why)),
            _ => {}
        }
    }

    /// As a publisher's shard: ends a connection that has no other way to hear that it was refused. Who finds no room for
    /// its topic is not to blame, and comes again later.
    pub(super) fn take_refusal(&mut self, id: ConnId, why: NotPublished) {
        let reason = match why {
            NotPublished::NoRoom => CloseReason::TryAgainLater,
            NotPublished::Moved => CloseReason::GoingAway,
            NotPublished::JournalFailed | NotPublished::JournalBusy => CloseReason::TryAgainLater,
            NotPublished::ClusterAway | NotPublished::ClusterBusy | NotPublished::ClusterFull => {
                CloseReason::TryAgainLater
            }
            NotPublished::ClusterPayload => CloseReason::TooBig,
            NotPublished::TooFast | NotPublished::Forbidden | NotPublished::Unauthenticated => CloseReason::Policy,
        };
        self.doomed.push((id, reason, why.message()));
    }

    pub(super) fn count_refused(&self, why: NotPublished) {
        match why {
            NotPublished::NoRoom => self.metrics.strike(Limit::TopicsMax),
            NotPublished::TooFast => self.metrics.strike(Limit::TopicRate),
            NotPublished::Moved => self.metrics.moved_total.add(1),
            NotPublished::JournalFailed => self.metrics.durable_failed_total.add(1),
            NotPublished::JournalBusy => self.metrics.durable_busy_total.add(1),
            NotPublished::ClusterAway => self.metrics.cluster_away_total.add(1),
            NotPublished::ClusterBusy => self.metrics.cluster_busy_total.add(1),
            NotPublished::ClusterFull => self.metrics.cluster_full_total.add(1),
            NotPublished::ClusterPayload => self.metrics.cluster_payload_total.add(1),
            NotPublished::Forbidden | NotPublished::Unauthenticated => {
                self.metrics.count_violation(Rule::PublishNotAllowed);
            }
        }
    }
}
