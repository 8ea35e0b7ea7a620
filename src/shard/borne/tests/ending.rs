//! Connections that end with many streams, and what one turn does of that.

use std::time::Duration;

use super::scene::{Scene, frame, get};
use crate::close::CloseReason;
use crate::codec::http2::frame::kind;
use crate::config::{Http2Limits, Limits};
use crate::message::{Kind, Topic};
use crate::shard::connection::Flags;
use crate::shard::pace::Part;
use crate::sim::Peer;

const STREAMS: u32 = 300;

/// How many streams one turn ends at most.
fn in_a_turn() -> u64 {
    u64::from(Part::UNLOAD_MAX)
}

/// Numbers of streams that a client opens.
fn numbers() -> impl Iterator<Item = u32> {
    (0..STREAMS).map(|at| 2 * at + 1)
}

/// A client that has asked for as many answers as it may, and takes nothing of them.
fn crowded(path: &str) -> Scene {
    let http2 = Http2Limits { streams_max: STREAMS, resets_burst: STREAMS, ..Http2Limits::default() };
    let mut scene = Scene::with(Limits { http2, ..Limits::default() }, 0);
    scene.send(&[numbers().flat_map(|stream| get(stream, path)).collect()]);
    (0..10).for_each(|_| scene.rest());
    scene.seen();
    assert_eq!(streams(&scene), u64::from(STREAMS));
    scene
}

fn streams(scene: &Scene) -> u64 {
    scene.metrics.total(|shard| shard.http2_streams.get())
}

/// Has the shard take its turns until nothing is left of the streams. The most that one of them has ended.
fn turns(scene: &mut Scene, mut between: impl FnMut()) -> u64 {
    let (mut most, mut left) = (0, streams(scene));
    for _ in 0..100 {
        scene.shard.turn(&scene.clock).unwrap();
        scene.shard.audit().unwrap();
        most = most.max(left - streams(scene));
        left = streams(scene);
        if left == 0 {
            break;
        }
        assert_eq!(scene.metrics.total(|shard| shard.connections.get()), 1, "it stays until its streams have gone");
        assert!(scene.shard.is_busy(), "{left} streams are left and nobody looks at them");
        between();
    }
    assert_eq!(left, 0);
    most
}

#[test]
fn who_breaks_a_rule_with_many_streams_ends_in_parts() {
    let mut scene = crowded("/1000");
    scene.client.write(&frame(kind::PUSH_PROMISE, 0, 1, &[]));
    assert_eq!(turns(&mut scene, || {}), in_a_turn());
    assert_eq!(scene.seen(), [format!("go away {} 1", 2 * STREAMS - 1)]);
    assert_eq!(scene.client.peer(), Peer::Finished);
    assert_eq!(scene.metrics.total(|shard| shard.queued_bytes.get()), 0);
}

/// Meanwhile its streams are still sent messages: those are for nobody, and none is queued for the connection.
#[test]
fn a_connection_that_breaks_goes_when_its_streams_have_gone() {
    let mut scene = crowded("/topics/t?stream=1");
    let postbox = scene.shard.core.mail.postbox();
    let topic = Topic::parse(b"t", 255).unwrap();
    let id = scene.shard.core.table.iter().find(|(_, one)| !one.flags.has(Flags::BORNE)).unwrap().0;
    scene.shard.core.set(id, Flags::BROKEN);
    scene.shard.begin_close(id, CloseReason::TransportError, "");
    let most = turns(&mut scene, || assert!(postbox.publish(&topic, Kind::Text, b"to nobody")));
    assert_eq!(most, in_a_turn());
    scene.rest();
    assert_eq!(scene.metrics.total(|shard| shard.connections.get() + shard.subscriptions.get()), 0);
}

#[test]
fn streams_that_are_reset_at_once_end_in_parts_and_their_connection_goes_on() {
    let mut scene = crowded("/topics/t?stream=1");
    let resets = numbers().skip(1).flat_map(|stream| frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    scene.client.write(&resets.collect::<Vec<_>>());
    scene.shard.turn(&scene.clock).unwrap();
    assert_eq!(streams(&scene), u64::from(STREAMS) - in_a_turn());
    scene.rest();
    assert_eq!(streams(&scene), 1);
    scene.send(&[get(2 * STREAMS + 1, "/topics/t/info")]);
    assert_eq!(scene.seen(), [format!("{} fields 200", 2 * STREAMS + 1)]);
}

/// What is under way has its time however many others end before it.
#[test]
fn a_client_that_has_said_all_and_asks_for_much_has_its_answers() {
    let mut scene = crowded("/1000");
    scene.client.shutdown_write();
    (0..10).for_each(|_| scene.rest());
    assert_eq!(streams(&scene), u64::from(STREAMS), "it has said all, but its windows are its own");
    scene.clock.advance(Duration::from_secs(6));
    assert_eq!(turns(&mut scene, || {}), in_a_turn());
}
