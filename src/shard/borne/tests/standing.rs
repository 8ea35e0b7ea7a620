//! Streams that are there while the keys become others, and one that was held.

use std::sync::Arc;
use std::time::Duration;

use super::scene::{CONNECT, Pages, Scene, call, data, guarded, message, publication, request};
use crate::access::{Access, ApiKeys, FromFile};
use crate::close::CloseReason;
use crate::codec::grpc::generated::edge::{Authenticate, ClientFrame, ServerFrame, client_frame, server_frame};
use crate::codec::http2::frame::flag;
use crate::config::Limits;
use crate::rule::Limit;
use crate::shard::Live;
use crate::shard::connection::Flags;

fn authentication(id: u32, token: &str) -> Vec<u8> {
    let frame = Some(client_frame::Frame::Authenticate(Authenticate { token: token.to_owned() }));
    message(&ClientFrame { id, frame })
}

/// What a call was told since the last time.
fn told(scene: &mut Scene, stream: u32) -> Vec<server_frame::Frame> {
    scene.seen();
    let (mut body, mut frames) = (&scene.bodies.remove(&stream).unwrap_or_default()[..], Vec::new());
    while let Some((prefix, rest)) = body.split_first_chunk::<5>() {
        let (one, rest) = rest.split_at(u32::from_be_bytes(*prefix[1..].first_chunk().unwrap()) as usize);
        frames.extend(<ServerFrame as prost::Message>::decode(one).unwrap().frame);
        body = rest;
    }
    frames
}

#[test]
fn calls_are_asked_who_they_are_when_that_begins_and_end_without_an_answer() {
    const KEY: &str = "a-key-of-a-client-s";
    let mut scene = Scene::new(1 << 20);
    scene.send(&[call(1, CONNECT), call(3, CONNECT), call(5, "/grpc.health.v1.Health/Watch")]);
    scene.send(&[data(5, 0, b"\0\0\0\0\0")]);
    // While nobody is asked a token is taken unseen, as those of requests are.
    scene.send(&[data(1, 0, &authentication(7, "whatever"))]);
    assert!(matches!(told(&mut scene, 1)[..], [server_frame::Frame::Authenticated(ref one)] if one.expires == 0));

    let keys = "[[key]]\nname = \"ann\"\nkey = \"a-key-of-a-client-s\"\npublish = [\"t\"]\n";
    let api_keys = FromFile { path: None, content: Arc::new(ApiKeys::from_toml(keys).unwrap()) };
    let access = Access { api_keys, ..Access::default() };
    let running = scene.shard.core.control.live();
    scene.shard.core.control.replace(Live { access: Arc::new(access), drain: Duration::ZERO, ..Live::clone(&running) });
    scene.rest();
    for stream in [1, 3] {
        assert!(matches!(told(&mut scene, stream)[..], [server_frame::Frame::Expiring(_)]), "{stream}");
    }
    scene.send(&[data(1, 0, &authentication(8, "whatever"))]);
    assert!(matches!(told(&mut scene, 1)[..], [server_frame::Frame::Error(ref one)] if one.code == "unauthenticated"));
    scene.send(&[data(1, 0, &authentication(9, KEY))]);
    assert!(matches!(told(&mut scene, 1)[..], [server_frame::Frame::Authenticated(_)]));
    scene.clock.advance(Duration::from_secs(31));
    scene.rest();
    let seen = scene.seen();
    assert!(
        seen.contains(&"3 fields 16 end".to_owned()) && seen.iter().all(|line| !line.starts_with("5 ")),
        "{seen:?}"
    );
    scene.send(&[data(1, 0, &publication(10))]);
    assert!(matches!(told(&mut scene, 1)[..], [server_frame::Frame::Published(_)]));
    assert_eq!(scene.metrics.total(|shard| shard.closed(CloseReason::AuthExpired)), 0, "the connection stays");
    assert_eq!(scene.metrics.total(|shard| shard.auth_lapsed_total.get()), 2);
}

#[test]
fn a_stream_that_an_operator_looks_at_ends_with_its_key() {
    const KEY: &str = "an-operators-own-key";
    let mut scene = Scene::of(guarded(KEY), Arc::new(Pages), 65_535);
    let bearer = format!("Bearer {KEY}");
    let fields = [("accept", "text/event-stream"), ("authorization", &*bearer)];
    scene.send(&[request(1, flag::END_STREAM, "GET", "/topics/t", &fields)]);
    assert_eq!(scene.seen()[0], "1 fields 200");
    scene.shard.core.control.replace(Live { drain: Duration::ZERO, ..guarded("another-operators-key") });
    scene.rest();
    scene.clock.advance(Duration::from_secs(31));
    scene.rest();
    assert_eq!(scene.seen().last().unwrap(), "1 data end");
    assert!(String::from_utf8_lossy(&scene.bodies[&1]).contains("event: expired"));
}

/// A request that was held while its connection waited for room to publish is paid for like one that was read at once.
#[test]
fn what_a_stream_publishes_later_is_paid_for_too() {
    let mut scene = Scene::with(Limits { message_rate: 1, ..Limits::default() }, 65_535);
    scene.send(&[request(1, 0, "POST", "/topics/t", &[]), data(1, 0, b"one")]);
    scene.send(&[request(3, 0, "POST", "/topics/t", &[]), data(3, flag::END_STREAM, b"two")]);
    assert_eq!(scene.seen()[0], "3 fields 200");
    // The first is held when its end comes, as one is that a full mailbox has stopped.
    let stream =
        scene.shard.core.table.iter().map(|(id, _)| id).find(|id| scene.shard.core.bearer(*id).is_some()).unwrap();
    scene.shard.core.set(stream, Flags::STALLED);
    scene.clock.advance(Duration::from_secs(1));
    scene.client.write(&data(1, flag::END_STREAM, b"and all"));
    (0..3).for_each(|_| assert!(scene.shard.turn(&scene.clock).is_ok()));
    assert!(scene.client.read().is_empty());
    let before = scene.metrics.total(|shard| shard.struck(Limit::MessageRate));
    scene.shard.core.stalled.push_back(stream);
    scene.rest();
    assert_eq!(scene.seen()[0], "1 fields 200");
    scene.send(&[request(5, 0, "POST", "/topics/t", &[]), data(5, flag::END_STREAM, b"three")]);
    let struck = scene.metrics.total(|shard| shard.struck(Limit::MessageRate)) - before;
    assert!(struck > 0, "the second within a second");
}
