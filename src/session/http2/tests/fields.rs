//! HEADERS and CONTINUATION, requests and trailers.

use super::*;

#[test]
fn a_request_in_one_frame_and_in_several_6_10() {
    let block = request(&[]);
    says(&[get(1)], "1 GET /a HTTP/1.1 ends", &[]);
    let pieces = [
        bytes(kind::HEADERS, END, 1, &block[..5]),
        bytes(kind::CONTINUATION, 0, 1, &[]),
        bytes(kind::CONTINUATION, 0, 1, &block[5..9]),
        bytes(kind::CONTINUATION, WHOLE, 1, &block[9..]),
    ];
    says(&pieces, "1 GET /a HTTP/1.1 ends", &[]);
    let empty = [bytes(kind::HEADERS, 0, 1, &[]), bytes(kind::CONTINUATION, WHOLE, 1, &block)];
    says(&empty, "1 GET /a HTTP/1.1", &[]);
}

#[test]
fn nothing_comes_between_the_pieces_6_2_and_6_10() {
    let begun = bytes(kind::HEADERS, END, 1, &request(&[]));
    for other in [get(3), data(1, 0, b"x"), bytes(kind::PING, 0, 0, &[0; 8]), bytes(0x16, 0, 1, &[]), settings(&[])] {
        breaks(&[begun.clone(), other], Violation::Continuation);
    }
    breaks(&[post(3), begun, bytes(kind::CONTINUATION, WHOLE, 3, &[])], Violation::StreamNumber);
    let begun = bytes(kind::HEADERS, END, 5, &request(&[]));
    breaks(&[post(3), begun, bytes(kind::CONTINUATION, WHOLE, 3, &[])], Violation::Continuation);
    breaks(&[get(1), bytes(kind::CONTINUATION, WHOLE, 1, &[])], Violation::Continuation);
    breaks(&[bytes(kind::CONTINUATION, WHOLE, 0, &[])], Violation::Continuation);
}

#[test]
fn padding_and_priority_are_no_fields_6_2() {
    let block = request(&[]);
    let payload = [&[2, 0, 0, 0, 0, 7][..], &block, &[0, 0]].concat();
    says(&[bytes(kind::HEADERS, PADDED | PRIORITY | WHOLE, 1, &payload)], "1 GET /a HTTP/1.1", &[]);
    breaks(&[bytes(kind::HEADERS, PADDED | WHOLE, 1, &[3, 0, 0])], Violation::Padding);
    breaks(&[bytes(kind::HEADERS, PADDED | WHOLE, 1, &[])], Violation::FrameSize);
    breaks(&[bytes(kind::HEADERS, PRIORITY | WHOLE, 1, &[0; 4])], Violation::FrameSize);
    breaks(&[bytes(kind::HEADERS, PADDED | PRIORITY | WHOLE, 1, &[1, 0, 0, 0, 0, 7])], Violation::Padding);
    let selfish = bytes(kind::HEADERS, PRIORITY | WHOLE, 1, &[&[0x80, 0, 0, 1, 7][..], &block].concat());
    says(&[selfish, get(3)], "refused http2_priority, 3 GET /a HTTP/1.1 ends", &["1 reset 1"]);
}

#[test]
fn numbers_of_streams_are_odd_and_grow_5_1_1() {
    breaks(&[get(0)], Violation::StreamNumber);
    breaks(&[get(2)], Violation::StreamNumber);
    breaks(&[get(5), get(3)], Violation::StreamNumber);
    assert_eq!(Violation::StreamNumber.code(), ErrorCode::ProtocolError);
    says(&[get(5), get(0x7fff_ffff)], "5 GET /a HTTP/1.1 ends, 2147483647 GET /a HTTP/1.1 ends", &[]);
}

#[test]
fn fields_on_a_stream_that_is_closed_5_1() {
    let mut peer = Peer::greeted();
    peer.send(&get(1));
    peer.http2.ended(StreamId(1));
    assert_eq!(peer.send(&get(1)), "ClosedStream");
    assert_eq!(Violation::ClosedStream.code(), ErrorCode::StreamClosed);
    breaks(&[post(1), reset(1), get(1)], Violation::ClosedStream);
    says(&[get(1), get(1)], "1 GET /a HTTP/1.1 ends, 1 reset StreamClosed", &["1 reset 5"]);
}

#[test]
fn too_many_streams_are_refused_5_1_2() {
    let mut limits = Limits::default();
    limits.http2.streams_max = 2;
    let mut peer = Peer::greeted_with(limits);
    let found = "1 GET /a HTTP/1.1, 3 GET /a HTTP/1.1 ends, refused http2_too_many_streams";
    assert_eq!(peer.send(&[post(1), get(3), post(5), data(5, END, b"x")].concat()), found);
    peer.http2.ended(StreamId(3));
    assert_eq!(peer.send(&post(7)), "7 GET /a HTTP/1.1");
    assert_eq!(peer.answers(), ["5 reset 7"]);
}

#[test]
fn trailers_end_a_stream_8_1() {
    let trailers = |flags, fields: &[(&str, &str)]| bytes(kind::HEADERS, flags, 1, &block(fields));
    let good = trailers(END | WHOLE, &[("x-sum", "1")]);
    says(&[post(1), data(1, 0, b"x"), good.clone()], "1 GET /a HTTP/1.1, 1 \"x\", 1 ends", &[]);
    for bad in [trailers(WHOLE, &[("x-sum", "1")]), trailers(END | WHOLE, &[(":path", "/")])] {
        says(&[post(1), bad], "1 GET /a HTTP/1.1, 1 reset ProtocolError", &["1 reset 1"]);
    }
    let announced = bytes(kind::HEADERS, WHOLE, 1, &request(&[("content-length", "3")]));
    says(&[announced, data(1, 0, b"x"), good], "1 GET /a HTTP/1.1, 1 \"x\", 1 reset ProtocolError", &["1 reset 1"]);
}

#[test]
fn a_malformed_request_costs_its_stream_8_1_1() {
    let pathless = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")]);
    let malformed = bytes(kind::HEADERS, WHOLE, 1, &pathless);
    says(&[malformed, data(1, END, b"x"), get(3)], "refused http2_malformed, 3 GET /a HTTP/1.1 ends", &["1 reset 1"]);
}

#[test]
fn fields_that_cannot_be_decompressed_cost_the_connection_4_3() {
    breaks(&[bytes(kind::HEADERS, END | WHOLE, 1, &[0x80])], Violation::Compression);
    breaks(&[bytes(kind::HEADERS, END | WHOLE, 1, &[0, 5, b'x'])], Violation::Compression);
    breaks(&[post(1), bytes(kind::HEADERS, END | WHOLE, 1, &[0x80])], Violation::Compression);
    assert_eq!(Violation::Compression.code(), ErrorCode::CompressionError);
}

#[test]
fn too_large_a_head_is_answered_and_the_connection_lives_10_5_1() {
    let mut limits = Limits { head_bytes_max: 400, head_fields_max: 6, ..Limits::default() };
    limits.http2.streams_max = 5;
    let long = "x".repeat(120);
    for (more, rule) in [
        (vec![("a", &long[..]), ("b", &long), ("c", &long)], "refused head_too_large"),
        (vec![("a", ""); 6], "refused too_many_fields"),
    ] {
        let mut peer =
            Peer::greeted_with(Limits { head_bytes_max: if more.len() > 3 { 4000 } else { 400 }, ..limits.clone() });
        assert_eq!(peer.send(&bytes(kind::HEADERS, END | WHOLE, 1, &request(&more))), rule);
        assert_eq!(peer.answers(), ["1 head 5"]);
        assert_eq!(peer.send(&bytes(kind::HEADERS, WHOLE, 3, &request(&more))), rule);
        assert_eq!(peer.answers(), ["3 head 5", "3 reset 0"]);
        assert_eq!(peer.send(&[data(3, END, b"x"), get(5)].concat()), "5 GET /a HTTP/1.1 ends");
    }
}
