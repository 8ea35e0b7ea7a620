//! What is written here is what the generated code reads, and the other way round.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::codec::grpc::generated::edge;
use crate::codec::grpc::generated::edge::{client_frame, message, publish, server_frame, subscribe};

fn client_frame(id: u32, frame: client_frame::Frame) -> Vec<u8> {
    edge::ClientFrame { id, frame: Some(frame) }.encode_to_vec()
}

fn server_frame(id: u32, frame: server_frame::Frame) -> Vec<u8> {
    edge::ServerFrame { id, frame: Some(frame) }.encode_to_vec()
}

fn cursor((epoch, offset): (u64, u64)) -> edge::Cursor {
    edge::Cursor { epoch, offset }
}

proptest! {
    #[test]
    fn subscriptions_are_written_as_generated_code_does(
        id: u32, topic in "[a-zä]{0,200}", group in "[a-z]{0,9}", no_echo: bool,
        since: Option<(u64, u64)>, history: Option<u32>,
    ) {
        let start = match (since, history) {
            (Some((epoch, offset)), _) => Start::Since(Cursor { epoch, offset }),
            (None, Some(count)) => Start::History(count),
            (None, None) => Start::Now,
        };
        let mut out = Vec::new();
        write_subscribe(id, &Subscription { topic: &topic, start, group: &group, no_echo }, &mut out);
        let start = match start {
            Start::Since(since) => Some(subscribe::Start::Since(cursor((since.epoch, since.offset)))),
            Start::History(count) => Some(subscribe::Start::History(count)),
            Start::Now => None,
        };
        let expected = client_frame::Frame::Subscribe(edge::Subscribe { topic, group, no_echo, start, ..edge::Subscribe::default() });
        prop_assert_eq!(out, client_frame(id, expected));
    }

    #[test]
    fn publications_are_written_as_generated_code_does(id: u32, topic in "[a-z]{0,200}", text in "[ -~]{0,300}") {
        let mut out = Vec::new();
        write_publish(id, &topic, &text, &mut out);
        let payload = Some(publish::Payload::Text(text));
        let publish = edge::Publish { topic, payload, ..edge::Publish::default() };
        prop_assert_eq!(out, client_frame(id, client_frame::Frame::Publish(publish)));
    }

    #[test]
    fn echoes_are_written_and_read_as_generated_code_does(payload in prop::collection::vec(any::<u8>(), 1..300)) {
        let mut out = Vec::new();
        write_echo_head(payload.len(), &mut out);
        out.extend_from_slice(&payload);
        prop_assert_eq!(&out, &edge::EchoMessage { payload: payload.clone() }.encode_to_vec());
        prop_assert_eq!(read_echo(&out), Ok(payload.as_slice()));
    }

    #[test]
    fn messages_are_read_as_generated_code_writes_them(
        topic in "[a-z]{0,200}", place: (u64, u64), time_ms: i64, text: Option<String>, binary: Vec<u8>,
    ) {
        let (payload, bytes) = match text {
            Some(text) => (message::Payload::Text(text.clone()), text.into_bytes()),
            None => (message::Payload::Binary(binary.clone()), binary),
        };
        let (traceparent, tracestate) = ("00-1-2-01".to_owned(), String::new());
        let cursor = Some(cursor(place));
        let message = edge::Message { topic, cursor, time_ms, payload: Some(payload), traceparent, tracestate };
        let frame = server_frame(0, server_frame::Frame::Message(message));
        let said = Said::Message { cursor: Cursor { epoch: place.0, offset: place.1 }, payload: &bytes };
        prop_assert_eq!(read_server_frame(&frame), Ok(ServerFrame { id: 0, said }));
        for end in 1..frame.len() {
            prop_assert!(read_server_frame(&frame[..end]).is_err(), "cut at {}", end);
        }
    }

    #[test]
    fn anything_is_survived(bytes: Vec<u8>) {
        let _ = (read_server_frame(&bytes), read_echo(&bytes));
    }
}

#[test]
fn the_end_of_a_subscription_is_written_as_generated_code_does() {
    let mut out = Vec::new();
    write_unsubscribe(300, "news", &mut out);
    let unsubscribe = edge::Unsubscribe { topic: "news".to_owned() };
    assert_eq!(out, client_frame(300, client_frame::Frame::Unsubscribe(unsubscribe)));
}

#[test]
fn answers_are_read_with_what_they_answer() {
    use server_frame::Frame;
    let (topic, place) = (String::from("t"), Cursor { epoch: 5, offset: 300 });
    let cursor = Some(cursor((5, 300)));
    let error = edge::Error { code: "bad_topic".to_owned(), message: "no".to_owned() };
    for (frame, said) in [
        (Frame::Subscribed(edge::Subscribed { topic: topic.clone(), cursor }), Said::Subscribed(place)),
        (Frame::Reset(edge::Reset { topic: topic.clone(), cursor }), Said::Reset(place)),
        (
            Frame::Published(edge::Published { topic: topic.clone(), cursor, subscribers: 3, duplicate: true }),
            Said::Published(place),
        ),
        (Frame::Error(error), Said::Error { code: "bad_topic", message: "no" }),
        (Frame::Unsubscribed(edge::Unsubscribed { topic }), Said::Other),
    ] {
        assert_eq!(read_server_frame(&server_frame(7, frame)), Ok(ServerFrame { id: 7, said }));
    }
    assert_eq!(read_server_frame(b""), Ok(ServerFrame { id: 0, said: Said::Other }));
}

#[test]
fn fields_of_later_versions_are_passed_over() {
    // Numbers 100 to 103: a number, eight bytes, four bytes, bytes.
    let later = b"\xa0\x06\x01\xa9\x0612345678\xb5\x061234\xba\x06\x02ab";
    assert_eq!(read_server_frame(&[&later[..], b"\x08\x07"].concat()).map(|frame| frame.id), Ok(7));
}

#[test]
fn what_is_no_protobuf_is_told() {
    for bytes in [
        &b"\x08"[..],
        b"\x0a\x05abcd",
        b"\x00\x01",
        b"\x0b",
        b"\x0f\x01",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x3a\x03\x0a\x01\xff",
    ] {
        assert_eq!(read_server_frame(bytes), Err(BadMessage), "{bytes:?}");
    }
}
