//! Crowds on a network of a script: what the server does is written down, and the clock is moved by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod calls;
mod script;
mod streams;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

pub(in crate::swarm) use self::script::Script;
use super::*;
use crate::io::Ending;
use crate::sim::ManualClock;
use crate::swarm::target::{App, Protocol, Target};

/// A clock on which time passes whenever somebody looks.
struct Busy(ManualClock);

impl Clock for Busy {
    fn now(&self) -> Instant {
        self.0.advance(Duration::from_millis(1));
        self.0.now()
    }

    fn unix_ms(&self) -> u64 {
        self.0.unix_ms()
    }

    fn rest(&self, duration: Duration) {
        self.0.rest(duration);
    }
}

/// A part that writes down what it hears.
#[derive(Default)]
struct Ear(Vec<(u32, Vec<u8>)>);

impl Part for Ear {
    fn message(&mut self, index: u32, _member: &mut Member, payload: &[u8], _heard: &mut Heard<'_>) {
        self.0.push((index, payload.to_vec()));
    }
}

fn target(protocol: Protocol) -> Target {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
    let (host, path) = (address.to_string(), "/topics/t".to_owned());
    Target { protocol, tls: false, address, host, path, first_frame: None, app: App::Topic }
}

pub(in crate::swarm) fn crowd(protocol: Protocol, places: usize) -> Crowd<Script> {
    let target = target(protocol);
    let client = crate::swarm::peer::Client::new(&target, [7; 16], 1000);
    let route = Route { client, address: target.address, greets: protocol.greets(), asks: None };
    let routes = [route.clone(), route.clone(), route.clone(), route];
    let timeout = Duration::from_secs(1);
    let publishers = Role::Holder;
    let manner = Manner { routes, publishers, places, window: 100, timeout, backlog_bytes_max: 1 << 20 };
    Crowd::new(Script::default(), manner)
}

impl Crowd<Script> {
    pub(in crate::swarm) fn script(&mut self) -> &mut Script {
        &mut self.backend
    }

    /// A turn at the time that the clock shows.
    pub(in crate::swarm) fn play(&mut self, clock: &ManualClock, part: &mut impl Part) {
        self.tick(clock);
        self.pace(part);
        self.flush();
        self.turn(Duration::ZERO, clock, part).unwrap();
        self.flush();
    }

    /// Opens `count` connections over a protocol without a welcome.
    pub(in crate::swarm) fn opened(&mut self, role: Role, count: usize, clock: &ManualClock, part: &mut impl Part) {
        let from = self.backend.dialled.len();
        self.open(role, count, Duration::ZERO);
        self.play(clock, part);
        for at in from..self.backend.dialled.len() {
            self.backend.stands(self.backend.dialled[at]);
        }
        self.play(clock, part);
        assert_eq!(self.backend.dialled.len() - from, count);
    }
}

#[test]
fn cut_frames_are_put_together_wherever_they_are_cut() {
    let whole = b"one\ntwo\n\nthree\n";
    for cut in 1..whole.len() {
        let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Line, 1));
        crowd.opened(Role::Holder, 1, &clock, &mut ear);
        let id = crowd.script().dialled[0];
        crowd.script().says(id, &whole[..cut]);
        crowd.script().says(id, &whole[cut..]);
        crowd.play(&clock, &mut ear);
        let heard: Vec<_> = ear.0.iter().map(|(_, payload)| payload.as_slice()).collect();
        assert_eq!(heard, [b"one".as_slice(), b"two", b"three"], "cut at {cut}");
        assert_eq!(crowd.tally[Count::Pings], 1);
        assert_eq!(crowd.script().sent, [(id, b"\n".to_vec())], "the heartbeat is answered");
        assert!(crowd.members[0].spill.is_none(), "and nothing is kept");
    }
}

#[test]
fn an_endless_frame_ends_its_connection() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Line, 1));
    crowd.opened(Role::Holder, 1, &clock, &mut ear);
    let id = crowd.script().dialled[0];
    crowd.script().says(id, b"first\n");
    for _ in 0..20 {
        crowd.script().says(id, &[b'x'; 100]);
    }
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.tally.losses().collect::<Vec<_>>(), [(Reason::Protocol, 1)]);
    assert_eq!(crowd.script().closed, [(id, Ending::Reset)]);
}

#[test]
fn what_a_socket_does_not_take_follows_when_there_is_room() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Line, 1));
    crowd.opened(Role::Holder, 1, &clock, &mut ear);
    let id = crowd.script().dialled[0];
    crowd.script().room = Some(4);
    assert!(crowd.send(0, |_, client, out| client.message(b"a message", None, out)));
    crowd.flush();
    assert!(!crowd.send(0, |_, client, out| client.message(b"too early", None, out)), "it holds back already");
    assert_eq!(crowd.script().wanted, [id]);
    crowd.script().stands(id);
    crowd.play(&clock, &mut ear);
    let sent: Vec<u8> = crowd.script().sent.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(sent, b"a message\n");
    assert_eq!(crowd.tally[Count::BytesSent], 10, "each byte counts once");
    assert!(crowd.send(0, |_, client, out| client.message(b"next", None, out)));
}

#[test]
fn two_messages_of_a_turn_are_two_flushes_and_in_order() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Line, 1));
    crowd.opened(Role::Holder, 1, &clock, &mut ear);
    for message in [b"one", b"two"] {
        assert!(crowd.send(0, |_, client, out| client.message(message, None, out)));
    }
    let sent: Vec<u8> = crowd.script().sent.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(sent, b"one\ntwo\n");
}

#[test]
fn a_reset_is_tried_again_and_then_it_is_a_limit() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::WebSocket, 1));
    crowd.open(Role::Holder, 1, Duration::ZERO);
    for tries in 1..=Reason::Reset.tries() {
        assert_eq!(crowd.obstacle, None);
        crowd.play(&clock, &mut ear);
        let id = *crowd.script().dialled.last().unwrap();
        assert_eq!(crowd.script().dialled.len(), usize::from(tries));
        crowd.script().fails(id, io::ErrorKind::ConnectionReset);
        crowd.play(&clock, &mut ear);
        clock.advance(Duration::from_secs(4));
    }
    assert_eq!(crowd.obstacle, Some(Reason::Reset.into()));
    assert_eq!((crowd.tally[Count::GivenUp], crowd.tally[Count::Retries], crowd.opening()), (1, 7, 0));
}

#[test]
fn a_connect_counts_from_when_it_was_due_whatever_came_between() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Length, 2));
    crowd.manner.routes[0].greets = true;
    crowd.open(Role::Holder, 2, Duration::from_millis(100));
    crowd.play(&clock, &mut ear);
    let first = crowd.script().dialled[0];
    crowd.script().fails(first, io::ErrorKind::ConnectionReset);
    crowd.play(&clock, &mut ear);
    // A stall: the second was due at 100 ms, and the first is tried again.
    clock.advance(Duration::from_millis(500));
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.script().dialled.len(), 3);
    let tried = crowd.script().dialled.split_off(1);
    for id in tried {
        crowd.script().stands(id);
    }
    crowd.play(&clock, &mut ear);
    let [least, most] = [crowd.connect.first(), crowd.connect.last()].map(|time| time.as_millis());
    assert_eq!((crowd.connect.count(), least.abs_diff(400) <= 1, most.abs_diff(500) <= 1), (2, true, true));
}

#[test]
fn a_raw_connect_that_was_refused_late_counts_from_the_first_dial() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Line, 1));
    crowd.opened(Role::Holder, 1, &clock, &mut ear);
    let first = crowd.script().dialled[0];
    crowd.script().ends(first);
    crowd.play(&clock, &mut ear);
    clock.advance(Duration::from_secs(1));
    crowd.play(&clock, &mut ear);
    let second = crowd.script().dialled[1];
    crowd.script().stands(second);
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.connect.last().as_millis().abs_diff(1000), 0, "{:?}", crowd.connect.last());
}

#[test]
fn who_does_not_answer_in_time_is_given_up_for_now() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::WebSocket, 1));
    crowd.open(Role::Holder, 1, Duration::ZERO);
    crowd.play(&clock, &mut ear);
    let id = crowd.script().dialled[0];
    crowd.script().stands(id);
    crowd.script().says(id, b"HTTP/1.1 101 Swit");
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.tally[Count::Standing], 0, "half a welcome is none");
    clock.advance(Duration::from_secs(1));
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.script().closed, [(id, Ending::Reset)]);
    assert_eq!(crowd.tally.failures().collect::<Vec<_>>(), [(Reason::TimedOut, 1)]);
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::WebSocket, 1));
    crowd.open(Role::Holder, 1, Duration::ZERO);
    crowd.play(&clock, &mut ear);
    let id = crowd.script().dialled[0];
    crowd.script().stands(id);
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    crowd.script().says(id, answer);
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.tally.failures().collect::<Vec<_>>(), [(Reason::Busy, 1)]);
    assert_eq!((crowd.tally[Count::Retries], crowd.obstacle), (1, None));
    clock.advance(Duration::from_millis(990));
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.script().dialled.len(), 1, "not before the time that it asked for");
    clock.advance(Duration::from_millis(10));
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.script().dialled.len(), 2);
}

#[test]
fn a_no_that_stays_is_told_as_the_server_says_it() {
    for (status, what, mend) in [
        ("404 X", "the server answered 404 Not Found", "check the target's path"),
        ("403 X", "the server answered 403 Forbidden", "the server lets only others in: check its origins and rules"),
    ] {
        let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::WebSocket, 1));
        answered(&mut crowd, &clock, &mut ear, status);
        let cause = crowd.obstacle.unwrap();
        assert_eq!((cause.reason, cause.what().as_str(), cause.mend()), (Reason::Declined, what, mend));
    }
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::WebSocket, 1));
    answered(&mut crowd, &clock, &mut ear, "429 X\r\nRetry-After: 1");
    assert_eq!((crowd.tally[Count::Retries], crowd.obstacle), (1, None), "and asked again when that is all");
}

/// Dials one, whose upgrade is answered with this status.
fn answered(crowd: &mut Crowd<Script>, clock: &ManualClock, ear: &mut Ear, status: &str) {
    crowd.open(Role::Holder, 1, Duration::ZERO);
    crowd.play(clock, ear);
    let id = crowd.script().dialled[0];
    crowd.script().stands(id);
    crowd.script().says(id, format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
    crowd.play(clock, ear);
}

#[test]
fn without_a_welcome_an_end_before_any_data_is_a_failed_try() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Length, 2));
    crowd.opened(Role::Holder, 2, &clock, &mut ear);
    assert_eq!(crowd.tally[Count::Standing], 2);
    crowd.script().says(ConnId::new(1, 0), b"\0\0\0\0");
    for id in crowd.script().dialled.clone() {
        crowd.script().ends(id);
    }
    crowd.play(&clock, &mut ear);
    assert_eq!((crowd.tally[Count::Standing], crowd.tally[Count::Retries], crowd.tally[Count::Lost]), (0, 1, 1));
}

#[test]
fn who_said_good_bye_answers_no_more() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Line, 1));
    crowd.opened(Role::Holder, 1, &clock, &mut ear);
    let id = crowd.script().dialled[0];
    crowd.leave(id);
    crowd.script().says(id, b"\n");
    crowd.play(&clock, &mut ear);
    assert_eq!((crowd.tally[Count::Pings], crowd.script().sent.len()), (1, 0), "its end of the stream is closed");
}

#[test]
fn a_turn_ends_in_time_though_more_has_come() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Line, 1));
    crowd.opened(Role::Holder, 1, &clock, &mut ear);
    let id = crowd.script().dialled[0];
    for _ in 0..100 {
        crowd.script().says(id, b"message\n");
    }
    let busy = Busy(clock);
    let heard: Vec<_> = (0..6)
        .map(|_| {
            crowd.turn(Duration::ZERO, &busy, &mut ear).unwrap();
            std::mem::take(&mut ear.0).len()
        })
        .collect();
    assert_eq!(heard, [20, 20, 20, 20, 20, 0]);
}

#[test]
fn a_place_is_used_again_as_somebody_else() {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Line, 1));
    crowd.opened(Role::Guest, 1, &clock, &mut ear);
    assert_eq!(crowd.dial(Role::Guest, Instant::ZERO), None, "there is one place");
    let first = crowd.script().dialled[0];
    crowd.reset(first);
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.tally[Count::Guests], 0);
    crowd.opened(Role::Guest, 1, &clock, &mut ear);
    let second = crowd.script().dialled[1];
    assert_eq!(second.index(), first.index());
    assert_ne!(second, first);
    crowd.script().says(first, b"late\n");
    crowd.play(&clock, &mut ear);
    assert_eq!(ear.0, [], "what was said to the first is not heard by the second");
}
