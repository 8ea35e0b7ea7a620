//! The preface, SETTINGS, and frames of the connection.

use super::*;

#[test]
fn a_connection_begins_with_the_preface_and_settings_3_4() {
    let mut peer = Peer::new(Limits::default());
    assert_eq!(peer.answers(), ["settings 0 3", "window 0 +983041"]);
    assert_eq!(peer.http2.settings_due(), Some(Tick(50)));
    for byte in &PREFACE[PREFACE_HEAD.len()..] {
        assert_eq!(peer.send(&[*byte]), "");
    }
    peer.now = Tick(30);
    assert_eq!(peer.send(&settings(&[(3, 100), (0xaaaa, 7)])), "");
    assert_eq!(peer.answers(), ["settings 1 0"]);
    assert_eq!(peer.http2.settings_due(), Some(Tick(80)), "now ours are to be acknowledged");
    assert_eq!(peer.send(&bytes(kind::SETTINGS, ACK, 0, &[])), "");
    assert_eq!(peer.http2.settings_due(), None);
}

#[test]
fn another_beginning_is_none_3_4() {
    assert_eq!(Peer::new(Limits::default()).send(b"SM\r\n\rX"), "Preface");
    let rest = &PREFACE[PREFACE_HEAD.len()..];
    for first in [get(1), bytes(kind::PING, 0, 0, &[0; 8]), bytes(kind::SETTINGS, ACK, 0, &[]), bytes(99, 0, 0, &[])] {
        assert_eq!(Peer::new(Limits::default()).send(&[rest, &first].concat()), "Preface");
    }
}

#[test]
fn windows_that_are_set_are_told() {
    let mut limits = Limits::default();
    (limits.http2.stream_window, limits.http2.connection_window) = (1000, 65_535);
    assert_eq!(Peer::new(limits).answers(), ["settings 0 4"]);
}

#[test]
fn a_frame_has_at_most_16_kib_4_2() {
    for kind in [kind::DATA, kind::HEADERS, kind::SETTINGS, 99] {
        breaks(&[post(1), bytes(kind, 0, 1, &[0; 16_385])], Violation::FrameSize);
    }
}

#[test]
fn unknown_frames_and_flags_are_ignored_4_1() {
    let unknown = bytes(0x16, 0xff, 0, b"whatever");
    let ping = bytes(kind::PING, 0xfe, 0, b"12345678");
    says(&[unknown.clone(), ping, unknown, get(1)], "1 GET /a HTTP/1.1 ends", &["ping 1 12345678"]);
}

#[test]
fn settings_are_for_the_connection_and_of_six_bytes_each_6_5() {
    breaks(&[bytes(kind::SETTINGS, 0, 1, &[])], Violation::StreamNumber);
    breaks(&[bytes(kind::SETTINGS, 0, 0, &[0; 5])], Violation::FrameSize);
    breaks(&[bytes(kind::SETTINGS, ACK, 0, &[0; 6])], Violation::FrameSize);
}

#[test]
fn settings_have_values_that_they_cannot_have_6_5_2() {
    breaks(&[settings(&[(2, 2)])], Violation::Setting);
    breaks(&[settings(&[(4, 1 << 31)])], Violation::SettingWindow);
    breaks(&[settings(&[(5, 16_383)])], Violation::Setting);
    breaks(&[settings(&[(5, 1 << 24)])], Violation::Setting);
    assert_eq!(Violation::Setting.code(), ErrorCode::ProtocolError);
    assert_eq!(Violation::SettingWindow.code(), ErrorCode::FlowControlError);
    says(&[settings(&[(2, 0), (4, (1 << 31) - 1), (5, (1 << 24) - 1)])], "", &["settings 1 0"]);
}

#[test]
fn the_last_of_several_values_counts_6_5_3() {
    let mut peer = Peer::greeted();
    peer.send(&[settings(&[(4, 100), (4, 1)]), get(1)].concat());
    assert_eq!(peer.http2.room(StreamId(1)), 1);
}

#[test]
fn a_ping_is_answered_and_ours_too_6_7() {
    breaks(&[bytes(kind::PING, 0, 1, &[0; 8])], Violation::StreamNumber);
    breaks(&[bytes(kind::PING, 0, 0, &[0; 7])], Violation::FrameSize);
    let mut peer = Peer::greeted();
    peer.http2.write_ping(&mut peer.out);
    assert_eq!(peer.answers(), ["ping 0 holdline"]);
    assert_eq!(peer.send(&bytes(kind::PING, ACK, 0, b"whatever")), "");
    assert_eq!(peer.send(&bytes(kind::PING, ACK, 0, b"holdline")), "pong");
    assert_eq!(peer.send(&bytes(kind::PING, ACK, 0, b"holdline")), "", "nothing was asked");
}

#[test]
fn the_peers_goaway_is_told_once_6_8() {
    breaks(&[bytes(kind::GOAWAY, 0, 1, &[0; 8])], Violation::StreamNumber);
    breaks(&[bytes(kind::GOAWAY, 0, 0, &[0; 7])], Violation::FrameSize);
    let goaway = bytes(kind::GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0bye");
    says(&[goaway.clone(), goaway, get(1)], "goes away, 1 GET /a HTTP/1.1 ends", &[]);
}

#[test]
fn after_our_goaway_streams_are_refused_and_those_open_go_on_6_8() {
    let mut peer = Peer::greeted();
    peer.send(&post(1));
    peer.http2.go_away(ErrorCode::NoError, "", &mut peer.out);
    peer.http2.go_away(ErrorCode::NoError, "", &mut peer.out);
    assert_eq!(peer.send(&[get(3), data(1, END, b"x")].concat()), "1 \"x\" ends");
    peer.http2.go_away(ErrorCode::ProtocolError, "no", &mut peer.out);
    assert_eq!(peer.answers(), ["goaway 1 0", "3 reset 7", "goaway 3 1"]);
}

#[test]
fn what_was_on_its_way_when_we_warned_is_taken_6_8() {
    let mut peer = Peer::greeted();
    peer.send(&post(1));
    peer.http2.warn("retry after 5 ms", &mut peer.out);
    peer.http2.warn("again", &mut peer.out);
    assert_eq!(peer.send(&get(3)), "3 GET /a HTTP/1.1 ends");
    assert_eq!(peer.send(&bytes(kind::PING, 1, 0, b"goodbye!")), "heard");
    peer.http2.go_away(ErrorCode::NoError, "", &mut peer.out);
    assert_eq!(peer.send(&[get(5), data(1, END, b"x")].concat()), "1 \"x\" ends");
    assert_eq!(peer.answers(), ["goaway 2147483647 0", "ping 0 goodbye!", "goaway 3 0", "5 reset 7"]);
    assert_eq!(peer.send(&bytes(kind::PING, 1, 0, b"goodbye!")), "", "that was told");
}

#[test]
fn windows_grow_and_not_too_far_6_9() {
    breaks(&[bytes(kind::WINDOW_UPDATE, 0, 0, &[0; 3])], Violation::FrameSize);
    breaks(&[window(0, 0)], Violation::WindowIncrement);
    breaks(&[window(0, (1 << 31) - 1)], Violation::WindowOverflow);
    breaks(&[window(1, 1)], Violation::IdleStream);
    breaks(&[window(2, 1)], Violation::IdleStream);
    says(&[window(0, (1 << 31) - 1 - 65_535)], "", &[]);
    says(&[get(1), window(1, 5)], "1 GET /a HTTP/1.1 ends, window 1", &[]);
    says(&[get(1), window(1, 0)], "1 GET /a HTTP/1.1 ends, 1 reset ProtocolError", &["1 reset 1"]);
    let found = "1 GET /a HTTP/1.1 ends, 1 reset FlowControlError";
    says(&[get(1), window(1, (1 << 31) - 1)], found, &["1 reset 3"]);
}

#[test]
fn what_may_be_sent_is_the_least_of_both_windows_and_a_frame_6_9_1() {
    let mut peer = Peer::greeted();
    peer.send(&[post(1), get(3)].concat());
    assert_eq!(peer.http2.room(StreamId(1)), 16_384);
    for _ in 0..3 {
        assert_eq!(peer.http2.data(StreamId(1), 16_384, false), [0, 0x40, 0, 0, 0, 0, 0, 0, 1]);
    }
    assert_eq!([1, 3, 5].map(|id| peer.http2.room(StreamId(id))), [16_383, 16_383, 0]);
    peer.http2.data(StreamId(1), 16_383, false);
    assert_eq!([1, 3].map(|id| peer.http2.room(StreamId(id))), [0, 0]);
    assert_eq!(peer.send(&window(0, 10)), "window");
    assert_eq!([1, 3].map(|id| peer.http2.room(StreamId(id))), [0, 10], "the connection's and the stream's");
    assert_eq!(peer.send(&settings(&[(5, 20_000), (4, 100_000)])), "window", "there is room on a stream that had none");
    assert_eq!([1, 3].map(|id| peer.http2.room(StreamId(id))), [10, 10]);
    assert_eq!(peer.send(&settings(&[(4, 100_001)])), "", "nobody waited for that");
    assert_eq!(peer.send(&window(0, 1 << 20)), "", "nor for that");
    assert_eq!([1, 3].map(|id| peer.http2.room(StreamId(id))), [20_000, 20_000]);
}

#[test]
fn smaller_first_windows_take_windows_below_zero_6_9_2() {
    let mut peer = Peer::greeted();
    peer.send(&get(1));
    peer.http2.data(StreamId(1), 16_384, false);
    assert_eq!(peer.send(&settings(&[(4, 0)])), "");
    assert_eq!(peer.send(&window(1, 16_384)), "window 1");
    assert_eq!(peer.http2.room(StreamId(1)), 0);
    assert_eq!(peer.send(&window(1, 1)), "window 1");
    assert_eq!(peer.http2.room(StreamId(1)), 1);
    assert_eq!(peer.send(&settings(&[(4, (1 << 31) - 1)])), "SettingWindow");
}

#[test]
fn priorities_are_read_and_ignored_6_3() {
    breaks(&[bytes(kind::PRIORITY, 0, 0, &[0; 5])], Violation::StreamNumber);
    breaks(&[bytes(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 0])], Violation::Priority);
    breaks(&[bytes(kind::PRIORITY, 0, 1, &[0; 4])], Violation::FrameSize);
    says(&[bytes(kind::PRIORITY, 0, 9, &[0; 5]), get(1)], "1 GET /a HTTP/1.1 ends", &[]);
    let found = "1 GET /a HTTP/1.1, 1 reset FrameSizeError";
    says(&[post(1), bytes(kind::PRIORITY, 0, 1, &[0; 4])], found, &["1 reset 6"]);
    let found = "1 GET /a HTTP/1.1, 1 reset ProtocolError";
    says(&[post(1), bytes(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 0])], found, &["1 reset 1"]);
}

#[test]
fn a_client_cannot_push_8_4() {
    breaks(&[get(1), bytes(kind::PUSH_PROMISE, WHOLE, 1, &[0, 0, 0, 2])], Violation::Push);
}
