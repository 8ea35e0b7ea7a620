//! Who is in the topics of this owner.
//!
//! Shards are asked for the seats of a topic (a *roll*) when they become interested in one whose members are listed, when a
//! rule begins to want that, and when there is room again on a list that was full.

use std::sync::Arc;

use super::{NoRoom, Now, Topics};
use crate::config::Presence as Mode;
use crate::hub::presence::{MemberId, Notice, Page, Presence, Seat, Who};
use crate::id::ShardId;
use crate::message::Topic;
use crate::wheel::Tick;

/// Time between two rolls because of room on a list.
const ROLL_TICKS: u32 = 10;

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
        match self.ruling(key).presence {
            Mode::Off => None,
            Mode::Count => Some(Page { count: self.owned(key).audience.plain_subscribers(), ..Page::default() }),
            Mode::Members => self.owned(key).presence.as_deref().map(|presence| presence.page(after, limit)),
        }
    }

    /// When those who watch are to be told something.
    #[must_use]
    pub const fn news_due(&self) -> Option<Tick> {
        self.desk.due
    }

    /// What those who watch are told next, on these shards, where that is due.
    pub fn take_news(&mut self, now: Tick) -> Option<(Vec<ShardId>, Arc<[Notice]>)> {
        if self.desk.due.is_none_or(|due| now < due) {
            return None;
        }
        while let Some(key) = self.desk.newsy.pop() {
            let Some(owned) = self.topics.0.get_mut(key as usize) else { continue };
            owned.has_news = false;
            let Some(presence) = owned.presence.as_deref_mut() else { continue };
            if let Some(news) = presence.news(&owned.name) {
                return Some((presence.watchers().to_vec(), news));
            }
        }
        self.desk.due = None;
        None
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
        if presence.is_news() && !owned.has_news {
            owned.has_news = true;
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
    pub(super) fn forget_presence(&mut self, presence: Option<&Presence>) {
        self.desk.listed -= presence.map_or(0, Presence::listed);
        self.desk.bytes -= presence.map_or(0, Presence::memory);
    }

    /// What all lists keep in memory, about.
    pub(super) const fn presence_bytes(&self) -> usize {
        self.desk.bytes
    }

    /// Has a topic take on what its rule says of presence.
    pub(super) fn settle_presence(&mut self, key: u32) {
        let (mode, members_max) = (self.ruling(key).presence, self.rulings.presence_members_max());
        let owned = self.owned(key);
        if owned.presence.is_none() && mode != Mode::Members {
            return;
        }
        let before = owned.presence.as_deref().map_or(Mode::Off, Presence::mode);
        let subscriptions = owned.audience.plain_subscribers();
        owned.presence.get_or_insert_with(|| Box::new(Presence::new(Mode::Off, members_max)));
        let now = Now::default();
        let mut is_other = false;
        self.change_presence(key, now, |presence| {
            presence.set_subscriptions(subscriptions);
            is_other = presence.follow(mode, members_max);
        });
        if is_other {
            if before == Mode::Members || mode == Mode::Members {
                self.call_rolls(key, mode == Mode::Members, now);
            }
            self.tell_anew(key, now);
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
        if !owned.has_news {
            owned.has_news = true;
            self.desk.newsy.push(key);
            self.desk.due.get_or_insert(now.tick.later(1));
        }
    }
}
