#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::super::tests::{at, interested, offsets, publish, topics};
use super::*;
use crate::hub::testing::{message, topic};
use crate::hub::topics::Start;

fn of(node: u64) -> Topics {
    let mut topics = topics(9);
    topics.join_cluster(NodeId(node));
    topics
}

fn said(life: u64, number: u64) -> Said {
    Said { life: Epoch(life), number }
}

#[test]
fn what_is_held_is_followed_until_it_is_forgotten() {
    let (mut topics, name) = (of(1), topic("t"));
    assert!(topics.interest(&name, interested(0, None, 1), at(0)));
    let Some(Wish::Follow(follow, followed, Sharing::Plain, false)) = topics.next_wish() else {
        panic!("it is followed")
    };
    assert_eq!((followed, topics.next_wish(), topics.followed()), (name.clone(), None, 1));
    topics.past(&name, Start::Now, at(0)).unwrap();
    assert!(!topics.has_wishes(), "once");
    topics.disinterest(&name, crate::id::ShardId(0), None, at(0));
    topics.expire(crate::wheel::Tick(10_000), || true);
    assert_eq!((topics.len(), topics.next_wish(), topics.followed()), (0, Some(Wish::Unfollow(follow)), 0));
    topics.past(&name, Start::Now, at(10_000)).unwrap();
    assert_eq!(
        topics.next_wish(),
        Some(Wish::Follow(Follow(follow.0 + 1), name, Sharing::Plain, false)),
        "another number"
    );
}

#[test]
fn a_hole_is_noticed_and_what_came_before_is_old() {
    let (mut topics, name) = (of(1), topic("t"));
    assert!(topics.interest(&name, interested(0, None, 1), at(0)));
    let Some(Wish::Follow(follow, ..)) = topics.next_wish() else { panic!("it is followed") };
    let mut hear =
        |node, said, is_message: bool| topics.note_heard(follow, NodeId(node), said, is_message.then_some(&name));
    assert_eq!(hear(2, said(5, 7), true), Heard::Next, "who begins to listen has missed nothing");
    assert_eq!(hear(2, said(5, 8), true), Heard::Next);
    assert_eq!(hear(2, said(5, 8), true), Heard::Old);
    assert_eq!(hear(2, said(5, 8), false), Heard::Next);
    assert_eq!(hear(2, said(5, 11), true), Heard::Missed(2));
    assert_eq!(hear(2, said(5, 13), false), Heard::Missed(2));
    assert_eq!(hear(2, said(5, 14), true), Heard::Next);
    assert_eq!(hear(2, said(6, 1), true), Heard::Next, "its topic was made anew");
    assert_eq!(hear(2, said(5, 15), true), Heard::Old);
    assert_eq!(hear(2, said(9, 3), true), Heard::Missed(2));
    assert_eq!(hear(3, said(1, 2), false), Heard::Missed(2), "said to nobody");
    assert_eq!(topics.note_heard(Follow(99), NodeId(2), said(9, 9), None), Heard::Old);
    assert_eq!(topics.note_heard(follow, NodeId(2), said(9, 9), Some(&topic("u"))), Heard::Old, "of another topic");
}

#[test]
fn a_past_with_a_hole_ends_and_goes_on_behind_a_reset() {
    let (mut topics, name) = (of(1), topic("t"));
    assert!(topics.interest(&name, interested(0, None, 1), at(0)));
    let Some(Wish::Follow(follow, ..)) = topics.next_wish() else { panic!("it is followed") };
    let (seen, _) = publish(&mut topics, "t", None, at(1)).unwrap();
    assert!(topics.renew(follow, at(1)));
    let (reset, audience) = topics.next_reset(&mut Deflater::default()).unwrap();
    assert_eq!((audience.len(), reset.is_reset(), reset.offset.0), (1, true, 2));
    assert!(reset.epoch > seen.epoch);
    let mut other = message("t", 0, b"from afar");
    let place = topics.hear(&mut other, &mut Deflater::default(), at(2)).unwrap().cursor;
    assert_eq!((place.epoch, place.offset.0), (reset.epoch, 3));
    assert!(topics.past(&name, Start::Since(seen), at(2)).unwrap().reset);
    let past = topics.past(&name, Start::Since(reset.cursor()), at(2)).unwrap();
    assert_eq!((offsets(&past.messages), past.reset), (vec![3], false));
}

#[test]
fn nodes_never_give_the_same_epoch_and_a_node_gives_greater_ones() {
    let (mut one, mut two) = (of(1), of(2));
    let mut before = Epoch(0);
    for _ in 0..1000 {
        let epochs = (one.new_epoch(at(1)), two.new_epoch(at(1)));
        assert!(epochs.0 != epochs.1 && epochs.0 > before && epochs.0.0 < 1 << 53);
        before = epochs.0;
    }
}

#[test]
fn what_others_were_not_given_they_are_told_once() {
    let (mut topics, name) = (of(1), topic("t"));
    for _ in 0..3 {
        publish(&mut topics, "t", None, at(0)).unwrap();
    }
    topics.owe(&name);
    topics.owe(&name);
    let (owed, said) = topics.next_debt().unwrap();
    assert_eq!((owed, said.number, topics.next_debt()), (name.clone(), 3, None));
    topics.owe(&name);
    topics.expire(crate::wheel::Tick(10_000), || true);
    assert_eq!((topics.len(), topics.next_debt()), (0, Some((name, said))), "also of a topic that is forgotten");
}
