//! The topics that a shard owns: their order, their audience and their past.
//!
//! A topic exists while a shard is interested in it, while it has history, and for some time after its last use. When it
//! is forgotten, its next epoch is a greater one, so that nobody takes the new past for the old.
//!
//! A message of a durable topic has its place before it is kept, handed out and seen: while the disk is written. Where other
//! nodes hold it too a stream elsewhere gives its place, and it is kept, handed out and seen when the stream tells it.
//!
//! Timers are lazy: a topic's is set when it has none and needs one, and looks at the topic when it fires. So
//! publishing does not touch the wheel.

mod asking;
mod keeping;
mod legacy;
mod ordered;
mod origins;
mod presence;
mod reserved;
mod shared;
mod sight;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

use self::following::Walk;
pub use self::legacy::{Left, Legacy};
pub use self::origins::Heard;
use self::presence::Desk;
pub use self::presence::News;
use self::reserved::Reserved;
pub use self::reserved::{Taken, Turn};
use self::shared::{Cluster, Shared};
pub use self::shared::{Way, Wish};
pub use self::sight::{Holding, Sight};
use super::Group;
use super::audience::Audience;
pub use super::audience::Interested;
use super::history::History;
pub use super::past::{Info, Page, Past, Start};
use super::presence::Presence;
use super::ruling::{Ruling, Rulings, Spent};
use crate::cluster::port::Said;
use crate::codec::websocket::deflate::Deflater;
use crate::config::{Limits, RuleKey, TopicRules};
use crate::id::ShardId;
use crate::message::{Cursor, Epoch, Message, Offset, Topic, Wants};
use crate::wheel::{self, Store, Tick, Timer, Wheel};

/// The present.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Monotonic, for ages.
    pub tick: Tick,
    /// Unix time, for messages and epochs.
    pub unix_ms: u64,
}

/// The owner has as many topics as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for another topic")]
pub struct NoRoom;

/// Why a publication has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The owner has as many topics as it may.
    #[error("no room for another topic")]
    NoRoom,
    /// The topic had as many this second as it may.
    #[error("too many publications in a second")]
    TooFast,
    /// Others of the topic have to have their places first, and it cannot wait for that.
    #[error("others have to have their places first")]
    Busy,
}

impl From<NoRoom> for Refused {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// What came of a publication.
#[derive(Debug)]
pub struct Published<'a> {
    /// Its place; that of the first one when it is a duplicate.
    pub cursor: Cursor,
    /// Subscribers of the topic, those of groups included.
    pub subscribers: u64,
    /// A message with the same key is in history: nothing was published.
    pub duplicate: bool,
    /// Its number among this node's messages, where the topic is shared with others.
    pub said: Option<Said>,
    /// Where it goes: all shards with plain subscribers and one shard of each group.
    pub audience: &'a [Interested],
}

/// What a shard's topics hold and have lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages in history now.
    pub messages: usize,
    /// What they keep in memory now, about.
    pub bytes: usize,
    /// Messages that were dropped for their age.
    pub expired: u64,
    /// Messages that were dropped because all topics together were over their bound.
    pub evicted: u64,
    /// Topics that were forgotten.
    pub forgotten: u64,
}

/// The topics of one owner shard.
#[derive(Debug)]
pub struct Topics {
    topics: Table,
    keys: HashMap<Topic, u32>,
    wheel: Wheel,
    topics_max: usize,
    /// Queue groups of one topic.
    groups_max: usize,
    rulings: Rulings,
    walk: Walk,
    bytes_max: usize,
    counts: Counts,
    /// Topics that somebody is interested in.
    interested: usize,
    /// Topics with history, in no order: whose turn it is to give something up is found without a search.
    keepers: Vec<u32>,
    /// The place in `keepers` of the one whose turn it is.
    hand: usize,
    /// Where it was last looked for a topic to forget.
    place: usize,
    /// The newest epoch.
    epoch: Epoch,
    /// Durable topics that are not needed on the disk any more, and up to where.
    gone: VecDeque<(Topic, Cursor)>,
    /// Where topics are shared with other nodes.
    cluster: Option<Box<Cluster>>,
    /// Who is where.
    desk: Desk,
    /// The audience of the last publication, where it had to be put together.
    scratch: Vec<Interested>,
}

#[derive(Debug)]
struct Table(Slab<Owned>);

impl Store for Table {
    fn timer(&mut self, key: u32) -> &mut Timer {
        &mut self.0[key as usize].timer
    }
}

/// One topic at its owner.
#[derive(Debug)]
struct Owned {
    name: Topic,
    cursor: Cursor,
    used: Tick,
    timer: Timer,
    /// Its place in `Topics::keepers` while it has history.
    keeper: u32,
    /// Its rule, and in which version of the rules that is.
    rule: RuleKey,
    version: u32,
    spent: Spent,
    audience: Audience,
    history: History,
    /// Of a topic that is on the disk.
    reserved: Option<Box<Reserved>>,
    /// Of a topic that other nodes hold too.
    shared: Option<Box<Shared>>,
    /// Who is there, where that is kept or somebody watches.
    presence: Option<Box<Presence>>,
    /// When shards were last asked who is there.
    rolled: Tick,
    /// Whether those who watch have to be told something.
    has_news: bool,
}

impl Topics {
    /// No topics, and room for one part in `shards` of what the process may have of them.
    #[must_use]
    pub fn new(rules: &Arc<TopicRules>, limits: &Limits, shards: u16) -> Self {
        let wheel = Wheel::new(wheel::TICK);
        Self {
            topics: Table(Slab::new()),
            keys: HashMap::new(),
            rulings: Rulings::new(Arc::clone(rules), &wheel, 0),
            walk: Walk::default(),
            wheel,
            topics_max: Self::topics_max(limits, shards),
            groups_max: limits.groups_max,
            bytes_max: limits.history.bytes_total_max / usize::from(shards.max(1)),
            counts: Counts::default(),
            interested: 0,
            keepers: Vec::new(),
            hand: 0,
            place: 0,
            epoch: Epoch(0),
            gone: VecDeque::new(),
            cluster: None,
            desk: Desk::default(),
            scratch: Vec::new(),
        }
    }

    /// A shard wants a topic's messages, for its plain subscribers or those in a group, instead of what it said of the
    /// same ones before. Returns whether there was room for the topic.
    pub fn interest(&mut self, topic: &Topic, interested: Interested, now: Now) -> bool {
        let Ok(key) = self.find_or_create(topic, now) else { return false };
        self.share(key);
        let groups_max = self.groups_max;
        let audience = &mut self.owned(key).audience;
        if !audience.takes(&interested, groups_max) {
            return false;
        }
        let is_new = audience.is_empty();
        let newcomer = Some(interested.shard).filter(|shard| interested.group.is_none() && !audience.has_plain(*shard));
        audience.set(interested);
        self.interested += usize::from(is_new);
        newcomer.into_iter().for_each(|shard| self.call_roll(key, shard));
        self.note_subscriptions(key, now);
        true
    }

    /// A shard has no subscribers of this topic any more, outside of groups or in this one.
    pub fn disinterest(&mut self, topic: &Topic, shard: ShardId, group: Option<&Group>, now: Now) {
        let Some(&key) = self.keys.get(topic) else { return };
        let owned = self.owned(key);
        let was_empty = owned.audience.is_empty();
        owned.audience.remove(shard, group);
        if owned.audience.is_empty() && !was_empty {
            owned.used = now.tick;
            self.interested -= 1;
            self.arm(key);
        }
        self.note_subscriptions(key, now);
    }

    /// Gives a publication its place in its topic, encodes it for its audience, keeps it and says where it goes; or, where the
    /// topic is durable, gives it a place and does the rest when it is [placed](Topics::place). Where a stream gives the places
    /// it says that the message belongs there.
    ///
    /// # Errors
    /// When the topic does not exist and there is no room for it, or when it has had its rate: what the server itself
    /// publishes has no rate.
    pub fn take(
        &mut self,
        message: &mut Message,
        key: Option<&str>,
        turn: Turn,
        deflater: &mut Deflater,
        now: Now,
    ) -> Result<Taken<'_>, Refused> {
        let topic = self.find_or_create(&message.topic, now)?;
        self.expire_messages(topic, now.tick, usize::MAX);
        let owned = &mut self.topics.0[topic as usize];
        let ruling = self.rulings.get(owned.rule);
        owned.used = now.tick;
        if let Some(offset) = key.and_then(|key| owned.history.keyed(key)) {
            let (cursor, subscribers) = (Cursor { offset, ..owned.cursor }, owned.audience.subscribers());
            return Ok(Taken::Published(Published { cursor, subscribers, duplicate: true, said: None, audience: &[] }));
        }
        if ruling.durable || owned.reserved.is_some() {
            let is_durable = ruling.durable;
            if self.way(topic) == Way::Ordered {
                return self.order(topic, message, turn, now);
            }
            if let Some(waits) = self.waits(topic, key, turn, is_durable)? {
                return Ok(waits);
            }
        }
        let owned = &mut self.topics.0[topic as usize];
        let ruling = self.rulings.get(owned.rule);
        if message.publisher.is_some() && !ruling.admits(&mut owned.spent, now.tick) {
            return Err(Refused::TooFast);
        }
        if ruling.durable {
            return Ok(self.reserve(topic, message, key, now));
        }
        owned.cursor.offset.0 += 1;
        message.time_ms = now.unix_ms;
        (message.epoch, message.offset) = (owned.cursor.epoch, owned.cursor.offset);
        let said = self.number(topic);
        if said.is_some() && !self.ruling(topic).bounds.is_off() {
            self.share(topic);
        }
        Ok(Taken::Published(Published { said, ..self.hand_out(topic, message, key, deflater, now) }))
    }

    /// Encodes a topic's newest message for its audience, keeps it and says where it goes.
    fn hand_out(
        &mut self,
        topic: u32,
        message: &mut Message,
        key: Option<&str>,
        deflater: &mut Deflater,
        now: Now,
    ) -> Published<'_> {
        let owned = &mut self.topics.0[topic as usize];
        let cursor = owned.cursor;
        owned.audience.choose(&mut self.scratch);
        let chosen = owned.audience.chosen(&self.scratch);
        let wants = chosen.iter().fold(Wants::NONE, |all, to| all.union(to.wants));
        message.prepare(wants, deflater);
        if !self.rulings.get(owned.rule).bounds.is_off() {
            self.keep(topic, message, key, now);
        }
        let owned = &self.topics.0[topic as usize];
        let (subscribers, audience) = (owned.audience.subscribers(), owned.audience.chosen(&self.scratch));
        Published { cursor, subscribers, duplicate: false, said: None, audience }
    }

    /// Whom to give a message that a group's shard has given back because its subscribers had gone.
    pub fn pick(&mut self, topic: &Topic, group: &Group) -> Option<Interested> {
        let key = *self.keys.get(topic)?;
        self.owned(key).audience.pick(group).cloned()
    }

    /// When [`Topics::expire`] wants to be called at the latest, as [`Wheel::next_expiry`] says it.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Tick> {
        self.wheel.next_expiry()
    }

    /// What is held now and was lost so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Subscribers of a topic on all shards, as far as they have been told of.
    #[must_use]
    pub fn subscribers(&self, topic: &Topic) -> u64 {
        self.keys.get(topic).map_or(0, |key| self.topics.0[*key as usize].audience.subscribers())
    }

    /// What topics keep in memory beside their histories, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        let lists = self.keys.capacity() * (size_of::<(Topic, u32)>() + 1) + self.keepers.capacity() * size_of::<u32>();
        self.topics.0.capacity() * size_of::<Owned>()
            + self.topics.0.len() * Topic::NAME_BYTES
            + lists
            + self.presence_bytes()
    }

    /// How many topics somebody is interested in.
    #[must_use]
    pub const fn interested(&self) -> usize {
        self.interested
    }

    /// Whether a queue group is interested in a topic. It looks at all of them.
    #[must_use]
    pub fn has_groups(&self) -> bool {
        self.topics.0.iter().any(|(_, owned)| owned.audience.has_groups())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.0.is_empty()
    }

    fn ruling(&self, key: u32) -> &Ruling {
        self.rulings.get(self.topics.0[key as usize].rule)
    }

    fn owned(&mut self, key: u32) -> &mut Owned {
        &mut self.topics.0[key as usize]
    }

    /// A topic that somebody asks about, without what is too old.
    fn look(&mut self, key: u32, now: Now) -> &Owned {
        self.settle(key);
        self.expire_messages(key, now.tick, usize::MAX);
        let owned = self.owned(key);
        owned.used = now.tick;
        owned
    }

    fn find_or_create(&mut self, topic: &Topic, now: Now) -> Result<u32, NoRoom> {
        if let Some(&key) = self.keys.get(topic) {
            self.settle(key);
            return Ok(key);
        }
        if self.topics.0.len() >= self.topics_max && !self.forget_idle() {
            return Err(NoRoom);
        }
        let epoch = self.new_epoch(now);
        Ok(self.create(topic, Cursor { epoch, offset: Offset(0) }, now))
    }

    /// A topic that stands there, where there is room for it.
    fn create(&mut self, topic: &Topic, cursor: Cursor, now: Now) -> u32 {
        let key = u32::try_from(self.topics.0.insert(Owned {
            name: topic.clone(),
            cursor,
            used: now.tick,
            timer: Timer::new(),
            keeper: 0,
            rule: self.rulings.key(topic),
            version: self.rulings.version,
            spent: Spent::default(),
            audience: Audience::default(),
            history: History::default(),
            reserved: None,
            shared: None,
            presence: None,
            rolled: now.tick,
            has_news: false,
        }));
        let key = key.expect("topics_max is a key");
        self.keys.insert(topic.clone(), key);
        self.settle_presence(key);
        self.arm(key);
        key
    }
}

#[cfg(test)]
impl Topics {
    /// [`Topics::take`] where nothing has to wait.
    pub(crate) fn publish(
        &mut self,
        message: &mut Message,
        key: Option<&str>,
        deflater: &mut Deflater,
        now: Now,
    ) -> Result<Published<'_>, Refused> {
        match self.take(message, key, Turn::Comes, deflater, now)? {
            Taken::Published(published) => Ok(published),
            waits => panic!("it waits: {waits:?}"),
        }
    }
}

mod following;
#[cfg(test)]
mod tests;
