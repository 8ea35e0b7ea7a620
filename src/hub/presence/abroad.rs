//! Who is in a topic on other nodes, and what those are told of who is here.
//!
//! A node whispers what has changed here once a tick, numbered, and a digest of it once a lease. What others whisper is taken as
//! it comes, lists part by part. Nobody stays for ever: a node that is gone takes its members along, and so does one that has
//! not said for some leases that it still has this topic's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{MemberId, Presence};
use crate::cluster::port::NodeId;
use crate::cluster::presence::{Change, Digest, Entry, Version, Whisper, parts};
use crate::config::Presence as Mode;
use crate::wheel::Tick;

/// What another node says of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct There {
    pub(super) node: NodeId,
    pub(super) entry: Entry,
}

/// What is known of other nodes, and what they are to be told.
#[derive(Debug)]
pub(super) struct Abroad {
    /// What has been said so far.
    version: Version,
    /// Of the members here.
    hash: u64,
    /// Members here that have changed since.
    changed: BTreeSet<MemberId>,
    /// The number that was said.
    count: u64,
    /// Somebody wants to know all, or what all is worth.
    asked: (bool, bool),
    /// Digests of nobody that were said.
    farewells: u8,
    nodes: BTreeMap<NodeId, Other>,
    /// Of all of those together: how many they have, and how many of these are on no list.
    counts: (u64, u64),
    /// What they say of members.
    entries: usize,
    /// When they were asked first what they have.
    called: Option<Tick>,
}

/// What is known of a node.
#[derive(Debug, Default)]
struct Other {
    /// Which state is known; `None` before the first list is there.
    version: Option<Version>,
    hash: u64,
    count: u64,
    /// Members with an entry of it.
    listed: u64,
    /// A list that is coming: its state, its next part, and the last member so far.
    coming: Option<(Version, u32, Option<MemberId>)>,
    /// It has been asked for its list since its last digest.
    is_asked: bool,
    /// Leases in which it has said nothing.
    silent: u8,
}

/// Where changes stand.
enum Place {
    /// They are known.
    Old,
    /// They follow what is known.
    Next,
    /// Something lies between.
    Beyond,
}

impl Other {
    fn place(&self, version: Version) -> Place {
        match self.version {
            // Who has told of no change before begins with nobody.
            None if version.number == 1 && self.listed == 0 => Place::Next,
            None => Place::Beyond,
            Some(known) if version <= known => Place::Old,
            Some(known) if version.life == known.life && version.number == known.number + 1 => Place::Next,
            Some(_) => Place::Beyond,
        }
    }

    /// Who is there with it and on no list.
    const fn unlisted(&self) -> u64 {
        self.count.saturating_sub(self.listed)
    }
}

impl Abroad {
    /// Nodes that are listened to, and members of each: whoever speaks of more is not believed.
    const NODES_MAX: usize = 1024;
    const LISTED_MAX: u64 = 1 << 20;
    /// Leases after which a node that says nothing of a topic has nobody there.
    const SILENT_MAX: u8 = 3;
    /// How often it is said that nobody is there any more.
    const FAREWELLS: u8 = 2;
    /// Members up to which a list is told at once where a digest would do.
    const SHORT: usize = 128;
    /// How long answers are waited for: what others say is said within a tick, and asked for within another.
    const LEARNING_TICKS: u32 = 4;

    fn new(life: u64) -> Self {
        Self {
            version: Version { life, number: 0 },
            hash: 0,
            changed: BTreeSet::new(),
            count: 0,
            asked: (false, false),
            farewells: 0,
            nodes: BTreeMap::new(),
            counts: (0, 0),
            entries: 0,
            called: None,
        }
    }

    /// How many are with other nodes. Who is with two of them counts twice.
    pub(super) const fn count(&self) -> u64 {
        self.counts.0
    }

    /// How many of those are on no list.
    pub(super) const fn unlisted(&self) -> u64 {
        self.counts.1
    }

    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.entries * (size_of::<There>() + 16) + self.nodes.len() * size_of::<(NodeId, Other)>()
    }

    /// Notes what is known of a member here, before and now.
    pub(super) fn note(&mut self, id: &MemberId, before: Option<&Entry>, now: Option<&Entry>) {
        if before != now {
            let hash_of = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.hash(id));
            self.hash = self.hash.wrapping_sub(hash_of(before)).wrapping_add(hash_of(now));
            self.changed.insert(id.clone());
        }
    }

    fn sum(&mut self) {
        let all = |number: fn(&Other) -> u64| self.nodes.values().map(number).fold(0, u64::saturating_add);
        self.counts = (all(|other| other.count), all(Other::unlisted));
    }
}

impl Presence {
    /// Has other nodes be told of who is here, and listens to them. Of two lives of a topic the second is the greater one.
    pub fn go_abroad(&mut self, life: u64) {
        let mut abroad = Box::new(Abroad::new(life));
        for (id, member) in &self.members {
            abroad.note(id, None, member.here().as_ref());
        }
        self.abroad = Some(abroad);
    }

    /// Whether other nodes are told.
    #[must_use]
    pub const fn is_abroad(&self) -> bool {
        self.abroad.is_some()
    }

    /// How many are here, whom other nodes are told of.
    fn count_here(&self) -> u64 {
        match self.mode {
            Mode::Off => 0,
            Mode::Count => self.subscriptions,
            Mode::Members => (self.here + self.unlisted.len()) as u64,
        }
    }

    /// Whether other nodes are to be told something.
    #[must_use]
    pub fn has_whispers(&self) -> bool {
        self.abroad.as_deref().is_some_and(|abroad| {
            !abroad.changed.is_empty() || abroad.count != self.count_here() || abroad.asked != (false, false)
        })
    }

    /// What other nodes are told now: what has changed, and all to whoever has asked, once however many did.
    pub fn whispers(&mut self) -> Vec<Whisper> {
        let (count, mut all) = (self.count_here(), Vec::new());
        let Some(abroad) = self.abroad.as_deref_mut() else { return all };
        if !abroad.changed.is_empty() || abroad.count != count {
            let changed = std::mem::take(&mut abroad.changed).into_iter();
            let entry = |id: &MemberId| self.members.get(id).and_then(super::Member::here);
            let changes: Vec<Change> = changed.map(|id| (entry(&id), id)).map(|(entry, id)| (id, entry)).collect();
            for changes in parts(changes) {
                abroad.version.number += 1;
                all.push(Whisper::Changes { version: abroad.version, count, changes });
            }
            (abroad.count, abroad.farewells) = (count, 0);
        }
        let (wants_list, wants_digest) = std::mem::take(&mut abroad.asked);
        let is_somebody = abroad.version.number > 0;
        if wants_list || (wants_digest && is_somebody && self.here > 0 && self.here <= Abroad::SHORT) {
            let here = |(id, member): (&MemberId, &super::Member)| Some((id.clone(), Some(member.here()?)));
            let parts = parts(self.members.iter().filter_map(here).collect());
            let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            let version = abroad.version;
            let list = (0..).zip(parts);
            all.extend(list.map(|(part, members)| Whisper::List { version, count, part, of, members }));
        } else if wants_digest && is_somebody {
            let digest = Digest { count, hash: abroad.hash };
            all.push(Whisper::Digest { version: abroad.version, digest });
        }
        all
    }

    /// That nobody is here any more, of whom others may know.
    pub fn farewell(&mut self) -> Option<Whisper> {
        let abroad = self.abroad.as_deref_mut().filter(|abroad| abroad.version.number > 0)?;
        let is_known = abroad.count > 0 || !abroad.changed.is_empty() || abroad.farewells < Abroad::FAREWELLS;
        abroad.version.number += 1;
        let version = abroad.version;
        is_known.then_some(Whisper::List { version, count: 0, part: 0, of: 1, members: Vec::new() })
    }

    /// The same, where another rule keeps something else from now on.
    pub fn farewell_before(&mut self, mode: Mode, is_shared: bool) -> Option<Whisper> {
        if self.keeps(mode, is_shared) { None } else { self.farewell() }
    }

    /// Asks all other nodes what they have, and has them told what is here.
    pub fn call(&mut self, now: Tick) -> Option<Whisper> {
        let abroad = self.abroad.as_deref_mut()?;
        abroad.called.get_or_insert(now);
        abroad.asked.1 = true;
        Some(Whisper::Call)
    }

    /// Whether other nodes may be about to say what they have.
    #[must_use]
    pub fn is_learning(&self, now: Tick) -> bool {
        let waits = |since: Tick| now.0.wrapping_sub(since.0) < Abroad::LEARNING_TICKS;
        self.abroad.as_deref().is_some_and(|abroad| abroad.called.is_none_or(waits))
    }

    /// A lease has passed: what is here is said again, and nodes that have said nothing for long have nobody.
    pub fn renew(&mut self) {
        let count = self.count_here();
        let Some(abroad) = self.abroad.as_deref_mut() else { return };
        if count > 0 || (abroad.version.number > 0 && abroad.farewells < Abroad::FAREWELLS) {
            abroad.farewells = if count > 0 { 0 } else { abroad.farewells + 1 };
            abroad.asked.1 = true;
        }
        abroad.nodes.values_mut().for_each(|other| other.silent = other.silent.saturating_add(1));
        let is_silent = |(_, other): &(&NodeId, &Other)| other.silent > Abroad::SILENT_MAX;
        let silent: Vec<NodeId> = abroad.nodes.iter().filter(is_silent).map(|(node, _)| *node).collect();
        for node in silent {
            self.drop_node(node, &mut None, usize::MAX);
        }
    }

    /// Hears what a node whispers. `me` is this node. Returns what to whisper back at once.
    pub fn hear(&mut self, me: NodeId, node: NodeId, whisper: Whisper) -> Option<Whisper> {
        if self.mode == Mode::Off {
            return None;
        }
        let abroad = self.abroad.as_deref_mut()?;
        match whisper {
            Whisper::Ask(whom) => abroad.asked.0 |= whom == me,
            Whisper::Call => abroad.asked.1 = true,
            Whisper::Changes { .. } | Whisper::List { .. } | Whisper::Digest { .. } => {
                if abroad.nodes.len() >= Abroad::NODES_MAX && !abroad.nodes.contains_key(&node) {
                    return None;
                }
                abroad.nodes.entry(node).or_default().silent = 0;
                let is_known = self.learn(node, whisper);
                let abroad = self.abroad.as_deref_mut()?;
                abroad.sum();
                let other = abroad.nodes.get_mut(&node)?;
                if !is_known && !std::mem::replace(&mut other.is_asked, true) {
                    return Some(Whisper::Ask(node));
                }
            }
        }
        None
    }

    /// Takes what a known node says of its members. Returns whether all of them are known then, or will be.
    fn learn(&mut self, node: NodeId, whisper: Whisper) -> bool {
        let Some(other) = self.other(node) else { return true };
        match whisper {
            Whisper::Ask(_) | Whisper::Call => true,
            Whisper::Changes { version, count, changes } => match other.place(version) {
                Place::Old => true,
                Place::Beyond => false,
                Place::Next => {
                    (other.version, other.coming, other.count) = (Some(version), None, count);
                    changes.into_iter().for_each(|(id, entry)| self.set(node, &id, entry));
                    true
                }
            },
            Whisper::List { version, count, part, of, members } => {
                self.take_part(node, (version, count), (part, of), members)
            }
            Whisper::Digest { version, digest } => {
                // The next digest asks again, should the answer be lost.
                other.is_asked = false;
                if digest == Digest::default() && other.listed == 0 {
                    (other.version, other.count) = (Some(version), 0);
                }
                other.version == Some(version) && digest == Digest { count: other.count, hash: other.hash }
            }
        }
    }

    fn other(&mut self, node: NodeId) -> Option<&mut Other> {
        self.abroad.as_deref_mut()?.nodes.get_mut(&node)
    }

    /// Takes a part of a node's list: what it had between the last member of the part before and the last of this one, and is
    /// not there any more, is gone. Returns whether nothing is missing.
    fn take_part(
        &mut self,
        node: NodeId,
        (version, count): (Version, u64),
        (part, of): (u32, u32),
        members: Vec<Change>,
    ) -> bool {
        let Some(other) = self.other(node) else { return true };
        // Who has asked knows something else under the same number.
        let is_old = |known: Version| version < known || (version == known && !other.is_asked);
        if other.version.is_some_and(is_old) {
            return true;
        }
        if part == 0 {
            other.coming = Some((version, 0, None));
        }
        let Some((_, _, after)) = other.coming.take().filter(|(of, next, _)| (*of, *next) == (version, part)) else {
            return false;
        };
        // What is known is a mixture, until the last part is there.
        other.version = None;
        let is_last = part + 1 == of;
        let members: BTreeMap<MemberId, Option<Entry>> = members.into_iter().collect();
        let last = members.keys().next_back().cloned();
        let end = last.as_ref().filter(|_| !is_last).map_or(Bound::Unbounded, Bound::Included);
        let begin = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let is_order = last.as_ref().is_none_or(|last| after.as_ref().is_none_or(|after| after < last));
        let is_left = |(id, member): &(&MemberId, &super::Member)| {
            !members.contains_key(*id) && member.there.iter().any(|there| there.node == node)
        };
        let left: Vec<MemberId> = if is_order && (is_last || last.is_some()) {
            self.members.range((begin, end)).filter(is_left).map(|(id, _)| id.clone()).collect()
        } else {
            Vec::new()
        };
        left.iter().for_each(|id| self.set(node, id, None));
        members.into_iter().for_each(|(id, entry)| self.set(node, &id, entry));
        let Some(other) = self.other(node) else { return true };
        if is_last {
            (other.version, other.count, other.is_asked) = (Some(version), count, false);
        } else {
            other.coming = Some((version, part + 1, last));
        }
        true
    }

    /// Notes what a node says of a member.
    fn set(&mut self, node: NodeId, id: &MemberId, entry: Option<Entry>) {
        let there = |there: &There| there.node == node;
        let known = self.members.get(id).and_then(|member| member.there.iter().find(|one| there(one)));
        let before = known.map(|there| there.entry.clone());
        let Some(other) = self.other(node).filter(|other| before.is_some() || other.listed < Abroad::LISTED_MAX) else {
            return;
        };
        if before == entry {
            return;
        }
        let hash_of = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.hash(id));
        other.hash = other.hash.wrapping_sub(hash_of(&before)).wrapping_add(hash_of(&entry));
        other.listed = other.listed + u64::from(entry.is_some()) - u64::from(before.is_some());
        if let Some(abroad) = self.abroad.as_deref_mut() {
            abroad.entries = abroad.entries + usize::from(entry.is_some()) - usize::from(before.is_some());
        }
        self.change(id, |member| {
            let others = std::mem::take(&mut member.there).into_vec().into_iter().filter(|one| !there(one));
            member.there = others.chain(entry.map(|entry| There { node, entry })).collect();
        });
    }

    /// A node has gone: its members are dropped, `looked_at_max` of all looked at behind `after`, which is moved on. Returns
    /// whether there may be more.
    pub fn drop_node(&mut self, node: NodeId, after: &mut Option<MemberId>, looked_at_max: usize) -> bool {
        let Some(other) = self.other(node) else { return false };
        (other.version, other.coming, other.count) = (None, None, 0);
        let begin = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = self.members.range((begin, Bound::Unbounded));
        let looked_at = range.by_ref().take(looked_at_max).map(|(id, member)| (id.clone(), member));
        let (mut left, mut last) = (Vec::new(), None);
        for (id, member) in looked_at {
            if member.there.iter().any(|there| there.node == node) {
                left.push(id.clone());
            }
            last = Some(id);
        }
        let is_more = range.next().is_some();
        left.iter().for_each(|id| self.set(node, id, None));
        if let Some(abroad) = self.abroad.as_deref_mut() {
            if is_more {
                *after = last;
            } else {
                abroad.nodes.remove(&node);
            }
            abroad.sum();
        }
        is_more
    }
}

#[cfg(test)]
mod tests;
