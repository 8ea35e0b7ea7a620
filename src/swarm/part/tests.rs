//! What the parts find when a server loses, doubles or turns messages, or stalls.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use super::echo::{Load, Pace};
use super::publisher::Series;
use super::*;
use crate::id::ConnId;
use crate::sim::ManualClock;
use crate::swarm::crowd::tests::{Script, crowd};
use crate::swarm::stamp::{Stamp, Template};
use crate::swarm::tally::Count;
use crate::swarm::target::Protocol;
use crate::time::Clock;

const RUN: u32 = 9;

/// A crowd of `count` that stands, over lines.
fn standing(role: Role, count: usize) -> (Crowd<Script>, Actor, ManualClock, Vec<ConnId>) {
    let (clock, mut actor) = (ManualClock::new(), Actor::new(RUN, 64));
    let mut crowd = crowd(Protocol::Line, count);
    crowd.opened(role, count, &clock, &mut actor);
    let ids = crowd.script().dialled.clone();
    (crowd, actor, clock, ids)
}

fn line(number: u32, due: Instant) -> Vec<u8> {
    let mut line = Template::new(RUN, 64).stamp(number, due).to_vec();
    line.push(b'\n');
    line
}

/// Delivers these numbers to one subscriber: heard, missing, duplicates, reordered.
fn deliver(numbers: &[u32]) -> (u64, u64, u64, u64) {
    let (mut crowd, mut actor, clock, ids) = standing(Role::Holder, 1);
    actor.obey(Order::Measure { first: 2, last: 5 }, &mut crowd);
    for number in numbers {
        crowd.script().says(ids[0], &line(*number, Instant::ZERO));
    }
    crowd.play(&clock, &mut actor);
    let count = |count| crowd.tally[count];
    let missing = count(Count::Skipped) - count(Count::Reordered);
    (count(Count::Heard), missing, count(Count::Duplicates), count(Count::Reordered))
}

#[test]
fn losses_duplicates_and_turned_messages_are_found() {
    for (numbers, expected) in [
        ([1, 2, 3, 4, 5].as_slice(), (5, 0, 0, 0)),
        (&[1, 2, 4, 5], (4, 1, 0, 0)),
        (&[1, 2, 2, 3, 4, 5], (5, 0, 1, 0)),
        (&[1, 2, 4, 3, 5], (5, 0, 0, 1)),
        (&[1, 2, 4, 3, 3, 5], (5, 0, 1, 1)),
        (&[1, 5, 1], (2, 3, 1, 0)),
        // Who comes late is missing what is measured, and no call of the roll.
        (&[4], (1, 2, 0, 0)),
        (&[2], (1, 0, 0, 0)),
    ] {
        assert_eq!(deliver(numbers), expected, "{numbers:?}");
    }
}

#[test]
fn a_long_broadcast_ends_with_its_last_delivery() {
    let (mut crowd, mut actor, clock, ids) = standing(Role::Holder, 1);
    actor.obey(Order::Measure { first: 1, last: 200 }, &mut crowd);
    for number in 1..=200 {
        clock.advance(Duration::from_millis(10));
        crowd.script().says(ids[0], &line(number, clock.now()));
        crowd.play(&clock, &mut actor);
    }
    let found = &actor.subscribers;
    assert_eq!((found.last, found.overall.count()), (Instant::from_millis(2000), 200));
    assert_eq!(found.messages.len(), 128, "of so many the figures are kept one by one");
}

#[test]
fn alive_at_the_end_is_who_heard_the_last_message() {
    let (mut crowd, mut actor, clock, ids) = standing(Role::Holder, 3);
    actor.obey(Order::Measure { first: 1, last: 2 }, &mut crowd);
    for (member, number) in [(0, 1), (0, 2), (1, 1), (2, 2), (2, 2)] {
        crowd.script().says(ids[member], &line(number, Instant::ZERO));
    }
    crowd.play(&clock, &mut actor);
    assert_eq!((crowd.tally[Count::Measured], crowd.tally[Count::Last]), (4, 2), "not how often anybody heard any");
}

#[test]
fn messages_of_others_are_not_counted() {
    let (mut crowd, mut actor, clock, ids) = standing(Role::Holder, 1);
    let mut other = Template::new(RUN + 1, 64).stamp(1, Instant::ZERO).to_vec();
    other.push(b'\n');
    for said in [other.as_slice(), b"good morning\n", &line(0, Instant::ZERO)] {
        crowd.script().says(ids[0], said);
    }
    crowd.play(&clock, &mut actor);
    assert_eq!((crowd.tally[Count::Foreign], crowd.tally[Count::Heard], crowd.tally[Count::Called]), (3, 0, 0));
}

#[test]
fn publications_leave_at_their_times_and_say_so_when_they_are_late() {
    let (mut crowd, mut actor, clock, _) = standing(Role::Holder, 2);
    let series = Series { first: 1, count: 3, start: None, interval: Duration::from_millis(10) };
    actor.obey(Order::Publish(series), &mut crowd);
    actor.act(&mut crowd);
    clock.advance(Duration::from_millis(25));
    crowd.play(&clock, &mut actor);
    actor.act(&mut crowd);
    let stamps: Vec<_> = crowd.script().sent.iter().map(|(_, bytes)| Stamp::read(bytes).unwrap()).collect();
    let times: Vec<_> = stamps.iter().map(|stamp| (stamp.number, stamp.due.as_millis())).collect();
    assert_eq!(times, [(1, 0), (2, 10), (3, 20)]);
    assert_eq!((crowd.tally[Count::Published], actor.due()), (3, None));
}

#[test]
fn a_publication_that_nobody_takes_is_tried_again_and_not_at_once() {
    let (clock, mut actor, mut crowd) = (ManualClock::new(), Actor::new(RUN, 64), crowd(Protocol::Line, 1));
    let series = Series { first: 1, count: 1, start: None, interval: Duration::ZERO };
    actor.obey(Order::Publish(series), &mut crowd);
    assert_eq!(actor.due(), Some(Instant::ZERO));
    actor.act(&mut crowd);
    assert_eq!((actor.due(), crowd.tally[Count::Published]), (Some(Instant::from_millis(1)), 0));
    crowd.opened(Role::Holder, 1, &clock, &mut actor);
    actor.act(&mut crowd);
    assert_eq!(crowd.tally[Count::Published], 0, "not before its time");
    clock.advance(Duration::from_millis(1));
    crowd.play(&clock, &mut actor);
    actor.act(&mut crowd);
    assert_eq!((crowd.tally[Count::Published], actor.due()), (1, None));
    assert_eq!(Stamp::read(&crowd.script().sent[0].1).unwrap().due, Instant::ZERO);
}

/// Sends back what was sent since the last time.
fn echo(crowd: &mut Crowd<Script>) -> usize {
    let sent = std::mem::take(&mut crowd.script().sent);
    sent.iter().for_each(|(id, bytes)| crowd.script().says(*id, bytes));
    sent.iter().map(|(_, bytes)| bytes.iter().filter(|byte| **byte == b'\n').count()).sum()
}

fn load(pace: Pace, in_flight: u32) -> Order {
    Order::Echo(Load { pace, in_flight, measure_from: Instant::ZERO, until: Instant::from_millis(1000) })
}

#[test]
fn a_stalled_server_shows_in_the_latencies() {
    let (mut crowd, mut actor, clock, _) = standing(Role::Echo, 2);
    let pace = Pace::Rate { per_second: 1000.0, start: Instant::ZERO };
    actor.obey(load(pace, 1), &mut crowd);
    for ms in 0..1200 {
        actor.act(&mut crowd);
        // For half a second nothing comes back, and with a window of one nothing can leave.
        if !(100..600).contains(&ms) {
            echo(&mut crowd);
        }
        clock.advance(Duration::from_millis(1));
        crowd.play(&clock, &mut actor);
        while clock.now() > Instant::from_millis(600) && echo(&mut crowd) > 0 {
            crowd.play(&clock, &mut actor);
        }
    }
    let latencies = &actor.echoes.latencies[0];
    assert_eq!((crowd.tally[Count::Due], crowd.tally[Count::Answered], crowd.tally[Count::Wrong]), (1000, 1000, 0));
    // Half of all messages were due in the stall, and waited 250 ms on average: counted from when they left it would
    // be two messages.
    let [p40, p75, p99] = [0.4, 0.75, 0.99].map(|share| latencies.at(share).as_millis());
    assert!(p40 <= 2 && (200..300).contains(&p75) && (470..=501).contains(&p99), "{p40} {p75} {p99}");
}

#[test]
fn answers_after_the_time_that_is_measured_are_not_timely() {
    let (mut crowd, mut actor, clock, _) = standing(Role::Echo, 1);
    let pace = Pace::Rate { per_second: 100.0, start: Instant::ZERO };
    actor.obey(load(pace, 1000), &mut crowd);
    for tenth in 0..15 {
        actor.act(&mut crowd);
        crowd.flush();
        // From 400 ms on nothing comes back, and at the end all of it.
        if !(4..14).contains(&tenth) {
            echo(&mut crowd);
        }
        clock.advance(Duration::from_millis(100));
        crowd.play(&clock, &mut actor);
    }
    let count = |count| crowd.tally[count];
    assert_eq!((count(Count::Due), count(Count::Answered), count(Count::Timely)), (100, 100, 31));
}

#[test]
fn a_turn_looks_at_so_many_messages_and_the_next_at_more() {
    let (mut crowd, mut actor, clock, _) = standing(Role::Echo, 1);
    let pace = Pace::Rate { per_second: 50_000.0, start: Instant::ZERO };
    actor.obey(load(pace, 1), &mut crowd);
    clock.advance(Duration::from_secs(2));
    crowd.play(&clock, &mut actor);
    let due: Vec<_> = (0..5)
        .map(|_| {
            let is_due = actor.due().is_some_and(|due| due <= clock.now());
            actor.act(&mut crowd);
            (is_due, crowd.tally[Count::Due], crowd.tally[Count::Spent])
        })
        .collect();
    let expected = [(true, 16_384, 0), (true, 32_768, 0), (true, 49_152, 0), (true, 50_000, 1), (false, 50_000, 1)];
    assert_eq!(due, expected);
}

#[test]
fn what_never_comes_back_is_measured_until_the_end() {
    let (mut crowd, mut actor, clock, _) = standing(Role::Echo, 1);
    let pace = Pace::Rate { per_second: 100.0, start: Instant::ZERO };
    actor.obey(load(pace, 4), &mut crowd);
    for _ in 0..100 {
        actor.act(&mut crowd);
        clock.advance(Duration::from_millis(10));
        crowd.play(&clock, &mut actor);
    }
    actor.act(&mut crowd);
    actor.obey(Order::Hush, &mut crowd);
    let latencies = &actor.echoes.latencies[0];
    assert_eq!((crowd.tally[Count::Due], crowd.tally[Count::Asked], crowd.tally[Count::Late]), (100, 4, 100));
    assert_eq!(latencies.count(), 100);
    assert!(latencies.last() >= Duration::from_millis(999), "{:?}", latencies.last());
}

#[test]
fn of_a_connection_that_is_lost_only_the_rest_is_late() {
    let (mut crowd, mut actor, clock, ids) = standing(Role::Echo, 2);
    let pace = Pace::Rate { per_second: 200.0, start: Instant::ZERO };
    actor.obey(load(pace, 100), &mut crowd);
    for tenth in 0..11 {
        actor.act(&mut crowd);
        crowd.flush();
        echo(&mut crowd);
        clock.advance(Duration::from_millis(100));
        crowd.play(&clock, &mut actor);
        if tenth == 8 {
            crowd.script().fails(ids[1], std::io::ErrorKind::ConnectionReset);
            crowd.play(&clock, &mut actor);
            // Somebody else has its place then.
            crowd.opened(Role::Guest, 1, &clock, &mut actor);
        }
    }
    actor.act(&mut crowd);
    actor.obey(Order::Hush, &mut crowd);
    let count = |count| crowd.tally[count];
    let latencies = &actor.echoes.latencies[0];
    assert_eq!(count(Count::Due), 200);
    assert_eq!(latencies.count(), 200, "each once: {} answered, {} late", count(Count::Answered), count(Count::Late));
    assert!(count(Count::Late) < 60 && latencies.at(0.7) < Duration::from_millis(250), "{:?}", latencies.at(0.7));
}

#[test]
fn a_closed_loop_keeps_its_window_full_and_ends() {
    let (mut crowd, mut actor, clock, _) = standing(Role::Echo, 3);
    actor.obey(load(Pace::Closed, 5), &mut crowd);
    crowd.flush();
    for _ in 0..20 {
        assert_eq!(echo(&mut crowd), 15);
        clock.advance(Duration::from_millis(10));
        crowd.play(&clock, &mut actor);
    }
    clock.advance(Duration::from_secs(1));
    echo(&mut crowd);
    crowd.play(&clock, &mut actor);
    assert_eq!(echo(&mut crowd), 0);
    assert_eq!((crowd.tally[Count::Asked], crowd.tally[Count::Answered]), (315, 315));
    actor.act(&mut crowd);
    assert_eq!(crowd.tally[Count::Spent], 1);
}

/// Guests, one per second from now on, who stay for an hour.
fn invitation(kind: [f64; 3]) -> Order {
    let (second, [abrupt, mute, slow]) = (Duration::from_secs(1), kind);
    let (lifetime, mute_for, until) = (3600 * second, second, Instant::from_millis(1_000_000));
    Order::Invite(Invitation { gap: second, start: Instant::ZERO, until, lifetime, mute_for, abrupt, mute, slow })
}

#[test]
fn how_guests_end_is_told_apart() {
    let reset = std::io::ErrorKind::ConnectionReset;
    for (kind, is_leaving, expected) in [
        ([0.0, 1.0, 0.0], false, Count::Detected),
        ([0.0, 0.0, 1.0], false, Count::Cut),
        ([0.0, 0.0, 0.0], false, Count::Turned),
        ([0.0, 0.0, 0.0], true, Count::Unanswered),
    ] {
        let (clock, mut actor, mut crowd) = (ManualClock::new(), Actor::new(RUN, 64), crowd(Protocol::Line, 1));
        actor.obey(invitation(kind), &mut crowd);
        actor.act(&mut crowd);
        let id = crowd.script().dialled[0];
        crowd.script().stands(id);
        crowd.play(&clock, &mut actor);
        if is_leaving {
            crowd.leave(id);
        }
        crowd.script().fails(id, reset);
        crowd.play(&clock, &mut actor);
        let ends = [Count::Detected, Count::Cut, Count::Turned, Count::Unanswered];
        let found: Vec<_> = ends.into_iter().filter(|count| crowd.tally[*count] > 0).collect();
        assert_eq!(found, [expected]);
    }
}

#[test]
fn a_guest_without_a_place_is_told() {
    let (clock, mut actor, mut crowd) = (ManualClock::new(), Actor::new(RUN, 64), crowd(Protocol::Line, 1));
    actor.obey(invitation([0.0; 3]), &mut crowd);
    for _ in 0..3 {
        crowd.play(&clock, &mut actor);
        actor.act(&mut crowd);
        let id = crowd.script().dialled[0];
        crowd.script().stands(id);
        crowd.play(&clock, &mut actor);
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(crowd.tally.failures().collect::<Vec<_>>(), [(Reason::Places, 2)]);
    assert_eq!(crowd.tally[Count::Turned], 2);
}

#[test]
fn a_large_window_is_filled_as_there_is_room() {
    let (clock, mut actor) = (ManualClock::new(), Actor::new(RUN, 64 * 1024));
    let mut crowd = crowd(Protocol::Line, 1);
    crowd.opened(Role::Echo, 1, &clock, &mut actor);
    let id = crowd.script().dialled[0];
    crowd.script().room = Some(1000);
    actor.obey(load(Pace::Closed, 512), &mut crowd);
    crowd.flush();
    crowd.play(&clock, &mut actor);
    assert_eq!((crowd.tally[Count::Asked], actor.due()), (2, None), "it takes no more, and nobody spins");
    crowd.script().stands(id);
    crowd.play(&clock, &mut actor);
    actor.act(&mut crowd);
    crowd.flush();
    let sent: usize = crowd.script().sent.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!((crowd.tally[Count::Asked], crowd.tally[Count::Lost], sent), (512, 0, 512 * (64 * 1024 + 1)));
    assert!(crowd.script().sent.iter().all(|(_, bytes)| bytes.len() <= 128 * 1024 + 2), "little is staged at a time");
}

/// A closed loop of 20 rounds whose first answers are spoiled: answered, wrong and asked in the end.
fn spoiled(in_flight: u32, spoil: fn(&mut Vec<Vec<u8>>)) -> [u64; 3] {
    let (mut crowd, mut actor, clock, ids) = standing(Role::Echo, 1);
    actor.obey(load(Pace::Closed, in_flight), &mut crowd);
    for round in 0..20 {
        actor.act(&mut crowd);
        crowd.flush();
        let sent: Vec<u8> = std::mem::take(&mut crowd.script().sent).into_iter().flat_map(|(_, bytes)| bytes).collect();
        let mut lines: Vec<_> = sent.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        if round == 0 {
            spoil(&mut lines);
        }
        lines.iter().for_each(|line| crowd.script().says(ids[0], line));
        clock.advance(Duration::from_millis(10));
        crowd.play(&clock, &mut actor);
    }
    [Count::Answered, Count::Wrong, Count::Asked].map(|count| crowd.tally[count])
}

#[test]
fn an_echo_that_is_spoiled_is_counted_and_the_others_go_on() {
    assert_eq!(spoiled(1, |_| ()), [20, 0, 21]);
    let changed = |lines: &mut Vec<Vec<u8>>| lines[0][50] = b'!';
    let [unread, unsent] =
        [|lines: &mut Vec<Vec<u8>>| lines[0][0] = b'!', |lines: &mut Vec<Vec<u8>>| lines[0][15] = b'7'];
    for in_flight in [1, 4] {
        let all = u64::from(in_flight) * 20;
        for spoil in [changed, unread, unsent] {
            assert_eq!(spoiled(in_flight, spoil), [all - 1, 1, all + u64::from(in_flight)]);
        }
        let twice = |lines: &mut Vec<Vec<u8>>| lines.insert(0, lines[0].clone());
        assert_eq!(spoiled(in_flight, twice), [all, 1, all + u64::from(in_flight)]);
    }
    let lost = |lines: &mut Vec<Vec<u8>>| drop(lines.remove(1));
    assert_eq!(spoiled(4, lost), [79, 0, 84], "and with it went its place in the window, until the next came");
    let turned = |lines: &mut Vec<Vec<u8>>| lines.swap(1, 2);
    assert_eq!(spoiled(4, turned), [79, 1, 84]);
}

#[test]
fn what_is_passed_over_is_late() {
    let (mut crowd, mut actor, clock, ids) = standing(Role::Echo, 1);
    let pace = Pace::Rate { per_second: 100.0, start: Instant::ZERO };
    actor.obey(load(pace, 10), &mut crowd);
    clock.advance(Duration::from_millis(25));
    crowd.play(&clock, &mut actor);
    actor.act(&mut crowd);
    crowd.flush();
    let mut template = Template::new(RUN + 1, 64);
    let third = [template.stamp(3, Instant::from_millis(20)), b"\n"].concat();
    crowd.script().says(ids[0], &third);
    crowd.play(&clock, &mut actor);
    let latencies = &actor.echoes.latencies[0];
    assert_eq!((crowd.tally[Count::Answered], crowd.tally[Count::Late], latencies.count()), (1, 2, 3));
    assert_eq!(latencies.last().as_millis(), 25);
}

#[test]
fn the_roll_is_called_of_all_but_not_at_once() {
    let (mut crowd, mut actor, clock, _) = {
        let (clock, mut actor) = (ManualClock::new(), Actor::new(RUN, 64));
        let mut crowd = crowd(Protocol::Line, 2000);
        (0..20).for_each(|_| crowd.opened(Role::Echo, 100, &clock, &mut actor));
        (crowd, actor, clock, ())
    };
    actor.obey(load(Pace::Roll, 1), &mut crowd);
    let mut called = Vec::new();
    while called.iter().sum::<usize>() < 2000 {
        assert!(called.len() < 10, "{called:?}");
        actor.act(&mut crowd);
        crowd.flush();
        called.push(echo(&mut crowd));
        crowd.play(&clock, &mut actor);
    }
    assert_eq!((called[0], crowd.tally[Count::Answered]), (1024, 2000));
}
