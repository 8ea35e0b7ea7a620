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
mod notice;

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use self::abroad::{Abroad, There};
pub use self::notice::{Notice, Seen, What};
use crate::cluster::presence::Entry;
use crate::codec::json;
use crate::config::Presence as Mode;
use crate::id::ShardId;
use crate::message::Topic;

/// What is said of a topic whose rule keeps nothing of its members.
pub const OFF: &str = "it is not kept who is in this topic; set topics.presence, or presence in a section for it";

/// Bytes of a member's id.
pub const ID_BYTES_MAX: usize = 128;
/// Bytes of a member's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Who a member is. A user's id is what its token or its key says; all others are their connections' own words, and never a
/// user's, whatever they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    /// It is a user.
    pub is_user: bool,
    /// The id among users, or among others.
    pub text: Arc<str>,
}

impl MemberId {
    /// A user's. One that is too long is cut, and told from others with the same beginning by a number behind it.
    #[must_use]
    pub fn user(name: &str) -> Self {
        if name.len() <= ID_BYTES_MAX {
            return Self { is_user: true, text: name.into() };
        }
        // FNV-1a, 64 bit: users are the operator's own.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let end = (0..=ID_BYTES_MAX - 17).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        Self { is_user: true, text: format!("{}~{hash:016x}", &name[..end]).into() }
    }

    /// Somebody else's.
    #[must_use]
    pub fn other(text: &str) -> Self {
        Self { is_user: false, text: text.into() }
    }

    /// As it stands in `after=`: `user:ID` or `member:ID`.
    #[must_use]
    pub fn write(&self) -> String {
        format!("{}:{}", if self.is_user { "user" } else { "member" }, self.text)
    }

    /// What [`MemberId::write`] has written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, text) = text.split_once(':')?;
        match kind {
            "user" => Some(Self { is_user: true, text: text.into() }),
            "member" => Some(Self::other(text)),
            _ => None,
        }
    }
}

/// Who has a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its id.
    pub id: MemberId,
    /// What it is called, where that is another than the id.
    pub name: Option<Arc<str>>,
}

/// A subscription: an index of a connection on a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seat {
    /// The shard.
    pub shard: ShardId,
    /// The connection's place there.
    pub connection: u32,
}

/// What is known of a member: a name, a time and seats here, where it has some, and what other nodes say of theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Member {
    name: Option<Arc<str>>,
    since_ms: u64,
    seats: u32,
    there: Box<[There]>,
}

impl Member {
    /// What other nodes are told of it.
    fn here(&self) -> Option<Entry> {
        let Self { name, since_ms, seats, .. } = self;
        (*seats > 0).then(|| Entry { name: name.clone(), since_ms: *since_ms, connections: *seats })
    }

    /// As others see it: called what it was called first.
    fn seen(&self, id: &MemberId) -> Seen {
        let here = (self.seats > 0).then_some((self.since_ms, &self.name));
        let there = self.there.iter().map(|there| (there.entry.since_ms, &there.entry.name));
        let first = here.into_iter().chain(there).min();
        let connections = self.there.iter().fold(self.seats, |all, there| all.saturating_add(there.entry.connections));
        Seen {
            id: id.clone(),
            name: first.and_then(|(_, name)| name.clone()),
            since_ms: first.map_or(0, |(since_ms, _)| since_ms),
            connections,
        }
    }
}

/// Part of the list, in the order of ids, others before users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// How many there are in all.
    pub count: u64,
    /// `None` where they are counted only.
    pub members: Option<Vec<Seen>>,
    /// Not all are on the list.
    pub truncated: bool,
    /// There are more behind the last of these.
    pub more: bool,
}

impl Page {
    /// What the next part is asked for with: behind the last one of this.
    #[must_use]
    pub fn next(&self) -> Option<String> {
        self.members.as_ref().filter(|_| self.more)?.last().map(|member| member.id.write())
    }

    /// As it is answered: `{"topic","count","members":[{"id","name","since","connections"}],"truncated","next"}`.
    #[must_use]
    pub fn to_json(&self, topic: &Topic) -> Vec<u8> {
        let mut out = Vec::from(b"{\"topic\":");
        json::write_string(topic.as_str(), &mut out);
        out.extend_from_slice(b",\"count\":");
        json::write_number(self.count, &mut out);
        if let Some(members) = &self.members {
            out.extend_from_slice(b",\"members\":");
            notice::write_list(members, Seen::write_json, &mut out);
        }
        if self.truncated {
            out.extend_from_slice(b",\"truncated\":true");
        }
        if let Some(next) = self.next() {
            out.extend_from_slice(b",\"next\":");
            json::write_string(&next, &mut out);
        }
        out.extend_from_slice(b"}\n");
        out
    }
}

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
