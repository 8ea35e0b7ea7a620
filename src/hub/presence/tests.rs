#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;

use super::*;
use crate::codec::grpc::generated::edge;
use crate::hub::testing::{Random, topic};
use crate::message::Wire;

fn seat(connection: u32) -> Seat {
    Seat { shard: ShardId(0), connection }
}

fn who(id: &str) -> Who {
    Who { id: MemberId::other(id), name: None }
}

fn room() -> Presence {
    Presence::new(Mode::Members, 3)
}

fn json(notices: &[Notice]) -> Vec<String> {
    let text = |notice: &Notice| {
        let mut out = Vec::new();
        notice.write_json(&mut out);
        String::from_utf8(out).unwrap()
    };
    notices.iter().map(text).collect()
}

fn names(presence: &Presence) -> Vec<String> {
    presence
        .page(None, 99)
        .members
        .unwrap()
        .iter()
        .map(|seen| format!("{}*{}", seen.id.text, seen.connections))
        .collect()
}

#[test]
fn a_member_is_there_from_its_first_seat_to_its_last() {
    let mut room = room();
    room.join(seat(1), who("ann"), 5);
    room.join(seat(2), who("ann"), 6);
    room.join(seat(3), Who { id: MemberId::user("ann"), name: Some("Ann".into()) }, 7);
    assert_eq!((names(&room), room.count()), (vec!["ann*2".to_owned(), "ann*1".to_owned()], 2), "a user is another");
    room.join(seat(2), who("ann"), 8);
    room.leave(seat(1));
    room.leave(seat(9));
    assert_eq!(
        String::from_utf8(room.page(None, 9).to_json(&topic("t"))).unwrap(),
        "{\"topic\":\"t\",\"count\":2,\"members\":[{\"id\":\"ann\",\"name\":\"ann\",\"since\":5,\"connections\":1},\
         {\"id\":\"ann\",\"user\":true,\"name\":\"Ann\",\"since\":7,\"connections\":1}]}\n"
    );
    room.leave(seat(2));
    room.leave(seat(3));
    assert_eq!((room.count(), room.memory() > 0), (0, true));
}

#[test]
fn a_seat_that_another_takes_is_not_the_first_ones_any_more() {
    let mut room = room();
    room.join(seat(1), who("ann"), 5);
    room.join(seat(1), who("ben"), 6);
    assert_eq!(names(&room), ["ben*1"]);
}

#[test]
fn whoever_is_beyond_the_bound_is_counted() {
    let mut room = room();
    for connection in 0..5 {
        room.join(seat(connection), who(&format!("m{connection}")), 0);
    }
    assert_eq!((names(&room).len(), room.count(), room.is_truncated(), room.has_room_again()), (3, 5, true, false));
    room.leave(seat(4));
    room.leave(seat(0));
    assert_eq!((room.count(), room.has_room_again()), (3, true));
    // The roll.
    (1..4).for_each(|connection| room.join(seat(connection), who(&format!("m{connection}")), 9));
    assert_eq!((names(&room), room.is_truncated()), (["m1*1", "m2*1", "m3*1"].map(str::to_owned).to_vec(), false));
}

#[test]
fn a_list_has_pages() {
    let mut room = Presence::new(Mode::Members, 100);
    room.join(seat(9), Who { id: MemberId::user("a"), name: None }, 0);
    ["a", "b", "c"].iter().zip(0..).for_each(|(id, connection)| room.join(seat(connection), who(id), 0));
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = room.page(after.as_ref(), 2);
        seen.extend(page.members.iter().flatten().map(|member| member.id.write()));
        let Some(next) = page.next() else { break };
        after = MemberId::parse(&next);
    }
    assert_eq!(seen, ["member:a", "member:b", "member:c", "user:a"]);
    assert_eq!((MemberId::parse("ann"), MemberId::parse("x:ann")), (None, None));
    assert_eq!(MemberId::parse("user:a:b"), Some(MemberId::user("a:b")));
}

#[test]
fn those_who_watch_are_told_all_and_then_what_changes() {
    let mut room = room();
    room.join(seat(1), who("ann"), 5);
    room.watch(ShardId(0));
    assert_eq!(
        json(&room.list(&topic("t"))),
        ["{\"topic\":\"t\",\"presence\":{\"members\":[{\"id\":\"ann\",\"name\":\"ann\",\"since\":5}],\"count\":1}}"]
    );
    room.join(seat(2), who("ben"), 6);
    assert_eq!(json(&room.list(&topic("t"))).len(), 1, "ben is news to all");
    assert!(room.is_news() && !json(&room.list(&topic("t")))[0].contains("ben"));
    room.leave(seat(1));
    assert_eq!(
        json(&room.news(&topic("t")).unwrap()),
        ["{\"topic\":\"t\",\"presence\":{\"joined\":[{\"id\":\"ben\",\"name\":\"ben\",\"since\":6}],\
          \"left\":[{\"id\":\"ann\",\"name\":\"ann\"}],\"count\":1}}"]
    );
    room.join(seat(3), who("eve"), 7);
    room.leave(seat(3));
    assert!(room.news(&topic("t")).is_none(), "who comes and goes at once was not there");
    room.unwatch(ShardId(0));
    room.join(seat(3), who("eve"), 7);
    assert!(!room.is_news());
}

#[test]
fn numbers_are_told_where_nothing_else_is_kept_and_other_rules_begin_anew() {
    let mut room = Presence::new(Mode::Count, 3);
    room.set_subscriptions(7);
    room.watch(ShardId(1));
    assert_eq!(json(&room.list(&topic("t"))), ["{\"topic\":\"t\",\"presence\":{\"count\":7}}"]);
    room.set_subscriptions(9);
    assert_eq!(json(&room.news(&topic("t")).unwrap()), ["{\"topic\":\"t\",\"presence\":{\"count\":9}}"]);
    assert!(room.follow(Mode::Off, 3, false) && !room.follow(Mode::Off, 3, false));
    room.begin_anew();
    assert_eq!(json(&room.news(&topic("t")).unwrap()), ["{\"topic\":\"t\",\"presence\":{\"off\":true}}"]);
    assert!(room.follow(Mode::Members, 3, false));
    room.begin_anew();
    room.join(seat(1), who("ann"), 5);
    assert!(json(&room.news(&topic("t")).unwrap())[0].contains("\"members\":[{\"id\":\"ann\""));
    assert!(room.news(&topic("t")).is_none());
}

#[test]
fn a_long_list_comes_in_parts() {
    let mut room = Presence::new(Mode::Members, 1000);
    room.watch(ShardId(0));
    for connection in 0..1000 {
        room.join(seat(connection), who(&format!("m{connection:04}")), 0);
    }
    let news = room.news(&topic("t")).unwrap();
    let list = room.list(&topic("t"));
    assert!(news.len() > 3 && list.len() > 3);
    let more: Vec<bool> = json(&list).iter().map(|part| part.contains("\"more\":true")).collect();
    assert_eq!(more.iter().filter(|more| !**more).count(), 1);
    assert!(!more[more.len() - 1]);
}

#[test]
fn every_format_that_can_tell_it_does() {
    let mut room = room();
    room.join(seat(1), Who { id: MemberId::user("ann"), name: None }, 5);
    room.watch(ShardId(0));
    let notice = room.list(&topic("t"))[0].clone();
    let text = "{\"topic\":\"t\",\"presence\":{\"members\":[{\"id\":\"ann\",\"user\":true,\"name\":\"ann\",\"since\":5}],\
                \"count\":1}}";
    let encoded = |wire| notice.encoded(wire).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert_eq!(encoded(Wire::Sse).unwrap(), format!("event: presence\ndata: {text}\n\n"));
    assert_eq!(encoded(Wire::JsonLines).unwrap(), format!("{text}\n"));
    assert!(encoded(Wire::WebSocket).unwrap().ends_with(text) && encoded(Wire::JsonStream).unwrap().contains(text));
    assert_eq!([Wire::Line, Wire::Length, Wire::Json].map(encoded), [None, None, None]);
    let frame = edge::ServerFrame::decode(&notice.encoded(Wire::Grpc).unwrap()[5..]).unwrap();
    let Some(edge::server_frame::Frame::Presence(presence)) = frame.frame else { panic!("{frame:?}") };
    assert_eq!((presence.count, presence.list, &*presence.members[0].id), (1, true, "ann"));
}

/// Whatever comes and goes, one who watches and follows what it is told knows what is true; and a new one knows the same.
#[test]
fn what_is_told_adds_up_to_what_is_true() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut room = Presence::new(Mode::Members, 6);
        let (mut seats, mut known) = (BTreeMap::new(), BTreeSet::new());
        room.watch(ShardId(0));
        for step in 0..200 {
            let connection = u32::try_from(random.below(12)).unwrap();
            if random.below(2) == 0 {
                let id = format!("m{}", random.below(8));
                room.join(seat(connection), who(&id), step);
                seats.insert(connection, id);
            } else {
                room.leave(seat(connection));
                seats.remove(&connection);
            }
            if random.below(3) == 0 {
                for notice in room.news(&topic("t")).iter().flat_map(|news| news.iter()) {
                    let What::Changes(joined, left) = &notice.what else { panic!("{notice:?}") };
                    joined.iter().for_each(|one| assert!(known.insert(one.id.clone()), "seed {seed}: {one:?} twice"));
                    left.iter().for_each(|one| assert!(known.remove(&one.id), "seed {seed}: {one:?} was not there"));
                }
                let listed: BTreeSet<_> = room.page(None, 99).members.unwrap().into_iter().map(|one| one.id).collect();
                assert_eq!(known, listed, "seed {seed}, step {step}");
            }
            let list = room.list(&topic("t"));
            let What::Members(told, false) = &list[0].what else { panic!("{list:?}") };
            assert_eq!(told.iter().map(|one| one.id.clone()).collect::<BTreeSet<_>>(), known, "seed {seed}");
            let unlisted = room.count() - room.listed() as u64;
            let all: BTreeSet<_> = seats.values().collect();
            assert!(room.listed() as u64 + unlisted >= all.len() as u64 && room.listed() <= 6, "seed {seed}");
        }
    }
}

#[test]
fn a_long_user_is_cut_and_still_another_than_the_rest() {
    let long = |end: &str| MemberId::user(&format!("{}{end}", "ü".repeat(100)));
    assert_ne!(long("a"), long("b"));
    assert!(long("a").text.len() <= ID_BYTES_MAX);
}
