//! Faults of HTTP/2 and gRPC that seeds have found.

use holdline::codec::grpc;
use holdline::codec::grpc::generated::edge::{ClientFrame, Publish, client_frame, publish};
use holdline::codec::http2::StreamId;
use holdline::codec::http2::frame::{self, PREFACE, flag, kind};
use holdline::codec::http2::request::{self, Request};
use holdline::config::{Http2Limits, Limits};
use prost::Message as _;
use std::time::Duration;

use super::scene::{Scene, WEB, topic_of};

/// The beginning of a connection, and a call on its first stream.
fn call(method: &str) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    frame::write(kind::SETTINGS, 0, StreamId::CONNECTION, &[], &mut out);
    frame::write(kind::SETTINGS, flag::ACK, StreamId::CONNECTION, &[], &mut out);
    let path = format!("/holdline.v1.Edge/{method}");
    let request = Request { method: "POST", scheme: "http", authority: "sim", path: &path };
    let fields = [(&b"content-type"[..], &b"application/grpc"[..]), (&b"te"[..], &b"trailers"[..])];
    request::write_head(StreamId(1), request, fields.into_iter(), false, &mut out);
    out
}

fn data(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(kind::DATA, 0, StreamId(1), payload, &mut out);
    out
}

/// A publication as a message of `Connect`.
fn publication(topic: &str, id: u32, text: &str) -> Vec<u8> {
    let payload = Some(publish::Payload::Text(text.to_owned()));
    let wish = Publish { topic: topic.to_owned(), payload, ..Publish::default() };
    let mut out = Vec::new();
    let frame = ClientFrame { id, frame: Some(client_frame::Frame::Publish(wish)) };
    grpc::encode(&frame.encode_to_vec(), &mut out);
    out
}

#[test]
fn what_a_call_says_while_its_shard_is_blocked_is_not_lost() {
    let mut scene = Scene::new(2, Limits { mailbox_capacity: 1, ..Limits::default() });
    let topic = topic_of(0, 2, 0);
    let mut reader = scene.member(0, &topic);
    let mut caller = scene.connect(1, WEB, "");
    caller.write(&call("Connect"));
    scene.rest();
    let mut expected = String::new();
    // The owner does not turn: its mailbox fills up while more and more comes, several messages in a frame.
    for round in 0..5 {
        let numbers = (0..3).map(|at| 3 * round + at);
        let messages: Vec<u8> = numbers.flat_map(|number| publication(&topic, number, &number.to_string())).collect();
        caller.write(&data(&messages));
        (0..3).for_each(|at| expected.push_str(&format!("{}\n", 3 * round + at)));
        scene.turn(1);
    }
    (0..10).for_each(|_| scene.rest());
    assert_eq!(String::from_utf8(reader.read()).unwrap(), expected);
}

/// Its answers fill all buffers, and it is read no more; so nobody can know whether it has acknowledged the SETTINGS.
#[test]
fn who_reads_nothing_and_acknowledges_no_settings_is_sent_away() {
    let seconds = Duration::from_secs;
    let limits = Limits {
        queue_bytes_max: 4096,
        queue_stall_timeout: seconds(3),
        close_timeout: seconds(1),
        http2: Http2Limits { settings_timeout: seconds(2), ..Http2Limits::default() },
        ..Limits::default()
    };
    let mut scene = Scene::new(1, limits);
    let mut out = PREFACE.to_vec();
    frame::write(kind::SETTINGS, 0, StreamId::CONNECTION, &[], &mut out);
    let mut client = scene.connect(0, WEB, "");
    client.write(&out);
    scene.rest();
    let mut pings = Vec::new();
    (0..3000).for_each(|_| frame::write_ping(*b"whatever", false, &mut pings));
    for _ in 0..3 {
        client.write(&pings);
        scene.rest();
    }
    scene.pass(1000);
    assert!(!client.is_left(), "its time has not come");
    scene.pass(6000);
    assert!(client.is_left());
}
