//! Memory of members that a topic lists.

use std::thread;

use holdline::app::standard_routes;
use holdline::cluster::port::NodeId;
use holdline::cluster::presence::{Entry, Version, Whisper, parts};
use holdline::config::{self, BackendChoice};
use holdline::hub::presence::{MemberId, Presence, Seat, Who};
use holdline::id::ShardId;

use super::counting::Watch;
use crate::common::{Client, Running, config, until};

/// One member, with an id of 16 bytes, at the topic's owner; and what an owner on another node keeps of it.
const BUDGET_BYTES: i64 = 240;
/// The same with what the shard of its connection keeps, beside what that takes in a topic that lists nobody.
const WHOLE_BUDGET_BYTES: i64 = 480;

const MEMBERS: u32 = 100_000;
const CONNECTIONS: u32 = 1000;

fn id(number: u32) -> String {
    format!("member-{number:09}")
}

/// What each member of a list takes.
fn each(watch: &Watch, fill: impl FnOnce(&mut Presence) + Send) -> i64 {
    let hold = || {
        let before = watch.live_bytes();
        let mut room = Presence::new(config::Presence::Members, usize::MAX);
        fill(&mut room);
        assert_eq!(room.listed(), MEMBERS as usize);
        watch.live_bytes() - before
    };
    // Only what shards allocate is counted.
    let shard = || thread::Builder::new().name("shard-0".to_owned());
    let held = thread::scope(|scope| shard().spawn_scoped(scope, hold).unwrap().join().unwrap());
    held / i64::from(MEMBERS)
}

#[test]
fn a_member_on_a_list_is_cheap() {
    let watch = Watch::new();
    let here = each(&watch, |room| {
        for connection in 0..MEMBERS {
            let who = Who { id: MemberId::other(&id(connection)), name: None };
            room.join(Seat { shard: ShardId(0), connection }, who, 1);
        }
    });
    let there = each(&watch, |room| {
        room.go_abroad(1);
        let entry = Entry { name: None, since_ms: 1, connections: 1 };
        let all = (0..MEMBERS).map(|number| (MemberId::other(&id(number)), Some(entry.clone()))).collect();
        for (number, changes) in (1..).zip(parts(all)) {
            let (version, count) = (Version { life: 1, number }, u64::from(MEMBERS));
            // As it comes from the other node: nothing is shared with what was written.
            let bytes = Whisper::Changes { version, count, changes }.encode();
            let asks = room.hear(NodeId(1), NodeId(2), Whisper::decode(&bytes).unwrap());
            assert_eq!(asks, None);
        }
    });
    println!("{MEMBERS} members: {here} bytes for each at the owner where it is, {there} on each other node");
    assert!(here <= BUDGET_BYTES && there <= BUDGET_BYTES, "{here} and {there} bytes");
}

#[test]
fn a_connection_that_is_a_member_is_little_dearer() {
    let watch = Watch::new();
    let held = |presence| {
        let before = watch.live_bytes();
        let mut config = config(BackendChoice::Epoll, 1);
        (config.presence, config.limits.connections_max) = (presence, CONNECTIONS as usize);
        let running = Running::start(&config, standard_routes());
        let path = |number| format!("/topics/news?member={}", id(number));
        let clients: Vec<Client> = (0..CONNECTIONS).map(|number| running.websocket(&path(number))).collect();
        let listed = if presence == config::Presence::Off { 0 } else { u64::from(CONNECTIONS) };
        until("all are there", || {
            running.count(|shard| shard.subscriptions.get()) == u64::from(CONNECTIONS)
                && running.count(|shard| shard.presence_members.get()) == listed
        });
        let held = watch.live_bytes() - before;
        drop(clients);
        held
    };
    let (off, on) = (held(config::Presence::Off), held(config::Presence::Members));
    let each = (on - off) / i64::from(CONNECTIONS);
    println!("a connection that is a member takes {each} bytes more");
    assert!(each <= WHOLE_BUDGET_BYTES, "{each} bytes");
}
