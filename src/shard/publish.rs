//! Publications on their way: publisher's shard, owner shard, interested shards.

use super::core::Core;
use super::mail::{Delivery, Request};
use super::pace::Pace;
use crate::hub::topics::{Interested, Now};
use crate::id::{ConnId, ShardId};
use crate::message::{Message, Topic};
use crate::rule::Limit;
use crate::time::Clock;

impl Core {
    /// Bytes of messages that may wait for their fan-out on a shard. Beyond, publications wait where they are.
    const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

    /// What publications of this shard's connections may keep in memory before nobody is read.
    const STAGED_BYTES_MAX: usize = 4 * 1024 * 1024;
    /// A publication that may take a while to compress: 16 KiB are some 0.2 ms.
    const LONG_BYTES: usize = 16 * 1024;
    /// Room for them that is kept.
    const STAGED_KEPT: usize = 4096;

    /// Handles what other shards sent.
    pub(super) fn take_mail(&mut self, pace: &mut Pace<'_, impl Clock>) {
        while !self.is_congested() && pace.more() {
            match self.mail.deliveries.try_recv() {
                Some(Delivery::Message(message, stay)) => {
                    self.fan_outs.extend(self.members.deliver_during(stay, None, message).ok().flatten());
                }
                Some(Delivery::NoRoom(topic)) => self.evict(&topic),
                None => break,
            }
        }
        while !self.mail.deliveries_wait && !self.is_congested() && pace.more() {
            match self.mail.requests.try_recv() {
                Some(request) => {
                    let is_long = matches!(&request, Request::Publish(message) if message.memory() > Self::LONG_BYTES);
                    self.take_request(request);
                    if is_long {
                        pace.look();
                    }
                }
                None => break,
            }
        }
    }

    /// Whether there is mail that may be taken now. What must wait for others' room is no reason not to sleep.
    pub(super) fn has_mail(&self) -> bool {
        let mail = &self.mail;
        let some = !mail.deliveries.is_empty() || (!mail.requests.is_empty() && !mail.deliveries_wait);
        some && !self.is_congested()
    }

    /// Whether so much waits for its fan-out that nothing may be added.
    pub(super) fn is_congested(&self) -> bool {
        self.members.waiting_bytes() > Self::WAITING_BYTES_MAX
    }

    /// Sends this shard's publications to their owners, in order, as long as there is room and time.
    pub(super) fn publish(&mut self, pace: &mut Pace<'_, impl Clock>) {
        self.mail.flush();
        while !self.is_blocked()
            && pace.more()
            && let Some(message) = self.staged.pop_front()
        {
            let bytes = message.memory();
            self.staged_bytes -= bytes;
            let owner = message.topic.owner(self.shards);
            if owner == self.id {
                self.own(message);
            } else {
                self.mail.request(owner, Request::Publish(message));
            }
            if bytes > Self::LONG_BYTES {
                pace.look();
            }
        }
        if self.staged.is_empty() {
            self.staged.shrink_to(Self::STAGED_KEPT);
        }
        let was_blocked = self.blocked;
        self.blocked = self.is_blocked();
        if self.blocked && !was_blocked && !self.is_congested() {
            self.metrics.strike(Limit::MailboxCapacity);
        }
    }

    /// Whether so many publications wait that no more are taken in.
    pub(super) const fn is_staging_full(&self) -> bool {
        self.staged_bytes > Self::STAGED_BYTES_MAX
    }

    /// Whether publications must wait: some mailbox is full, or too much waits here.
    pub(super) fn is_blocked(&self) -> bool {
        self.mail.requests_wait || self.mail.deliveries_wait || self.is_congested()
    }

    pub(super) fn take_request(&mut self, request: Request) {
        match request {
            Request::Publish(message) => self.own(message),
            Request::Interest(topic, interested) => {
                let (shard, now) = (interested.shard, self.time());
                if !self.topics.interest(&topic, interested, now) {
                    self.answer(shard, Delivery::NoRoom(topic));
                }
            }
            Request::Disinterest(topic, shard) => {
                let now = self.time();
                self.topics.disinterest(&topic, shard, None, now);
            }
        }
    }

    fn answer(&mut self, shard: ShardId, delivery: Delivery) {
        if shard != self.id {
            self.mail.deliver(shard, delivery);
        } else if let Delivery::NoRoom(topic) = delivery {
            self.evict(&topic);
        }
    }

    /// Gives a publication its place and sends it to all shards that want it.
    fn own(&mut self, mut message: Message) {
        self.metrics.publications_total.add(1);
        let now = self.time();
        let Ok(published) = self.topics.publish(&mut message, None, &mut self.deflater, now) else {
            return self.metrics.strike(Limit::TopicsMax);
        };
        let mut here = false;
        for &Interested { shard, stay, .. } in published.audience {
            if shard == self.id {
                here = true;
            } else {
                self.mail.deliver(shard, Delivery::Message(message.clone(), stay));
            }
        }
        if here {
            self.deliver(message);
        }
    }

    /// The present, as the hub is told it.
    pub(super) const fn time(&self) -> Now {
        Now { tick: self.tick, unix_ms: self.unix_ms }
    }

    fn deliver(&mut self, message: Message) {
        self.fan_outs.extend(self.members.deliver(message));
    }

    /// The owner has no room for a topic: its subscribers here are asked to come back later. Those are found when the
    /// timers' turn comes: until then others may join, of whom the owner is not told.
    fn evict(&mut self, topic: &Topic) {
        self.metrics.strike(Limit::TopicsMax);
        self.evicted.push(topic.clone());
    }

    /// A subscriber of a topic that its owner has no room for.
    pub(super) fn next_evicted(&mut self) -> Option<ConnId> {
        while let Some(topic) = self.evicted.last() {
            let member = self.members.key(topic, None).and_then(|key| self.members.members(key).first());
            if let Some((id, _)) = member.and_then(|member| self.table.at(member.connection())) {
                return Some(id);
            }
            self.evicted.pop();
        }
        None
    }
}
