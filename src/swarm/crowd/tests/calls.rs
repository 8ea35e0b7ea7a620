//! gRPC calls, one on each connection: some that hear a topic, others that speak to an echo.

use super::*;
use crate::codec::Kind;
use crate::codec::grpc;
use crate::codec::grpc::client::{read_echo, write_echo_head};
use crate::codec::http2::frame::{self, Header, flag, kind};
use crate::codec::http2::{StreamId, response};
use crate::codec::json::Place;
use crate::session::caller::STREAM;
use crate::swarm::part::echo::{Load, Pace};
use crate::swarm::part::{Actor, Order};

const ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";
const GRPC: (&[u8], &[u8]) = (b"content-type", b"application/grpc");

fn settings() -> Vec<u8> {
    frame_of(kind::SETTINGS, &[])
}

fn frame_of(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(kind, 0, StreamId::CONNECTION, payload, &mut out);
    out
}

fn head() -> Vec<u8> {
    let mut out = Vec::new();
    response::write_head(STREAM, 200, [GRPC].into_iter(), false, &mut out);
    out
}

fn trailers(status: &str) -> Vec<u8> {
    let mut out = Vec::new();
    response::write_trailers(STREAM, [(&b"grpc-status"[..], status.as_bytes())].into_iter(), &mut out);
    out
}

fn data(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(kind::DATA, 0, STREAM, bytes, &mut out);
    out
}

/// Messages of a topic, as a server says them.
fn messages(texts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for (offset, text) in (1..).zip(texts) {
        grpc::write_message(Place { topic: "t", epoch: 1, offset }, 0, Kind::Text, text.as_bytes(), None, &mut out);
    }
    out
}

/// A crowd that dials one member, which calls an echo or a topic.
fn dialled(app: App) -> (Crowd<Script>, ManualClock, Ear, ConnId) {
    let (clock, mut ear, mut crowd) = (ManualClock::new(), Ear::default(), crowd(Protocol::Grpc, 4));
    let target = Target { app, path: "/echo".to_owned(), ..target(Protocol::Grpc) };
    if app == App::Echo {
        crowd.manner.routes[Role::Echo as usize].client = crate::swarm::peer::Client::new(&target, [7; 16], 1000);
    }
    let role = if app == App::Echo { Role::Echo } else { Role::Holder };
    crowd.opened(role, 1, &clock, &mut ear);
    let id = crowd.script().dialled[0];
    (crowd, clock, ear, id)
}

/// The same, with a call that the server has taken.
fn standing(app: App) -> (Crowd<Script>, ManualClock, Ear, ConnId) {
    let (mut crowd, clock, mut ear, id) = dialled(app);
    crowd.script().says(id, &[settings(), head()].concat());
    crowd.play(&clock, &mut ear);
    assert_eq!((crowd.tally[Count::Standing], crowd.opening()), (1, 0));
    crowd.script().sent.clear();
    (crowd, clock, ear, id)
}

#[test]
fn messages_are_heard_wherever_they_and_their_frames_are_cut() {
    let said = messages(&["one", "two", "three"]);
    let bytes = [
        settings(),
        head(),
        data(&said[..20]),
        frame_of(kind::PING, b"heartbea"),
        data(&said[20..40]),
        data(&said[40..]),
    ];
    let bytes = bytes.concat();
    for cut in 0..=bytes.len() {
        let (mut crowd, clock, mut ear, id) = dialled(App::Topic);
        assert_eq!(crowd.tally[Count::Standing], 0, "a call is open with its head");
        crowd.script().says(id, &bytes[..cut]);
        crowd.script().says(id, &bytes[cut..]);
        crowd.play(&clock, &mut ear);
        let heard: Vec<_> = ear.0.iter().map(|(_, payload)| payload.as_slice()).collect();
        assert_eq!(heard, [b"one".as_slice(), b"two", b"three"], "cut at {cut}");
        assert_eq!((crowd.tally[Count::Pings], crowd.tally[Count::Heartbeats]), (1, 0));
        let sent: Vec<u8> = crowd.script().sent.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        assert_eq!(sent, [ACK, b"\0\0\x08\x06\x01\0\0\0\0heartbea"].concat(), "cut at {cut}");
        assert!(crowd.members[0].spill.is_none(), "and nothing is kept");
        assert_eq!(crowd.members[0].sent as usize, said.len(), "but what is to be credited");
    }
}

#[test]
fn settings_are_acknowledged_before_the_call_is_taken() {
    let (mut crowd, clock, mut ear, id) = dialled(App::Topic);
    crowd.script().says(id, &settings());
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.tally[Count::Standing], 0);
    assert_eq!(crowd.script().sent, [(id, ACK.to_vec())]);
}

#[test]
fn a_call_that_ends_is_told_with_its_status() {
    let (mut crowd, clock, mut ear, id) = standing(App::Topic);
    crowd.script().says(id, &trailers("14"));
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.tally.closes().collect::<Vec<_>>(), [(14, 1)]);
    assert_eq!((crowd.tally[Count::Lost], crowd.script().closed.clone()), (1, vec![(id, Ending::Graceful)]));
}

#[test]
fn a_server_that_declines_is_told_with_what_it_says() {
    let mut unimplemented = Vec::new();
    let fields = [GRPC, (&b"grpc-status"[..], &b"12"[..])];
    response::write_head(STREAM, 200, fields.into_iter(), true, &mut unimplemented);
    let mut reset = Vec::new();
    frame::write(kind::RST_STREAM, 0, STREAM, &[0, 0, 0, 1], &mut reset);
    for (answer, what) in [
        ([settings(), unimplemented].concat(), "the server ended the call with status 12 (UNIMPLEMENTED)"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not a gRPC server: what it says is not HTTP/2"),
    ] {
        let (mut crowd, clock, mut ear, id) = dialled(App::Topic);
        crowd.script().says(id, &answer);
        crowd.play(&clock, &mut ear);
        let cause = crowd.obstacle.unwrap();
        assert_eq!((cause.what().as_str(), cause.mend().is_empty()), (what, false));
    }
    let (mut crowd, clock, mut ear, id) = dialled(App::Topic);
    crowd.script().says(id, &[settings(), reset].concat());
    crowd.play(&clock, &mut ear);
    assert_eq!(crowd.tally.failures().collect::<Vec<_>>(), [(Reason::Reset, 1)], "which is tried again");
}

#[test]
fn a_good_bye_cancels_the_call_and_waits_for_the_servers_end() {
    let (mut crowd, clock, mut ear, id) = standing(App::Topic);
    crowd.leave(id);
    crowd.flush();
    let script = crowd.script();
    let (kinds, shut) = (kinds(&script.sent[0].1), script.shut.clone());
    assert_eq!((kinds, shut), (vec![kind::RST_STREAM, kind::GOAWAY], vec![]));
    crowd.script().ends(id);
    crowd.play(&clock, &mut ear);
    assert_eq!((crowd.script().closed.clone(), crowd.tally[Count::Lost]), (vec![(id, Ending::Graceful)], 0));
}

fn kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let header = Header::parse(header);
        kinds.push(header.kind);
        bytes = &rest[header.length as usize..];
    }
    kinds
}

/// The messages in what was sent, and the bytes of its DATA frames.
fn echoes(crowd: &mut Crowd<Script>) -> (Vec<Vec<u8>>, usize) {
    let sent: Vec<u8> = crowd.script().sent.drain(..).flat_map(|(_, bytes)| bytes).collect();
    let (mut rest, mut said) = (sent.as_slice(), Vec::new());
    while let Some((header, after)) = rest.split_first_chunk() {
        let header = Header::parse(header);
        assert_eq!((header.kind, header.has(flag::END_STREAM)), (kind::DATA, false));
        let (payload, after) = after.split_at(header.length as usize);
        said.extend_from_slice(payload);
        rest = after;
    }
    let (mut messages, mut rest, bytes) = (Vec::new(), said.as_slice(), said.len());
    while let Some(([0, length @ ..], after)) = rest.split_first_chunk::<5>() {
        let Some((message, after)) = after.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        messages.push(read_echo(message).unwrap().to_vec());
        rest = after;
    }
    (messages, bytes)
}

#[test]
fn echoes_stay_within_the_servers_windows() {
    const SIZE: usize = 900;
    let (mut crowd, clock, _, id) = standing(App::Echo);
    let mut actor = Actor::new(9, SIZE);
    let until = Instant::from_millis(60_000);
    let load = Load { pace: Pace::Closed, in_flight: 100, measure_from: Instant::ZERO, until };
    actor.obey(Order::Echo(load), &mut crowd);
    for _ in 0..100 {
        actor.act(&mut crowd);
        crowd.flush();
    }
    let (messages, bytes) = echoes(&mut crowd);
    assert_eq!((bytes, messages.len()), (65_535, 65_535 / (SIZE + 5 + 3)), "the first window, and no more");
    // One comes back; the windows are as full as before.
    let back = |message: &[u8]| {
        let mut echo = Vec::new();
        write_echo_head(message.len(), &mut echo);
        echo.extend_from_slice(message);
        let mut out = Vec::new();
        grpc::encode(&echo, &mut out);
        data(&out)
    };
    crowd.script().says(id, &back(&messages[0]));
    crowd.play(&clock, &mut actor);
    assert_eq!((crowd.tally[Count::Answered], echoes(&mut crowd).1), (1, 0));
    let mut update = frame_of(kind::WINDOW_UPDATE, &1_000_000_u32.to_be_bytes());
    frame::write_window_update(STREAM, 1_000_000, &mut update);
    crowd.script().says(id, &update);
    crowd.play(&clock, &mut actor);
    actor.act(&mut crowd);
    crowd.flush();
    let whole = (100 + 1) * (SIZE + 5 + 3);
    assert_eq!(65_535 + echoes(&mut crowd).1, whole, "what waited, and what one answer and the window made room for");
}
