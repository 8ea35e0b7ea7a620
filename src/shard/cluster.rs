//! What a shard says to other nodes, and hears of them, about the topics that it owns.
//!
//! A plain topic is published here first, as if there were nobody else, and then said to the others. What they say is
//! published as if the server said it. Where something cannot be said (no connection, no room) the others are told later how
//! much that was; where something was missed the topic's past ends and its subscribers are told.
//!
//! Nothing here waits: the queue to the cluster's thread is bounded in messages and bytes. What a durable topic's stream has to
//! say first is [`ordered`](super::ordered)'s.

use std::collections::VecDeque;

use super::control::Publishing;
use super::core::Core;
use super::mail::{Delivery, Publication};
use super::ordered::Ordered;
use super::pace::Pace;
use super::publish::{Entrant, Stage};
use super::whispers::Errands;
use crate::cluster::port::{Follow, Inbound, NodeId, Outbound, QUEUED_MAX, Said, ShardEnd};
use crate::hub::topics::{Heard, Interested, Way, Wish};
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
    /// What was heard that would give something a place here, while another process takes the topics over.
    kept: VecDeque<Inbound>,
    /// What waits for streams.
    pub(super) ordered: Ordered,
    /// About members.
    pub(super) errands: Errands,
}

impl Cluster {
    /// What messages may keep in memory that wait for the thread.
    const BYTES_MAX: usize = 32 * 1024 * 1024;

    /// Without a connection so far.
    pub(super) fn new(end: ShardEnd) -> Self {
        Self {
            end,
            is_connected: false,
            payload_max: usize::MAX,
            sizes: VecDeque::new(),
            bytes: 0,
            walk: None,
            kept: VecDeque::new(),
            ordered: Ordered::default(),
            errands: Errands::new(),
        }
    }

    /// Whether there is a connection to the others.
    pub(super) const fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// The next thing that was heard and may be taken.
    fn next_inbound(&mut self, is_held: bool) -> Option<Inbound> {
        if !is_held && let Some(kept) = self.kept.pop_front() {
            return Some(kept);
        }
        while !is_held || self.kept.len() < QUEUED_MAX {
            let next = self.end.inbound.try_recv()?;
            if !is_held || goes_on(&next) {
                return Some(next);
            }
            self.kept.push_back(next);
        }
        None
    }

    fn has_inbound(&self, is_held: bool) -> bool {
        let has_some = !self.end.inbound.is_empty();
        if is_held { has_some && self.kept.len() < QUEUED_MAX } else { has_some || !self.kept.is_empty() }
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

/// Whether something is taken while nothing may get a place here: it has its place, or none.
const fn goes_on(inbound: &Inbound) -> bool {
    matches!(
        inbound,
        Inbound::Connected { .. }
            | Inbound::Away
            | Inbound::Past { .. }
            | Inbound::Placed(..)
            | Inbound::Lost(_, Some(_))
            | Inbound::Appended(..)
            | Inbound::Whispered(..)
            | Inbound::Came(_)
            | Inbound::Gone(_)
            | Inbound::Renew
    )
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
        message.payload().len() > payload_max && matches!(self.topics.way_of(&message.topic), Way::Said | Way::Ordered)
    }

    /// Takes what other nodes and streams say, as long as there is room and time.
    pub(super) fn take_cluster_mail(&mut self, pace: &mut Pace<'_, impl Clock>) {
        if self.cluster.is_none() {
            return;
        }
        self.give_up_on_streams();
        self.answer_waiting();
        self.go_round();
        let mut has_moved = false;
        while self.has_cluster_mail() && pace.more() {
            has_moved = true;
            if self.work_off_parked() || self.drop_leaving() {
                continue;
            }
            let is_held = self.is_held();
            let Some(cluster) = self.cluster.as_deref_mut() else { return };
            match cluster.next_inbound(is_held) {
                Some(inbound) => self.take_inbound(inbound, pace),
                None if is_held => break,
                None => {
                    self.walk_topics();
                    self.go_round();
                }
            }
        }
        if has_moved {
            self.orders.go_on();
        }
    }

    /// Whether there is something to be taken now, or the walk goes on.
    pub(super) fn has_cluster_mail(&self) -> bool {
        let Some(cluster) = self.cluster.as_deref() else { return false };
        let is_held = self.is_held();
        let is_due = cluster.has_inbound(is_held)
            || (cluster.walk.is_some() && !is_held)
            || cluster.ordered.has_open()
            || self.topics.has_opened()
            || self.has_errands();
        is_due && !self.mail.deliveries_wait && !self.is_congested()
    }

    fn take_inbound(&mut self, inbound: Inbound, pace: &mut Pace<'_, impl Clock>) {
        let Some(cluster) = self.cluster.as_deref_mut() else { return };
        match inbound {
            Inbound::Connected { payload_max } => {
                (cluster.is_connected, cluster.payload_max, cluster.walk) = (true, payload_max, Some(0));
                cluster.errands.begin_round(true);
            }
            Inbound::Away => {
                (cluster.is_connected, cluster.walk) = (false, None);
                self.refuse_unsent();
            }
            // These have their places, whoever has the topics.
            Inbound::Appended(ticket, result) => self.take_appended(ticket, result),
            Inbound::Past { follow, messages, end } => {
                let is_end = end.is_some();
                self.hear_past(follow, messages, end, pace);
                if is_end {
                    self.call_others(follow);
                }
            }
            Inbound::Placed(follow, stored) => self.hear_placed(follow, stored),
            Inbound::Lost(follow, Some(cursor)) => self.hear_lost(follow, cursor),
            // Another process has the topics, and hears them.
            _ if self.publishing == Publishing::Moved => {}
            Inbound::Following(follow) => {
                if self.topics.note_following(follow) {
                    self.renew_past(follow);
                }
                self.call_others(follow);
            }
            Inbound::Heard { follow, node, said, message } => self.hear_others(follow, node, said, message),
            Inbound::Lost(follow, None) => self.renew_past(follow),
            Inbound::Whispered(follow, node, bytes) => self.hear_whisper(follow, node, &bytes),
            Inbound::Came(node) => cluster.errands.note_came(node),
            Inbound::Gone(node) => cluster.errands.note_gone(node),
            Inbound::Renew => cluster.errands.begin_round(false),
        }
    }

    /// Publishes what another node has published.
    fn hear_others(&mut self, follow: Follow, node: NodeId, said: Said, message: Option<Message>) {
        let topic = message.as_ref().map(|message| message.topic.clone());
        topic.iter().for_each(|topic| self.turn_over(topic));
        match self.topics.note_heard(follow, node, said, topic.as_ref()) {
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
        self.topics.renew(follow, now);
        self.tell_resets();
    }

    /// Tells those who hear topics whose pasts have ended.
    pub(super) fn tell_resets(&mut self) {
        while let Some((reset, audience)) = self.topics.next_reset(&mut self.deflater) {
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
    }

    /// What was said before the connection was lost may not have been heard.
    fn walk_topics(&mut self) {
        let end = self.topics.place_end();
        let Some(cluster) = self.cluster.as_deref_mut() else { return };
        let Some(place) = cluster.walk else { return };
        cluster.walk = (place < end).then_some(place + 1);
        self.topics.owe_at(place);
    }

    /// When something will have waited for streams for too long.
    pub(super) fn streams_deadline(&self) -> Option<crate::wheel::Tick> {
        self.cluster.as_deref().and_then(|cluster| cluster.ordered.deadline())
    }

    /// Whether something waits until the cluster's thread has made room.
    pub(super) fn waits_for_cluster(&self) -> bool {
        let Some(cluster) = self.cluster.as_deref() else { return false };
        cluster.end.outbound.staged() > 0
            || cluster.ordered.has_unsent()
            || self.topics.has_wishes()
            || (cluster.is_connected && (self.topics.has_debts() || self.topics.whispers_waiting() > 0))
    }

    /// At the end of a turn: says what there is to say, and rings the cluster's thread.
    pub(super) fn flush_cluster(&mut self) {
        let Some(cluster) = self.cluster.as_deref_mut() else { return };
        cluster.note_taken();
        while cluster.has_room()
            && let Some(wish) = self.topics.next_wish()
        {
            let outbound = match wish {
                Wish::Follow(follow, topic, sharing, whispers) => Outbound::Follow { follow, topic, sharing, whispers },
                Wish::Unfollow(follow) => Outbound::Unfollow(follow),
            };
            cluster.give(outbound, 0);
        }
        while cluster.has_room()
            && cluster.end.outbound.sender().room() > QUEUED_MAX / 2
            && let Some(append) = cluster.ordered.next_append()
        {
            cluster.give(append, 0);
        }
        while cluster.is_connected
            && cluster.has_room()
            && let Some((topic, said)) = self.topics.next_debt()
        {
            cluster.give(Outbound::SaidSoFar(topic, said), 0);
        }
        if !cluster.is_connected {
            self.topics.drop_whispers();
        }
        while cluster.has_room()
            && cluster.bytes < Cluster::BYTES_MAX
            && let Some((topic, whisper)) = self.topics.next_whisper()
        {
            let bytes = whisper.len();
            cluster.give(Outbound::Whisper(topic, whisper), bytes);
            self.metrics.presence_whispers_total.add(1);
        }
        cluster.end.outbound.flush();
        self.metrics.cluster_waiting.set(cluster.ordered.waiting() as u64);
        self.metrics.cluster_followed.set(self.topics.followed() as u64);
    }
}
