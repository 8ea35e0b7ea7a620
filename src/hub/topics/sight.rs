//! What operators see of topics, and how they end one.

use super::{Now, Owned, Topics, Way};
use crate::hub::Group;
use crate::hub::history::History;
use crate::message::{Cursor, Epoch, Offset, Topic};

/// One topic, as its owner has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight<'a> {
    /// Its name.
    pub name: &'a Topic,
    /// Where it stands.
    pub cursor: Cursor,
    /// Subscribers, those of groups included.
    pub subscribers: u64,
    /// Messages in history, those included that are too old and have not been dropped yet.
    pub messages: usize,
    /// What they keep in memory, about.
    pub bytes: usize,
    /// The oldest of them.
    pub first: Option<Offset>,
    /// What other nodes have to do with it, where there is a cluster.
    pub holding: Option<Holding>,
}

/// What other nodes have to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// Nothing.
    Alone,
    /// It is shared, and not heard: it was only published to here.
    Idle,
    /// The same; its stream knows where it stands, and nobody here does.
    Elsewhere,
    /// Its stream's past is awaited.
    Joining,
    /// It is heard.
    Live,
}

impl Topics {
    /// Places of topics are below this.
    #[must_use]
    pub fn place_end(&self) -> usize {
        self.topics.0.capacity()
    }

    /// The topic at a place, if there is one. It keeps its place while it lives.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<Sight<'_>> {
        let owned = self.topics.0.get(place)?;
        let holding = self.cluster.is_some().then(|| self.holding(u32::try_from(place).unwrap_or(u32::MAX)));
        let Owned { name, cursor, audience, history, .. } = owned;
        let (messages, bytes, first) = (history.len(), history.bytes(), history.first());
        Some(Sight { name, cursor: *cursor, subscribers: audience.subscribers(), messages, bytes, first, holding })
    }

    fn holding(&self, key: u32) -> Holding {
        let shared = self.topics.0[key as usize].shared.as_deref();
        match self.way(key) {
            Way::Here | Way::Written => Holding::Alone,
            _ if self.is_joining(key) => Holding::Joining,
            _ if shared.is_some_and(|shared| shared.follow.is_some()) => Holding::Live,
            Way::Said => Holding::Idle,
            Way::Ordered => Holding::Elsewhere,
        }
    }

    /// A topic by its name. Looking is no use of it.
    #[must_use]
    pub fn sight(&self, topic: &Topic) -> Option<Sight<'_>> {
        self.keys.get(topic).and_then(|&key| self.at(key as usize))
    }

    /// The queue groups of a topic.
    pub fn groups(&self, topic: &Topic) -> impl Iterator<Item = &Group> {
        let owned = self.keys.get(topic).and_then(|&key| self.topics.0.get(key as usize));
        owned.into_iter().flat_map(|owned| owned.audience.groups())
    }

    /// Ends a topic's past: nothing of it is kept, and what is published next is the first message of a new epoch. Who
    /// subscribes stays until [`Members::retire`](crate::hub::Members::retire) on each shard, which must follow: those who
    /// joined before do not know the new epoch's offsets. Returns that epoch, `None` when there is no such topic. One that has a
    /// stream goes on as the stream does: other nodes hold it too.
    pub fn end(&mut self, topic: &Topic, now: Now) -> Option<Epoch> {
        let &key = self.keys.get(topic)?;
        self.settle(key);
        if self.way(key) == Way::Ordered {
            return Some(self.owned(key).cursor.epoch);
        }
        self.change(key, |history| *history = History::default());
        let epoch = self.new_epoch(now);
        let owned = self.owned(key);
        owned.cursor = Cursor { epoch, offset: Offset(0) };
        owned.used = now.tick;
        if let Some(reserved) = &mut owned.reserved {
            reserved.end();
        }
        self.note_ended(key);
        self.arm(key);
        Some(epoch)
    }
}
