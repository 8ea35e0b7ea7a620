//! One shard's subscribers of each topic.
//!
//! The members of a topic lie side by side, 8 bytes each, so that a fan-out walks memory in order. A fan-out to many
//! members runs in slices over several turns; its cursor parts those who have been served from those who have not, and
//! members who leave meanwhile are replaced from their own side of the cursor, so that nobody is served twice or
//! missed. The connection knows its place in the list, which makes leaving cheap; whoever is moved is told through a
//! callback.

use std::collections::VecDeque;

use hashbrown::HashMap;
use slab::Slab;

use crate::message::{Image, Message, Offset, Topic, Wants, Wire};

/// A topic of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicKey(pub u32);

/// One time that a topic has members on a shard, from the first who joins to the last who leaves. The owner names it
/// with all that it sends, so that what was sent during one stay is not taken for part of the next: it would be followed
/// by a gap, and its offsets may be higher than those to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay(pub u32);

/// One subscriber of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Index of the connection, and whether it wants its own messages too, in the top bit.
    connection: u32,
    /// Low bits of the offset after which it takes part.
    after: u32,
}

impl Member {
    const NO_ECHO: u32 = 1 << 31;

    fn new(connection: u32, echo: bool, after: Offset) -> Self {
        debug_assert!(connection < Self::NO_ECHO);
        Self { connection: connection | if echo { 0 } else { Self::NO_ECHO }, after: low_bits(after) }
    }

    /// Index of the connection in the shard's table.
    #[must_use]
    pub const fn connection(self) -> u32 {
        self.connection & !Self::NO_ECHO
    }

    /// Whether it wants its own messages too.
    #[must_use]
    pub const fn echo(self) -> bool {
        self.connection & Self::NO_ECHO == 0
    }

    /// Whether a message with this offset came after it joined. Offsets are compared by their low 32 bits, modulo 2^32;
    /// `Local::refresh` keeps `after` within 2^31 of what is compared.
    #[must_use]
    pub const fn takes(self, offset: Offset) -> bool {
        low_bits(offset).wrapping_sub(self.after).wrapping_sub(1) < 1 << 31
    }
}

const _: () = assert!(size_of::<Member>() == 8);

#[allow(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
const fn low_bits(offset: Offset) -> u32 {
    offset.0 as u32
}

/// Messages that are being handed to a topic's members, encoded once per format.
#[derive(Debug, Default)]
pub struct Batch {
    /// In order of offsets, never empty while the fan-out runs.
    pub messages: Vec<Message>,
    /// All of them as one piece, per [`Wire`], made when the first member of that format comes up.
    pub images: [Option<Image>; Wire::COUNT],
    /// Members before this place have been served.
    pub cursor: usize,
}

impl Batch {
    /// Messages in it at most. Some members take only a part of a batch, and are looked at message by message.
    pub const MESSAGES_MAX: usize = 256;
}

/// One topic on this shard.
#[derive(Debug)]
struct Local {
    name: Topic,
    stay: Stay,
    members: Vec<Member>,
    /// Members of each [`Wire`].
    wires: [u32; Wire::COUNT],
    /// The newest message that came.
    last: Offset,
    /// What came and is not being handed out yet.
    pending: VecDeque<Message>,
    /// What is being handed out.
    batch: Batch,
}

/// The subscribers of one shard.
#[derive(Debug)]
pub struct Members {
    topics: Slab<Local>,
    keys: HashMap<Topic, TopicKey>,
    topics_max: usize,
    waiting_bytes: usize,
    /// The number of the last stay.
    stays: u32,
}

/// What a change of a topic's members means for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nothing new.
    Same,
    /// This shard wants the topic, in these formats.
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

impl Members {
    /// Nobody, and room for so many topics.
    #[must_use]
    pub fn new(topics_max: usize) -> Self {
        Self { topics: Slab::new(), keys: HashMap::new(), topics_max, waiting_bytes: 0, stays: 0 }
    }

    /// Adds a connection to a topic; `None` when there is no room for another topic.
    pub fn join(&mut self, topic: &Topic, connection: u32, wire: Wire, echo: bool) -> Option<Joined> {
        let key = match self.keys.get(topic) {
            Some(&key) => key,
            None => self.create(topic)?,
        };
        let local = &mut self.topics[key.0 as usize];
        let before = local.wants();
        let position = u32::try_from(local.members.len()).ok()?;
        let first = local.members.is_empty();
        local.members.push(Member::new(connection, echo, local.last));
        local.wires[wire as usize] += 1;
        let wants = local.wants();
        let interest = if first || wants != before { Interest::Wants(wants) } else { Interest::Same };
        Some(Joined { topic: key, position, interest })
    }

    fn create(&mut self, topic: &Topic) -> Option<TopicKey> {
        if self.topics.len() >= self.topics_max {
            return None;
        }
        self.stays = self.stays.wrapping_add(1);
        let local = Local {
            name: topic.clone(),
            stay: Stay(self.stays),
            members: Vec::new(),
            wires: [0; Wire::COUNT],
            last: Offset(0),
            pending: VecDeque::new(),
            batch: Batch::default(),
        };
        let key = TopicKey(u32::try_from(self.topics.insert(local)).ok()?);
        self.keys.insert(topic.clone(), key);
        Some(key)
    }

    /// Removes the member at `position`. `moved` is told of every other member that changes its place: connection and
    /// new position.
    pub fn leave(&mut self, topic: TopicKey, position: u32, wire: Wire, mut moved: impl FnMut(u32, u32)) -> Interest {
        let local = &mut self.topics[topic.0 as usize];
        local.wires[wire as usize] -= 1;
        let mut hole = position as usize;
        let mut fill = |members: &mut Vec<Member>, hole: usize, from: usize| {
            if from != hole {
                members[hole] = members[from];
                moved(members[hole].connection(), u32::try_from(hole).unwrap_or(u32::MAX));
            }
        };
        if hole < local.batch.cursor {
            local.batch.cursor -= 1;
            fill(&mut local.members, hole, local.batch.cursor);
            hole = local.batch.cursor;
        }
        let last = local.members.len() - 1;
        fill(&mut local.members, hole, last);
        local.members.pop();
        if local.members.is_empty() {
            let local = self.topics.remove(topic.0 as usize);
            self.keys.remove(&local.name);
            self.waiting_bytes -= bytes_of(local.pending.iter()) + bytes_of(local.batch.messages.iter());
            self.give_memory_back();
            return Interest::None;
        }
        if local.members.capacity() > 4 * local.members.len().max(64) {
            let members = local.members.len();
            local.members.shrink_to(2 * members);
        }
        Interest::Same
    }

    /// After a time of many topics, when none is left.
    fn give_memory_back(&mut self) {
        if self.topics.is_empty() && self.topics.capacity() > 1024 {
            self.topics = Slab::new();
            self.keys = HashMap::new();
        }
    }

    /// The key of a topic that has members here.
    #[must_use]
    pub fn key(&self, topic: &Topic) -> Option<TopicKey> {
        self.keys.get(topic).copied()
    }

    /// The name of a topic.
    #[must_use]
    pub fn name(&self, topic: TopicKey) -> Option<&Topic> {
        self.topics.get(topic.0 as usize).map(|local| &local.name)
    }

    /// The members of a topic.
    #[must_use]
    pub fn members(&self, topic: TopicKey) -> &[Member] {
        self.topics.get(topic.0 as usize).map_or(&[], |local| &local.members)
    }

    /// Formats that a topic's members need.
    #[must_use]
    pub fn wants(&self, topic: TopicKey) -> Wants {
        self.topics.get(topic.0 as usize).map_or(Wants::NONE, Local::wants)
    }

    /// The current stay of a topic.
    #[must_use]
    pub fn stay(&self, topic: &Topic) -> Option<Stay> {
        self.key(topic).map(|key| self.topics[key.0 as usize].stay)
    }

    /// Queues a message that was sent during this stay, see [`Members::deliver`]; one of an earlier stay is dropped.
    pub fn deliver_during(&mut self, stay: Stay, message: Message) -> Option<TopicKey> {
        let key = self.key(&message.topic)?;
        if self.topics[key.0 as usize].stay == stay { self.queue(key, message) } else { None }
    }

    /// Queues a message for a topic's members. Returns the topic when its fan-out must be put on the shard's list,
    /// because it was not running.
    pub fn deliver(&mut self, message: Message) -> Option<TopicKey> {
        let key = self.key(&message.topic)?;
        self.queue(key, message)
    }

    fn queue(&mut self, key: TopicKey, message: Message) -> Option<TopicKey> {
        let local = &mut self.topics[key.0 as usize];
        let idle = local.pending.is_empty() && local.batch.messages.is_empty();
        local.refresh(message.offset);
        local.last = message.offset;
        self.waiting_bytes += message.memory();
        local.pending.push_back(message);
        idle.then_some(key)
    }

    /// The running fan-out of a topic with its members; begins the next one, of at most `bytes_max` bytes and
    /// [`Batch::MESSAGES_MAX`] messages, when none runs. `None` when nothing waits.
    pub fn fan_out(&mut self, topic: TopicKey, bytes_max: usize) -> Option<(&[Member], &mut Batch)> {
        let local = self.topics.get_mut(topic.0 as usize)?;
        if local.batch.messages.is_empty() {
            local.begin_batch(bytes_max);
        }
        (!local.batch.messages.is_empty()).then_some((&local.members, &mut local.batch))
    }

    /// Ends the running fan-out of a topic. Returns whether more waits.
    pub fn end_batch(&mut self, topic: TopicKey) -> bool {
        let Some(local) = self.topics.get_mut(topic.0 as usize) else { return false };
        self.waiting_bytes -= bytes_of(local.batch.messages.iter());
        local.batch.messages.clear();
        local.batch.images = Default::default();
        local.batch.cursor = 0;
        if local.pending.is_empty() && local.pending.capacity() > 64 {
            local.pending = VecDeque::new();
        }
        !local.pending.is_empty()
    }

    /// What the messages that wait for their fan-out keep in memory, about.
    #[must_use]
    pub const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// How many topics have members here.
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

impl Local {
    fn wants(&self) -> Wants {
        Wire::ALL.into_iter().filter(|&wire| self.wires[wire as usize] > 0).fold(Wants::NONE, Wants::with)
    }

    /// Brings old members' `after` forward, once in 2^30 messages, so that 32 bits always tell before from after. Also
    /// when the first message comes, since members who joined before it did not know where the topic stands.
    fn refresh(&mut self, coming: Offset) {
        if coming.0 >> 30 == self.last.0 >> 30 {
            return;
        }
        let waiting = self.batch.messages.first().or(self.pending.front());
        let oldest = waiting.map_or(coming, |message| message.offset);
        let before = low_bits(Offset(oldest.0 - 1));
        let unknown = self.last == Offset(0);
        self.members.iter_mut().filter(|member| unknown || member.takes(oldest)).for_each(|member| {
            member.after = before;
        });
    }

    fn begin_batch(&mut self, bytes_max: usize) {
        let mut bytes = 0;
        while let Some(message) = self.pending.front() {
            bytes += message.payload().len();
            let taken = self.batch.messages.len();
            if taken == Batch::MESSAGES_MAX || (bytes > bytes_max && taken > 0) {
                break;
            }
            self.batch.messages.extend(self.pending.pop_front());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::message::Kind;
    use std::collections::{BTreeMap, BTreeSet};

    fn topic(name: &str) -> Topic {
        Topic::parse(name.as_bytes(), 255).unwrap()
    }

    fn message(name: &str, offset: u64) -> Message {
        let mut message = Message::new(topic(name), Kind::Text, b"hi", None);
        message.offset = Offset(offset);
        message
    }

    #[test]
    fn the_owner_is_told_only_what_is_new() {
        let mut members = Members::new(1);
        let websocket = Wants::NONE.with(Wire::WebSocket);
        let first = members.join(&topic("t"), 1, Wire::WebSocket, true).unwrap();
        assert_eq!(first.interest, Interest::Wants(websocket));
        assert_eq!(members.join(&topic("t"), 2, Wire::WebSocket, true).unwrap().interest, Interest::Same);
        let line = members.join(&topic("t"), 3, Wire::Line, true).unwrap();
        assert_eq!(line.interest, Interest::Wants(websocket.with(Wire::Line)));
        assert_eq!(members.join(&topic("u"), 4, Wire::Line, true), None, "no room for a second topic");
        assert_eq!(members.leave(line.topic, 2, Wire::Line, |_, _| ()), Interest::Same);
        assert_eq!(members.leave(line.topic, 0, Wire::WebSocket, |_, _| ()), Interest::Same);
        assert_eq!(members.leave(line.topic, 0, Wire::WebSocket, |_, _| ()), Interest::None);
        assert!(members.is_empty());
    }

    #[test]
    fn a_member_takes_what_came_after_it_joined() {
        let mut members = Members::new(1);
        members.join(&topic("t"), 1, Wire::Line, true);
        let key = members.deliver(message("t", 5)).unwrap();
        members.join(&topic("t"), 2, Wire::Line, true);
        assert_eq!(members.deliver(message("t", 6)), None, "already on the list");
        let [early, late] = members.members(key).try_into().unwrap();
        assert!(early.takes(Offset(5)) && early.takes(Offset(6)));
        assert!(!late.takes(Offset(5)) && late.takes(Offset(6)));
        assert!(Member::new(0, true, Offset(u64::from(u32::MAX))).takes(Offset(1 << 32)));
    }

    #[test]
    fn a_batch_has_a_bound_however_small_its_messages_are() {
        let mut members = Members::new(1);
        members.join(&topic("t"), 1, Wire::Line, true);
        let key = members.deliver(message("t", 1)).unwrap();
        (2..=1000).for_each(|offset| assert_eq!(members.deliver(message("t", offset)), None));
        let mut batches = Vec::new();
        while let Some((_, batch)) = members.fan_out(key, usize::MAX) {
            batches.push(batch.messages.len());
            members.end_batch(key);
        }
        assert_eq!(batches, [256, 256, 256, 232]);
        assert_eq!(members.waiting_bytes(), 0);
    }

    #[test]
    fn a_member_stays_for_more_messages_than_32_bits_count() {
        let mut members = Members::new(1);
        members.join(&topic("t"), 1, Wire::Line, true);
        for offset in (0..64).map(|step| (5 << 30) + step * (1 << 29)) {
            let key = members.deliver(message("t", offset)).unwrap();
            members.fan_out(key, 1);
            members.end_batch(key);
            assert!(members.members(key)[0].takes(Offset(offset)), "{offset}");
        }
    }

    #[test]
    fn batches_are_bounded_and_keep_their_order() {
        let mut members = Members::new(1);
        members.join(&topic("t"), 1, Wire::Line, true);
        let keys: Vec<_> = (1..=5).filter_map(|offset| members.deliver(message("t", offset))).collect();
        let key = keys[0];
        let mut batches = Vec::new();
        while let Some((_, batch)) = members.fan_out(key, 4) {
            batches.push(batch.messages.iter().map(|message| message.offset.0).collect::<Vec<_>>());
            members.end_batch(key);
        }
        assert_eq!(batches, [vec![1, 2], vec![3, 4], vec![5]]);
    }

    /// Members come and go while a sliced fan-out runs: whoever stays for the whole of it is served exactly once.
    #[test]
    fn a_sliced_fan_out_serves_everybody_once() {
        for seed in 0..300_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = move |bound: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                usize::try_from(random >> 33).unwrap() % bound
            };
            let mut members = Members::new(1);
            let mut places: BTreeMap<u32, u32> = BTreeMap::new();
            let join = |members: &mut Members, places: &mut BTreeMap<u32, u32>, connection| {
                let joined = members.join(&topic("t"), connection, Wire::Line, true).unwrap();
                places.insert(connection, joined.position);
            };
            let initial = 1 + u32::try_from(next(20)).unwrap();
            (0..initial).for_each(|connection| join(&mut members, &mut places, connection));
            let key = members.deliver(message("t", 1)).unwrap();
            let mut served: BTreeMap<u32, u32> = BTreeMap::new();
            let mut stayed: BTreeSet<u32> = places.keys().copied().collect();
            let mut fresh = 1000;
            while let Some((all, batch)) = members.fan_out(key, 100) {
                if batch.cursor == all.len() {
                    break;
                }
                let end = all.len().min(batch.cursor + 1 + next(3));
                for member in all[batch.cursor..end].iter().filter(|member| member.takes(Offset(1))) {
                    *served.entry(member.connection()).or_default() += 1;
                }
                batch.cursor = end;
                for _ in 0..next(4) {
                    if next(3) == 0 {
                        fresh += 1;
                        join(&mut members, &mut places, fresh);
                    } else if places.len() > 1 {
                        let connection = *places.keys().nth(next(places.len())).unwrap();
                        let position = places.remove(&connection).unwrap();
                        stayed.remove(&connection);
                        members.leave(key, position, Wire::Line, |moved, to| {
                            places.insert(moved, to);
                        });
                    }
                }
                for (&connection, &position) in &places {
                    assert_eq!(members.members(key)[position as usize].connection(), connection);
                }
            }
            assert!(served.values().all(|&times| times == 1), "seed {seed}: {served:?}");
            assert!(stayed.iter().all(|connection| served.contains_key(connection)), "seed {seed}");
            assert!(served.keys().all(|&connection| connection < 1000), "seed {seed}: newcomers are not served");
        }
    }
}
