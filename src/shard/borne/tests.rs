//! Streams of one connection, and what its client sees of them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ending;
mod pace;
mod scene;
mod standing;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use super::*;
use crate::access::{Access, Key};
use crate::app::standard_routes;
use crate::codec::grpc;
use crate::codec::grpc::generated::edge::{
    Authenticate, ClientFrame, EchoMessage, Publish, Subscribe, client_frame, publish,
};
use crate::codec::http2::frame::{PREFACE, flag, kind};
use crate::config::{Limits, Networks};
use crate::id::ShardId;
use crate::metrics::ShardMetrics;
use crate::rule::{AuthRefusal, Limit};
use crate::shard::orders::{Filter, Order, Outcome, Search, What};
use crate::shard::{EntranceKind, Live, Shard, tests as shards};
use crate::sim::{ManualClock, SimBackend};
use crate::time::Clock as _;
use scene::{
    CONNECT, Desk, ECHO, Pages, Scene, call, data, frame, get, guarded, message, messages, publication, request,
    settings, window,
};

#[test]
fn messages_of_which_one_frame_has_many_are_all_looked_at() {
    let mut scene = Scene::new(1 << 20);
    let many: Vec<u8> = (0..600).flat_map(publication).collect();
    scene.send(&[call(1, CONNECT), data(1, flag::END_STREAM, &many)]);
    let seen = scene.seen();
    assert_eq!(messages(&scene.bodies[&1]), 600);
    assert_eq!((&*seen[0], &**seen.last().unwrap()), ("1 fields 200", "1 fields 0 end"), "{seen:?}");
}

/// A peer that sends and never opens a window must not fill our memory.
#[test]
fn a_call_whose_answers_find_no_window_is_not_read_on() {
    let mut scene = Scene::new(0);
    let echo = message(&EchoMessage { payload: vec![b'x'; 1000] });
    let all = echo.repeat(1000);
    scene.send(&[call(1, ECHO)]);
    let sent = scene.upload(1, &all);
    assert!(sent < 256 * 1024, "{sent} bytes were taken");
    assert!(scene.metrics.total(|shard| shard.queued_bytes.get()) < 256 * 1024);
    assert_eq!(scene.body(1), 0);
    // And goes on when there is one: the half-close, which came while it was not read, too.
    scene.send(&[data(1, flag::END_STREAM, &[]), window(1, 1 << 20)]);
    let seen = scene.seen();
    assert_eq!(scene.bodies[&1], all[..sent / echo.len() * echo.len()]);
    assert_eq!(seen.last().unwrap(), "1 fields 13 end", "the last message is not whole");
}

/// One whose queue is more than its part of what the process has goes, and its connection stays.
#[test]
fn a_stream_for_which_there_is_no_room_is_reset() {
    let limits = Limits { queue_bytes_total_max: 20_000, ..Limits::default() };
    let mut scene = Scene::with(limits, 0);
    scene.send(&[call(1, ECHO), call(3, ECHO)]);
    let echo = message(&EchoMessage { payload: vec![b'x'; 1000] });
    for _ in 0..3 {
        scene.send(&[data(1, 0, &echo.repeat(8))]);
        scene.clock.advance(Duration::from_millis(200));
    }
    scene.send(&[window(3, 100), data(3, flag::END_STREAM, b"\0\0\0\0\0")]);
    assert_eq!(scene.seen(), ["1 fields 200", "3 fields 200", "1 reset 11", "3 data", "3 fields 0 end"],);
}

/// The end of a connection that broke the rules does not wait for its streams.
#[test]
fn a_violation_ends_the_streams_with_the_connection() {
    let mut scene = Scene::new(1000);
    scene.send(&[call(1, CONNECT), frame(kind::PUSH_PROMISE, 0, 1, &[])]);
    assert_eq!(scene.seen(), ["1 fields 200", "go away 1 1"]);
    assert_eq!(scene.client.peer(), crate::sim::Peer::Finished);
    assert_eq!(scene.metrics.total(|shard| shard.http2_streams.get()), 0);
}

/// Both get their part of the connection's window, however much waits for the first one.
#[test]
fn streams_share_the_connection_s_window() {
    let mut scene = Scene::with(Limits::default(), 1 << 30);
    scene.send(&[get(1, "/1000000"), get(3, "/1000000"), get(5, "/1000000")]);
    for _ in 0..60 {
        scene.seen();
        scene.send(&[window(0, 16_384)]);
    }
    let bodies = [1, 3, 5].map(|stream| scene.body(stream));
    assert!(bodies.iter().all(|bytes| *bytes > 200_000), "{bodies:?}");
}

/// A long response does not keep its connection from being read, nor does that other answers were not read for a while.
#[test]
fn a_connection_is_read_while_much_is_sent() {
    let mut scene = Scene::new(1 << 30);
    scene.send(&[get(1, "/2000000")]);
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    (0..5).for_each(|_| scene.send(&[ping.repeat(1000)]));
    assert!(scene.metrics.total(|shard| shard.reading_paused_total.get()) > 0);
    scene.client.write(&frame(kind::PING, 0, 0, b"the last"));
    let mut pongs = 0;
    while pongs < 5001 {
        let read = scene.client.read_into(&mut scene.unread, 50_000);
        assert!(read > 0, "it waits for nothing");
        scene.rest();
        pongs += scene.frames().iter().filter(|seen| *seen == "pong").count();
    }
    assert!(scene.body(1) < 1_000_000, "{} bytes before the answer to a ping", scene.body(1));
}

/// RFC 9110 section 10.1.1: neither may wait for the other.
#[test]
fn who_waits_to_be_told_is_told() {
    let mut scene = Scene::new(1 << 20);
    let expect = ("expect", "100-continue");
    scene.send(&[request(1, 0, "POST", "/topics/t", &[expect, ("content-length", "2")])]);
    assert_eq!(scene.seen(), ["1 fields 100"]);
    scene.send(&[data(1, flag::END_STREAM, b"hi")]);
    assert_eq!(scene.seen(), ["1 fields 200", "1 data", "1 data end"]);
    scene.send(&[request(3, 0, "POST", "/topics/t", &[expect, ("content-length", "2000000")])]);
    assert_eq!(scene.seen(), ["3 fields 413", "3 data end", "3 reset 0"]);
    scene.send(&[request(5, 0, "GET", "/10", &[expect, ("content-length", "2")])]);
    assert_eq!(scene.seen(), ["5 fields 413", "5 data end", "5 reset 0"]);
    scene.send(&[request(7, 0, "DELETE", "/10", &[expect, ("content-length", "2")])]);
    assert_eq!(scene.seen(), ["7 fields 405", "7 data end", "7 reset 0"]);
}

#[test]
fn a_client_that_has_said_all_has_its_answers() {
    let mut scene = Scene::new(1 << 20);
    scene.client.write(&[get(1, "/100000"), call(3, CONNECT), get(5, "/topics/t/info")].concat());
    scene.client.shutdown_write();
    scene.rest();
    let seen = scene.seen();
    assert_eq!((scene.body(1), scene.body(5) > 0), (100_000, true), "{seen:?}");
    assert_eq!(scene.client.peer(), crate::sim::Peer::Finished);
    assert_eq!(scene.metrics.total(|shard| shard.http2_streams.get() + shard.connections.get()), 0);
}

#[test]
fn a_drain_lets_answers_end_that_are_under_way() {
    let mut scene = Scene::new(60_000);
    scene.send(&[get(1, "/100000"), call(3, ECHO), request(5, 0, "POST", "/topics/t", &[])]);
    scene.seen();
    scene.shard.core.control.drain(Duration::ZERO);
    scene.rest();
    assert_eq!(scene.seen(), ["go away 2147483647 0", "ping"]);
    // What was on its way when the client heard that is answered.
    scene.send(&[get(7, "/100"), frame(kind::PING, flag::ACK, 0, b"goodbye!")]);
    assert_eq!(scene.seen(), ["7 fields 200", "7 data end", "go away 7 0", "3 fields 14 end", "3 reset 0"]);
    // The body that was not whole may come, and is answered; what begins now is not.
    scene.send(&[get(9, "/100"), data(5, flag::END_STREAM, b"hello"), window(1, 60_000)]);
    let seen = scene.seen();
    assert!(seen.contains(&"9 reset 7".to_owned()) && seen.contains(&"5 fields 200".to_owned()), "{seen:?}");
    assert!(seen.contains(&"1 data end".to_owned()), "{seen:?}");
    assert_eq!((scene.body(1), scene.client.peer()), (100_000, crate::sim::Peer::Finished));
}

#[test]
fn a_client_that_does_not_answer_the_warning_leaves_all_the_same() {
    let mut scene = Scene::new(60_000);
    scene.send(&[call(1, ECHO)]);
    scene.seen();
    scene.shard.core.control.drain(Duration::ZERO);
    scene.rest();
    assert_eq!(scene.seen(), ["go away 2147483647 0", "ping"]);
    scene.clock.advance(Duration::from_secs(3));
    scene.rest();
    assert_eq!(scene.seen(), ["go away 1 0", "1 fields 14 end", "1 reset 0"]);
}

#[test]
fn what_is_cut_off_looks_neither_whole_nor_refused() {
    for (path, seen) in [("/topics/t?stream=1", &["1 fields 200"][..]), ("/topics/t?wait=60s", &[])] {
        let mut scene = Scene::new(1000);
        scene.send(&[get(1, path)]);
        assert_eq!(scene.seen(), seen);
        let id = scene.shard.core.table.iter().find(|(_, one)| one.flags.has(Flags::BORNE)).unwrap().0;
        scene.shard.begin_close(id, CloseReason::Internal, "");
        scene.rest();
        assert_eq!(scene.seen(), ["1 reset 2"]);
    }
}

#[test]
fn a_connection_without_heartbeats_and_streams_ends_some_time() {
    let limits = Limits { heartbeat_interval: Duration::ZERO, ..Limits::default() };
    let mut scene = Scene::with(limits, 1000);
    scene.send(&[call(1, ECHO)]);
    scene.clock.advance(Duration::from_secs(1000));
    scene.send(&[data(1, flag::END_STREAM, &[])]);
    assert_eq!(scene.seen(), ["1 fields 200", "1 fields 0 end"]);
    scene.clock.advance(Duration::from_secs(100));
    scene.rest();
    assert_eq!(scene.seen(), ["go away 1 0"]);
}

/// The time for a head is one for all of it, and goes on whatever other streams do.
#[test]
fn a_head_must_be_whole_in_time() {
    let mut scene = Scene::new(1000);
    scene.send(&[call(1, ECHO)]);
    let head = get(3, "/10");
    for byte in &head[..11] {
        scene.send(&[vec![*byte]]);
        scene.clock.advance(Duration::from_millis(800));
    }
    assert_eq!(scene.seen(), ["1 fields 200"]);
    scene.send(&[head[11..12].to_vec()]);
    scene.clock.advance(Duration::from_secs(9));
    scene.send(&[head[12..13].to_vec()]);
    assert_eq!(scene.seen(), ["go away 3 4"]);
}

/// A message of a group is not for a member that cannot be sent it.
#[test]
fn a_member_without_a_window_has_no_share() {
    let mut scene = Scene::new(1000);
    let wish = Subscribe { topic: "t".to_owned(), group: "g".to_owned(), ..Subscribe::default() };
    let join = message(&ClientFrame { id: 1, frame: Some(client_frame::Frame::Subscribe(wish)) });
    scene.send(&[call(1, CONNECT), data(1, 0, &join), call(3, CONNECT), data(3, 0, &join)]);
    scene.seen();
    let joined = scene.body(1);
    // All windows shrink by what is left of the first one.
    let shrunk = u32::try_from(joined).unwrap();
    scene.send(&[settings(shrunk), window(3, 100_000), call(5, CONNECT), window(5, 100_000)]);
    (0..10).for_each(|id| scene.send(&[data(5, 0, &publication(id))]));
    scene.seen();
    assert_eq!((scene.body(1), messages(&scene.bodies[&3])), (joined, 11));
    // The other one is gone: what is published waits for a window.
    scene.send(&[frame(kind::RST_STREAM, 0, 3, &8_u32.to_be_bytes()), data(5, 0, &publication(10))]);
    scene.seen();
    assert_eq!(scene.body(1), joined);
    scene.send(&[window(1, 1000)]);
    scene.seen();
    assert_eq!(messages(&scene.bodies[&1]), 2);
}

#[test]
fn a_subscription_too_many_is_told_and_the_call_goes_on() {
    let mut scene = Scene::with(Limits { subscriptions_max: 1, ..Limits::default() }, 1 << 20);
    let join = |topic: &str| {
        let wish = Subscribe { topic: topic.to_owned(), ..Subscribe::default() };
        message(&ClientFrame { id: 7, frame: Some(client_frame::Frame::Subscribe(wish)) })
    };
    scene.send(&[call(1, CONNECT), data(1, 0, &join("one")), data(1, 0, &join("two")), data(1, 0, &publication(9))]);
    let seen = scene.seen();
    assert!(!seen.last().unwrap().ends_with(" end"), "{seen:?}");
    let body = &scene.bodies[&1];
    for said in [&b"\x11subscriptions_max"[..], b"two: this connection has as many"] {
        assert!(body.windows(said.len()).any(|part| part == said), "{}", body.escape_ascii());
    }
    // That of the first one, the error, and the place of the publication.
    assert_eq!(messages(body), 3);
    assert_eq!(scene.metrics.total(|shard| shard.struck(crate::rule::Limit::SubscriptionsMax)), 1);
}

#[test]
fn what_operators_have_a_key_for_is_no_call_whatever_it_says_it_is() {
    const KEY: &str = "an-operators-own-key";
    let desk = Arc::new(Desk::default());
    let mut scene = Scene::of(guarded(KEY), Arc::<Desk>::clone(&desk), 65_535);
    let calls = [("content-type", "application/grpc"), ("x-holdline", "1")];
    for (stream, method) in [(1, "GET"), (3, "POST"), (5, "DELETE")] {
        scene.send(&[request(stream, flag::END_STREAM, method, "/api/kick", &calls)]);
        assert_eq!(scene.seen(), [format!("{stream} fields 401"), format!("{stream} data end")], "{method}");
    }
    assert_eq!(desk.0.load(Ordering::Relaxed), 0);
    let bearer = format!("Bearer {KEY}");
    let known = [calls[0], ("authorization", &*bearer)];
    scene.send(&[request(7, flag::END_STREAM, "POST", "/api/kick", &known)]);
    assert_eq!((scene.seen().len(), desk.0.load(Ordering::Relaxed)), (0, 1), "it waits for the answer");
    // Routes ask the same, and that they are called by a name of this machine.
    let fields = [("accept", "text/event-stream")];
    scene.send(&[request(9, flag::END_STREAM, "GET", "/topics/trace", &fields)]);
    assert_eq!(scene.seen(), ["9 fields 401", "9 data end"]);
    scene.send(&[request(11, flag::END_STREAM, "GET", "/topics/trace", &[fields[0], known[1]])]);
    assert_eq!(scene.seen(), ["11 fields 403", "11 data end"]);
    for (stream, path, status) in [(13, "/api/overview", 403), (15, "/metrics", 403), (17, "/healthz", 404)] {
        scene.send(&[request(stream, flag::END_STREAM, "GET", path, &[known[1]])]);
        assert_eq!(scene.seen(), [format!("{stream} fields {status}"), format!("{stream} data end")]);
    }
}

#[test]
fn operators_find_a_user_by_its_name() {
    const KEY: &str = "a-key-of-a-client-s";
    let mut scene = Scene::of(Live { operators_only: false, ..guarded(KEY) }, Arc::new(Pages), 65_535);
    let bearer = format!("Bearer {KEY}");
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", &*bearer)];
    scene.send(&[request(1, 0, "POST", CONNECT, &fields), request(3, 0, "POST", ECHO, &fields)]);
    assert_eq!(scene.seen(), ["1 fields 200", "3 fields 200"]);
    let (reports, reported) = crossbeam::channel::unbounded();
    for (user, count) in [("ops", 2), ("op", 0), ("", 0)] {
        let filter = Filter { user: Some(user.into()), ..Filter::default() };
        let what = What::Connections(Search { filter, from: 0, limit: 10, top: false });
        let order = Order { number: 1, what, reports: reports.clone() };
        assert!(scene.shard.core.mail.postbox().order(ShardId(0), Box::new(order)).is_ok());
        scene.rest();
        let Outcome::Found(found, _) = reported.try_recv().unwrap().what else { panic!("a look finds some or none") };
        assert_eq!(found.len(), count, "{user:?}");
        assert!(found.iter().all(|item| String::from_utf8_lossy(&item.json).contains("\"user\":\"ops\"")));
    }
}

#[test]
fn what_was_refused_when_it_came_is_not_taken_without_its_body_later() {
    let limits = Limits { request_rate_per_address: 1, exempt: Networks::default(), ..Limits::default() };
    let mut scene = Scene::with(limits, 65_535);
    for (stream, method) in [(3, "/topics/t"), (7, "/holdline.v1.Edge/Publish")] {
        let first = stream - 2;
        scene.send(&[request(first, 0, "POST", "/topics/t", &[]), data(first, flag::END_STREAM, b"one")]);
        assert_eq!(scene.seen()[0], format!("{first} fields 200"));
        let fields = if stream == 7 { &[("content-type", "application/grpc")][..] } else { &[] };
        scene.send(&[request(stream, 0, "POST", method, fields)]);
        scene.clock.advance(Duration::from_secs(2));
        scene.send(&[data(stream, flag::END_STREAM, b"two")]);
        assert_eq!(scene.seen()[0], format!("{stream} fields 429"));
    }
    assert_eq!(scene.metrics.total(|shard| shard.publications_total.get()), 2);
}

#[test]
fn a_request_that_is_refused_before_its_body_is_refused_once() {
    let mut scene =
        Scene::of(Live { operators_only: false, ..guarded("a-key-of-a-client-s") }, Arc::new(Pages), 65_535);
    scene.send(&[request(1, 0, "POST", "/topics/t", &[("authorization", "Bearer another-key")])]);
    scene.send(&[data(1, 0, b"one"), data(1, flag::END_STREAM, b"two")]);
    assert_eq!(scene.seen()[0], "1 fields 401");
    let refused = |shard: &ShardMetrics| AuthRefusal::ALL.iter().map(|cause| shard.refused(*cause)).sum();
    assert_eq!(scene.metrics.total(refused), 1);
}

#[test]
fn what_requests_publish_is_paid_for_by_the_connection_of_their_streams() {
    let mut scene = Scene::with(Limits { message_rate: 2, ..Limits::default() }, 65_535);
    let mut answered = 0;
    for stream in [1, 3, 5, 7, 9] {
        scene.send(&[request(stream, 0, "POST", "/topics/t", &[]), data(stream, flag::END_STREAM, b"one")]);
        answered += scene.seen().iter().filter(|line| line.ends_with("fields 200")).count();
    }
    assert!(answered < 5, "those beyond the rate wait");
    assert!(scene.metrics.total(|shard| shard.struck(Limit::MessageRate)) > 0);
    for _ in 0..10 {
        scene.clock.advance(Duration::from_secs(1));
        scene.rest();
        answered += scene.seen().iter().filter(|line| line.ends_with("fields 200")).count();
    }
    assert_eq!(answered, 5, "and are answered when it is their time");
}

/// However many streams what was sent at once is on.
#[test]
fn what_was_compressed_is_looked_at_in_many_turns() {
    let mut scene = Scene::new(1 << 20);
    let payload = Some(publish::Payload::Binary(vec![0; 64 * 1024]));
    let wish = Publish { topic: "t".to_owned(), payload, ..Publish::default() };
    let body = ClientFrame { id: 1, frame: Some(client_frame::Frame::Publish(wish)) };
    let body = grpc::gzip::compress(&prost::Message::encode_to_vec(&body));
    let body = [&[1][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), &body].concat();
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-encoding", "gzip")];
    let streams: Vec<u32> = (1..60).step_by(2).collect();
    let calls =
        streams.iter().flat_map(|&stream| [request(stream, 0, "POST", CONNECT, &fields), data(stream, 0, &body)]);
    let received = |scene: &Scene| scene.metrics.total(|shard| shard.messages_received_total.get());
    let calls = calls.collect::<Vec<_>>().concat();
    assert_eq!(scene.client.write(&calls), calls.len());
    scene.shard.turn(&scene.clock).unwrap();
    assert!((1..=3).contains(&received(&scene)), "{} messages in a turn", received(&scene));
    (0..4).for_each(|_| scene.rest());
    scene.seen();
    assert!(streams.iter().all(|stream| messages(&scene.bodies[stream]) == 1), "and all in the end");
}

/// Whoever asks for answers byte by byte, or for next to nothing, has its turn like all others.
#[test]
fn small_frames_are_looked_at_some_hundred_at_a_time() {
    let (update, ping) = (window(1, 1), frame(kind::PING, 0, 0, &[0; 8]));
    // An update of a window has bytes sent; the others have an answer that is written at once.
    for (small, some) in [(update, 150..300), (ping, 1000..2000), (settings(0), 1000..2000)] {
        let mut scene = Scene::new(0);
        scene.send(&[get(1, "/10000"), small.repeat(3000)]);
        let answers = |seen: &String| matches!(&seen[..], "pong" | "settings ack");
        let answered = scene.seen().iter().filter(|seen| answers(seen)).count();
        assert_eq!(answered + scene.body(1), 3000, "they are all answered");
        let id = scene.shard.core.table.iter().find(|(_, one)| !one.flags.has(Flags::BORNE)).unwrap().0;
        let mut more = small.repeat(3000);
        scene.shard.core.begin_looking();
        let fed = scene.shard.core.feed(id, &mut more);
        let looked_at = fed.consumed / small.len();
        assert!(fed.pressed && some.contains(&looked_at), "{looked_at}");
    }
}

/// Between two of those who have sent much the shard looks who else has come.
#[test]
fn one_of_those_who_have_sent_much_has_its_turn_at_a_time() {
    let kind = EntranceKind::Http { site: Arc::new(Pages), routes: true };
    let (mut shard, net, _) = shards::alone(kind, standard_routes(), Live::default());
    let (clock, hello) = (ManualClock::new(), [&PREFACE[..], &settings(0), &get(1, "/10000")].concat());
    let mut clients: Vec<_> = (0..3).map(|_| shards::connect(&net, &mut shard, &clock, &hello)).collect();
    let much = window(1, 1).repeat(3000);
    clients.iter_mut().for_each(|client| assert_eq!(client.write(&much), much.len()));
    let held = |shard: &Shard<SimBackend>| -> Vec<usize> {
        let all = shard.core.table.iter();
        all.map(|(_, one)| one.outbox.as_deref().map_or(0, |outbox| outbox.held.len())).collect()
    };
    let (mut turns, mut before) = (0, held(&shard));
    while turns < 3 || before.iter().any(|held| *held > 0) {
        shard.turn(&clock).unwrap();
        clients.iter_mut().for_each(|client| drop(client.read()));
        let after = held(&shard);
        // A small rest is no turn.
        let served = before.iter().zip(&after).filter(|(before, after)| **after + 2500 < **before).count();
        assert!(served <= 1, "{before:?} {after:?}");
        (turns, before) = (turns + 1, after);
    }
    assert!(turns > 6, "{turns}");
}

/// A signature may cost as much as a thousand other requests.
#[test]
fn tokens_in_vain_are_looked_at_in_many_turns() {
    let mut scene =
        Scene::of(Live { operators_only: false, ..guarded("a-key-of-a-client-s") }, Arc::new(Pages), 65_535);
    let refused =
        |scene: &Scene| scene.metrics.total(|shard| AuthRefusal::ALL.iter().map(|cause| shard.refused(*cause)).sum());
    let vain = [("authorization", "Bearer another-key")];
    let requests = (1..120).step_by(2).map(|stream| request(stream, flag::END_STREAM, "GET", "/topics/t", &vain));
    let requests = requests.collect::<Vec<_>>().concat();
    assert_eq!(scene.client.write(&requests), requests.len());
    scene.shard.turn(&scene.clock).unwrap();
    assert!((1..=17).contains(&refused(&scene)), "{} of them in a turn", refused(&scene));
    scene.rest();
    assert_eq!(scene.seen().iter().filter(|seen| seen.ends_with("fields 401")).count(), 60, "and all in the end");
}

#[test]
fn tokens_beyond_those_in_vain_are_not_looked_at() {
    const KEY: &str = "a-key-of-a-client-s";
    let mut scene = Scene::of(Live { operators_only: false, ..guarded(KEY) }, Arc::new(Pages), 65_535);
    let bearer = format!("Bearer {KEY}");
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", &*bearer)];
    scene.send(&[request(1, 0, "POST", CONNECT, &fields)]);
    assert_eq!(scene.seen(), ["1 fields 200"]);
    let again = Authenticate { token: "another-key".to_owned() };
    let again = message(&ClientFrame { id: 1, frame: Some(client_frame::Frame::Authenticate(again)) });
    scene.send(&[data(1, 0, &again.repeat(100))]);
    let refused = |shard: &ShardMetrics| AuthRefusal::ALL.iter().map(|cause| shard.refused(*cause)).sum();
    assert_eq!(scene.metrics.total(refused), 8);
    let seen = scene.seen();
    assert!(seen.contains(&"1 fields 8 end".to_owned()), "{seen:?}");
}

/// A token of this user's, an operator, that ends then.
fn token(secret: &[u8], expires: u64) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let claims = format!("{{\"sub\":\"ann\",\"exp\":{expires},\"holdline\":{{\"admin\":true}}}}");
    let signed = [part(b"{\"alg\":\"HS256\"}"), part(claims.as_bytes())].join(".");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    [signed, part(tag.as_ref())].join(".")
}

#[test]
fn what_an_operator_watches_ends_with_the_token() {
    const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
    let (mut live, grace) = (guarded("an-operators-own-key"), Duration::from_secs(2));
    let secret = Some(Key::secret(SECRET).unwrap());
    live.access = Arc::new(Access { secret, leeway: grace, renew_grace: grace, ..(*live.access).clone() });
    let mut scene = Scene::of(live, Arc::new(Pages), 65_535);
    let bearer = format!("Bearer {}", token(SECRET, scene.clock.unix_ms() / 1000 + 3));
    let fields = [("accept", "text/event-stream"), ("authorization", &*bearer)];
    scene.send(&[request(1, flag::END_STREAM, "GET", "/topics/t", &fields)]);
    assert_eq!(scene.seen()[0], "1 fields 200");
    let watches = |scene: &Scene| scene.metrics.total(|shard| shard.http2_streams.get());
    scene.clock.advance(Duration::from_secs(4));
    scene.rest();
    assert_eq!(watches(&scene), 1);
    scene.clock.advance(Duration::from_secs(2));
    scene.rest();
    assert_eq!(watches(&scene), 0);
}
