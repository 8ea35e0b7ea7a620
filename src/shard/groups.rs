//! Queue groups: each message goes to one member, who is ready for it.
//!
//! The topic's owner chooses the shard, in turns by how many members each has. Here a message waits until a member has nothing
//! queued, and is sent straight from its image. What the kernel does not take goes back to the head of the line, for whoever
//! is ready next; what is left when the last member goes, goes back to the owner, who chooses another shard. So a
//! message is lost only with a connection to which the kernel had taken some of it, or with the last member of all.

use super::Shard;
use super::borne::Borne;
use super::connection::{Connection, Flags};
use super::core::{Core, Send, Sent};
use super::egress::weight_of;
use super::fanout::joined;
use super::mail::{Delivery, Request};
use crate::hub::topics::Interested;
use crate::hub::{Group, TopicKey};
use crate::id::ConnId;
use crate::io::{Backend, Out};
use crate::message::{Image, Message, Publisher};
use crate::session::Protocol;

/// Messages that were taken from a queue group and given to the kernel in one piece.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) key: TopicKey,
    pub(super) group: Group,
    pub(super) messages: Vec<Message>,
    pub(super) image: Image,
    /// What the member speaks.
    pub(super) protocol: Protocol,
}

/// What a look for a member came to.
enum Found {
    /// This one: its place among the members.
    Ready(usize),
    /// All who are ready have been sent something in this batch.
    Batch,
    /// Nobody is ready.
    Nobody,
    /// The only members published it themselves and do not want it.
    Unwanted,
}

impl<B: Backend> Shard<B> {
    /// Gives waiting messages of a queue group to members who are ready, for as much work as is left in `room`. Returns how
    /// much that was, and whether there is more to do now.
    pub(super) fn share(&mut self, key: TopicKey, room: usize) -> (usize, bool) {
        let mut served = 0;
        while served < room.max(1) {
            match self.core.find_ready(key) {
                None | Some(Found::Nobody) => return (served, false),
                Some(Found::Batch) if self.core.sends.is_empty() => {
                    self.core.next_batch();
                }
                Some(Found::Batch) => {
                    self.flush_sends();
                    return (served.max(1), true);
                }
                Some(Found::Unwanted) => {
                    self.core.members.pop_for_group(key);
                    self.core.metrics.deliveries_dropped_total.add(1);
                    served += 1;
                }
                Some(Found::Ready(place)) => served += self.give_share(key, place),
            }
        }
        (served, true)
    }

    /// Sends one member its share of what waits.
    fn give_share(&mut self, key: TopicKey, place: usize) -> usize {
        let core = &mut self.core;
        let count = core.members.count(key).max(1) as usize;
        let Some(member) = core.members.members(key).get(place).copied() else { return 1 };
        let Some((id, connection)) = core.table.at(member.connection()) else { return 1 };
        let (wire, protocol) = (connection.encoder().wire, connection.protocol);
        let Some(group) = core.members.group(key).cloned() else { return 1 };
        let each = core.members.waiting(key).div_ceil(count).clamp(1, Core::SHARE_MESSAGES_MAX);
        let own = Publisher { shard: core.id, connection: id };
        let mut messages: Vec<Message> = Vec::new();
        while messages.len() < each
            && core.members.next_for_group(key).is_some_and(|first| member.echo() || first.publisher != Some(own))
            && let Some(message) = core.members.pop_for_group(key)
        {
            messages.push(message);
        }
        if wire.is_private() {
            let count = messages.len().max(1);
            core.metrics.deliveries_total.add(messages.len() as u64);
            core.metrics.count_sent(protocol.counted(), messages.len() as u64);
            core.private.extend(messages.into_iter().map(|message| (id, message)));
            core.send_private();
            return count;
        }
        if messages.is_empty() {
            return 1;
        }
        let image = joined(&mut messages, wire, &mut core.deflater);
        if connection.flags.has(Flags::BORNE) {
            let (count, weight) = (messages.len(), weight_of(image.len()));
            core.metrics.deliveries_total.add(count as u64);
            core.metrics.count_sent(protocol.counted(), count as u64);
            if let Some(topic) = core.members.name(key).cloned() {
                core.enqueue(id, &topic, image, u32::try_from(count).unwrap_or(u32::MAX));
            }
            return weight;
        }
        connection.batch = core.batch;
        core.metrics.bytes_sent_total.add(image.len() as u64);
        let tag = u32::try_from(core.sends.len()).unwrap_or(u32::MAX);
        core.sends.push(Send { id, what: Sent::Share { index: core.shares.len() } });
        self.backend.send(id, Out::Shared(&image.bytes, image.start, image.end), tag);
        let weight = weight_of(image.len());
        core.owed += weight;
        core.shares.push(Share { key, group, messages, image, protocol });
        weight
    }
}

impl Core {
    /// Messages that one member is sent at once.
    const SHARE_MESSAGES_MAX: usize = 16;

    /// Looks for a member who is ready for the next message, from the one on whose turn it is.
    fn find_ready(&mut self, key: TopicKey) -> Option<Found> {
        let first = self.members.next_for_group(key)?;
        let publisher = first.publisher;
        let count = self.members.count(key) as usize;
        let turn = self.members.turn(key)? as usize;
        let (mut found, mut unwanted) = (Found::Nobody, 0);
        for step in 0..count {
            let place = (turn + step) % count;
            let member = *self.members.members(key).get(place)?;
            let Some((id, _)) = self.table.at(member.connection()) else { continue };
            let Some(connection) = self.table.get(id) else { continue };
            if !member.echo() && publisher == Some(Publisher { shard: self.id, connection: id }) {
                unwanted += 1;
            } else if !self.is_ready_for_share(connection) || connection.flags.has(Flags::CLOSING) {
            } else if connection.batch == self.batch {
                found = Found::Batch;
            } else {
                self.members.had_turn(key, place);
                return Some(Found::Ready(place));
            }
        }
        Some(if unwanted == count { Found::Unwanted } else { found })
    }

    /// Whether nothing is queued for a member, and the kernel or, for a stream, its window may take more.
    pub(super) fn is_ready_for_share(&self, connection: &Connection) -> bool {
        let borne = connection.extra.as_deref().and_then(|extra| extra.borne.as_deref());
        let has_window = |borne: &Borne| {
            let carrier = self.table.get(borne.carrier).and_then(|one| one.extra.as_deref()?.carrier.as_deref());
            carrier.is_some_and(|carrier| carrier.http2.room(borne.stream) > 0)
        };
        connection.is_ready() && borne.is_none_or(has_window)
    }

    /// Has a queue group's messages given out, if some wait: a member is ready.
    pub(super) fn share_out(&mut self, key: TopicKey) {
        if self.members.waiting(key) > 0 {
            self.list_fan_out(key);
        }
    }

    /// Puts a topic on the list of those that are handed out, a queue group only if it is not there.
    pub(super) fn list_fan_out(&mut self, key: TopicKey) {
        if self.members.enlist(key) {
            self.fan_outs.push_back(key);
        }
    }

    /// A connection has nothing queued any more: its queue groups may have something for it.
    pub(super) fn ready_for_shares(&mut self, id: ConnId) {
        let Some(connection) = self.table.get(id) else { return };
        let (first, more) = (connection.membership, connection.extra.is_some());
        if first.is_some() && self.members.group(first.topic).is_some() {
            self.share_out(first.topic);
        }
        if more && let Some(connection) = self.table.get(id) {
            let keys: Vec<_> = connection.memberships().skip(1).map(|membership| membership.topic).collect();
            keys.into_iter().for_each(|key| self.share_out(key));
        }
    }

    /// A message for a queue group that has no members here any more: the owner chooses another shard.
    pub(super) fn give_back(&mut self, message: Message, group: Option<&Group>) {
        if let Some(group) = group {
            let topic = message.topic.clone();
            self.send_to_owner(&topic, Request::Return(message, group.clone()));
        }
    }

    /// Chooses a shard for a message that came back.
    pub(super) fn share_again(&mut self, message: Message, group: &Group) {
        match self.topics.pick(&message.topic, group) {
            Some(Interested { shard, stay, .. }) if shard == self.id => self.deliver(message, stay, Some(group)),
            Some(Interested { shard, stay, .. }) => {
                self.mail.deliver(shard, Delivery::Message(message, stay, Some(group.clone())));
            }
            None => self.metrics.deliveries_dropped_total.add(1),
        }
    }

    /// What the kernel did not take of a share: messages of which it took nothing go back to the head of the line, the rest
    /// of one that it took in part stays with its connection.
    pub(super) fn take_back(&mut self, id: ConnId, index: usize, taken: usize) {
        let Some(share) = self.shares.get_mut(index) else { return };
        let (key, group, image, protocol) = (share.key, share.group.clone(), share.image.clone(), share.protocol);
        let mut messages = std::mem::take(&mut share.messages);
        let Some(wire) = self.table.get(id).map(|connection| connection.encoder().wire) else { return };
        let mut end = 0;
        let mut begun = 0;
        for message in &mut messages {
            if end >= taken {
                break;
            }
            end += message.encoded(wire, &mut self.deflater).len();
            begun += 1;
        }
        let untaken = messages.split_off(begun);
        self.metrics.deliveries_total.add(begun as u64);
        self.metrics.count_sent(protocol.counted(), begun as u64);
        if taken < end
            && let Some(outbox) = self.outbox(id)
        {
            let before = outbox.memory();
            let (start, end) = (image.start + taken, image.start + end);
            outbox.put_back_shared(Image { bytes: image.bytes, start, end }, 1);
            let after = outbox.memory();
            self.count_queued(before, after);
        }
        if self.members.group(key) != Some(&group) {
            return untaken.into_iter().for_each(|message| self.give_back(message, Some(&group)));
        }
        for message in untaken.into_iter().rev() {
            if let Err(message) = self.members.push_front(key, message) {
                self.give_back(message, Some(&group));
            }
        }
        self.share_out(key);
    }

    /// Sends what stands in something of the connection's own: events of streams with several topics, answers of polls.
    pub(super) fn send_private(&mut self) {
        let mut private = std::mem::take(&mut self.private);
        for (id, mut message) in private.drain(..) {
            if self.table.get(id).is_some_and(|one| one.encoder().wire == crate::message::Wire::Json) {
                if self.add_to_poll(id, &message) && !self.told.contains(&id) {
                    self.told.push(id);
                }
            } else if let Some(event) = self.event_of_many(id, &mut message) {
                self.enqueue(id, &message.topic, event, 1);
            }
        }
        self.private = private;
        while let Some(id) = self.told.pop() {
            self.answer_poll(id);
        }
    }
}
