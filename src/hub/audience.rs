//! Who gets the messages of one topic: all shards with plain subscribers, and of each group one shard, in turn.
//!
//! Shards take turns in proportion to their members of the group by smooth weighted round robin (nginx,
//! `ngx_http_upstream_round_robin.c`): each turn every shard's credit grows by its members, the one with most credit is
//! chosen and pays all members'. The credits of a group add up to 0, and none is
//! further from it than a few times the number of its members.

use super::Group;
use super::members::Stay;
use crate::id::ShardId;
use crate::message::Wants;

/// A shard with subscribers of a topic: of a group, or of none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interested {
    /// Which one.
    pub shard: ShardId,
    /// The group that they are in. A shard's plain subscribers and those of each group are told apart.
    pub group: Option<Group>,
    /// The formats that they need.
    pub wants: Wants,
    /// Since when, as the shard calls it.
    pub stay: Stay,
    /// How many they are.
    pub members: u32,
}

/// The shards that are interested in one topic.
#[derive(Debug, Default)]
pub(super) struct Audience {
    plain: Vec<Interested>,
    groups: Vec<Turns>,
    subscribers: u64,
}

/// A group's shards, who take turns.
#[derive(Debug)]
struct Turns {
    group: Group,
    shards: Vec<Turn>,
}

#[derive(Debug)]
struct Turn {
    interested: Interested,
    credit: i64,
}

impl Turn {
    /// A shard that says it has none is there all the same.
    fn weight(&self) -> i64 {
        i64::from(self.interested.members).max(1)
    }
}

impl Audience {
    /// Adds a shard, or replaces what it said before.
    pub(super) fn set(&mut self, new: Interested) {
        self.subscribers += u64::from(new.members);
        let old = match &new.group {
            None => set_plain(&mut self.plain, new),
            Some(group) => match self.groups.iter_mut().find(|turns| turns.group == *group) {
                Some(turns) => turns.set(new),
                None => {
                    self.groups.push(Turns::new(group.clone(), new));
                    0
                }
            },
        };
        self.subscribers -= u64::from(old);
    }

    /// Removes a shard's plain subscribers, or those in a group.
    pub(super) fn remove(&mut self, shard: ShardId, group: Option<&Group>) {
        let removed = match group {
            None => {
                let place = self.plain.iter().position(|interested| interested.shard == shard);
                place.map_or(0, |place| self.plain.swap_remove(place).members)
            }
            Some(group) => {
                let Some(place) = self.groups.iter().position(|turns| turns.group == *group) else { return };
                let removed = self.groups[place].remove(shard);
                if self.groups[place].shards.is_empty() {
                    self.groups.swap_remove(place);
                }
                removed
            }
        };
        self.subscribers -= u64::from(removed);
    }

    /// Whether there is room for these: a new queue group may be one too many.
    pub(super) fn takes(&self, new: &Interested, groups_max: usize) -> bool {
        let Some(group) = &new.group else { return true };
        self.groups.len() < groups_max || self.groups.iter().any(|turns| turns.group == *group)
    }

    /// Whether nobody is interested.
    pub(super) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }

    /// How many subscribers the shards have together.
    pub(super) const fn subscribers(&self) -> u64 {
        self.subscribers
    }

    /// The shards with plain subscribers.
    pub(super) fn plain(&self) -> &[Interested] {
        &self.plain
    }

    /// Those of them who are in no group.
    pub(super) fn plain_subscribers(&self) -> u64 {
        self.plain.iter().map(|interested| u64::from(interested.members)).sum()
    }

    /// Whether a shard has some.
    pub(super) fn has_plain(&self, shard: ShardId) -> bool {
        self.plain.iter().any(|interested| interested.shard == shard)
    }

    /// Where those are.
    pub(super) fn plain_shards(&self) -> impl Iterator<Item = ShardId> {
        self.plain.iter().map(|interested| interested.shard)
    }

    /// Whether some of them are groups.
    pub(super) const fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The groups, in no order.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().map(|turns| &turns.group)
    }

    /// Chooses who gets the next message. [`Audience::chosen`] says who that is.
    pub(super) fn choose(&mut self, scratch: &mut Vec<Interested>) {
        if self.groups.is_empty() {
            return;
        }
        scratch.clear();
        scratch.extend_from_slice(&self.plain);
        scratch.extend(self.groups.iter_mut().filter_map(Turns::next).cloned());
    }

    /// Who gets the message that [`Audience::choose`] was called for. Plain subscribers need not be copied.
    pub(super) fn chosen<'a>(&'a self, scratch: &'a [Interested]) -> &'a [Interested] {
        if self.groups.is_empty() { &self.plain } else { scratch }
    }

    /// The shard whose turn it is in a group.
    pub(super) fn pick(&mut self, group: &Group) -> Option<&Interested> {
        self.groups.iter_mut().find(|turns| turns.group == *group)?.next()
    }
}

/// Returns how many members the shard had before.
fn set_plain(plain: &mut Vec<Interested>, new: Interested) -> u32 {
    match plain.iter_mut().find(|old| old.shard == new.shard) {
        Some(old) => std::mem::replace(old, new).members,
        None => {
            plain.push(new);
            0
        }
    }
}

impl Turns {
    fn new(group: Group, first: Interested) -> Self {
        Self { group, shards: vec![Turn { interested: first, credit: 0 }] }
    }

    fn total(&self) -> i64 {
        self.shards.iter().map(Turn::weight).sum()
    }

    fn credits(&self) -> i64 {
        self.shards.iter().map(|turn| turn.credit).sum()
    }

    /// Returns how many members the shard had before.
    fn set(&mut self, new: Interested) -> u32 {
        let before = self.total();
        let old = match self.shards.iter_mut().find(|turn| turn.interested.shard == new.shard) {
            Some(turn) => std::mem::replace(&mut turn.interested, new).members,
            None => {
                self.shards.push(Turn { interested: new, credit: 0 });
                0
            }
        };
        self.scale(before);
        old
    }

    /// Returns how many members the shard had.
    fn remove(&mut self, shard: ShardId) -> u32 {
        let before = self.total();
        let Some(place) = self.shards.iter().position(|turn| turn.interested.shard == shard) else { return 0 };
        let removed = self.shards.swap_remove(place);
        self.scale(before);
        removed.interested.members
    }

    /// Brings the credits from shares of `before` members to shares of those that there are now: a shard that has lost
    /// most of its members does not wait for as many turns as it took with them.
    fn scale(&mut self, before: i64) {
        let total = self.total();
        for turn in &mut self.shards {
            let credit = i128::from(turn.credit) * i128::from(total) / i128::from(before.max(1));
            turn.credit = i64::try_from(credit).unwrap_or(0);
        }
        // What one who left had belongs to all, in proportion; what that leaves by rounding to any.
        let rest = self.credits();
        for turn in &mut self.shards {
            let part = i128::from(rest) * i128::from(turn.weight()) / i128::from(total.max(1));
            turn.credit -= i64::try_from(part).unwrap_or(0);
        }
        let rest = self.credits();
        if let Some(first) = self.shards.first_mut() {
            first.credit -= rest;
        }
    }

    fn next(&mut self) -> Option<&Interested> {
        let total = self.total();
        for turn in &mut self.shards {
            turn.credit += turn.weight();
        }
        let chosen = self.shards.iter_mut().max_by_key(|turn| turn.credit)?;
        chosen.credit -= total;
        Some(&chosen.interested)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::hub::testing::{Random, group};

    fn interested(shard: u16, group: Option<Group>, members: u32) -> Interested {
        Interested { shard: ShardId(shard), group, wants: Wants::NONE, stay: Stay(1), members }
    }

    fn turns(audience: &mut Audience, group: &Group, turns: usize) -> Vec<u16> {
        (0..turns).map(|_| audience.pick(group).unwrap().shard.0).collect()
    }

    #[test]
    fn shards_take_turns_in_proportion_and_without_lumps() {
        let (mut audience, group) = (Audience::default(), group("g"));
        for (shard, members) in [(0, 5), (1, 1), (2, 1)] {
            audience.set(interested(shard, Some(group.clone()), members));
        }
        let order = turns(&mut audience, &group, 7);
        assert_eq!([0, 1, 2].map(|shard| order.iter().filter(|&&chosen| chosen == shard).count()), [5, 1, 1]);
        assert!(order.windows(4).all(|four| four.iter().any(|&shard| shard != 0)), "{order:?}");
        assert_eq!(turns(&mut audience, &group, 7), order, "credits come back to where they were");
    }

    #[test]
    fn any_weights_are_served_exactly() {
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let (mut audience, group) = (Audience::default(), group("g"));
            let weights: Vec<usize> = (0..=random.below(6)).map(|_| 1 + random.below(50)).collect();
            for (shard, &weight) in (0..).zip(&weights) {
                audience.set(interested(shard, Some(group.clone()), u32::try_from(weight).unwrap()));
            }
            let order = turns(&mut audience, &group, weights.iter().sum());
            for (shard, &weight) in (0..).zip(&weights) {
                assert_eq!(order.iter().filter(|&&chosen| chosen == shard).count(), weight, "seed {seed}");
            }
        }
    }

    /// Two shards have a million members, then one each: neither waits for what it had with them.
    #[test]
    fn a_change_of_weights_is_followed_at_once() {
        let (mut audience, group) = (Audience::default(), group("g"));
        audience.set(interested(0, Some(group.clone()), 1_000_000));
        audience.set(interested(1, Some(group.clone()), 999_999));
        turns(&mut audience, &group, 12_345);
        audience.set(interested(0, Some(group.clone()), 1));
        audience.set(interested(1, Some(group.clone()), 1));
        let order = turns(&mut audience, &group, 10);
        assert!((4..=6).contains(&order.iter().filter(|&&shard| shard == 0).count()), "{order:?}");
    }

    #[test]
    fn credits_stay_in_their_bounds_whoever_comes_and_goes() {
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let (mut audience, group) = (Audience::default(), group("g"));
            for step in 0..300 {
                let shard = u16::try_from(random.below(8)).unwrap();
                match random.below(4) {
                    0 => audience.remove(ShardId(shard), Some(&group)),
                    1 => {
                        let members = u32::try_from(random.below(1000)).unwrap();
                        audience.set(interested(shard, Some(group.clone()), members));
                    }
                    _ => assert_eq!(audience.pick(&group).is_none(), audience.groups.is_empty()),
                }
                for turns in &audience.groups {
                    assert_eq!(turns.shards.iter().map(|turn| turn.credit).sum::<i64>(), 0, "seed {seed}, step {step}");
                    let bound = 2 * turns.total();
                    assert!(turns.shards.iter().all(|turn| turn.credit.abs() <= bound), "seed {seed}: {turns:?}");
                }
            }
        }
    }

    /// Against a list of all entries.
    #[test]
    fn it_is_all_plain_shards_and_one_of_each_group() {
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let (mut audience, mut scratch) = (Audience::default(), Vec::new());
            let mut all: Vec<Interested> = Vec::new();
            for _ in 0..200 {
                let shard = u16::try_from(random.below(4)).unwrap();
                let group = [None, Some(group("a")), Some(group("b"))][random.below(3)].clone();
                all.retain(|old| (old.shard.0, &old.group) != (shard, &group));
                if random.below(2) == 0 {
                    let new = interested(shard, group, u32::try_from(random.below(10)).unwrap());
                    all.push(new.clone());
                    audience.set(new);
                } else {
                    audience.remove(ShardId(shard), group.as_ref());
                }
                assert_eq!(audience.subscribers(), all.iter().map(|entry| u64::from(entry.members)).sum::<u64>());
                assert_eq!(audience.is_empty(), all.is_empty());
                audience.choose(&mut scratch);
                let chosen = audience.chosen(&scratch);
                assert!(chosen.iter().all(|entry| all.contains(entry)), "seed {seed}: {chosen:?}");
                let count = |entries: &[Interested], group: Option<&Group>| {
                    entries.iter().filter(|entry| entry.group.as_ref() == group).count()
                };
                assert_eq!(count(chosen, None), count(&all, None), "seed {seed}");
                for name in ["a", "b"].map(crate::hub::testing::group) {
                    let expected = count(&all, Some(&name)).min(1);
                    assert_eq!(count(chosen, Some(&name)), expected, "seed {seed}: {name}");
                }
            }
        }
    }
}
