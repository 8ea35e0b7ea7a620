//! Who is in a topic, as its owner keeps it.
//!
//! A *seat* is a subscription: a connection of a shard. Whoever has one or more of them is a member, from the first on to the
//! last. Beyond a bound of members seats are counted and nothing is known of who has them.
//!
//! Those who watch are told in ticks: once who is there, and from then on what has changed. What they were told, and not what
//! is true, is what a new one is told first, so that each change is news to all or none.
//!
//! In a cluster each node lists those who are with it, and who is with others is what these whisper: see `abroad`. A member is
//! there while it has a seat on any node.

mod abroad;
mod member;
mod notice;
mod page;

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use self::abroad::Abroad;
use self::member::Member;
pub use self::member::{ID_BYTES_MAX, MemberId, NAME_BYTES_MAX, Seat, Who};
pub use self::notice::{Notice, Seen, What};
pub use self::page::Page;
use crate::config::Presence as Mode;
use crate::id::ShardId;
use crate::message::Topic;

/// What is said of a topic whose rule keeps nothing of its members.
pub const OFF: &str = "it is not kept who is in this topic; set topics.presence, or presence in a section for it";

/// Who is in one topic.
#[derive(Debug)]
pub struct Presence {
    mode: Mode,
    members_max: usize,
    members: BTreeMap<MemberId, Member>,
    /// How many of them have a seat here.
    here: usize,
    seats: HashMap<Seat, MemberId>,
    /// Seats of those who are not on the list.
    unlisted: HashSet<Seat>,
    /// Subscriptions, where nothing else is counted.
    subscriptions: u64,
    /// Shards with somebody who watches.
    watchers: Vec<ShardId>,
    /// Members of whom watchers were told something else than is true: what that was.
    untold: BTreeMap<MemberId, Option<Seen>>,
    /// The number that watchers were told.
    told: (u64, bool),
    /// Watchers are told all there is with the next news.
    is_anew: bool,
    /// The list as watchers were told it, where somebody has asked since.
    list: Option<Arc<[Notice]>>,
    /// Where there are other nodes.
    abroad: Option<Box<Abroad>>,
}

impl Presence {
    /// Nobody.
    #[must_use]
    pub fn new(mode: Mode, members_max: usize) -> Self {
        Self {
            mode,
            members_max,
            members: BTreeMap::new(),
            here: 0,
            seats: HashMap::new(),
            unlisted: HashSet::new(),
            subscriptions: 0,
            watchers: Vec::new(),
            untold: BTreeMap::new(),
            told: (0, false),
            is_anew: false,
            list: None,
            abroad: None,
        }
    }

    /// What is kept.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Members on the list.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.members.len()
    }

    /// What it keeps in memory, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        let member = size_of::<(MemberId, Member)>() * 4 / 3 + 48;
        self.members.len() * member
            + self.abroad.as_deref().map_or(0, Abroad::memory)
            + self.seats.capacity() * (size_of::<(Seat, MemberId)>() + 1)
            + self.unlisted.capacity() * (size_of::<Seat>() + 1)
    }

    /// Whether nothing is kept and nobody watches.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.mode == Mode::Off && self.watchers.is_empty()
    }

    /// Whether this is what a rule wants, also of other nodes.
    fn keeps(&self, mode: Mode, is_shared: bool) -> bool {
        self.mode == mode && self.abroad.is_some() == is_shared
    }

    /// Takes another rule on. Where it keeps something else than before all that was known is forgotten, other nodes too, and
    /// those who watch are to be told all anew: then it is `true`.
    pub fn follow(&mut self, mode: Mode, members_max: usize, is_shared: bool) -> bool {
        self.members_max = members_max;
        if self.keeps(mode, is_shared) {
            return false;
        }
        let (watchers, subscriptions) = (std::mem::take(&mut self.watchers), self.subscriptions);
        *self = Self { watchers, subscriptions, ..Self::new(mode, members_max) };
        self.told = (self.count(), false);
        true
    }

    /// How many are there.
    #[must_use]
    pub fn count(&self) -> u64 {
        let abroad = self.abroad.as_deref();
        match self.mode {
            Mode::Off => 0,
            Mode::Count => self.subscriptions.saturating_add(abroad.map_or(0, Abroad::count)),
            Mode::Members => {
                let here = (self.members.len() + self.unlisted.len()) as u64;
                here.saturating_add(abroad.map_or(0, Abroad::unlisted))
            }
        }
    }

    /// Whether somebody is not on the list.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        !self.unlisted.is_empty() || self.abroad.as_deref().is_some_and(|abroad| abroad.unlisted() > 0)
    }

    /// Notes how many subscriptions there are.
    pub fn set_subscriptions(&mut self, subscriptions: u64) {
        self.subscriptions = subscriptions;
    }

    /// Somebody has taken a seat.
    pub fn join(&mut self, seat: Seat, who: Who, now_ms: u64) {
        if self.mode != Mode::Members || self.seats.get(&seat).is_some_and(|id| *id == who.id) {
            return;
        }
        self.leave(seat);
        let is_here = self.members.get(&who.id).is_some_and(|member| member.seats > 0);
        if !is_here && self.here >= self.members_max {
            self.unlisted.insert(seat);
            return;
        }
        self.change(&who.id, |member| {
            if member.seats == 0 {
                (member.name, member.since_ms) = (who.name, now_ms);
            }
            member.seats = member.seats.saturating_add(1);
        });
        self.seats.insert(seat, who.id);
    }

    /// A seat is empty.
    pub fn leave(&mut self, seat: Seat) {
        let Some(id) = self.seats.remove(&seat) else {
            self.unlisted.remove(&seat);
            return;
        };
        self.change(&id, |member| member.seats = member.seats.saturating_sub(1));
    }

    /// Changes what is known of a member, who may come or go with that, and remembers whom that is news to.
    fn change(&mut self, id: &MemberId, change: impl FnOnce(&mut Member)) {
        let is_untold = !self.watchers.is_empty() && !self.untold.contains_key(id);
        let old = self.members.get(id);
        let was_here = old.is_some_and(|member| member.seats > 0);
        let (was_there, told) = (old.is_some(), old.filter(|_| is_untold).map(|member| member.seen(id)));
        let member = self.members.entry(id.clone()).or_default();
        let before = self.abroad.is_some().then(|| member.here());
        change(member);
        if let (Some(before), Some(abroad)) = (before, self.abroad.as_deref_mut()) {
            abroad.note(id, before.as_ref(), member.here().as_ref());
        }
        let (is_here, is_there) = (member.seats > 0, member.seats > 0 || !member.there.is_empty());
        self.here = self.here + usize::from(is_here) - usize::from(was_here);
        if !is_there {
            self.members.remove(id);
        }
        if is_untold && is_there != was_there {
            self.untold.insert(id.clone(), told);
        }
    }

    /// Whether some who are not on the list could be: there is room again for a part of them.
    #[must_use]
    pub fn has_room_again(&self) -> bool {
        !self.unlisted.is_empty() && self.here <= self.members_max - self.members_max.div_ceil(4)
    }

    /// A shard has somebody who watches.
    pub fn watch(&mut self, shard: ShardId) {
        if self.watchers.is_empty() {
            self.told = (self.count(), self.is_truncated());
        }
        if !self.watchers.contains(&shard) {
            self.watchers.push(shard);
        }
    }

    /// A shard has none any more.
    pub fn unwatch(&mut self, shard: ShardId) {
        self.watchers.retain(|watcher| *watcher != shard);
        if self.watchers.is_empty() {
            self.untold.clear();
            self.list = None;
        }
    }

    /// Shards with somebody who watches.
    #[must_use]
    pub fn watchers(&self) -> &[ShardId] {
        &self.watchers
    }

    /// Whether there is something that watchers have not been told.
    #[must_use]
    pub fn is_news(&self) -> bool {
        !self.watchers.is_empty()
            && (self.is_anew || !self.untold.is_empty() || (self.count(), self.is_truncated()) != self.told)
    }

    /// What one who watches is told first: all that the others know.
    pub fn list(&mut self, topic: &Topic) -> Arc<[Notice]> {
        if let Some(list) = &self.list {
            return Arc::clone(list);
        }
        let list: Arc<[Notice]> = match self.mode {
            Mode::Off => [Notice::new(topic, What::Off, 0, false)].into(),
            Mode::Count => [Notice::new(topic, What::Count, self.told.0, false)].into(),
            Mode::Members => {
                let (count, truncated) = self.told;
                notice::list(topic, self.told_members(), count, truncated).into()
            }
        };
        self.list = Some(Arc::clone(&list));
        list
    }

    /// The members that watchers know of.
    fn told_members(&self) -> Vec<Seen> {
        let still = self.members.iter().filter(|(id, _)| !self.untold.contains_key(id));
        let mut told: Vec<Seen> = still.map(|(id, member)| member.seen(id)).collect();
        told.extend(self.untold.values().flatten().cloned());
        told
    }

    /// All that watchers were told holds no more: the next news is a list.
    pub fn begin_anew(&mut self) {
        self.is_anew = true;
    }

    /// What has changed since watchers were told last, which they are told now; nothing where all is as it was.
    pub fn news(&mut self, topic: &Topic) -> Option<Arc<[Notice]>> {
        let now = (self.count(), self.is_truncated());
        let before = std::mem::replace(&mut self.told, now);
        if std::mem::take(&mut self.is_anew) {
            (self.untold, self.list) = (BTreeMap::new(), None);
            return Some(self.list(topic));
        }
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for (id, told) in std::mem::take(&mut self.untold) {
            match (told, self.members.get(&id)) {
                (None, Some(member)) => joined.push(member.seen(&id)),
                (Some(told), None) => left.push(told),
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
        if joined.is_empty() && left.is_empty() && before == now {
            return None;
        }
        self.list = None;
        if self.mode != Mode::Members {
            return Some([Notice::new(topic, What::Count, now.0, false)].into());
        }
        Some(notice::changes(topic, joined, left, now.0, now.1).into())
    }

    /// Members behind this one, and so many at most.
    #[must_use]
    pub fn page(&self, after: Option<&MemberId>, limit: usize) -> Page {
        use std::ops::Bound::{Excluded, Unbounded};
        let (count, truncated) = (self.count(), self.is_truncated());
        if self.mode != Mode::Members {
            return Page { count, ..Page::default() };
        }
        let mut rest = self.members.range((after.map_or(Unbounded, Excluded), Unbounded));
        let members = rest.by_ref().take(limit).map(|(id, member)| member.seen(id)).collect();
        Page { count, members: Some(members), truncated, more: rest.next().is_some() }
    }
}

#[cfg(test)]
mod tests;
