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
