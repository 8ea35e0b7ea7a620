//! Streams that send more than their connection may: together they have what one connection has.

use std::time::Duration;

use super::scene::{CONNECT, Scene, call, data, message, publication, request};
use crate::close::CloseReason;
use crate::codec::grpc::generated::edge::{PublishRequest, publish_request};
use crate::codec::http2::frame::flag;
use crate::config::{Limits, OverRate};
use crate::rule::Limit;

const PUBLISH: &str = "/holdline.v1.Edge/Publish";

fn slow(message_rate: u32) -> Limits {
    Limits { message_rate, ..Limits::default() }
}

/// A whole call that publishes one message.
fn unary(stream: u32) -> Vec<u8> {
    let payload = Some(publish_request::Payload::Text("x".to_owned()));
    let wish = PublishRequest { topic: "t".to_owned(), payload, ..PublishRequest::default() };
    [call(stream, PUBLISH), data(stream, flag::END_STREAM, &message(&wish))].concat()
}

fn published(scene: &Scene) -> u64 {
    scene.metrics.total(|shard| shard.publications_total.get())
}

/// Lets so many seconds pass.
fn wait(scene: &mut Scene, seconds: u32) {
    for _ in 0..seconds {
        scene.clock.advance(Duration::from_secs(1));
        scene.rest();
    }
}

#[test]
fn calls_one_after_another_are_held_back_together() {
    let mut scene = Scene::with(slow(2), 65_535);
    (0..10).for_each(|number| scene.send(&[unary(2 * number + 1)]));
    assert_eq!(published(&scene), 3, "a second's, and the one that was too much");
    assert_eq!(scene.metrics.total(|shard| shard.struck(Limit::MessageRate)), 1);
    wait(&mut scene, 10);
    assert_eq!(published(&scene), 10, "all are taken in the end");
    let answers = scene.seen().iter().filter(|seen| seen.ends_with("fields 0 end")).count();
    assert_eq!(answers, 10);
}

#[test]
fn many_calls_at_once_are_paid_for_before_the_next() {
    let mut scene = Scene::with(slow(2), 65_535);
    scene.send(&[(0..50).flat_map(|number| unary(2 * number + 1)).collect(), unary(101)]);
    assert!(published(&scene) < 20, "the rest of what was read is held");
    wait(&mut scene, 20);
    assert!(published(&scene) < 51);
    wait(&mut scene, 10);
    assert_eq!(published(&scene), 51);
    let mut scene = Scene::with(slow(2), 65_535);
    scene.send(&[(0..200).map(publication).fold(call(1, CONNECT), |all, one| [all, data(1, 0, &one)].concat())]);
    assert_eq!(published(&scene), 200);
    scene.send(&[unary(3)]);
    // Longer than a client may be silent, which this one is not: it is not read.
    wait(&mut scene, 98);
    assert_eq!(published(&scene), 200);
    wait(&mut scene, 3);
    assert_eq!(published(&scene), 201, "and its connection is still there");
}

#[test]
fn the_messages_of_a_call_are_held_back() {
    let mut scene = Scene::with(slow(2), 65_535);
    scene.send(&[call(1, CONNECT)]);
    (0..10).for_each(|number| scene.send(&[data(1, 0, &publication(number))]));
    assert_eq!(published(&scene), 3);
    wait(&mut scene, 10);
    assert_eq!(published(&scene), 10);
}

#[test]
fn the_bytes_of_a_call_are_held_back() {
    let one = publication(1);
    let mut scene = Scene::with(Limits { message_bytes_rate: 2 * one.len(), ..Limits::default() }, 65_535);
    scene.send(&[call(1, CONNECT), call(3, CONNECT)]);
    (0..5).for_each(|_| scene.send(&[data(1, 0, &one), data(3, 0, &one)]));
    assert_eq!(published(&scene), 3);
    assert_eq!(scene.metrics.total(|shard| shard.struck(Limit::MessageBytesRate)), 1);
    wait(&mut scene, 10);
    assert_eq!(published(&scene), 10);
}

#[test]
fn the_messages_of_a_websocket_on_a_stream_are_held_back() {
    let mut scene = Scene::with(slow(2), 65_535);
    let fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    scene.send(&[request(1, 0, "CONNECT", "/topics/t", &fields)]);
    assert_eq!(scene.seen()[0], "1 fields 200");
    let text = [&[0x81, 0x81, 0, 0, 0, 0][..], b"x"].concat();
    (0..10).for_each(|_| scene.send(&[data(1, 0, &text)]));
    assert_eq!(published(&scene), 3);
    wait(&mut scene, 10);
    assert_eq!(published(&scene), 10);
}

/// It ends with all its streams, and not one call, behind which others could go on.
#[test]
fn a_connection_whose_streams_send_too_much_ends_where_the_policy_says_so() {
    let limits = || Limits { message_rate_policy: OverRate::Close, ..slow(2) };
    let closed = |scene: &Scene| scene.metrics.total(|shard| shard.closed(CloseReason::Policy));
    let mut scene = Scene::with(limits(), 65_535);
    scene.send(&[call(1, CONNECT), unary(3), unary(5)]);
    assert_eq!((published(&scene), closed(&scene)), (2, 0));
    scene.send(&[unary(7)]);
    assert!(closed(&scene) > 0);
    let seen = scene.seen();
    assert!(seen.iter().any(|line| line.starts_with("go away 7 11")), "{seen:?}");
    assert_eq!(scene.client.peer(), crate::sim::Peer::Finished);
    let mut scene = Scene::with(limits(), 65_535);
    scene.send(&[call(1, CONNECT), data(1, 0, &(0..3).flat_map(publication).collect::<Vec<_>>())]);
    let seen = scene.seen();
    assert!(seen.iter().any(|line| line.starts_with("go away 1 11")), "{seen:?}");
}

/// What was held while its connection waited for something else is paid for when it is looked at.
#[test]
fn what_a_call_says_later_is_paid_for_too() {
    let mut scene = Scene::with(slow(2), 65_535);
    scene.send(&[call(1, CONNECT)]);
    let stream =
        scene.shard.core.table.iter().map(|(id, _)| id).find(|id| scene.shard.core.bearer(*id).is_some()).unwrap();
    scene.shard.core.set(stream, crate::shard::connection::Flags::STALLED);
    scene.client.write(&data(1, 0, &(0..5).flat_map(publication).collect::<Vec<_>>()));
    (0..3).for_each(|_| assert!(scene.shard.turn(&scene.clock).is_ok()));
    assert_eq!(published(&scene), 0);
    scene.shard.core.stalled.push_back(stream);
    scene.rest();
    assert_eq!(published(&scene), 5);
    scene.send(&[unary(3)]);
    assert_eq!(published(&scene), 5);
    wait(&mut scene, 3);
    assert_eq!(published(&scene), 6);
}
