//! Who is in a topic: what a shard tells topics' owners of its subscribers, and what it tells those of them who watch.
//!
//! ```text
//!   subscriber's shard                              owner
//!        Interest -------------------------------->   lists members
//!        <--------------------------------- Roll
//!   all seats, in parts  Attend ------------------>
//!   those that change, turn by turn  Attend ------>
//!        Ask(Watch) ------------------------------>
//!        <------- Answer(Watched): the list, and from then on, once a tick, Delivery::Presence
//! ```
//!
//! A seat's last state counts and is told once: a topic that changes while mailboxes are full adds no more to what waits than
//! it has had connections. Where nobody is listed and nobody watches nothing of this is kept.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::core::Core;
use super::mail::{About, Delivery, OwnMail, Request};
use super::pace::Pace;
use crate::app::{Named, Subscribe};
use crate::config::Presence as Mode;
use crate::hub::TopicKey;
use crate::hub::presence::{MemberId, Notice, Who};
use crate::id::{ConnId, ShardId};
use crate::message::{Image, Topic, Wire};
use crate::session::Protocol;
use crate::time::Clock;

/// Changed seats of one topic: who has them now.
pub(super) type Seats = Vec<(u32, Option<Who>)>;

/// What a shard keeps of presence.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    rooms: HashMap<TopicKey, Room>,
    /// Who some connections say that they are, in a topic.
    named: HashMap<(TopicKey, u32), Box<Named>>,
    /// Seats that owners have to be told of.
    changed: HashMap<Topic, HashMap<u32, Option<Who>>>,
    /// Topics all of whose seats owners want to know.
    rolls: VecDeque<(TopicKey, usize)>,
    /// What is being handed to those who watch.
    handing: VecDeque<Handing>,
    /// Those who have to be handed something, all together.
    waiting: usize,
    /// Part of the ids of those who give themselves none.
    salt: u64,
}

/// A topic with members here, that lists them or has some who watch.
#[derive(Debug, Default)]
struct Room {
    /// The owner wants to know its seats.
    lists: bool,
    /// Connections that watch, and whether they have been told the list.
    watchers: HashMap<u32, bool>,
}

/// Notices on their way to those who watch.
#[derive(Debug)]
struct Handing {
    notices: Arc<[Notice]>,
    to: Vec<ConnId>,
    images: Images,
}

/// Notices in the formats that were asked for.
type Images = [Option<Vec<Image>>; Wire::COUNT];

impl Attendance {
    /// Notices that may wait to be handed out before no more mail is taken.
    const WAITING_MAX: usize = 1 << 20;

    pub(super) const fn is_congested(&self) -> bool {
        self.waiting > Self::WAITING_MAX
    }

    /// Whether there is something to do now.
    pub(super) fn has_work(&self, can_tell: bool) -> bool {
        !self.handing.is_empty() || !self.rolls.is_empty() || (can_tell && !self.changed.is_empty())
    }

    fn change(&mut self, topic: &Topic, connection: u32, who: Option<Who>) {
        if let Some(seats) = self.changed.get_mut(topic) {
            seats.insert(connection, who);
        } else {
            self.changed.entry(topic.clone()).or_default().insert(connection, who);
        }
    }

    /// Some seats that the owner of a topic has to be told of.
    fn take_changed(&mut self) -> Option<(Topic, Seats)> {
        let topic = self.changed.keys().next()?.clone();
        let seats = self.changed.get_mut(&topic)?;
        let some: Vec<u32> = seats.keys().copied().take(Core::SEATS_PER_REQUEST).collect();
        let some = some.into_iter().filter_map(|connection| seats.remove_entry(&connection)).collect();
        if seats.is_empty() {
            self.changed.remove(&topic);
        }
        Some((topic, some))
    }
}

fn images_of<'i>(notices: &[Notice], wire: Wire, images: &'i mut Images) -> &'i [Image] {
    images[wire as usize]
        .get_or_insert_with(|| notices.iter().filter_map(|notice| notice.encoded(wire)).map(Image::from).collect())
}

impl Core {
    /// Seats that an owner is told of at once.
    const SEATS_PER_REQUEST: usize = 256;
    /// Seats that are looked at in one step of a roll, and notices that are handed out: some ten microseconds.
    const SEATS_PER_STEP: usize = 64;

    /// Notes who has subscribed.
    pub(super) fn attend(&mut self, id: ConnId, key: TopicKey, topic: &Topic, how: Subscribe) {
        let Some(protocol) = self.table.get(id).map(|connection| connection.protocol) else { return };
        if how.group.is_some() || protocol == Protocol::Poll {
            return;
        }
        let lists = self.attendance.rooms.get(&key).is_some_and(|room| room.lists);
        let is_watching = how.watch && !protocol.is_raw();
        if let Some(named) = how.who
            && (lists || self.live.rules.of(topic.as_str()).presence != Mode::Off)
        {
            self.attendance.named.insert((key, id.index()), named);
        }
        if lists {
            let who = self.who(id, key);
            self.attendance.change(topic, id.index(), Some(who));
        }
        if is_watching {
            self.attendance.rooms.entry(key).or_default().watchers.insert(id.index(), false);
            self.ask(id, topic, About::Watch);
        }
    }

    /// Who has a seat.
    fn who(&mut self, id: ConnId, key: TopicKey) -> Who {
        let user = self.user(id).map(MemberId::user);
        if self.attendance.salt == 0 {
            self.attendance.salt = self.unix_ms | 1;
        }
        let named = self.attendance.named.get(&(key, id.index()));
        let own = || named.and_then(|named| named.member.as_deref()).map(MemberId::other);
        let id = user.or_else(own).unwrap_or_else(|| somebody(self.attendance.salt, self.id, id));
        Who { id, name: named.and_then(|named| named.name.clone()) }
    }

    /// Notes that a connection has left a topic.
    pub(super) fn absent(&mut self, id: ConnId, key: TopicKey, topic: &Topic) {
        let attendance = &mut self.attendance;
        if attendance.rooms.is_empty() && attendance.named.is_empty() {
            return;
        }
        attendance.named.remove(&(key, id.index()));
        let Some(room) = attendance.rooms.get_mut(&key) else { return };
        let was_watched = room.watchers.remove(&id.index()).is_some() && room.watchers.is_empty();
        let lists = room.lists;
        if self.members.name(key).is_none() {
            attendance.rooms.remove(&key);
        }
        if lists {
            attendance.change(topic, id.index(), None);
        }
        // Where an operator has ended the topic another one may have its name.
        let other = self.members.key(topic, None).filter(|other| *other != key);
        let is_watched =
            other.and_then(|key| self.attendance.rooms.get(&key)).is_some_and(|room| !room.watchers.is_empty());
        if was_watched && !is_watched {
            self.send_to_owner(topic, Request::Unwatch(topic.clone(), self.id));
        }
    }

    /// The owner of a topic wants to know its seats here, or does not any more.
    pub(super) fn take_roll(&mut self, topic: &Topic, wants: bool) {
        let Some(key) = self.members.key(topic, None) else { return };
        if wants {
            self.attendance.rooms.entry(key).or_default().lists = true;
            self.attendance.rolls.push_back((key, usize::MAX));
        } else if let Some(room) = self.attendance.rooms.get_mut(&key) {
            room.lists = false;
            self.attendance.named.retain(|(of, _), _| *of != key);
        }
    }

    /// Shards whose seats an owner here wants to know are asked.
    pub(super) fn call_rolls(&mut self) {
        while let Some((shard, topic, wants)) = self.topics.take_roll() {
            if shard == self.id {
                self.take_roll(&topic, wants);
            } else {
                self.mail.deliver(shard, Delivery::Roll(topic, wants));
            }
        }
    }

    /// Tells those who watch, when they are to be told, and owners of the seats that have changed.
    pub(super) fn tell_presence(&mut self, pace: &mut Pace<'_, impl Clock>) {
        self.call_rolls();
        while !self.attendance.rolls.is_empty() && pace.more() {
            self.roll_step();
            pace.look();
        }
        while !self.mail.requests_wait && pace.more() {
            let Some((topic, seats)) = self.attendance.take_changed() else { break };
            self.send_to_owner(&topic, Request::Attend(topic.clone(), self.id, seats));
            pace.look();
        }
        while !self.mail.deliveries_wait && !self.is_congested() && pace.more() {
            let Some(news) = self.topics.take_news(self.tick) else { break };
            for (shard, news) in
                news.into_iter().flat_map(|(shards, news)| shards.into_iter().map(move |one| (one, Arc::clone(&news))))
            {
                if shard == self.id {
                    self.own_mail.push_back(OwnMail::Presence(news));
                } else {
                    self.mail.deliver(shard, Delivery::Presence(news));
                }
            }
            pace.look();
        }
        self.metrics.presence_members.set(self.topics.members_listed() as u64);
        self.hand_notices(pace);
    }

    /// Goes on with a roll, from the last member to the first: those who take the places of others have been looked at.
    fn roll_step(&mut self) {
        let Some((key, end)) = self.attendance.rolls.pop_front() else { return };
        let Some(topic) = self.members.name(key).cloned() else { return };
        let end = end.min(self.members.members(key).len());
        let begin = end.saturating_sub(Self::SEATS_PER_STEP);
        for place in (begin..end).rev() {
            let Some(index) = self.members.members(key).get(place).map(|member| member.connection()) else { break };
            let Some((id, connection)) = self.table.at(index) else { continue };
            if connection.protocol != Protocol::Poll {
                let who = self.who(id, key);
                self.attendance.change(&topic, index, Some(who));
            }
        }
        if begin > 0 {
            self.attendance.rolls.push_front((key, begin));
        }
    }

    /// One who watches is told who is there.
    pub(super) fn take_watched(&mut self, id: ConnId, topic: &Topic, list: &Arc<[Notice]>) {
        let Some(key) = self.members.key(topic, None) else { return };
        let room = self.attendance.rooms.get_mut(&key);
        let Some(is_told) = room.and_then(|room| room.watchers.get_mut(&id.index())) else { return };
        *is_told = true;
        self.attendance.waiting += list.len();
        // Many who come at once are told the same list: it is encoded once.
        match self.attendance.handing.back_mut().filter(|last| Arc::ptr_eq(&last.notices, list)) {
            Some(last) => last.to.push(id),
            None => {
                let handing = Handing { notices: Arc::clone(list), to: vec![id], images: Images::default() };
                self.attendance.handing.push_back(handing);
            }
        }
    }

    /// Those who watch are told what has changed, or all anew.
    pub(super) fn take_notices(&mut self, notices: Arc<[Notice]>) {
        let Some(topic) = notices.first().map(|notice| &notice.topic) else { return };
        let Some(key) = self.members.key(topic, None) else { return };
        let Some(room) = self.attendance.rooms.get(&key) else { return };
        let told = room.watchers.iter().filter(|(_, is_told)| **is_told);
        let to: Vec<ConnId> = told.filter_map(|(index, _)| Some(self.table.at(*index)?.0)).collect();
        self.attendance.waiting += to.len() * notices.len();
        if !to.is_empty() {
            self.attendance.handing.push_back(Handing { notices, to, images: Images::default() });
        }
    }

    /// Hands notices to those who watch, in slices.
    fn hand_notices(&mut self, pace: &mut Pace<'_, impl Clock>) {
        while pace.more() {
            let Some(mut handing) = self.attendance.handing.pop_front() else { return };
            for _ in 0..Self::SEATS_PER_STEP {
                let Some(id) = handing.to.pop() else { break };
                self.attendance.waiting -= handing.notices.len();
                self.hand(id, &mut handing);
            }
            if !handing.to.is_empty() {
                self.attendance.handing.push_front(handing);
            }
            pace.look();
        }
        self.unfinished |= !self.attendance.handing.is_empty();
    }

    fn hand(&mut self, id: ConnId, handing: &mut Handing) {
        let Some(wire) = self.table.get(id).map(|connection| connection.encoder().wire) else { return };
        let Some(topic) = handing.notices.first().map(|notice| notice.topic.clone()) else { return };
        let is_list = handing.notices.first().is_some_and(Notice::is_list);
        for image in images_of(&handing.notices, wire, &mut handing.images) {
            self.metrics.presence_events_total.add(1);
            if is_list && !self.is_queue_budget_spent() {
                // As with a past, it may be longer than what may wait else.
                self.queue_past(id, image.clone());
                self.mark_dirty(id);
            } else {
                self.uncork_to_outbox(id);
                self.enqueue(id, &topic, image.clone(), 1);
            }
        }
    }
}

/// The id of a connection that gives itself none.
fn somebody(salt: u64, shard: ShardId, id: ConnId) -> MemberId {
    // SplitMix64's finish (Steele, Lea, Flood 2014): neighbours look nothing alike.
    let mix = |mut bits: u64| {
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    };
    MemberId::other(&format!("anon-{:016x}", mix(mix(salt ^ u64::from(shard.0) << 48) ^ id.bits())))
}
