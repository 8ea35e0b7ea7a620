//! What a shard says to other nodes, and hears of them, about the topics that it owns.
//!
//! A plain topic is published here first, as if there were nobody else, and then said to the others. What they say is
//! published as if the server said it. Where something cannot be said (no connection, no room) the others are told later how
//! much that was; where something was missed the topic's past ends and its subscribers are told.
//!
//! Nothing here waits: the queue to the cluster's thread is bounded in messages and bytes.

use std::collections::VecDeque;

use super::control::Publishing;
use super::core::Core;
use super::mail::{Delivery, Publication};
use super::pace::Pace;
use super::publish::{Entrant, Stage};
use crate::cluster::port::{Follow, Inbound, NodeId, Outbound, Said, ShardEnd, Sharing};
use crate::hub::topics::{Heard, Interested, Wish};
use crate::message::Message;
use crate::time::Clock;

/// What a shard has of its node's cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    end: ShardEnd,
    is_connected: bool,
    /// Bytes that a payload may have, as far as is known.
    payload_max: usize,
    /// What each of the messages keeps in memory that the thread has not taken, about; and all of them.
    sizes: VecDeque<usize>,
    bytes: usize,
    /// With a new connection: the next place of a topic of which the others are told how much was said.
    walk: Option<usize>,
}

impl Cluster {
    /// What messages may keep in memory that wait for the thread.
    const BYTES_MAX: usize = 32 * 1024 * 1024;

    /// Without a connection so far.
    pub(super) const fn new(end: ShardEnd) -> Self {
        Self { end, is_connected: false, payload_max: usize::MAX, sizes: VecDeque::new(), bytes: 0, walk: None }
    }

    fn has_room(&self) -> bool {
        self.end.outbound.staged() == 0 && self.end.outbound.sender().room() > 0
    }

    /// Gives the thread something that takes so many bytes. There is room.
    fn give(&mut self, what: Outbound, bytes: usize) {
        self.end.outbound.push(what);
        self.sizes.push_back(bytes);
        self.bytes += bytes;
    }

    /// Notes what the thread has taken.
    fn note_taken(&mut self) {
        let sender = self.end.outbound.sender();
        let waiting = sender.capacity() - sender.room() + self.end.outbound.staged();
        while self.sizes.len() > waiting {
            self.bytes -= self.sizes.pop_front().unwrap_or(0);
        }
    }

    fn say(&mut self, message: &Message, said: Said) -> bool {
        let bytes = message.memory();
        if !self.is_connected || !self.has_room() || self.bytes + bytes > Self::BYTES_MAX {
            return false;
        }
        self.give(Outbound::Say(message.clone(), said), bytes);
        true
    }
}

impl Core {
    /// Tells other nodes of a message that has its place here.
    pub(super) fn say_to_others(&mut self, message: &Message, said: Said) {
        let Some(cluster) = self.cluster.as_deref_mut() else { return };
        if cluster.say(message, said) {
            self.metrics.cluster_said_total.add(1);
        } else {
            self.topics.owe(&message.topic);
            self.metrics.cluster_unsaid_total.add(1);
        }
    }

    /// Whether a message cannot be said to other nodes and would have to be.
    pub(super) fn is_too_large_for_others(&self, message: &Message) -> bool {
        let payload_max = self.cluster.as_deref().map_or(usize::MAX, |cluster| cluster.payload_max);
        message.payload().len() > payload_max && !self.topics.is_durable(&message.topic)
    }

    /// Takes what other nodes say, as long as there is room and time.
    pub(super) fn take_cluster_mail(&mut self, pace: &mut Pace<'_, impl Clock>) {
        while self.has_cluster_mail() && pace.more() {
            let Some(cluster) = self.cluster.as_deref_mut() else { return };
            match cluster.end.inbound.try_recv() {
                Some(inbound) => self.take_inbound(inbound),
                None => self.walk_topics(),
            }
        }
    }

    /// Whether there is something to be taken now, or the walk goes on.
    pub(super) fn has_cluster_mail(&self) -> bool {
        let Some(cluster) = self.cluster.as_deref() else { return false };
        let is_due = cluster.walk.is_some() || !cluster.end.inbound.is_empty();
        is_due && !self.mail.deliveries_wait && !self.is_held() && !self.is_congested()
    }

    fn take_inbound(&mut self, inbound: Inbound) {
        let Some(cluster) = self.cluster.as_deref_mut() else { return };
        match inbound {
            Inbound::Connected { payload_max } => {
                (cluster.is_connected, cluster.payload_max, cluster.walk) = (true, payload_max, Some(0));
            }
            Inbound::Away => (cluster.is_connected, cluster.walk) = (false, None),
            // Another process has the topics, and hears them.
            _ if self.publishing == Publishing::Moved => {}
            Inbound::Following(follow) => {
                if self.topics.note_following(follow) {
                    self.renew_past(follow);
                }
            }
            Inbound::Heard { follow, node, said, message } => self.hear_others(follow, node, said, message),
            Inbound::Lost(follow, _) => self.renew_past(follow),
            // Of durable topics, which are not shared yet, and of members, whom nobody tells of yet.
            Inbound::Past { .. }
            | Inbound::Placed(..)
            | Inbound::Appended(..)
            | Inbound::Whispered(..)
            | Inbound::Came(_)
            | Inbound::Gone(_) => {}
        }
    }

    /// Publishes what another node has published.
    fn hear_others(&mut self, follow: Follow, node: NodeId, said: Said, message: Option<Message>) {
        let topic = message.as_ref().map(|message| &message.topic);
        match self.topics.note_heard(follow, node, said, topic) {
            Heard::Old => return,
            Heard::Next => {}
            Heard::Missed(count) => {
                self.metrics.cluster_missed_total.add(count);
                self.renew_past(follow);
            }
        }
        let Some(mut message) = message else { return };
        self.metrics.cluster_heard_total.add(1);
        (message.publisher, message.taken) = (None, crate::time::Stamp::of(self.now));
        let came_ms = self.unix_ms;
        let publication = Publication::from(message);
        self.settle(Entrant { publication, span: None, came_ms }, Stage::Heard);
    }

    /// Ends the past of a topic of which something was missed, and tells those who hear it.
    fn renew_past(&mut self, follow: Follow) {
        let now = self.time();
        let Some((reset, audience)) = self.topics.renew(follow, &mut self.deflater, now) else { return };
        self.metrics.cluster_resets_total.add(1);
        let mut here = None;
        for Interested { shard, stay, .. } in audience {
            if *shard == self.id {
                here = Some(*stay);
            } else {
                self.mail.deliver(*shard, Delivery::Message(reset.clone(), *stay, None));
            }
        }
        if let Some(stay) = here {
            self.deliver_here(reset, stay);
        }
    }

    /// What was said before the connection was lost may not have been heard.
    fn walk_topics(&mut self) {
        let end = self.topics.place_end();
        let Some(cluster) = self.cluster.as_deref_mut() else { return };
        let Some(place) = cluster.walk else { return };
        cluster.walk = (place < end).then_some(place + 1);
        self.topics.owe_at(place);
    }

    /// Whether something waits until the cluster's thread has made room.
    pub(super) fn waits_for_cluster(&self) -> bool {
        let Some(cluster) = self.cluster.as_deref() else { return false };
        cluster.end.outbound.staged() > 0
            || self.topics.has_wishes()
            || (cluster.is_connected && self.topics.has_debts())
    }

    /// At the end of a turn: says what there is to say, and rings the cluster's thread.
    pub(super) fn flush_cluster(&mut self) {
        let Some(cluster) = self.cluster.as_deref_mut() else { return };
        cluster.note_taken();
        while cluster.has_room()
            && let Some(wish) = self.topics.next_wish()
        {
            let outbound = match wish {
                Wish::Follow(follow, topic) => Outbound::Follow { follow, topic, sharing: Sharing::Plain },
                Wish::Unfollow(follow) => Outbound::Unfollow(follow),
            };
            cluster.give(outbound, 0);
        }
        while cluster.is_connected
            && cluster.has_room()
            && let Some((topic, said)) = self.topics.next_debt()
        {
            cluster.give(Outbound::SaidSoFar(topic, said), 0);
        }
        cluster.end.outbound.flush();
        self.metrics.cluster_followed.set(self.topics.followed() as u64);
    }
}
