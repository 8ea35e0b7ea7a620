//! One shard's subscribers of each topic, and of each group of one.
//!
//! The members of a topic lie side by side, 8 bytes each, so that a fan-out walks memory in order. A fan-out to many
//! members runs in slices over several turns; its cursor parts those who have been served from those who have not, and
//! members who leave meanwhile are replaced from their own side of the cursor, so that nobody is served twice or
//! missed. The connection knows its place in the list, which makes leaving cheap; whoever is moved is told through a
//! callback.
//!
//! A group's members are kept apart from the plain ones. Each message that comes for it waits until one of them takes it;
//! what nobody took when the last one leaves goes back to the caller.

use std::collections::VecDeque;

use hashbrown::HashMap;
use slab::Slab;

use super::Group;
pub use super::local::Batch;
use super::local::{Local, Name, NameRef};
pub use super::member::Member;
use super::topics::Interested;
use crate::id::ShardId;
use crate::message::{Message, Offset, Topic, Wants, Wire};

/// A topic of this shard, or a group of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicKey(pub u32);

/// One time that a topic has members on a shard, from the first who joins to the last who leaves. The owner names it
/// with all that it sends, so that what was sent during one stay is not taken for part of the next: it would be followed
/// by a gap, and its offsets may be higher than those to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay(pub u32);

/// What a topic's owner is told of its members here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stake {
    /// The group that they are in.
    pub group: Option<Group>,
    /// The formats that they need.
    pub wants: Wants,
    /// Since when.
    pub stay: Stay,
    /// How many they are.
    pub members: u32,
}

impl Stake {
    /// As this shard says it.
    #[must_use]
    pub fn of(self, shard: ShardId) -> Interested {
        let Self { group, wants, stay, members } = self;
        Interested { shard, group, wants, stay, members }
    }
}

/// What a change of a topic's members means for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nothing new, or a number that [`Members::take_changed`] tells.
    Same,
    /// This shard wants the topic, in these formats: [`Members::stake`] has the rest.
    Wants(Wants),
    /// Nobody is left on this shard.
    None,
}

/// A new membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The topic's key on this shard.
    pub topic: TopicKey,
    /// The member's place in the topic.
    pub position: u32,
    /// What to tell the owner.
    pub interest: Interest,
}

/// The end of a membership.
#[derive(Debug)]
pub struct Left {
    /// What to tell the owner.
    pub interest: Interest,
    /// What waited for a group whose last member this was, in order: it belongs to the group's members elsewhere.
    pub returned: VecDeque<Message>,
}

/// The subscribers of one shard.
#[derive(Debug)]
pub struct Members {
    topics: Slab<Local>,
    keys: HashMap<Name, TopicKey>,
    topics_max: usize,
    /// What may wait for one group.
    group_bytes_max: usize,
    waiting_bytes: usize,
    group_bytes: usize,
    /// The number of the last stay.
    stays: u32,
    /// Topics whose members' number is not what their owners know.
    changed: Vec<TopicKey>,
    /// Places for members in all topics' lists, used or not.
    places: usize,
}

impl Members {
    /// Topics, or places in lists of them, that are kept when the last one has gone.
    const ROOM_KEPT: usize = 1024;
    /// So many groups can keep as much as one may. Where all keep more together, none adds to it beyond its share.
    const FULL_GROUPS_MAX: usize = 16;

    /// Nobody, room for so many topics and groups, and for so many bytes that wait for each group.
    #[must_use]
    pub fn new(topics_max: usize, group_bytes_max: usize) -> Self {
        Self {
            topics: Slab::new(),
            keys: HashMap::new(),
            topics_max,
            group_bytes_max,
            waiting_bytes: 0,
            group_bytes: 0,
            stays: 0,
            changed: Vec::new(),
            places: 0,
        }
    }

    /// Makes room for so many topics and groups instead. Those that are there stay.
    pub fn set_topics_max(&mut self, topics_max: usize) {
        self.topics_max = topics_max;
    }

    /// Adds a connection to a topic, or to a group of it; `None` when there is no room for another topic. A `pending`
    /// member takes nothing until [`Members::begin`].
    pub fn join(
        &mut self,
        topic: &Topic,
        group: Option<&Group>,
        connection: u32,
        wire: Wire,
        echo: bool,
        pending: bool,
    ) -> Option<Joined> {
        let key = match self.key(topic, group) {
            Some(key) => key,
            None => self.create(topic, group)?,
        };
        let local = &mut self.topics[key.0 as usize];
        let (before, places) = (local.wants(), local.members.capacity());
        let position = u32::try_from(local.members.len()).ok()?;
        local.push(connection, wire, echo, pending);
        self.places += local.members.capacity() - places;
        let wants = local.wants();
        if position == 0 || wants != before {
            local.tell();
            return Some(Joined { topic: key, position, interest: Interest::Wants(wants) });
        }
        self.list(key);
        Some(Joined { topic: key, position, interest: Interest::Same })
    }

    fn create(&mut self, topic: &Topic, group: Option<&Group>) -> Option<TopicKey> {
        if self.topics.len() >= self.topics_max {
            return None;
        }
        self.stays = self.stays.wrapping_add(1);
        let name = Name { topic: topic.clone(), group: group.cloned() };
        let key = TopicKey(u32::try_from(self.topics.insert(Local::new(name.clone(), Stay(self.stays)))).ok()?);
        self.keys.insert(name, key);
        Some(key)
    }

    /// The past of a pending member has come: it takes what comes after this offset.
    pub fn begin(&mut self, topic: TopicKey, position: u32, after: Offset) {
        let local = self.topics.get_mut(topic.0 as usize);
        if let Some(member) = local.and_then(|local| local.members.get_mut(position as usize)) {
            member.begin(after);
        }
    }

    /// Removes the member at `position`. `moved` is told of every other member that changes its place: connection and
    /// new position.
    pub fn leave(&mut self, topic: TopicKey, position: u32, wire: Wire, moved: impl FnMut(u32, u32)) -> Left {
        let local = &mut self.topics[topic.0 as usize];
        let places = local.members.capacity();
        local.remove(position, wire, moved);
        self.places -= places - local.members.capacity();
        if !local.members.is_empty() {
            self.list(topic);
            return Left { interest: Interest::Same, returned: VecDeque::new() };
        }
        let local = self.topics.remove(topic.0 as usize);
        self.places -= local.members.capacity();
        if !local.retired {
            self.keys.remove(&local.name);
        }
        let is_group = local.is_group();
        self.group_bytes -= local.group_bytes;
        if !is_group {
            self.waiting_bytes -= local.waiting_bytes();
        }
        self.give_memory_back();
        if local.retired {
            return Left { interest: Interest::Same, returned: VecDeque::new() };
        }
        Left { interest: Interest::None, returned: if is_group { local.pending } else { VecDeque::new() } }
    }

    /// Takes its name from a topic, or a group of one, so that whoever joins from now on joins another: its members are to
    /// be sent away, and hear only what has come for them. What waited for a group is dropped. The owner must be told
    /// that nobody is left here; it is not told again. Returns where the members are.
    pub fn retire(&mut self, topic: &Topic, group: Option<&Group>) -> Option<TopicKey> {
        let key = self.keys.remove(&NameRef { topic, group })?;
        let local = &mut self.topics[key.0 as usize];
        (local.retired, local.listed) = (true, false);
        if local.is_group() {
            local.pending.clear();
            self.group_bytes -= std::mem::take(&mut local.group_bytes);
        }
        Some(key)
    }

    /// Whether a key is of a topic that was retired and has members still.
    #[must_use]
    pub fn is_retired(&self, topic: TopicKey) -> bool {
        self.topics.get(topic.0 as usize).is_some_and(|local| local.retired)
    }

    /// After a time of many topics, when none is left.
    fn give_memory_back(&mut self) {
        if self.topics.is_empty() && self.topics.capacity() > Self::ROOM_KEPT {
            self.topics = Slab::new();
            self.keys = HashMap::new();
        }
    }

    /// Notes that a topic's members are not as many as its owner knows.
    fn list(&mut self, key: TopicKey) {
        let local = &mut self.topics[key.0 as usize];
        if local.is_news() && !local.listed && !local.retired {
            local.listed = true;
            self.changed.push(key);
        }
    }

    /// A topic whose owner must be told how many members it has now; `None` when there is none any more. A topic that
    /// changes many times before this is called is told of once.
    pub fn take_changed(&mut self) -> Option<(Topic, Stake)> {
        while let Some(key) = self.changed.pop() {
            // Its topic may have ended, and another have its key.
            let Some(local) = self.topics.get_mut(key.0 as usize).filter(|local| local.listed) else { continue };
            local.listed = false;
            if local.is_news() {
                local.tell();
                return Some((local.name.topic.clone(), local.stake()));
            }
        }
        self.changed.shrink_to(Self::ROOM_KEPT);
        None
    }

    /// The key of a topic that has members here, or of a group.
    #[must_use]
    pub fn key(&self, topic: &Topic, group: Option<&Group>) -> Option<TopicKey> {
        self.keys.get(&NameRef { topic, group }).copied()
    }

    /// The name of a topic.
    #[must_use]
    pub fn name(&self, topic: TopicKey) -> Option<&Topic> {
        self.topics.get(topic.0 as usize).map(|local| &local.name.topic)
    }

    /// The group, if it is one's key.
    #[must_use]
    pub fn group(&self, topic: TopicKey) -> Option<&Group> {
        self.topics.get(topic.0 as usize)?.name.group.as_ref()
    }

    /// The members of a topic.
    #[must_use]
    pub fn members(&self, topic: TopicKey) -> &[Member] {
        self.topics.get(topic.0 as usize).map_or(&[], |local| &local.members)
    }

    /// How many members a topic has.
    #[must_use]
    pub fn count(&self, topic: TopicKey) -> u32 {
        self.topics.get(topic.0 as usize).map_or(0, Local::count)
    }

    /// What to tell the owner of a topic's members.
    #[must_use]
    pub fn stake(&self, topic: TopicKey) -> Option<Stake> {
        self.topics.get(topic.0 as usize).map(Local::stake)
    }

    /// Queues a message that was sent during this stay: for a fan-out, see [`Members::deliver`], or for a group. One of
    /// an earlier stay is dropped when it was for a fan-out.
    ///
    /// Returns the topic when it must be put on the shard's list, because nothing waited before.
    ///
    /// # Errors
    /// The message, when it is for a group and its stay is over.
    pub fn deliver_during(
        &mut self,
        stay: Stay,
        group: Option<&Group>,
        message: Message,
    ) -> Result<Option<TopicKey>, Message> {
        let key = self.key(&message.topic, group).filter(|key| self.topics[key.0 as usize].stay == stay);
        match (key, group) {
            (Some(key), None) => Ok(self.queue(key, message)),
            (Some(key), Some(_)) => {
                let idle = self.topics[key.0 as usize].pending.is_empty();
                self.wait_in_group(key, message, VecDeque::push_back);
                Ok(idle.then_some(key))
            }
            (None, None) => Ok(None),
            (None, Some(_)) => Err(message),
        }
    }

    /// Queues a message for a topic's members. Returns the topic when its fan-out must be put on the shard's list,
    /// because it was not running.
    pub fn deliver(&mut self, message: Message) -> Option<TopicKey> {
        let key = self.key(&message.topic, None)?;
        self.queue(key, message)
    }

    fn queue(&mut self, key: TopicKey, message: Message) -> Option<TopicKey> {
        let local = &mut self.topics[key.0 as usize];
        let is_reset = message.is_reset();
        self.waiting_bytes += message.memory();
        let before = if is_reset { local.waiting_bytes() } else { 0 };
        let came = message.memory();
        let is_idle = local.queue(message);
        if is_reset {
            // What waited may have been dropped.
            self.waiting_bytes -= (before + came).saturating_sub(local.waiting_bytes());
        }
        is_idle.then_some(key)
    }

    fn wait_in_group(&mut self, key: TopicKey, message: Message, add: impl FnOnce(&mut VecDeque<Message>, Message)) {
        let local = &mut self.topics[key.0 as usize];
        local.group_bytes += message.memory();
        self.group_bytes += message.memory();
        add(&mut local.pending, message);
    }

    fn group_of(&self, key: TopicKey) -> Option<&Local> {
        self.topics.get(key.0 as usize).filter(|local| local.is_group())
    }

    /// Messages that wait for a group's members.
    #[must_use]
    pub fn waiting(&self, group: TopicKey) -> usize {
        self.group_of(group).map_or(0, |local| local.pending.len())
    }

    /// The message that a group's next member gets.
    #[must_use]
    pub fn next_for_group(&self, group: TopicKey) -> Option<&Message> {
        self.group_of(group)?.pending.front()
    }

    /// Takes the message that a group's next member gets.
    pub fn pop_for_group(&mut self, group: TopicKey) -> Option<Message> {
        self.group_of(group)?;
        let local = &mut self.topics[group.0 as usize];
        let message = local.pending.pop_front()?;
        local.give_memory_back();
        local.group_bytes -= message.memory();
        self.group_bytes -= message.memory();
        Some(message)
    }

    /// Puts back a message that was not taken: it is the next one again.
    ///
    /// # Errors
    /// The message, when the group is not there any more.
    pub fn push_front(&mut self, group: TopicKey, message: Message) -> Result<(), Message> {
        if self.group_of(group).is_none_or(|local| local.name.topic != message.topic) {
            return Err(message);
        }
        self.wait_in_group(group, message, VecDeque::push_front);
        Ok(())
    }

    /// Takes the oldest message that waits for a group while more waits than may. Call it after a message was added,
    /// until there is none: these are lost.
    pub fn overflow(&mut self, group: TopicKey) -> Option<Message> {
        let (one, all_max) = (self.group_of(group)?.group_bytes, self.group_bytes_max * Self::FULL_GROUPS_MAX);
        let is_over = self.group_bytes > all_max && one > all_max / self.topics.len();
        if is_over || one > self.group_bytes_max { self.pop_for_group(group) } else { None }
    }

    /// The place of the member of a group whose turn it is to get a message. All have one turn before any has the next.
    pub fn turn(&mut self, group: TopicKey) -> Option<u32> {
        self.group_of(group)?;
        self.topics[group.0 as usize].turn()
    }

    /// Notes that this one had its turn.
    pub fn had_turn(&mut self, group: TopicKey, place: usize) {
        if let Some(local) = self.topics.get_mut(group.0 as usize).filter(|local| local.is_group()) {
            local.batch.cursor = (place + 1).min(local.members.len());
        }
    }

    /// Notes that a topic is put on the shard's list of fan-outs. Returns whether it has to be: a group is there once at
    /// most, however many of its members become ready.
    pub fn enlist(&mut self, topic: TopicKey) -> bool {
        let local = self.topics.get_mut(topic.0 as usize);
        local.is_some_and(|local| !local.is_group() || !std::mem::replace(&mut local.enlisted, true))
    }

    /// Notes that a group is not on the list any more.
    pub fn delist(&mut self, group: TopicKey) {
        if let Some(local) = self.topics.get_mut(group.0 as usize) {
            local.enlisted = false;
        }
    }

    /// The running fan-out of a topic with its members; begins the next one, of at most `bytes_max` bytes and
    /// [`Batch::MESSAGES_MAX`] messages, when none runs. `None` when nothing waits.
    pub fn fan_out(&mut self, topic: TopicKey, bytes_max: usize) -> Option<(&[Member], &mut Batch)> {
        let local = self.topics.get_mut(topic.0 as usize).filter(|local| !local.is_group())?;
        if local.batch.messages.is_empty() {
            local.begin_batch(bytes_max);
        }
        (!local.batch.messages.is_empty()).then_some((&local.members, &mut local.batch))
    }

    /// Ends the running fan-out of a topic. Returns whether more waits.
    pub fn end_batch(&mut self, topic: TopicKey) -> bool {
        let Some(local) = self.topics.get_mut(topic.0 as usize) else { return false };
        self.waiting_bytes -= bytes_of(local.batch.messages.iter());
        local.end_batch()
    }

    /// What the messages that wait for their fan-out keep in memory, about.
    #[must_use]
    pub const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// What subscriptions keep in memory, about: lists of members, and topics with their names.
    #[must_use]
    pub fn memory(&self) -> usize {
        let entry = size_of::<(Name, TopicKey)>() + 1;
        self.places * size_of::<Member>()
            + self.topics.capacity() * size_of::<Local>()
            + self.keys.capacity() * entry
            + self.topics.len() * Topic::NAME_BYTES
    }

    /// What the messages that wait for groups keep in memory, about.
    #[must_use]
    pub const fn group_bytes(&self) -> usize {
        self.group_bytes
    }

    /// How many topics, and groups, have members here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether nobody subscribed to anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }
}

fn bytes_of<'a>(messages: impl Iterator<Item = &'a Message>) -> usize {
    messages.map(Message::memory).sum()
}

#[cfg(test)]
mod tests;
