//! Topics that other nodes hold too: which are heard of, and of plain ones what is heard and what the others are told.
//! See [`ordered`](super::ordered) for durable ones.
//!
//! ```text
//!   subscribed, asked, kept --> followed --> forgotten, or shared no more
//!   published here           --> numbered 1, 2, 3, ... for those who follow it elsewhere
//! ```
//!
//! A topic that is only published to, and of which nothing is kept, is numbered and not followed. Whoever hears of a node's
//! messages a number that is not the next one has missed some: the topic's past ends there ([`Topics::renew`]), and its
//! subscribers are told. A topic that is not shared has none of this.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::ordered::{Before, Ordered};
use super::origins::{Heard, Origins};
use super::{Interested, Now, Published, Topics};
use crate::cluster::port::{Follow, NodeId, Said, Sharing};
use crate::codec::websocket::deflate::Deflater;
use crate::config::Presence;
use crate::hub::history::History;
use crate::hub::ruling::Ruling;
use crate::message::{Cursor, Epoch, Message, Topic, Wants};

/// What an owner knows of its node's cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    /// The low bits of all epochs of this node.
    mark: u64,
    /// The number of the last follow.
    last: u64,
    pub(super) follows: HashMap<Follow, u32>,
    pub(super) wishes: VecDeque<Wish>,
    debts: VecDeque<(Topic, Option<Said>)>,
    /// Debts of topics that are forgotten.
    left: usize,
    /// Of pasts that have ended, for those who heard them.
    pub(super) resets: VecDeque<Message>,
    /// Topics whose streams are here.
    pub(super) opened: VecDeque<Topic>,
}

/// What becomes of a publication, by its topic's rule and where there are other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It has its place here, and nobody else is told.
    Here,
    /// The same, when it is on the disk.
    Written,
    /// It has its place here, and the others are told.
    Said,
    /// A stream gives it its place, and tells all.
    Ordered,
}

/// What the cluster is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A topic is to be heard.
    Follow(Follow, Topic, Sharing, bool),
    /// It is not any more.
    Unfollow(Follow),
}

/// What a topic has that is shared.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) follow: Option<Follow>,
    /// The cluster knows of that.
    pub(super) is_told: bool,
    /// Of a topic that a stream tells. The rest is of plain ones.
    pub(super) ordered: Option<Ordered>,
    /// Something may have been missed since the past began, before the cluster was heard.
    is_stale: bool,
    /// What nodes whisper about it is heard too.
    listens: bool,
    life: Epoch,
    said: u64,
    /// Others have not been given all that was said, and have to be told how much that is.
    owes: bool,
    origins: Origins,
}

impl Shared {
    const fn new(life: Epoch) -> Self {
        Self {
            follow: None,
            is_told: false,
            ordered: None,
            is_stale: false,
            listens: false,
            life,
            said: 0,
            owes: false,
            origins: Origins::new(),
        }
    }
}

impl Topics {
    /// Bits of an epoch that tell nodes apart: an epoch of milliseconds has room for them where numbers are exact (2^53).
    const MARK_BITS: u32 = 11;
    /// Debts of forgotten topics at most.
    const LEFT_MAX: usize = 65_536;

    /// Shares topics with other nodes from now on. Before there are any.
    pub fn join_cluster(&mut self, node: NodeId) {
        self.desk.join_cluster(node);
        let mixed = (node.0 ^ (node.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.cluster = Some(Box::new(Cluster {
            mark: mixed >> (u64::BITS - Self::MARK_BITS),
            last: 0,
            follows: HashMap::new(),
            wishes: VecDeque::new(),
            debts: VecDeque::new(),
            left: 0,
            resets: VecDeque::new(),
            opened: VecDeque::new(),
        }));
    }

    /// A greater epoch than all before, and none that another node gives.
    pub(super) fn new_epoch(&mut self, now: Now) -> Epoch {
        let next = self.epoch.0.saturating_add(1);
        self.epoch = Epoch(match &self.cluster {
            None => now.unix_ms.max(next),
            Some(cluster) => {
                let mark = |time: u64| (time << Self::MARK_BITS) | cluster.mark;
                let (by_time, by_order) = (mark(now.unix_ms), mark(next >> Self::MARK_BITS));
                let by_order = if by_order < next { by_order.saturating_add(1 << Self::MARK_BITS) } else { by_order };
                by_time.max(by_order)
            }
        });
        self.epoch
    }

    /// What becomes of publications to a topic.
    pub(super) fn way(&self, key: u32) -> Way {
        self.way_by(self.ruling(key))
    }

    fn way_by(&self, ruling: &Ruling) -> Way {
        match (ruling.durable, ruling.shared && self.cluster.is_some()) {
            (false, false) => Way::Here,
            (true, false) => Way::Written,
            (false, true) => Way::Said,
            (true, true) => Way::Ordered,
        }
    }

    /// What becomes of publications to a topic that need not exist.
    #[must_use]
    pub fn way_of(&self, topic: &Topic) -> Way {
        self.way_by(self.rulings.of(topic))
    }

    /// Whether a stream tells a topic.
    #[must_use]
    pub fn is_ordered(&self, topic: &Topic) -> bool {
        self.cluster.is_some() && self.way_of(topic) == Way::Ordered
    }

    /// A topic is held here: it is heard from now on, where it is shared.
    pub(super) fn share(&mut self, key: u32) {
        match self.way(key) {
            Way::Here | Way::Written => {}
            Way::Said => self.share_with(key, None),
            Way::Ordered => self.share_with(key, Some(Before::Nothing)),
        }
    }

    /// The same; with what those have heard of it who hear it, where a stream tells it.
    pub(super) fn share_with(&mut self, key: u32, before: Option<Before>) {
        let keep = self.ruling(key).keep;
        let owned = &mut self.topics.0[key as usize];
        let shared = owned.shared.get_or_insert_with(|| Box::new(Shared::new(owned.cursor.epoch)));
        if shared.follow.is_none() {
            shared.ordered = before.map(|before| Ordered::new(before, keep));
            self.follow_now(key);
        }
    }

    pub(super) fn follow_now(&mut self, key: u32) {
        let listens = self.ruling(key).presence != Presence::Off;
        let owned = &mut self.topics.0[key as usize];
        let (Some(shared), Some(cluster)) = (owned.shared.as_deref_mut(), self.cluster.as_deref_mut()) else { return };
        cluster.last += 1;
        let follow = Follow(cluster.last);
        shared.follow = Some(follow);
        shared.listens = listens;
        cluster.follows.insert(follow, key);
        let sharing = shared.ordered.as_ref().map_or(Sharing::Plain, |ordered| Sharing::Durable(ordered.keep));
        cluster.wishes.push_back(Wish::Follow(follow, owned.name.clone(), sharing, listens));
        self.tidy_wishes();
    }

    /// What nodes whisper about a topic is wanted, where it was not: it is followed anew.
    pub(super) fn listen(&mut self, key: u32) {
        let owned = &mut self.topics.0[key as usize];
        let (Some(shared), Some(cluster)) = (owned.shared.as_deref_mut(), self.cluster.as_deref_mut()) else { return };
        if shared.follow.is_none() || shared.listens {
            return;
        }
        if shared.ordered.is_some() {
            return self.follow_again(key);
        }
        shared.is_stale = true;
        cluster.unfollow(shared);
        self.follow_now(key);
    }

    /// Wishes that nobody has any more are as many as there are topics at most.
    fn tidy_wishes(&mut self) {
        let Some(cluster) = self.cluster.as_deref_mut() else { return };
        if cluster.wishes.len() > 2 * self.topics.0.len() + 1024 {
            let follows = &cluster.follows;
            cluster.wishes.retain(|wish| match wish {
                Wish::Follow(follow, ..) => follows.contains_key(follow),
                Wish::Unfollow(_) => true,
            });
        }
    }

    /// The number of a topic's newest message, for other nodes.
    pub(super) fn number(&mut self, key: u32) -> Option<Said> {
        if self.way(key) != Way::Said {
            return None;
        }
        let owned = &mut self.topics.0[key as usize];
        let shared = owned.shared.get_or_insert_with(|| Box::new(Shared::new(owned.cursor.epoch)));
        shared.said += 1;
        Some(Said { life: shared.life, number: shared.said })
    }

    /// A topic is forgotten, or shared no more.
    pub(super) fn end_sharing(&mut self, key: u32) {
        let owned = &mut self.topics.0[key as usize];
        let (Some(mut shared), Some(cluster)) = (owned.shared.take(), self.cluster.as_deref_mut()) else { return };
        cluster.unfollow(&mut shared);
        if shared.owes && cluster.left < Self::LEFT_MAX {
            cluster.left += 1;
            let said = Said { life: shared.life, number: shared.said };
            cluster.debts.push_back((owned.name.clone(), Some(said)));
        }
    }

    /// A topic has its present rule: it may be shared no more, or in another way.
    pub(super) fn follow_sharing(&mut self, key: u32) {
        if self.cluster.is_none() {
            return;
        }
        let (way, keep) = (self.way(key), self.ruling(key).keep);
        let owned = self.owned(key);
        let is_held = !owned.audience.is_empty() || !owned.history.is_empty();
        let kept = owned.shared.as_deref().and_then(|shared| shared.ordered.as_ref()).map(|ordered| ordered.keep);
        match (kept, way) {
            (Some(kept), Way::Ordered) if kept == keep => {}
            (Some(_), Way::Ordered) => self.follow_again(key),
            (Some(_), _) => {
                self.leave_stream(key);
                if !self.owned(key).audience.is_empty() {
                    self.share(key);
                }
            }
            (None, Way::Ordered) => self.enter_stream(key),
            (None, Way::Said) if is_held => self.share(key),
            (None, Way::Said) => {}
            (None, Way::Here | Way::Written) => self.end_sharing(key),
        }
    }

    /// A topic goes on from another process: what was said elsewhere meanwhile is missed.
    pub(super) fn note_stale(&mut self, key: u32) {
        self.share(key);
        if let Some(shared) = &mut self.owned(key).shared {
            shared.is_stale = true;
        }
    }

    /// The next thing that the cluster is to be told.
    pub fn next_wish(&mut self) -> Option<Wish> {
        let cluster = self.cluster.as_deref_mut()?;
        while let Some(wish) = cluster.wishes.pop_front() {
            let Wish::Follow(follow, ..) = &wish else { return Some(wish) };
            let Some(&key) = cluster.follows.get(follow) else { continue };
            if let Some(shared) = &mut self.topics.0[key as usize].shared {
                shared.is_told = true;
                return Some(wish);
            }
        }
        None
    }

    /// Whether there is something.
    #[must_use]
    pub fn has_wishes(&self) -> bool {
        self.cluster.as_deref().is_some_and(|cluster| !cluster.wishes.is_empty())
    }

    /// Others were not given a message of this topic.
    pub fn owe(&mut self, topic: &Topic) {
        if let Some(&key) = self.keys.get(topic) {
            self.owe_of(key);
        }
    }

    fn owe_of(&mut self, key: u32) {
        let owned = &mut self.topics.0[key as usize];
        let (Some(shared), Some(cluster)) = (owned.shared.as_deref_mut(), self.cluster.as_deref_mut()) else { return };
        if shared.said > 0 && !std::mem::replace(&mut shared.owes, true) {
            cluster.debts.push_back((owned.name.clone(), None));
        }
    }

    /// Others may not have got what was said of the topic at a place: there may be one.
    pub fn owe_at(&mut self, place: usize) {
        if let Some(key) = u32::try_from(place).ok().filter(|_| self.topics.0.contains(place)) {
            self.owe_of(key);
        }
    }

    /// The next topic of which others have to be told how much was said.
    pub fn next_debt(&mut self) -> Option<(Topic, Said)> {
        let cluster = self.cluster.as_deref_mut()?;
        while let Some((topic, said)) = cluster.debts.pop_front() {
            if let Some(said) = said {
                cluster.left -= 1;
                return Some((topic, said));
            }
            let shared = self.keys.get(&topic).and_then(|&key| self.topics.0[key as usize].shared.as_deref_mut());
            if let Some(shared) = shared.filter(|shared| shared.owes) {
                shared.owes = false;
                return Some((topic, Said { life: shared.life, number: shared.said }));
            }
        }
        None
    }

    /// Whether there is one.
    #[must_use]
    pub fn has_debts(&self) -> bool {
        self.cluster.as_deref().is_some_and(|cluster| !cluster.debts.is_empty())
    }

    /// The topic of a follow.
    pub(super) fn follow_key(&self, follow: Follow) -> Option<u32> {
        self.cluster.as_deref()?.follows.get(&follow).copied()
    }

    /// How many topics are followed.
    #[must_use]
    pub fn followed(&self) -> usize {
        self.cluster.as_deref().map_or(0, |cluster| cluster.follows.len())
    }

    /// The topic of a follow.
    pub(super) fn followed_key(&self, follow: Follow) -> Option<u32> {
        self.cluster.as_deref()?.follows.get(&follow).copied()
    }

    /// The topic of a follow, and whether the cluster heard it first too late for all of its past.
    pub fn note_following(&mut self, follow: Follow) -> bool {
        let key = self.follow_key(follow);
        let shared = key.and_then(|key| self.owned(key).shared.as_deref_mut());
        shared.is_some_and(|shared| std::mem::take(&mut shared.is_stale))
    }

    /// Notes which message of a node's has come; `topic` is what it says that it belongs to.
    pub fn note_heard(&mut self, follow: Follow, node: NodeId, said: Said, topic: Option<&Topic>) -> Heard {
        let Some(key) = self.follow_key(follow) else { return Heard::Old };
        let owned = self.owned(key);
        let is_its_own = topic.is_none_or(|topic| *topic == owned.name);
        let shared = owned.shared.as_deref_mut().filter(|shared| is_its_own && shared.ordered.is_none());
        shared.map_or(Heard::Old, |shared| shared.origins.note(node, said, topic.is_some()))
    }

    /// Places a message that was published on another node.
    pub fn hear(&mut self, message: &mut Message, deflater: &mut Deflater, now: Now) -> Option<Published<'_>> {
        let &key = self.keys.get(&message.topic)?;
        self.settle(key);
        self.expire_messages(key, now.tick, usize::MAX);
        let owned = self.owned(key);
        owned.cursor.offset.0 += 1;
        message.time_ms = now.unix_ms;
        (message.epoch, message.offset) = (owned.cursor.epoch, owned.cursor.offset);
        Some(self.hand_out(key, message, None, deflater, now))
    }

    /// Ends a topic's past, of which something was missed: nothing of it is kept, and it goes on in a new epoch, behind a
    /// [reset](Topics::next_reset) that has the next place. Returns whether it is such a topic.
    pub fn renew(&mut self, follow: Follow, now: Now) -> bool {
        let Some(key) = self.follow_key(follow).filter(|&key| !self.is_stream(key)) else { return false };
        self.change(key, |history| *history = History::default());
        let epoch = self.new_epoch(now);
        let owned = self.owned(key);
        owned.cursor = Cursor { epoch, offset: owned.cursor.offset };
        owned.cursor.offset.0 += 1;
        self.arm(key);
        self.note_reset(key);
        true
    }

    fn is_stream(&self, key: u32) -> bool {
        self.topics.0[key as usize].shared.as_deref().is_some_and(|shared| shared.ordered.is_some())
    }

    /// The next [reset](Message::reset) of a past that has ended, encoded for those who are to hear it: before anything else of
    /// its topic.
    pub fn next_reset(&mut self, deflater: &mut Deflater) -> Option<(Message, &[Interested])> {
        let (mut reset, key) = loop {
            let reset = self.cluster.as_deref_mut()?.resets.pop_front()?;
            if let Some(&key) = self.keys.get(&reset.topic) {
                break (reset, key);
            }
        };
        let audience = self.topics.0[key as usize].audience.plain();
        let wants = audience.iter().fold(Wants::NONE, |all, to| all.union(to.wants));
        reset.prepare(wants, deflater);
        Some((reset, audience))
    }

    /// Whether there may be topics that have not taken their present rule on, which ends the pasts of some.
    #[must_use]
    pub fn may_turn(&self) -> bool {
        self.cluster.is_some() && self.is_walking()
    }

    /// Has a topic take its present rule on, if there is one.
    pub fn turn_over(&mut self, topic: &Topic) {
        if let Some(&key) = self.keys.get(topic) {
            self.settle(key);
        }
    }

    /// Whether each follow is a topic's and each topic's is there, for audits. It looks at all.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_follows(&self) -> Result<(), String> {
        let Some(cluster) = self.cluster.as_deref() else { return Ok(()) };
        let of = |key: u32| self.topics.0.get(key as usize).and_then(|owned| owned.shared.as_deref()?.follow);
        if let Some((follow, key)) = cluster.follows.iter().find(|(follow, key)| of(**key) != Some(**follow)) {
            return Err(format!("{follow:?} is {key}'s, which has {:?}", of(*key)));
        }
        let all =
            self.topics.0.iter().filter(|(_, owned)| owned.shared.as_deref().is_some_and(|one| one.follow.is_some()));
        let count = all.count();
        if count != cluster.follows.len() || !cluster.resets.is_empty() {
            let (known, resets) = (cluster.follows.len(), cluster.resets.len());
            return Err(format!("{count} topics are followed, {known} are known, {resets} resets are untold"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
