//! What is known of topics' pasts, from all that readers and publishers were told, and whether it fits together.

use std::collections::{BTreeMap, BTreeSet};

use super::streams::{Cursor, Place};
use super::wire::Id;

/// How much topics remember.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Messages of a topic; nothing else bounds them, unless it is `loose`.
    pub(super) messages: u64,
    /// Something else may have what is remembered forgotten: ages, bytes, other topics.
    pub(super) loose: bool,
}

impl Memory {
    /// More than any world says.
    pub(super) const ALL: u64 = 1 << 20;

    /// Whether nothing is ever forgotten.
    pub(super) const fn is_complete(self) -> bool {
        self.messages >= Self::ALL && !self.loose
    }

    /// Whether a message may be forgotten when one at the other place is the newest.
    fn may_forget(self, old: Cursor, new: Cursor) -> bool {
        let idle = self.messages == 0 && new.0 > old.0;
        self.loose || idle || (new.0 == old.0 && new.1 >= old.1 + self.messages)
    }
}

/// What is known.
#[derive(Debug)]
pub(super) struct Ledger {
    memory: Memory,
    messages: BTreeMap<Place, Id>,
    places: BTreeMap<Id, BTreeSet<Place>>,
    /// Places that a publisher was given for something new.
    acknowledged: BTreeSet<Place>,
    /// What was sent more than once, with its key.
    repeated: BTreeSet<Id>,
    /// What each group's members took, and who did.
    taken: BTreeMap<(u8, Id), u32>,
}

impl Ledger {
    pub(super) const fn new(memory: Memory) -> Self {
        Self {
            memory,
            messages: BTreeMap::new(),
            places: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            repeated: BTreeSet::new(),
            taken: BTreeMap::new(),
        }
    }

    /// A publisher sends this again.
    pub(super) fn repeats(&mut self, id: Id) {
        self.repeated.insert(id);
    }

    /// Somebody was told that this message has this place.
    pub(super) fn stands(&mut self, place: Place, id: Id) -> Result<(), String> {
        if *self.messages.entry(place).or_insert(id) != id {
            return Err(format!("{id:?} is at {place:?}, where others saw {:?}", self.messages[&place]));
        }
        let places = self.places.entry(id).or_default();
        places.insert(place);
        let Some((old, new)) = places.iter().zip(places.iter().skip(1)).next() else { return Ok(()) };
        let forgotten = old.topic == new.topic && self.memory.may_forget(old.cursor, before(new.cursor));
        if self.repeated.contains(&id) && forgotten {
            return Ok(());
        }
        Err(format!("{id:?} was published twice: at {places:?}"))
    }

    /// A publisher was told what became of its message.
    pub(super) fn acknowledge(&mut self, place: Place, id: Id, duplicate: bool) -> Result<(), String> {
        self.stands(place, id)?;
        if duplicate {
            let known = self.repeated.contains(&id);
            return if known { Ok(()) } else { Err(format!("{id:?} is no duplicate: at {place:?}")) };
        }
        if self.acknowledged.insert(place) { Ok(()) } else { Err(format!("{place:?} was given away twice: {id:?}")) }
    }

    /// A reader that was at `old` was told that what follows is lost up to `new`.
    pub(super) fn resets(&self, old: Cursor, new: Cursor) -> Result<(), String> {
        // What follows `old` is lost when the first message behind it is.
        let is_just = new > old && self.memory.may_forget((old.0, old.1 + 1), new);
        if is_just { Ok(()) } else { Err(format!("a reset from {old:?} to {new:?}, with {:?}", self.memory)) }
    }

    /// A member of a topic's group got a message.
    pub(super) fn takes(&mut self, topic: u8, id: Id, worker: u32) -> Result<(), String> {
        let Some(other) = self.taken.insert((topic, id), worker) else { return Ok(()) };
        let published_twice = self.repeated.contains(&id) && !self.memory.is_complete();
        if published_twice { Ok(()) } else { Err(format!("{id:?} went to workers {other} and {worker}")) }
    }

    /// Whether a member of a topic's group got a message.
    pub(super) fn is_taken(&self, topic: u8, id: Id) -> bool {
        self.taken.contains_key(&(topic, id))
    }

    /// Whether a place of this message is known.
    pub(super) fn knows(&self, id: Id) -> bool {
        self.places.contains_key(&id)
    }

    /// The newest place of a topic that anybody was told of.
    pub(super) fn newest(&self, topic: u8) -> Option<Cursor> {
        let all = Place { topic, cursor: (0, 0) }..=Place { topic, cursor: (u64::MAX, u64::MAX) };
        self.messages.range(all).next_back().map(|(place, _)| place.cursor)
    }
}

const fn before(cursor: Cursor) -> Cursor {
    (cursor.0, cursor.1 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Id = Id { publisher: 1, sequence: 1 };

    fn place(offset: u64) -> Place {
        Place { topic: 0, cursor: (5, offset) }
    }

    #[test]
    fn a_reset_is_just_where_the_next_message_is_forgotten() {
        let ledger = Ledger::new(Memory { messages: 3, loose: false });
        for (old, new, is_just) in [(4, 7, false), (4, 8, true), (4, 4, false), (8, 4, false)] {
            assert_eq!(ledger.resets((5, old), (5, new)).is_ok(), is_just, "{old} {new}");
        }
        assert!(ledger.resets((5, 4), (6, 0)).is_err(), "it is not forgotten while it has a past");
        let off = Ledger::new(Memory { messages: 0, loose: false });
        assert!(off.resets((5, 4), (5, 5)).is_ok() && off.resets((5, 4), (6, 0)).is_ok());
    }

    #[test]
    fn only_what_is_forgotten_is_published_again() {
        for (second, is_fine) in [(4, false), (5, true)] {
            let mut ledger = Ledger::new(Memory { messages: 3, loose: false });
            ledger.acknowledge(place(1), ID, false).expect("the first");
            ledger.repeats(ID);
            assert_eq!(ledger.acknowledge(place(second), ID, false).is_ok(), is_fine);
        }
        let mut ledger = Ledger::new(Memory { messages: 3, loose: false });
        ledger.acknowledge(place(1), ID, false).expect("the first");
        assert!(ledger.acknowledge(place(9), ID, false).is_err(), "nobody sent it twice");
    }
}
