//! Who is in the topics of this owner.
//!
//! Shards are asked for the seats of a topic (a *roll*) when they become interested in one whose members are listed, when a
//! rule begins to want that, and when there is room again on a list that was full.
//!
//! In a cluster, owners on other nodes are told who is here, and what they say is taken: see [`Presence::hear`].

use std::collections::VecDeque;
use std::sync::Arc;

use super::{NoRoom, Now, Topics, Way};
use crate::cluster::port::{Follow, NodeId};
use crate::cluster::presence::Whisper;
use crate::config::Presence as Mode;
use crate::hub::presence::{MemberId, Notice, Page, Presence, Seat, Who};
use crate::id::ShardId;
use crate::message::Topic;
use crate::wheel::Tick;

/// Time between two rolls because of room on a list.
const ROLL_TICKS: u32 = 10;

/// What those who watch on some shards are told.
pub type News = (Vec<ShardId>, Arc<[Notice]>);

/// What shards are to be told of who is where.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Topics with something that those who watch have not been told.
    newsy: Vec<u32>,
    /// When they are told.
    due: Option<Tick>,
    /// Shards that are asked for their seats in a topic, or told that these are not wanted any more.
    rolls: Vec<(ShardId, Topic, bool)>,
    /// Members on all lists.
    listed: usize,
    /// Bytes of all lists.
    bytes: usize,
    /// This node, where there are others.
    me: Option<NodeId>,
    /// What those are to be told, and bytes of it.
    whispers: VecDeque<(Topic, Box<[u8]>)>,
    whispered: usize,
    /// The last life of a topic's list.
    life: u64,
}

impl Desk {
    /// Bytes of what other nodes are to be told at most: what is beyond is lost, which they notice.
    const WHISPERED_MAX: usize = 16 * 1024 * 1024;

    /// Has other nodes be told of members from now on.
    pub(super) const fn join_cluster(&mut self, me: NodeId) {
        self.me = Some(me);
    }

    fn whisper(&mut self, topic: &Topic, whisper: &Whisper) {
        let bytes = whisper.encode();
        if self.whispered + bytes.len() <= Self::WHISPERED_MAX {
            self.whispered += bytes.len();
            self.whispers.push_back((topic.clone(), bytes));
        }
    }

    /// A life that is greater than all before of this process, which is one node.
    const fn new_life(&mut self) -> u64 {
        self.life += 1;
        self.life
    }
}

impl Topics {
    /// Members on all lists.
    #[must_use]
    pub const fn members_listed(&self) -> usize {
        self.desk.listed
    }

    /// Notes who has which seats of a topic on a shard now: the connection's index, and `None` where it is empty.
    pub fn attend(
        &mut self,
        topic: &Topic,
        shard: ShardId,
        seats: impl IntoIterator<Item = (u32, Option<Who>)>,
        now: Now,
    ) {
        let Some(&key) = self.keys.get(topic) else { return };
        self.settle(key);
        self.change_presence(key, now, |presence| {
            for (connection, who) in seats {
                let seat = Seat { shard, connection };
                match who {
                    Some(who) => presence.join(seat, who, now.unix_ms),
                    None => presence.leave(seat),
                }
            }
        });
        let owned = &self.topics.0[key as usize];
        if owned.presence.as_deref().is_some_and(Presence::has_room_again)
            && now.tick.0.wrapping_sub(owned.rolled.0) >= ROLL_TICKS
        {
            self.call_rolls(key, true, now);
        }
    }

    /// A shard has somebody who watches who is in a topic, and is told what has changed from now on. Returns what is told
    /// first.
    ///
    /// # Errors
    /// When there is no room for the topic.
    pub fn watch(&mut self, topic: &Topic, shard: ShardId, now: Now) -> Result<Arc<[Notice]>, NoRoom> {
        let key = self.find_or_create(topic, now)?;
        let (mode, members_max) = (self.ruling(key).presence, self.rulings.presence_members_max());
        let owned = self.owned(key);
        let subscriptions = owned.audience.plain_subscribers();
        let presence = owned.presence.get_or_insert_with(|| Box::new(Presence::new(mode, members_max)));
        presence.set_subscriptions(subscriptions);
        presence.watch(shard);
        Ok(presence.list(topic))
    }

    /// A shard has none any more.
    pub fn unwatch(&mut self, topic: &Topic, shard: ShardId) {
        let Some(&key) = self.keys.get(topic) else { return };
        let owned = self.owned(key);
        let Some(presence) = owned.presence.as_deref_mut() else { return };
        presence.unwatch(shard);
        if presence.is_idle() {
            owned.presence = None;
        }
    }

    /// Part of a topic's list; `None` where it is not kept who is there.
    pub fn presence(&mut self, topic: &Topic, after: Option<&MemberId>, limit: usize, now: Now) -> Option<Page> {
        let Some(&key) = self.keys.get(topic) else {
            let lists = match self.rulings.of(topic).presence {
                Mode::Off => return None,
                Mode::Count => None,
                Mode::Members => Some(Vec::new()),
            };
            return Some(Page { members: lists, ..Page::default() });
        };
        self.look(key, now);
        let mode = self.ruling(key).presence;
        let owned = self.owned(key);
        match (mode, owned.presence.as_deref()) {
            (Mode::Off, _) | (Mode::Members, None) => None,
            (Mode::Count, None) => Some(Page { count: owned.audience.plain_subscribers(), ..Page::default() }),
            (Mode::Count | Mode::Members, Some(presence)) => Some(presence.page(after, limit)),
        }
    }

    /// When those who watch are to be told something.
    #[must_use]
    pub const fn news_due(&self) -> Option<Tick> {
        self.desk.due
    }

    /// What those who watch are told next, on these shards, where that is due. Nothing, when none of the next few topics have
    /// some who watch.
    pub fn take_news(&mut self, now: Tick) -> Option<Option<News>> {
        const LOOKED_AT_MAX: usize = 16;
        if self.desk.due.is_none_or(|due| now < due) {
            return None;
        }
        for _ in 0..LOOKED_AT_MAX {
            let Some(key) = self.desk.newsy.pop() else {
                self.desk.due = None;
                return None;
            };
            let Some(owned) = self.topics.0.get_mut(key as usize) else { continue };
            owned.has_news = false;
            let Some(presence) = owned.presence.as_deref_mut() else { continue };
            presence.whispers().iter().for_each(|whisper| self.desk.whisper(&owned.name, whisper));
            if let Some(news) = presence.news(&owned.name) {
                return Some(Some((presence.watchers().to_vec(), news)));
            }
        }
        Some(None)
    }

    /// A shard that is to be asked for its seats in a topic, or told that those are not wanted any more.
    pub fn take_roll(&mut self) -> Option<(ShardId, Topic, bool)> {
        self.desk.rolls.pop()
    }

    /// Changes what is known of who is in a topic, and the books with it.
    fn change_presence(&mut self, key: u32, now: Now, change: impl FnOnce(&mut Presence)) {
        let owned = &mut self.topics.0[key as usize];
        let Some(presence) = owned.presence.as_deref_mut() else { return };
        let before = (presence.listed(), presence.memory());
        change(presence);
        self.desk.listed = self.desk.listed + presence.listed() - before.0;
        self.desk.bytes = self.desk.bytes + presence.memory() - before.1;
        if presence.is_news() || presence.has_whispers() {
            self.note_news(key, now);
        }
    }

    /// Has those be told who have to be, with the next tick.
    fn note_news(&mut self, key: u32, now: Now) {
        let owned = &mut self.topics.0[key as usize];
        if !std::mem::replace(&mut owned.has_news, true) {
            self.desk.newsy.push(key);
            self.desk.due.get_or_insert(now.tick.later(1));
        }
    }

    /// Another number of subscriptions.
    pub(super) fn note_subscriptions(&mut self, key: u32, now: Now) {
        let owned = self.owned(key);
        if owned.presence.is_some() {
            let subscriptions = owned.audience.plain_subscribers();
            self.change_presence(key, now, |presence| presence.set_subscriptions(subscriptions));
        }
    }

    /// A shard has become interested.
    pub(super) fn call_roll(&mut self, key: u32, shard: ShardId) {
        let owned = &self.topics.0[key as usize];
        if owned.presence.as_deref().is_some_and(|presence| presence.mode() == Mode::Members) {
            self.desk.rolls.push((shard, owned.name.clone(), true));
        }
    }

    fn call_rolls(&mut self, key: u32, wants: bool, now: Now) {
        let owned = &mut self.topics.0[key as usize];
        owned.rolled = now.tick;
        let name = &owned.name;
        self.desk.rolls.extend(owned.audience.plain_shards().map(|shard| (shard, name.clone(), wants)));
    }

    /// A topic is forgotten.
    pub(super) fn forget_presence(&mut self, topic: &Topic, presence: Option<Box<Presence>>) {
        let Some(mut presence) = presence else { return };
        self.desk.listed -= presence.listed();
        self.desk.bytes -= presence.memory();
        presence.farewell().iter().for_each(|whisper| self.desk.whisper(topic, whisper));
    }

    /// What all lists keep in memory, about.
    pub(super) const fn presence_bytes(&self) -> usize {
        self.desk.bytes
    }

    /// Has a topic take on what its rule says of presence.
    pub(super) fn settle_presence(&mut self, key: u32) {
        let (mode, members_max) = (self.ruling(key).presence, self.rulings.presence_members_max());
        let is_shared = matches!(self.way(key), Way::Said | Way::Ordered);
        let owned = self.owned(key);
        let is_kept = mode == Mode::Members || (mode == Mode::Count && is_shared);
        if owned.presence.is_none() && !is_kept {
            return;
        }
        let before = owned.presence.as_deref().map_or(Mode::Off, Presence::mode);
        let subscriptions = owned.audience.plain_subscribers();
        owned.presence.get_or_insert_with(|| Box::new(Presence::new(Mode::Off, members_max)));
        let now = Now::default();
        let life = if is_shared && mode != Mode::Off { Some(self.desk.new_life()) } else { None };
        let (mut is_other, mut farewell) = (false, None);
        self.change_presence(key, now, |presence| {
            presence.set_subscriptions(subscriptions);
            farewell = presence.farewell_before(mode, life.is_some());
            is_other = presence.follow(mode, members_max, life.is_some());
            life.filter(|_| !presence.is_abroad()).into_iter().for_each(|life| presence.go_abroad(life));
        });
        let name = &self.topics.0[key as usize].name;
        farewell.iter().for_each(|whisper| self.desk.whisper(name, whisper));
        if is_other {
            if before == Mode::Members || mode == Mode::Members {
                self.call_rolls(key, mode == Mode::Members, now);
            }
            self.tell_anew(key, now);
            if self.owned(key).shared.is_some() {
                if life.is_some() {
                    self.listen(key);
                }
                self.call(key, now);
            }
        }
        let owned = self.owned(key);
        if owned.presence.as_deref().is_some_and(Presence::is_idle) {
            owned.presence = None;
        }
    }

    /// Has those who watch be told all that there is.
    fn tell_anew(&mut self, key: u32, now: Now) {
        let owned = &mut self.topics.0[key as usize];
        let Some(presence) = owned.presence.as_deref_mut().filter(|presence| !presence.watchers().is_empty()) else {
            return;
        };
        presence.begin_anew();
        self.note_news(key, now);
    }

    /// Asks other nodes whom they have in a topic.
    fn call(&mut self, key: u32, now: Now) {
        let owned = &mut self.topics.0[key as usize];
        let Some(call) = owned.presence.as_deref_mut().and_then(|presence| presence.call(now.tick)) else { return };
        self.desk.whisper(&owned.name, &call);
        self.note_news(key, now);
    }

    /// What other nodes say of a topic is heard from now on: they are asked what they have.
    pub fn call_others(&mut self, follow: Follow, now: Now) {
        if let Some(key) = self.followed_key(follow) {
            self.call(key, now);
        }
    }

    /// Hears what another node whispers about a topic. Says whether it could be read.
    pub fn hear_whisper(&mut self, follow: Follow, node: NodeId, bytes: &[u8], now: Now) -> bool {
        let (Some(key), Some(me)) = (self.followed_key(follow), self.desk.me) else { return true };
        let Ok(whisper) = Whisper::decode(bytes) else { return false };
        let mut answer = None;
        self.change_presence(key, now, |presence| answer = presence.hear(me, node, whisper));
        let name = &self.topics.0[key as usize].name;
        answer.iter().for_each(|whisper| self.desk.whisper(name, whisper));
        true
    }

    /// A lease has passed, or (`calls`) nodes may have missed what was said: what is here of the topic at a place is said again,
    /// where there is one.
    pub fn renew_presence_at(&mut self, place: usize, calls: bool, now: Now) {
        let Some(key) = u32::try_from(place).ok().filter(|_| self.topics.0.contains(place)) else { return };
        self.change_presence(key, now, Presence::renew);
        if calls {
            self.call(key, now);
        }
    }

    /// A node has gone, and its members with it: some of those are dropped of the topic at a place. `after` is where it goes on
    /// while there are more.
    pub fn drop_node_at(&mut self, place: usize, node: NodeId, after: &mut Option<MemberId>, now: Now) -> bool {
        const LOOKED_AT_MAX: usize = 512;
        let Some(key) = u32::try_from(place).ok().filter(|_| self.topics.0.contains(place)) else { return false };
        let mut is_more = false;
        self.change_presence(key, now, |presence| is_more = presence.drop_node(node, after, LOOKED_AT_MAX));
        is_more
    }

    /// Whether other nodes may be about to say who is with them in a topic. It is made, and heard, if it was not.
    pub fn is_learning(&mut self, topic: &Topic, now: Now) -> bool {
        let is_shared = matches!(self.way_of(topic), Way::Said | Way::Ordered);
        if !is_shared || self.rulings.of(topic).presence == Mode::Off {
            return false;
        }
        let Ok(key) = self.find_or_create(topic, now) else { return false };
        self.share(key);
        self.owned(key).presence.as_deref().is_some_and(|presence| presence.is_learning(now.tick))
    }

    /// What other nodes are to be told next of who is here.
    pub fn next_whisper(&mut self) -> Option<(Topic, Box<[u8]>)> {
        let next = self.desk.whispers.pop_front()?;
        self.desk.whispered -= next.1.len();
        Some(next)
    }

    /// How much of that there is.
    #[must_use]
    pub fn whispers_waiting(&self) -> usize {
        self.desk.whispers.len()
    }

    /// There is nobody to be told.
    pub fn drop_whispers(&mut self) {
        (self.desk.whispers, self.desk.whispered) = (VecDeque::new(), 0);
    }
}
