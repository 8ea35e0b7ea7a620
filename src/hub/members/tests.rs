#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::hub::testing::{Random, group, message, topic};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn the_owner_is_told_only_what_is_new() {
    let mut members = Members::new(1, 1000);
    let websocket = Wants::NONE.with(Wire::WebSocket);
    let first = members.join(&topic("t"), None, 1, Wire::WebSocket, true, false).unwrap();
    assert_eq!(first.interest, Interest::Wants(websocket));
    assert_eq!(members.join(&topic("t"), None, 2, Wire::WebSocket, true, false).unwrap().interest, Interest::Same);
    let line = members.join(&topic("t"), None, 3, Wire::Line, true, false).unwrap();
    assert_eq!(line.interest, Interest::Wants(websocket.with(Wire::Line)));
    assert_eq!(members.join(&topic("u"), None, 4, Wire::Line, true, false), None, "no room for a second topic");
    assert_eq!(members.leave(line.topic, 2, Wire::Line, |_, _| ()).interest, Interest::Same);
    assert_eq!(members.leave(line.topic, 0, Wire::WebSocket, |_, _| ()).interest, Interest::Same);
    assert_eq!(members.leave(line.topic, 0, Wire::WebSocket, |_, _| ()).interest, Interest::None);
    assert!(members.is_empty());
}

#[test]
fn a_member_takes_what_came_after_it_joined() {
    let mut members = Members::new(1, 1000);
    members.join(&topic("t"), None, 1, Wire::Line, true, false);
    let key = members.deliver(message("t", 5, b"hi")).unwrap();
    members.join(&topic("t"), None, 2, Wire::Line, true, false);
    assert_eq!(members.deliver(message("t", 6, b"hi")), None, "already on the list");
    let [early, late] = members.members(key).try_into().unwrap();
    assert!(early.takes(Offset(5)) && early.takes(Offset(6)));
    assert!(!late.takes(Offset(5)) && late.takes(Offset(6)));
}

#[test]
fn a_reset_is_for_all_who_take_part_wherever_they_stand() {
    // With nothing that came before, or with so many messages: where the reset leads to.
    for (came, place) in [(0, 9), (0, 3), (0, 0), (0, 5000), (9, 9), (9, 3), (9, 0), (9, 5000)] {
        let mut members = Members::new(1, 1000);
        let joined: Vec<_> = (0..4)
            .map(|connection| members.join(&topic("t"), None, connection, Wire::Line, true, connection >= 2).unwrap())
            .collect();
        let key = joined[0].topic;
        for offset in 1..=came {
            members.deliver(message("t", offset, b"hi"));
        }
        members.begin(key, joined[2].position, Offset(9));
        let mut reset = message("t", place, b"");
        reset = Message::reset(reset.topic, crate::message::Cursor { offset: reset.offset, ..Default::default() });
        members.deliver(reset);
        let takes =
            |members: &Members, offset| [0, 1, 2, 3].map(|one: usize| members.members(key)[one].takes(Offset(offset)));
        assert_eq!(takes(&members, place), [true, true, true, false], "{came} {place}");
        members.deliver(message("t", place + 1, b"hi"));
        assert_eq!(takes(&members, place + 1), [true, true, true, false], "{came} {place}");
        while members.fan_out(key, 100).is_some() {
            members.end_batch(key);
        }
        assert_eq!(members.waiting_bytes(), 0);
    }
}

#[test]
fn a_batch_has_a_bound_however_small_its_messages_are() {
    let mut members = Members::new(1, 1000);
    members.join(&topic("t"), None, 1, Wire::Line, true, false);
    let key = members.deliver(message("t", 1, b"hi")).unwrap();
    (2..=1000).for_each(|offset| assert_eq!(members.deliver(message("t", offset, b"hi")), None));
    let mut batches = Vec::new();
    while let Some((_, batch)) = members.fan_out(key, usize::MAX) {
        batches.push(batch.messages.len());
        members.end_batch(key);
    }
    assert_eq!(batches, [256, 256, 256, 232]);
    assert_eq!(members.waiting_bytes(), 0);
}

#[test]
fn a_member_stays_for_more_messages_than_32_bits_count() {
    let mut members = Members::new(1, 1000);
    members.join(&topic("t"), None, 1, Wire::Line, true, false);
    for offset in (0..64).map(|step| (5 << 30) + step * (1 << 29)) {
        let key = members.deliver(message("t", offset, b"hi")).unwrap();
        members.fan_out(key, 1);
        members.end_batch(key);
        assert!(members.members(key)[0].takes(Offset(offset)), "{offset}");
    }
}

#[test]
fn batches_are_bounded_and_keep_their_order() {
    let mut members = Members::new(1, 1000);
    members.join(&topic("t"), None, 1, Wire::Line, true, false);
    let keys: Vec<_> = (1..=5).filter_map(|offset| members.deliver(message("t", offset, b"hi"))).collect();
    let key = keys[0];
    let mut batches = Vec::new();
    while let Some((_, batch)) = members.fan_out(key, 4) {
        batches.push(batch.messages.iter().map(|message| message.offset.0).collect::<Vec<_>>());
        members.end_batch(key);
    }
    assert_eq!(batches, [vec![1, 2], vec![3, 4], vec![5]]);
}

/// Members come and go while a sliced fan-out runs: whoever stays for the whole of it is served exactly once.
#[test]
fn a_sliced_fan_out_serves_everybody_once() {
    for seed in 0..300_u64 {
        let mut random = Random::new(seed);
        let mut next = |bound: usize| random.below(bound);
        let mut members = Members::new(1, 1000);
        let mut places: BTreeMap<u32, u32> = BTreeMap::new();
        let join = |members: &mut Members, places: &mut BTreeMap<u32, u32>, connection| {
            let joined = members.join(&topic("t"), None, connection, Wire::Line, true, false).unwrap();
            places.insert(connection, joined.position);
        };
        let initial = 1 + u32::try_from(next(20)).unwrap();
        (0..initial).for_each(|connection| join(&mut members, &mut places, connection));
        let key = members.deliver(message("t", 1, b"hi")).unwrap();
        let mut served: BTreeMap<u32, u32> = BTreeMap::new();
        let mut stayed: BTreeSet<u32> = places.keys().copied().collect();
        let mut fresh = 1000;
        while let Some((all, batch)) = members.fan_out(key, 100) {
            if batch.cursor == all.len() {
                break;
            }
            let end = all.len().min(batch.cursor + 1 + next(3));
            for member in all[batch.cursor..end].iter().filter(|member| member.takes(Offset(1))) {
                *served.entry(member.connection()).or_default() += 1;
            }
            batch.cursor = end;
            for _ in 0..next(4) {
                if next(3) == 0 {
                    fresh += 1;
                    join(&mut members, &mut places, fresh);
                } else if places.len() > 1 {
                    let connection = *places.keys().nth(next(places.len())).unwrap();
                    let position = places.remove(&connection).unwrap();
                    stayed.remove(&connection);
                    members.leave(key, position, Wire::Line, |moved, to| {
                        places.insert(moved, to);
                    });
                }
            }
            for (&connection, &position) in &places {
                assert_eq!(members.members(key)[position as usize].connection(), connection);
            }
        }
        assert!(served.values().all(|&times| times == 1), "seed {seed}: {served:?}");
        assert!(stayed.iter().all(|connection| served.contains_key(connection)), "seed {seed}");
        assert!(served.keys().all(|&connection| connection < 1000), "seed {seed}: newcomers are not served");
    }
}

fn join(members: &mut Members, group: Option<&Group>, connection: u32) -> Joined {
    members.join(&topic("t"), group, connection, Wire::Line, true, false).unwrap()
}

#[test]
fn owners_are_told_once_of_many_changes() {
    let mut members = Members::new(2, 1000);
    let key = join(&mut members, None, 1).topic;
    assert!(members.take_changed().is_none(), "the first is told of at once");
    (2..=5).for_each(|connection| assert_eq!(join(&mut members, None, connection).interest, Interest::Same));
    members.leave(key, 0, Wire::Line, |_, _| ());
    let (name, stake) = members.take_changed().unwrap();
    assert_eq!((name, stake.members, stake.group), (topic("t"), 4, None));
    assert!(members.take_changed().is_none());
    join(&mut members, None, 6);
    members.leave(key, 4, Wire::Line, |_, _| ());
    assert!(members.take_changed().is_none(), "as many as before");
    join(&mut members, None, 7);
    (0..5).for_each(|_| drop(members.leave(key, 0, Wire::Line, |_, _| ())));
    assert_eq!(join(&mut members, Some(&group("g")), 8).topic, key, "the place of the one that ended");
    assert!(members.take_changed().is_none());
    assert_eq!(join(&mut members, Some(&group("g")), 9).interest, Interest::Same);
    let stake = members.take_changed().unwrap().1;
    assert_eq!(stake.of(ShardId(3)), Interested { shard: ShardId(3), ..members.stake(key).unwrap().of(ShardId(3)) });
    assert_eq!((members.count(key), members.group(key)), (2, Some(&group("g"))));
}

#[test]
fn a_group_and_the_plain_members_of_a_topic_are_apart() {
    let (mut members, workers) = (Members::new(2, 1000), group("workers"));
    let plain = join(&mut members, None, 1).topic;
    let grouped = join(&mut members, Some(&workers), 2).topic;
    assert_ne!(plain, grouped);
    assert_eq!(members.deliver(message("t", 1, b"hi")), Some(plain));
    assert!(members.next_for_group(grouped).is_none() && members.next_for_group(plain).is_none());
    let stay = members.stake(grouped).unwrap().stay;
    assert_eq!(members.deliver_during(stay, Some(&workers), message("t", 2, b"hi")).unwrap(), Some(grouped));
    assert_eq!(members.deliver_during(stay, Some(&workers), message("t", 3, b"hi")).unwrap(), None);
    assert!(members.fan_out(grouped, 100).is_none());
    let first = members.pop_for_group(grouped).unwrap();
    members.push_front(grouped, first).unwrap();
    assert_eq!(members.next_for_group(grouped).unwrap().offset, Offset(2));
    assert!(members.push_front(plain, message("t", 9, b"hi")).is_err());

    let left = members.leave(grouped, 0, Wire::Line, |_, _| ());
    assert_eq!(left.interest, Interest::None);
    assert_eq!(left.returned.iter().map(|message| message.offset.0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(members.group_bytes(), 0);
    assert!(members.deliver_during(stay, Some(&workers), message("t", 4, b"hi")).is_err(), "it is not there");
    join(&mut members, Some(&workers), 2);
    assert!(members.deliver_during(stay, Some(&workers), message("t", 4, b"hi")).is_err(), "its stay is over");
    assert!(members.leave(plain, 0, Wire::Line, |_, _| ()).returned.is_empty());
    assert_eq!(members.waiting_bytes(), 0);
}

#[test]
fn a_groups_oldest_messages_are_lost_when_too_much_waits() {
    let one = message("t", 1, b"hi").memory();
    let (mut members, workers) = (Members::new(1, 3 * one), group("workers"));
    let key = join(&mut members, Some(&workers), 1).topic;
    let stay = members.stake(key).unwrap().stay;
    let mut lost = Vec::new();
    for offset in 1..=5 {
        members.deliver_during(stay, Some(&workers), message("t", offset, b"hi")).unwrap();
        lost.extend(std::iter::from_fn(|| members.overflow(key)).map(|message| message.offset.0));
        assert!(members.group_bytes() <= 3 * one);
    }
    assert_eq!(lost, [1, 2]);
    assert_eq!(members.next_for_group(key).unwrap().offset, Offset(3));
}

#[test]
fn many_groups_together_keep_no_more_than_some() {
    let one = message("t", 1, b"hi").memory();
    let mut members = Members::new(100, 10 * one);
    for number in 0..50 {
        let name = group(&format!("g{number}"));
        let joined = join(&mut members, Some(&name), number);
        let stay = members.stake(joined.topic).unwrap().stay;
        for offset in 1..=10 {
            members.deliver_during(stay, Some(&name), message("t", offset, b"hi")).unwrap();
            while members.overflow(joined.topic).is_some() {}
        }
    }
    assert!(members.group_bytes() <= 3 * Members::FULL_GROUPS_MAX * 10 * one, "{}", members.group_bytes() / one);
    assert!(members.waiting(TopicKey(49)) > 0, "those who are late have a share, too");
}

/// Random members who come and go: nobody has a second turn before all have had one.
#[test]
fn every_member_of_a_group_has_its_turn() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let (mut members, workers) = (Members::new(1, 1000), group("workers"));
        let (mut places, mut served) = (BTreeMap::new(), BTreeSet::new());
        let (mut fresh, mut key) = (0, TopicKey(0));
        for _ in 0..500 {
            match random.below(6) {
                0 => {
                    fresh += 1;
                    let joined = join(&mut members, Some(&workers), fresh);
                    key = joined.topic;
                    places.insert(fresh, joined.position);
                }
                1 if !places.is_empty() => {
                    let connection = *places.keys().nth(random.below(places.len())).unwrap();
                    let place = places.remove(&connection).unwrap();
                    served.remove(&connection);
                    members.leave(key, place, Wire::Line, |moved, to| {
                        places.insert(moved, to);
                    });
                }
                _ if !places.is_empty() => {
                    if served.len() == places.len() {
                        served.clear();
                    }
                    let place = members.turn(key).unwrap();
                    let connection = members.members(key)[place as usize].connection();
                    assert_eq!(places[&connection], place, "seed {seed}");
                    assert!(served.insert(connection), "seed {seed}: {connection} again, after {served:?}");
                }
                _ => assert_eq!(members.turn(key), None),
            }
        }
    }
}

/// Messages for a group of random members on three shards, with what comes back given to others: each is taken once.
#[test]
fn each_message_of_a_group_is_taken_once() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let (name, workers) = (topic("t"), group("workers"));
        let mut shards: Vec<Members> = (0..3).map(|_| Members::new(1, usize::MAX)).collect();
        let mut counts = [0_u32; 3];
        let (mut homeless, mut taken) = (VecDeque::new(), Vec::new());
        let mut published = 0;
        for step in 0..400 {
            let at = random.below(3);
            let shard = &mut shards[at];
            match random.below(5) {
                0 => {
                    shard.join(&name, Some(&workers), 7, Wire::Line, true, false).unwrap();
                    counts[at] += 1;
                }
                1 if counts[at] > 0 => {
                    let key = shard.key(&name, Some(&workers)).unwrap();
                    homeless.extend(shard.leave(key, 0, Wire::Line, |_, _| ()).returned);
                    counts[at] -= 1;
                }
                2 => {
                    let Some(key) = shard.key(&name, Some(&workers)) else { continue };
                    let Some(message) = shard.pop_for_group(key) else { continue };
                    if random.below(3) == 0 {
                        shard.push_front(key, message).unwrap();
                    } else {
                        taken.push(message.offset.0);
                    }
                }
                _ => {
                    if homeless.is_empty() {
                        published += 1;
                        homeless.push_back(message("t", published, b"hi"));
                    }
                    // Sometimes to a stay that is over.
                    let stay = shard.key(&name, Some(&workers)).and_then(|key| shard.stake(key));
                    let stay = stay.map_or(Stay(1), |stake| Stay(stake.stay.0 - u32::from(random.below(4) == 0)));
                    let message = homeless.pop_front().unwrap();
                    homeless.extend(shard.deliver_during(stay, Some(&workers), message).err());
                }
            }
            let waiting: Vec<u64> = shards.iter_mut().flat_map(|shard| waiting(shard, &name, &workers)).collect();
            let mut all: Vec<u64> = taken.iter().copied().chain(waiting).collect();
            all.extend(homeless.iter().map(|message| message.offset.0));
            all.sort_unstable();
            assert_eq!(all, (1..=published).collect::<Vec<_>>(), "seed {seed}, step {step}");
        }
    }
}

fn waiting(shard: &mut Members, name: &Topic, group: &Group) -> Vec<u64> {
    let Some(key) = shard.key(name, Some(group)) else { return Vec::new() };
    shard.topics[key.0 as usize].pending.iter().map(|message| message.offset.0).collect()
}

/// Pending members begin at random after a past that reaches to the newest message that has come: with it each has every
/// message from its join on exactly once, also where offsets pass 2^30 and 2^32.
#[test]
fn a_past_and_what_follows_are_without_gap_and_overlap() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut members = Members::new(1, 1000);
        let begin = [1, 1 << 30, 1 << 31, 1 << 32, 5 << 30][random.below(5)];
        let begin = u64::saturating_sub(begin, u64::try_from(random.below(20)).unwrap());
        let mut newest = begin;
        // Of each member: the offset that comes next, `None` while it is pending.
        let mut next: Vec<Option<u64>> = Vec::new();
        let mut key = TopicKey(0);
        let mut running = false;
        for step in 0..200 {
            match random.below(5) {
                0 => {
                    let connection = u32::try_from(next.len()).unwrap();
                    let pending = random.below(3) > 0;
                    let joined = members.join(&topic("t"), None, connection, Wire::Line, true, pending).unwrap();
                    key = joined.topic;
                    assert_eq!(joined.position, connection);
                    next.push((!pending).then_some(newest + 1));
                }
                1 if !next.is_empty() => {
                    let who = random.below(next.len());
                    if next[who].is_none() {
                        members.begin(key, u32::try_from(who).unwrap(), Offset(newest));
                        next[who] = Some(newest + 1);
                    }
                }
                2 | 3 if !next.is_empty() => {
                    newest += 1;
                    running |= members.deliver(message("t", newest, b"hi")).is_some();
                }
                _ if running => {
                    let (all, batch) = members.fan_out(key, random.below(6)).unwrap();
                    for message in &batch.messages {
                        for member in all.iter().filter(|member| member.takes(message.offset)) {
                            let next = &mut next[member.connection() as usize];
                            assert_eq!(*next, Some(message.offset.0), "seed {seed}, step {step}");
                            *next = Some(message.offset.0 + 1);
                        }
                    }
                    running = members.end_batch(key);
                }
                _ => {}
            }
        }
        while running {
            let (all, batch) = members.fan_out(key, 100).unwrap();
            for message in &batch.messages {
                for member in all.iter().filter(|member| member.takes(message.offset)) {
                    next[member.connection() as usize] = Some(message.offset.0 + 1);
                }
            }
            running = members.end_batch(key);
        }
        assert!(next.iter().flatten().all(|&next| next == newest + 1), "seed {seed}: {next:?}");
    }
}

#[test]
fn a_retired_topic_is_another_than_the_one_that_is_joined_next() {
    let mut members = Members::new(9, 1000);
    let old = members.join(&topic("t"), None, 1, Wire::Line, true, false).unwrap();
    members.join(&topic("t"), None, 2, Wire::Line, true, false).unwrap();
    members.deliver(message("t", 7, b"hi"));
    let stay = members.stake(old.topic).unwrap().stay;
    assert_eq!(members.retire(&topic("t"), None), Some(old.topic));
    assert_eq!(members.retire(&topic("t"), None), None);
    assert!(members.key(&topic("t"), None).is_none() && members.is_retired(old.topic));
    assert_eq!(members.fan_out(old.topic, usize::MAX).unwrap().0.len(), 2, "what had come is handed out");

    let new = members.join(&topic("t"), None, 3, Wire::Line, true, false).unwrap();
    assert!(new.topic != old.topic && matches!(new.interest, Interest::Wants(_)));
    assert_eq!(members.deliver_during(stay, None, message("t", 8, b"late")).unwrap(), None, "it is for nobody");
    let now = members.stake(new.topic).unwrap().stay;
    assert_eq!(members.deliver_during(now, None, message("t", 1, b"new")).unwrap(), Some(new.topic));
    for _ in 0..2 {
        assert_eq!(members.leave(old.topic, 0, Wire::Line, |_, _| ()).interest, Interest::Same, "the owner knows");
    }
    assert!(!members.is_retired(old.topic) && members.key(&topic("t"), None) == Some(new.topic));
    assert!(members.members(new.topic)[0].takes(Offset(1)));
    assert_eq!(members.leave(new.topic, 0, Wire::Line, |_, _| ()).interest, Interest::None);
    assert!(members.is_empty() && members.waiting_bytes() == 0 && members.take_changed().is_none());
}

#[test]
fn what_waits_for_a_retired_group_is_dropped() {
    let mut members = Members::new(9, 100_000);
    let joined = members.join(&topic("t"), Some(&group("g")), 1, Wire::Line, true, false).unwrap();
    let stay = members.stake(joined.topic).unwrap().stay;
    members.deliver_during(stay, Some(&group("g")), message("t", 1, b"hi")).unwrap();
    assert!(members.group_bytes() > 0);
    members.retire(&topic("t"), Some(&group("g"))).unwrap();
    assert_eq!((members.group_bytes(), members.waiting(joined.topic)), (0, 0));
    assert!(members.deliver_during(stay, Some(&group("g")), message("t", 2, b"hi")).is_err(), "it goes back");
    let left = members.leave(joined.topic, 0, Wire::Line, |_, _| ());
    assert!(left.interest == Interest::Same && left.returned.is_empty() && members.is_empty());
}
