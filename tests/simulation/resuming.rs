//! Faults of streams that are resumed, which seeds have found.

use std::time::Duration;

use holdline::config::{History, Limits};
use holdline::sim::{Client, HurriedClock};

use super::scene::{Scene, WEB};

/// Asks for the events of a topic.
fn request(topic: &str, last_event_id: &str) -> String {
    let seen = if last_event_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_event_id}\r\n") };
    format!("GET /topics/{topic} HTTP/1.1\r\nHost: sim\r\nAccept: text/event-stream\r\n{seen}\r\n")
}

fn events(scene: &mut Scene, topic: &str, last_event_id: &str) -> Client {
    scene.connect(0, WEB, &request(topic, last_event_id))
}

/// What came behind the head.
fn stream(client: &mut Client) -> String {
    let text = String::from_utf8(client.read()).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The place that the first block names.
fn id(stream: &str) -> &str {
    stream.split_once("id: ").unwrap().1.split_once('\n').unwrap().0
}

#[test]
fn a_reader_has_no_new_place_before_it_hears_that_something_is_lost() {
    let history = History { messages_max: 1, ..History::default() };
    let mut scene = Scene::new(1, Limits { history, ..Limits::default() });
    let (mut reader, mut writer) = (events(&mut scene, "t", ""), scene.member(0, "t"));
    scene.rest();
    let first = stream(&mut reader);
    let old = id(&first);
    writer.write(b"one\ntwo\nthree\n");
    scene.rest();
    let mut reader = events(&mut scene, "t", old);
    scene.rest();
    let told = stream(&mut reader);
    let new = format!("{}:3", old.split_once(':').unwrap().0);
    let (start, reset) = told.split_once("\n\n").unwrap();
    assert_eq!(start, "retry: 3000", "who goes here comes back with the old place");
    assert!(reset.starts_with(&format!("id: {new}\nevent: reset\n")), "{reset}");
}

/// The owner has answered all, but has no time to take all its answers before it hands out the next message.
#[test]
fn the_live_stream_waits_for_the_past_on_the_topics_own_shard() {
    let mut scene = Scene::new(1, Limits::default());
    let mut writer = scene.member(0, "t");
    scene.rest();
    writer.write(b"one\n");
    scene.rest();
    let mut readers: Vec<_> = (0..40).map(|_| scene.connect(0, WEB, "")).collect();
    scene.rest();
    for reader in &mut readers {
        reader.write(request("t", "").as_bytes());
    }
    writer.write(b"two\n");
    for _ in 0..100 {
        let clock = HurriedClock::new(&scene.clock, Duration::from_micros(100));
        scene.shards[0].turn(&clock).unwrap();
    }
    for reader in &mut readers {
        let told = stream(reader);
        let (epoch, place) = id(&told).split_once(':').unwrap();
        let missed = match place {
            "1" => format!("id: {epoch}:2\ndata: two\n\n"),
            place => {
                assert_eq!(place, "2");
                String::new()
            }
        };
        assert_eq!(told, format!("retry: 3000\nid: {epoch}:{place}\nevent: start\ndata: \n\n{missed}"));
    }
}
