//! Streams: what can come on them in which state, and their bodies.

use super::*;

#[test]
fn a_body_is_passed_on_as_it_comes_6_1() {
    let mut peer = Peer::greeted();
    let sent = [post(1), data(1, 0, b"hello"), data(1, END, b"you")].concat();
    assert_eq!(peer.send(&sent), "1 GET /a HTTP/1.1, 1 \"hello\", 1 \"you\" ends");
    let mut peer = Peer::greeted();
    peer.slow = true;
    assert_eq!(
        peer.send(&sent),
        "1 GET /a HTTP/1.1, 1 \"h\", 1 \"e\", 1 \"l\", 1 \"l\", 1 \"o\", 1 \"y\", 1 \"o\", 1 \"u\" ends"
    );
    assert!(peer.http2.peer_ended(StreamId(1)));
}

#[test]
fn an_end_may_be_a_frame_of_its_own_6_1() {
    says(&[post(1), data(1, 0, b""), data(1, END, b"")], "1 GET /a HTTP/1.1, 1 \"\" ends", &[]);
}

#[test]
fn padding_is_no_body_6_1() {
    says(&[post(1), data(1, PADDED | END, b"\x03x\0\0\0")], "1 GET /a HTTP/1.1, 1 \"x\" ends", &[]);
    says(
        &[post(1), data(1, PADDED | END, b"\x02\0\0"), get(3)],
        "1 GET /a HTTP/1.1, 1 \"\" ends, 3 GET /a HTTP/1.1 ends",
        &[],
    );
    breaks(&[post(1), data(1, PADDED, b"\x04x\0\0")], Violation::Padding);
    breaks(&[post(1), data(1, PADDED, b"\x01")], Violation::Padding);
    breaks(&[post(1), data(1, PADDED, b"")], Violation::FrameSize);
}

#[test]
fn data_is_on_a_stream_that_is_open_5_1_and_6_1() {
    breaks(&[data(0, 0, b"x")], Violation::StreamNumber);
    breaks(&[data(1, 0, b"x")], Violation::IdleStream);
    breaks(&[data(2, 0, b"x")], Violation::IdleStream);
    says(&[get(1), data(1, 0, b"x")], "1 GET /a HTTP/1.1 ends, 1 reset StreamClosed", &["1 reset 5"]);
    let found = "1 GET /a HTTP/1.1, 1 reset Cancel, refused http2_closed_stream";
    says(&[post(1), reset(1), data(1, 0, b"x"), data(1, 0, b"y")], found, &["1 reset 5"]);
}

#[test]
fn resets_are_of_streams_that_have_begun_6_4() {
    breaks(&[reset(0)], Violation::StreamNumber);
    breaks(&[reset(1)], Violation::IdleStream);
    breaks(&[post(1), bytes(kind::RST_STREAM, 0, 1, &[0; 3])], Violation::FrameSize);
    says(&[post(1), reset(1), reset(1), window(1, 1)], "1 GET /a HTTP/1.1, 1 reset Cancel", &[]);
}

#[test]
fn a_stream_is_gone_when_both_sides_have_ended_5_1() {
    let mut peer = Peer::greeted();
    peer.send(&[get(1), post(3), post(5), post(7)].concat());
    assert_eq!(peer.http2.streams(), 4);
    peer.http2.ended(StreamId(1));
    assert_eq!(peer.http2.data(StreamId(3), 0, true), [0, 0, 0, 0, 1, 0, 0, 0, 3]);
    assert_eq!(peer.http2.names().map(ConnId::index).collect::<Vec<_>>(), [3, 5, 7]);
    assert!(!peer.http2.peer_ended(StreamId(3)));
    assert_eq!(peer.http2.room(StreamId(3)), 0, "our side has ended");
    assert_eq!(peer.send(&data(3, END, b"x")), "3 \"x\" ends");
    peer.http2.reset(StreamId(5), ErrorCode::Cancel, &mut peer.out);
    assert_eq!(peer.http2.streams(), 1);
    assert_eq!(peer.answers(), ["5 reset 8"]);
}

#[test]
fn what_still_comes_on_a_stream_that_we_reset_is_ignored_5_1() {
    let mut peer = Peer::greeted();
    peer.send(&post(1));
    let cut = data(1, 0, b"hello");
    assert_eq!(peer.send(&cut[..11]), "1 \"he\"");
    peer.http2.reset(StreamId(1), ErrorCode::Cancel, &mut peer.out);
    let trailers = bytes(kind::HEADERS, END | WHOLE, 1, &block(&[("a", "b")]));
    let late = [&cut[11..], &data(1, 0, b"more"), &trailers, &window(1, 1), &reset(1), &get(3)].concat();
    assert_eq!(peer.send(&late), "3 GET /a HTTP/1.1 ends");
    assert_eq!(peer.answers(), ["1 reset 8"]);
}

#[test]
fn a_stream_without_a_name_is_read_and_not_told() {
    let mut peer = Peer::greeted();
    peer.limits.http2.stream_window = 1000;
    let mut env = Env { limits: &peer.limits, tools: &mut peer.tools, partials: &mut peer.partials };
    let mut request = post(1);
    let (_, event) =
        peer.http2.receive(&mut peer.partial, &mut request, Tick(0), &mut env, &mut peer.out).expect("it fits");
    assert!(matches!(event, Some(Event::Request { stream: StreamId(1), ends: false, .. })));
    for _ in 0..10 {
        assert_eq!(peer.send(&data(1, 0, &[b'x'; 16_000])), "");
    }
    assert_eq!(peer.send(&[window(1, 0), get(3)].concat()), "refused http2_window_increment, 3 GET /a HTTP/1.1 ends");
}

#[test]
fn a_body_is_as_long_as_announced_8_1_1() {
    let announced = |flags, length| bytes(kind::HEADERS, flags, 1, &request(&[("content-length", length)]));
    let good = [announced(WHOLE, "2"), data(1, 0, b"a"), data(1, END, b"b")];
    says(&good, "1 GET /a HTTP/1.1, 1 \"a\", 1 \"b\" ends", &[]);
    for (frames, found) in [
        (vec![announced(WHOLE, "1"), data(1, 0, b"he")], "1 GET /a HTTP/1.1, 1 reset ProtocolError"),
        (vec![announced(WHOLE, "3"), data(1, END, b"he")], "1 GET /a HTTP/1.1, 1 reset ProtocolError"),
        (vec![announced(WHOLE, "3"), data(1, PADDED | END, b"\x01he\0")], "1 GET /a HTTP/1.1, 1 reset ProtocolError"),
        (vec![announced(END | WHOLE, "3")], "refused http2_body_length"),
    ] {
        says(&frames, found, &["1 reset 1"]);
    }
}

#[test]
fn a_stream_has_a_window_and_stalls_alone_5_2_2() {
    let mut peer = Peer::greeted();
    peer.consumes = false;
    // The connection's window is given back whatever becomes of the bytes.
    for stream in (0..40).map(|n| 2 * n + 1) {
        peer.send(&post(stream));
        for _ in 0..4 {
            assert!(peer.send(&data(stream, 0, &[b'x'; 16_000])).starts_with(&format!("{stream} \"x")));
        }
    }
    let given = peer.answers();
    assert!(given.len() > 3 && given.iter().all(|answer| answer.starts_with("window 0 +")), "{given:?}");
    assert_eq!(peer.send(&data(1, 0, &[b'x'; 1_536])), "1 reset FlowControlError");
    assert_eq!(peer.answers(), ["1 reset 3"]);
    assert_eq!(peer.http2.streams(), 39);
    peer.http2.consumed(StreamId(3), 30_000, &mut peer.out);
    assert!(peer.answers().is_empty());
    peer.http2.consumed(StreamId(3), 3_000, &mut peer.out);
    peer.http2.consumed(StreamId(1), 3_000, &mut peer.out);
    assert_eq!(peer.answers(), ["window 3 +33000"]);
}

#[test]
fn a_connection_has_a_window_6_9_1() {
    let mut peer = Peer::greeted();
    peer.http2.connection_window = u32::MAX;
    // So much is never used: it is not given back.
    peer.http2.receive = super::super::ReceiveWindow::new(10_000);
    peer.send(&post(1));
    assert_eq!(peer.send(&data(1, 0, &[b'x'; 10_001])), "WindowExceeded");
}

#[test]
fn padding_is_given_back_at_once_6_9() {
    let mut peer = Peer::greeted();
    peer.consumes = false;
    peer.send(&post(1));
    let padded = data(1, PADDED, &[&[255, b'x'][..], &[0; 255]].concat());
    for _ in 0..99 {
        assert_eq!(peer.send(&padded), "1 \"x\"");
    }
    assert_eq!(peer.http2.streams.get(StreamId(1)).expect("it fits").receive.held(65_535), 99);
}
