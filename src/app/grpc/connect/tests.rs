//! What a caller of `Connect` sends, what it gets, and what the shard is asked for.

use prost::Message as _;

use super::*;
use crate::app::testing::Bench;
use crate::message::Wire;

struct Caller {
    bench: Bench,
    state: Connected,
}

impl Caller {
    fn new() -> Self {
        let (mut bench, mut state) = (Bench::new(Wire::Grpc), Connected::default());
        assert_eq!(bench.open(&mut Connect, &mut state, "/holdline.v1.Edge/Connect", "", ""), Ok(()));
        Self { bench, state }
    }

    /// Sends a frame; what the shard is asked for.
    fn says(&mut self, id: u32, frame: Option<client_frame::Frame>) -> Vec<String> {
        let frame = ClientFrame { id, frame }.encode_to_vec();
        self.bench.message(&mut Connect, &mut self.state, Kind::Binary, &frame);
        self.bench.effects()
    }

    fn subscribes(&mut self, wish: edge::Subscribe) -> Vec<String> {
        self.says(3, Some(client_frame::Frame::Subscribe(wish)))
    }

    fn publishes(&mut self, id: u32, topic: &str, text: &str) -> Vec<String> {
        let payload = Some(publish::Payload::Text(text.to_owned()));
        let wish = edge::Publish { topic: topic.to_owned(), payload, ..edge::Publish::default() };
        self.says(id, Some(client_frame::Frame::Publish(wish)))
    }

    /// The owner has answered a publication; what the shard is asked for.
    fn is_told(&mut self, id: u32, outcome: Result<u64, NotPublished>) -> Vec<String> {
        let outcome = outcome.map(|offset| Published {
            topic: Topic::parse(b"t", 255).expect("a topic"),
            cursor: Cursor { epoch: Epoch(5), offset: Offset(offset) },
            subscribers: 2,
            duplicate: false,
        });
        self.bench.published(&mut Connect, &mut self.state, id, outcome);
        self.bench.effects()
    }

    fn finishes(&mut self) -> Vec<String> {
        self.bench.finish(&mut Connect, &mut self.state);
        self.bench.effects()
    }

    /// The frames that came since the last call, in words.
    fn hears(&mut self) -> Vec<String> {
        let (mut words, mut rest) = (Vec::new(), &self.bench.out[..]);
        while let [0, a, b, c, d, behind @ ..] = rest {
            let (frame, behind) = behind.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
            let ServerFrame { id, frame } = ServerFrame::decode(frame).expect("a frame");
            words.push(match frame.expect("a frame says something") {
                server_frame::Frame::Subscribed(edge::Subscribed { topic, cursor }) => {
                    format!("{id} subscribed {topic} {cursor:?}")
                }
                server_frame::Frame::Unsubscribed(edge::Unsubscribed { topic }) => format!("{id} unsubscribed {topic}"),
                server_frame::Frame::Published(edge::Published { topic, cursor, subscribers, .. }) => {
                    let cursor = cursor.unwrap_or_default();
                    format!("{id} published {topic} {}:{} {subscribers}", cursor.epoch, cursor.offset)
                }
                server_frame::Frame::Error(edge::Error { code, .. }) => format!("{id} error {code}"),
                server_frame::Frame::Authenticated(edge::Authenticated { expires }) => {
                    format!("{id} good until {expires}")
                }
                server_frame::Frame::Expiring(edge::Expiring { seconds_left }) => {
                    format!("{id} ends in {seconds_left}")
                }
                other => format!("{id} {other:?}"),
            });
            rest = behind;
        }
        assert!(rest.is_empty(), "whole frames");
        self.bench.out.clear();
        words
    }
}

fn subscribe(topic: &str) -> edge::Subscribe {
    edge::Subscribe { topic: topic.to_owned(), ..edge::Subscribe::default() }
}

#[test]
fn subscriptions_begin_where_they_are_asked_to() {
    let since = Some(subscribe::Start::Since(edge::Cursor { epoch: 5, offset: 7 }));
    for (wish, effect) in [
        (subscribe("t"), "subscribe t echo=true"),
        (edge::Subscribe { start: since, ..subscribe("t") }, "subscribe t echo=true since=5:7"),
        (
            edge::Subscribe { start: Some(subscribe::Start::History(9)), no_echo: true, ..subscribe("t") },
            "subscribe t echo=false history=9",
        ),
        (edge::Subscribe { start: Some(subscribe::Start::History(0)), ..subscribe("t") }, "subscribe t echo=true"),
    ] {
        let mut caller = Caller::new();
        assert_eq!(caller.subscribes(wish), [effect]);
        assert_eq!(caller.hears(), [""; 0], "the shard says where it begins");
    }
}

#[test]
fn a_group_has_no_past_and_begins_at_once() {
    let mut caller = Caller::new();
    let wish = edge::Subscribe { group: "g".to_owned(), ..subscribe("t") };
    assert_eq!(caller.subscribes(wish.clone()), ["subscribe t echo=true group=g"]);
    assert_eq!(caller.hears(), ["0 subscribed t None"]);
    assert_eq!(caller.subscribes(edge::Subscribe { start: Some(subscribe::Start::History(1)), ..wish }), [""; 0]);
    assert_eq!(caller.hears(), ["3 error bad_parameter"]);
}

#[test]
fn publications_are_answered_with_their_number() {
    let mut caller = Caller::new();
    assert_eq!(caller.publishes(7, "t", "one"), ["publish 7 t one None"]);
    assert_eq!(caller.publishes(8, "t", "two"), ["publish 8 t two None"]);
    assert_eq!(caller.hears(), [""; 0]);
    assert_eq!(caller.is_told(7, Ok(1)), [""; 0]);
    assert_eq!(caller.is_told(8, Err(NotPublished::NoRoom)), [""; 0]);
    assert_eq!(caller.hears(), ["7 published t 5:1 2", "8 error topics_max"]);
}

#[test]
fn what_cannot_be_obeyed_is_told_and_the_call_goes_on() {
    let mut caller = Caller::new();
    let long = "t".repeat(256);
    let key = edge::Publish { topic: "t".to_owned(), idempotency_key: long.clone(), ..edge::Publish::default() };
    let empty = edge::Publish { topic: "t".to_owned(), ..edge::Publish::default() };
    let group = edge::Subscribe { group: "a b".to_owned(), ..subscribe("t") };
    let unsubscribe = edge::Unsubscribe { topic: String::new() };
    for (frame, code) in [
        (None, "bad_frame"),
        (Some(client_frame::Frame::Subscribe(subscribe("a b"))), "bad_topic"),
        (Some(client_frame::Frame::Subscribe(subscribe(&long))), "topic_too_long"),
        (Some(client_frame::Frame::Subscribe(group)), "bad_parameter"),
        (Some(client_frame::Frame::Unsubscribe(unsubscribe)), "bad_topic"),
        (Some(client_frame::Frame::Publish(key)), "bad_key"),
        (Some(client_frame::Frame::Publish(empty)), "bad_parameter"),
    ] {
        assert_eq!(caller.says(9, frame), [""; 0]);
        assert_eq!(caller.hears(), [format!("9 error {code}")]);
    }
    assert_eq!(caller.subscribes(subscribe("t")), ["subscribe t echo=true"]);
}

#[test]
fn a_topic_can_be_left() {
    let mut caller = Caller::new();
    let leave = client_frame::Frame::Unsubscribe(edge::Unsubscribe { topic: "t".to_owned() });
    assert_eq!(caller.says(4, Some(leave)), ["unsubscribe t"]);
    assert_eq!(caller.hears(), ["4 unsubscribed t"]);
}

#[test]
fn a_half_closed_call_goes_on_while_something_can_come() {
    let mut caller = Caller::new();
    assert_eq!(caller.finishes(), ["end Ok "], "nothing was asked for");

    let mut caller = Caller::new();
    caller.publishes(1, "t", "one");
    caller.publishes(2, "t", "two");
    assert_eq!(caller.finishes(), [""; 0]);
    assert_eq!(caller.is_told(1, Ok(1)), [""; 0]);
    assert_eq!(caller.is_told(2, Ok(2)), ["end Ok "]);

    let mut caller = Caller::new();
    caller.subscribes(subscribe("t"));
    caller.bench.join("t");
    assert_eq!(caller.finishes(), [""; 0]);
}

#[test]
fn garbage_ends_the_call() {
    for garbage in [&b"\xff"[..], b"\x12\x05ab", b"\x12\x03\x0a\x01\xff"] {
        let mut caller = Caller::new();
        caller.bench.message(&mut Connect, &mut caller.state, Kind::Binary, garbage);
        assert!(caller.bench.effects()[0].starts_with("end Internal "), "{garbage:?}");
    }
}
