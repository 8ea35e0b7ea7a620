//! What operators see of topics, and how they end one.

use super::{Now, Owned, Topics};
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
}

impl Owned {
    fn sight(&self) -> Sight<'_> {
        let Self { name, cursor, audience, history, .. } = self;
        let (messages, bytes, first) = (history.len(), history.bytes(), history.first());
        Sight { name, cursor: *cursor, subscribers: audience.subscribers(), messages, bytes, first }
    }
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
        self.topics.0.get(place).map(Owned::sight)
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
    /// joined before do not know the new epoch's offsets. Returns that epoch, `None` when there is no such topic.
    pub fn end(&mut self, topic: &Topic, now: Now) -> Option<Epoch> {
        let &key = self.keys.get(topic)?;
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
