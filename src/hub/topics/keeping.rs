//! What is kept of topics, and for how long: histories within their bounds, and the topics themselves.

use hashbrown::HashMap;
use slab::Slab;

use super::{Now, Table, Topics, Way};
use crate::hub::history::History;
use crate::message::Message;
use crate::wheel::Tick;

impl Topics {
    /// Messages that one step of [`Topics::expire`] drops at most.
    const EXPIRED_PER_STEP: usize = 256;
    /// Places that are looked at for a topic to forget when there is no room for another: a microsecond.
    const LOOKED_AT_FOR_ROOM: usize = 64;
    /// How long a topic is not forgotten that may join its stream: longer than anybody waits for that.
    const JOINING_TICKS: u32 = 100;
    /// Topics whose places are kept when the last one has gone.
    const ROOM_KEPT: usize = 1024;

    /// Drops what is too old, in steps of some microseconds, as long as `more` says that there is time. Returns whether
    /// all was done.
    pub fn expire(&mut self, now: Tick, mut more: impl FnMut() -> bool) -> bool {
        if !self.walk(now, &mut more) {
            return false;
        }
        while more() {
            let Some(key) = self.wheel.pop(&mut self.topics, now) else { return true };
            self.settle(key);
            self.expire_messages(key, now, Self::EXPIRED_PER_STEP);
            match self.deadline(key) {
                Some(deadline) if deadline <= now && self.owned(key).history.is_empty() => self.forget(key),
                Some(deadline) if deadline <= now && self.may_be_left(key, now) => {
                    self.change(key, |history| *history = History::default());
                    self.forget(key);
                }
                Some(deadline) => self.wheel.arm(&mut self.topics, key, deadline),
                None => {}
            }
        }
        false
    }

    /// Makes room: forgets a topic that nobody subscribes to, if one is among the next few. So topics that were merely
    /// published to keep nobody out.
    pub(super) fn forget_idle(&mut self) -> bool {
        for _ in 0..Self::LOOKED_AT_FOR_ROOM {
            let slots = self.topics.0.capacity();
            self.place = if self.place + 1 < slots { self.place + 1 } else { 0 };
            let key = u32::try_from(self.place).expect("topics_max is a key");
            if self.topics.0.contains(self.place) && self.is_idle(key) {
                self.counts.evicted += self.owned(key).history.len() as u64;
                self.change(key, |history| *history = History::default());
                self.wheel.disarm(&mut self.topics, key);
                self.forget(key);
                return true;
            }
        }
        false
    }

    /// Whether a topic may be forgotten for another: nobody subscribes to it, and nothing of it was promised to be there.
    fn is_idle(&self, key: u32) -> bool {
        let owned = &self.topics.0[key as usize];
        let is_promised = owned.is_waited_for() || (self.way(key) == Way::Written && !owned.history.is_empty());
        owned.audience.is_empty() && !is_promised && !self.is_awaited(key)
    }

    /// When a topic must be looked at; `None` when it stays as it is without us.
    pub(super) fn deadline(&self, key: u32) -> Option<Tick> {
        let (owned, ruling) = (&self.topics.0[key as usize], self.ruling(key));
        let expiry = owned.history.expiry(&ruling.bounds);
        let is_left = owned.audience.is_empty() && !owned.is_waited_for();
        let leave = || is_left.then(|| owned.used.later(ruling.linger_ticks));
        if self.way(key) == Way::Ordered {
            // It goes on in its stream.
            return expiry.into_iter().chain(is_left.then(|| self.left_at(key))).min();
        }
        expiry.or_else(leave)
    }

    /// When a topic that nobody uses is left to its stream. Those who wait for that have their time.
    fn left_at(&self, key: u32) -> Tick {
        self.topics.0[key as usize].used.later(self.ruling(key).linger_ticks.max(Self::JOINING_TICKS))
    }

    /// Whether it is time for that: nobody hears it, and its stream has what is kept of it here.
    fn may_be_left(&self, key: u32, now: Tick) -> bool {
        let owned = &self.topics.0[key as usize];
        let is_left = owned.audience.is_empty() && !owned.is_waited_for();
        is_left && self.way(key) == Way::Ordered && self.left_at(key) <= now
    }

    /// Sets a topic's timer if it has none. One that has is looked at in time: its deadline was not later.
    pub(super) fn arm(&mut self, key: u32) {
        if !self.owned(key).timer.is_armed()
            && let Some(deadline) = self.deadline(key)
        {
            self.wheel.arm(&mut self.topics, key, deadline);
        }
    }

    /// Sets a topic's timer to an earlier time, where it must be looked at earlier than that says.
    pub(super) fn hasten(&mut self, key: u32) {
        let armed = self.owned(key).timer.deadline();
        if let (Some(armed), Some(deadline)) = (armed, self.deadline(key))
            && deadline < armed
        {
            self.wheel.arm(&mut self.topics, key, deadline);
        }
    }

    fn forget(&mut self, key: u32) {
        self.note_gone(key);
        self.end_sharing(key);
        let owned = self.topics.0.remove(key as usize);
        self.keys.remove(&owned.name);
        self.forget_presence(&owned.name, owned.presence);
        self.counts.forgotten += 1;
        if self.topics.0.is_empty() && self.topics.0.capacity() > Self::ROOM_KEPT {
            self.topics = Table(Slab::new());
            self.keys = HashMap::new();
            self.keepers = Vec::new();
        }
    }

    /// Puts a topic's newest message into its history.
    pub(super) fn keep(&mut self, topic: u32, message: &Message, key: Option<&str>, now: Now) {
        let bounds = self.ruling(topic).bounds;
        // Where the bound has become narrower the walk does the rest.
        let most = if self.counts.bytes > self.bytes_max { History::DROPPED_AT_ONCE } else { usize::MAX };
        self.change(topic, |history| history.push(message.clone(), key, now.tick, &bounds));
        self.arm(topic);
        (0..most).take_while(|_| self.counts.bytes > self.bytes_max && self.evict(topic)).count();
    }

    /// Takes the oldest message from the topic whose turn it is. The newest one of `spared` goes last.
    pub(super) fn evict(&mut self, spared: u32) -> bool {
        if self.hand >= self.keepers.len() {
            self.hand = 0;
        }
        let Some(&key) = self.keepers.get(self.hand) else { return false };
        if key == spared && self.keepers.len() > 1 && self.owned(key).history.len() == 1 {
            self.hand += 1;
            return true;
        }
        self.change(key, History::pop_oldest);
        self.counts.evicted += 1;
        // Where a topic has given its last one, the next topic to have its turn is in its place.
        self.hand += usize::from(self.keepers.get(self.hand) == Some(&key));
        true
    }

    /// Whether all topics together keep more than they may.
    pub(super) const fn is_over(&self) -> bool {
        self.counts.bytes > self.bytes_max
    }

    pub(super) fn expire_messages(&mut self, key: u32, now: Tick, most: usize) {
        let bounds = self.ruling(key).bounds;
        if self.owned(key).history.expiry(&bounds).is_some_and(|expiry| expiry <= now) {
            self.counts.expired += self.change(key, |history| history.expire(now, &bounds, most)) as u64;
            if self.owned(key).history.is_empty() {
                self.note_gone(key);
            }
        }
    }

    /// Changes a topic's history, and the books with it.
    pub(super) fn change<T>(&mut self, key: u32, change: impl FnOnce(&mut History) -> T) -> T {
        let owned = &mut self.topics.0[key as usize];
        let (messages, bytes) = (owned.history.len(), owned.history.bytes());
        let result = change(&mut owned.history);
        self.counts.messages = self.counts.messages + owned.history.len() - messages;
        self.counts.bytes = self.counts.bytes + owned.history.bytes() - bytes;
        match (messages > 0, !owned.history.is_empty()) {
            (false, true) => {
                owned.keeper = u32::try_from(self.keepers.len()).expect("as many as topics at most");
                self.keepers.push(key);
            }
            (true, false) => {
                let place = owned.keeper;
                self.keepers.swap_remove(place as usize);
                if let Some(&moved) = self.keepers.get(place as usize) {
                    self.owned(moved).keeper = place;
                }
            }
            _ => {}
        }
        result
    }
}
