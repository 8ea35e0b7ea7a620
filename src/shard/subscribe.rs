//! Who subscribes to what: the connection, this shard's members and the topic's owner are told the same.

use super::connection::{Extra, Membership};
use super::core::Core;
use super::mail::{About, OwnMail, Request};
use super::pace::Pace;
use crate::app::{NotSubscribed, Subscribe};
use crate::hub::Group;
use crate::hub::members::Interest;
use crate::id::ConnId;
use crate::message::Topic;
use crate::time::Clock;

impl Core {
    /// Requests to one owner that wait for room, beyond which nobody subscribes to its topics. Each stay of a topic asks
    /// for a few at most, so those that must follow are bounded too.
    const REQUESTS_MAX: usize = 64 * 1024;

    pub(super) fn subscribe(&mut self, id: ConnId, topic: &Topic, how: Subscribe) -> Result<(), NotSubscribed> {
        let Some(connection) = self.table.get(id) else { return Ok(()) };
        if let Err(cause) = self.permits_subscribe(id, topic) {
            self.metrics.count_refused(cause);
            return Err(NotSubscribed::Forbidden(cause));
        }
        let own_group = how.group.clone();
        let group = own_group.as_ref();
        let key = self.members.key(topic, group);
        if key.is_some_and(|key| connection.memberships().any(|membership| membership.topic == key)) {
            return Ok(());
        }
        if topic.as_str().len() > self.limits.topic_bytes_max {
            return self.not_subscribed(NotSubscribed::TopicTooLong);
        }
        if connection.memberships().count() >= self.limits.subscriptions_max {
            return self.not_subscribed(NotSubscribed::TooMany);
        }
        let owner = topic.owner(self.shards);
        if self.mail.peers[usize::from(owner.0)].requests.staged() >= Self::REQUESTS_MAX {
            return self.not_subscribed(NotSubscribed::Busy);
        }
        let wire = connection.encoder().wire;
        let begins_later = Self::begins_later(connection.protocol, &how);
        let Some(joined) = self.members.join(topic, group, id.index(), wire, how.echo, begins_later) else {
            return self.not_subscribed(NotSubscribed::NoRoom);
        };
        let membership = Membership { topic: joined.topic, position: joined.position };
        if let Some(connection) = self.table.get_mut(id) {
            if connection.membership.is_some() {
                connection.extra.get_or_insert_default().memberships().push(membership);
            } else {
                connection.membership = membership;
            }
        }
        self.metrics.subscriptions.add(1);
        if let Some(tracer) = &mut self.tracer {
            tracer.membership("subscribed", id, topic, group);
        }
        self.hook_subscribed(id, topic, group);
        self.tell_owner(topic, group, joined.interest);
        if begins_later {
            self.ask(id, topic, About::Past(how.start, wire));
        } else if group.is_some() {
            self.share_out(joined.topic);
        }
        self.attend(id, joined.topic, topic, how);
        Ok(())
    }

    fn not_subscribed(&self, why: NotSubscribed) -> Result<(), NotSubscribed> {
        why.limit().into_iter().for_each(|limit| self.metrics.strike(limit));
        Err(why)
    }

    pub(super) fn unsubscribe(&mut self, id: ConnId, topic: &Topic) {
        let Some(connection) = self.table.get_mut(id) else { return };
        let keys = connection.memberships().map(|membership| membership.topic);
        let key = { keys }.find(|key| self.members.name(*key) == Some(topic));
        let Some(key) = key else { return };
        let membership = if connection.membership.topic == key {
            let next = connection.extra.as_mut().and_then(|extra| extra.pop_membership());
            std::mem::replace(&mut connection.membership, next.unwrap_or(Membership::NONE))
        } else {
            let Some(memberships) = connection.extra.as_deref_mut().map(Extra::memberships) else { return };
            let Some(index) = memberships.iter().position(|membership| membership.topic == key) else { return };
            memberships.swap_remove(index)
        };
        self.leave_topic(id, membership);
    }

    /// Takes a connection out of all its topics.
    pub(super) fn leave_all_topics(&mut self, id: ConnId) {
        while let Some(connection) = self.table.get_mut(id) {
            let more = connection.extra.as_mut().and_then(|extra| extra.pop_membership());
            let membership = match more {
                Some(membership) => membership,
                None if connection.membership.is_some() => {
                    std::mem::replace(&mut connection.membership, Membership::NONE)
                }
                None => break,
            };
            self.leave_topic(id, membership);
        }
    }

    fn leave_topic(&mut self, id: ConnId, membership: Membership) {
        let Some(wire) = self.table.get(id).map(|connection| connection.encoder().wire) else { return };
        let Some(topic) = self.members.name(membership.topic).cloned() else { return };
        let group = self.members.group(membership.topic).cloned();
        let table = &mut self.table;
        let left = self.members.leave(membership.topic, membership.position, wire, |moved, position| {
            if let Some((_, connection)) = table.at(moved) {
                connection.moved(Membership { topic: membership.topic, position });
            }
        });
        self.metrics.subscriptions.sub(1);
        if let Some(tracer) = &mut self.tracer {
            tracer.membership("unsubscribed", id, &topic, group.as_ref());
        }
        self.hook_unsubscribed(id, &topic, group.as_ref());
        self.tell_owner(&topic, group.as_ref(), left.interest);
        if group.is_none() {
            self.absent(id, membership.topic, &topic);
        }
        left.returned.into_iter().for_each(|message| self.give_back(message, group.as_ref()));
        if group.is_some() {
            // Nobody who stays may want what was for this one.
            self.share_out(membership.topic);
        }
    }

    fn tell_owner(&mut self, topic: &Topic, group: Option<&Group>, interest: Interest) {
        self.metrics.topics.set(self.members.len() as u64);
        let request = match interest {
            Interest::Same => return,
            Interest::Wants(_) => {
                let stake = self.members.key(topic, group).and_then(|key| self.members.stake(key));
                let Some(stake) = stake else { return };
                Request::Interest(topic.clone(), stake.of(self.id))
            }
            Interest::None => Request::Disinterest(topic.clone(), self.id, group.cloned()),
        };
        self.send_to_owner(topic, request);
    }

    /// Tells owners how many subscribers their topics have here, of those where that has changed. It waits while mailboxes
    /// are full: so a topic that changes in every turn adds no more to what waits.
    pub(super) fn tell_changes(&mut self, pace: &mut Pace<'_, impl Clock>) {
        while pace.more() {
            if self.mail.requests_wait {
                return;
            }
            let Some((topic, stake)) = self.members.take_changed() else { return };
            let request = Request::Interest(topic.clone(), stake.of(self.id));
            self.send_to_owner(&topic, request);
        }
        self.unfinished = true;
    }

    /// Sends a request to a topic's owner.
    pub(super) fn send_to_owner(&mut self, topic: &Topic, request: Request) {
        let owner = topic.owner(self.shards);
        match request {
            request if owner != self.id => self.mail.request(owner, request),
            // One connection may ask for a hundred pages at once. A past cannot wait: the live stream goes on behind it.
            Request::Ask(question) if matches!(question.about, About::Page { .. }) => {
                self.own_mail.push_back(OwnMail::Question(question));
            }
            request => self.take_request(request),
        }
    }
}
