//! Streams of server-sent events, and the one that publishes to them.

use super::*;
use crate::swarm::part::publisher::Series;
use crate::swarm::part::{Actor, Order};
use crate::swarm::stamp::{Stamp, Template};

const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const WELCOME: &str = "retry: 3000\nid: 1:0\n\n";
const RUN: u32 = 9;

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A crowd that dials one member in this role.
fn dialled(role: Role) -> (Crowd<Script>, ManualClock, Ear, ConnId) {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Sse, 4));
    crowd.opened(role, 1, &clock, &mut ear);
    let id = crowd.script().dialled[0];
    (crowd, clock, ear, id)
}

/// The same, with a stream that stands.
fn standing(head: &str) -> (Crowd<Script>, ManualClock, Ear, ConnId) {
    let (mut crowd, clock, mut ear, id) = dialled(Role::Holder);
    crowd.script().says(id, head.as_bytes());
    crowd.play(&clock, &mut ear);
    assert_eq!((crowd.tally[Count::Standing], crowd.opening()), (1, 0));
    (crowd, clock, ear, id)
}

#[test]
fn events_are_heard_wherever_they_and_their_chunks_are_cut() {
    let events = [
        WELCOME,
        "id: 1:1\ndata: one\n\n:\n\nid: 1:2\r\ndata: two\r\ndata: lines\r\n\r\n",
        "id: 1:3\ndata: three",
        "\n\n",
    ];
    let plain = format!("{PLAIN}{}", events.concat());
    let chunked = format!("{CHUNKED}{}", events.map(chunk).concat());
    for bytes in [plain.as_bytes(), chunked.as_bytes()] {
        for cut in 0..=bytes.len() {
            let (mut crowd, clock, mut ear, id) = dialled(Role::Holder);
            assert_eq!(crowd.tally[Count::Standing], 0, "a stream is open with its head");
            crowd.script().says(id, &bytes[..cut]);
            crowd.script().says(id, &bytes[cut..]);
            crowd.play(&clock, &mut ear);
            let heard: Vec<_> = ear.0.iter().map(|(_, payload)| payload.as_slice()).collect();
            assert_eq!(heard, [b"one".as_slice(), b"two\nlines", b"three"], "cut at {cut}");
            assert_eq!((crowd.tally[Count::Heartbeats], crowd.tally[Count::Pings]), (1, 0));
            assert_eq!(crowd.script().sent, [], "nothing is ever said");
            assert!(crowd.members[0].spill.is_none(), "and nothing is kept");
        }
    }
}

#[test]
fn a_stream_costs_no_more_than_a_member_between_events() {
    let (mut crowd, clock, mut ear, id) = standing(CHUNKED);
    for byte in chunk(": heartbeat\n").as_bytes() {
        crowd.script().says(id, &[*byte]);
    }
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.tally[Count::Heartbeats], 1);
    assert!(crowd.members[0].spill.is_none(), "a comment need not wait for an empty line");
}

#[test]
fn the_last_chunk_is_an_end_as_that_of_the_connection_is() {
    for (head, last) in [(PLAIN, None), (CHUNKED, Some("0\r\n\r\n"))] {
        let (mut crowd, clock, mut ear, id) = standing(head);
        match last {
            Some(last) => crowd.script().says(id, last.as_bytes()),
            None => crowd.script().ends(id),
        }
        crowd.play(&clock, &mut ear);
        assert_eq!(crowd.tally.losses().collect::<Vec<_>>(), [(Reason::Ended, 1)]);
        assert_eq!((crowd.tally[Count::Lost], crowd.tally[Count::Retries]), (1, 0), "it stood, and is not tried again");
    }
}

#[test]
fn what_is_no_stream_ends_its_connection() {
    for (head, bytes) in [(CHUNKED, "data: x\n\n".to_owned()), (PLAIN, "x".repeat(3000))] {
        let (mut crowd, clock, mut ear, id) = standing(head);
        crowd.script().says(id, bytes.as_bytes());
        crowd.play(&clock, &mut ear);
        assert_eq!(crowd.tally.losses().collect::<Vec<_>>(), [(Reason::Protocol, 1)]);
        assert_eq!(crowd.script().closed, [(id, Ending::Reset)]);
    }
}

#[test]
fn a_server_that_declines_is_told_with_its_status() {
    let (mut crowd, clock, mut ear, id) = dialled(Role::Holder);
    crowd.script().says(id, b"HTTP/1.1 406 X\r\nContent-Length: 0\r\n\r\n");
    crowd.play(&clock, &mut ear);
    let cause = crowd.obstacle.unwrap();
    assert_eq!((cause.reason, cause.what().as_str()), (Reason::Declined, "the server answered 406 Not Acceptable"));
}

#[test]
fn a_good_bye_is_the_end_of_our_side_and_waits_for_the_servers() {
    for last in [None, Some("0\r\n\r\n")] {
        let (mut crowd, clock, mut ear, id) = standing(CHUNKED);
        crowd.leave(id);
        let script = crowd.script();
        assert_eq!((&script.shut[..], script.sent.len()), (&[id][..], 0));
        crowd.script().says(id, chunk("data: late\n\n").as_bytes());
        match last {
            Some(last) => crowd.script().says(id, last.as_bytes()),
            None => crowd.script().ends(id),
        }
        crowd.play(&clock, &mut ear);
        assert_eq!((crowd.script().closed.clone(), crowd.tally[Count::Lost]), (vec![(id, Ending::Graceful)], 0));
    }
}

/// A crowd with a stream that stands, and a publisher that has been dialled; its route is a WebSocket without a key.
fn with_publisher() -> (Crowd<Script>, ManualClock, Actor, [ConnId; 2]) {
    let (clock, mut actor) = (ManualClock::new(), Actor::new(RUN, 64));
    let mut crowd = crowd(Protocol::Sse, 4);
    crowd.manner.publishers = Role::Publisher;
    crowd.manner.routes[Role::Publisher as usize] = super::crowd(Protocol::Line, 1).manner.routes[0].clone();
    crowd.opened(Role::Publisher, 1, &clock, &mut actor);
    crowd.opened(Role::Holder, 1, &clock, &mut actor);
    let ids = [crowd.script().dialled[0], crowd.script().dialled[1]];
    crowd.script().says(ids[1], CHUNKED.as_bytes());
    crowd.play(&clock, &mut actor);
    (crowd, clock, actor, ids)
}

fn publish(first: u32, crowd: &mut Crowd<Script>, actor: &mut Actor) {
    let series = Series { first, count: 1, start: None, interval: Duration::ZERO };
    actor.obey(Order::Publish(series), crowd);
    actor.act(crowd);
    crowd.flush();
}

#[test]
fn the_publisher_is_none_of_those_who_are_counted() {
    let (mut crowd, clock, mut actor, [publisher, holder]) = with_publisher();
    let counts = [Count::Opened, Count::Open, Count::Standing, Count::Publishers].map(|count| crowd.tally[count]);
    assert_eq!((counts, crowd.connect.count()), ([1; 4], 1));
    publish(1, &mut crowd, &mut actor);
    let [(from, said)] = crowd.script().sent.as_slice() else { panic!("one publication") };
    assert_eq!((*from, Stamp::read(said).map(|stamp| stamp.number)), (publisher, Some(1)));
    let message = Template::new(RUN, 64).stamp(1, Instant::ZERO).to_vec();
    let event = format!("id: 1:1\ndata: {}\n\n", String::from_utf8(message).unwrap());
    crowd.script().says(holder, chunk(&event).as_bytes());
    // A heartbeat of the publisher's, and its own message: neither counts.
    crowd.script().says(publisher, b"\nhl own\n");
    crowd.play(&clock, &mut actor);
    let counts = [Count::Called, Count::Heard, Count::Foreign, Count::Pings].map(|count| crowd.tally[count]);
    assert_eq!(counts, [1, 1, 0, 0]);
    crowd.vanish(1.0);
    assert_eq!((crowd.tally[Count::Vanished], crowd.tally[Count::Publishers]), (1, 1));
}

#[test]
fn a_publisher_that_is_lost_comes_back_and_what_was_due_meanwhile_leaves_then() {
    let (mut crowd, clock, mut actor, [publisher, _]) = with_publisher();
    publish(1, &mut crowd, &mut actor);
    crowd.script().sent.clear();
    crowd.script().says(publisher, b"\n");
    crowd.script().fails(publisher, io::ErrorKind::ConnectionReset);
    crowd.play(&clock, &mut actor);
    assert_eq!((crowd.tally[Count::Publishers], crowd.tally[Count::Lost], crowd.tally[Count::Standing]), (0, 0, 1));
    crowd.script().sent.clear();
    publish(2, &mut crowd, &mut actor);
    assert_eq!(crowd.script().sent, []);
    // It is refused more often than a connection that was never there.
    for _ in 0..20 {
        clock.advance(Duration::from_secs(4));
        crowd.play(&clock, &mut actor);
        let id = *crowd.script().dialled.last().unwrap();
        crowd.script().fails(id, io::ErrorKind::ConnectionRefused);
        crowd.play(&clock, &mut actor);
    }
    clock.advance(Duration::from_secs(4));
    crowd.play(&clock, &mut actor);
    let id = *crowd.script().dialled.last().unwrap();
    crowd.script().stands(id);
    crowd.play(&clock, &mut actor);
    actor.act(&mut crowd);
    let [(from, said)] = crowd.script().sent.as_slice() else { panic!("one publication") };
    assert_eq!((*from, Stamp::read(said).map(|stamp| stamp.number)), (id, Some(2)));
    assert_eq!((crowd.obstacle, crowd.tally[Count::Publishers]), (None, 1));
}
