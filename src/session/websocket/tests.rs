#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use super::fuzz::{Seen, Server, fuzz_receive, small_limits};
use super::*;
use crate::close::CloseReason;
use crate::codec::websocket::close::CloseError;
use crate::codec::websocket::deflate::{Deflater, InflateError};
use crate::codec::websocket::fuzz::random::Random;
use crate::message::Wire;
use crate::session::{Encoder, Violation as _};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len.to_be_bytes()[7]),
        len @ 126..=0xffff => frame.extend([&[0x80 | 126], &len.to_be_bytes()[6..]].concat()),
        len => frame.extend([&[0x80 | 127], len.to_be_bytes().as_slice()].concat()),
    }
    frame.extend_from_slice(&KEY);
    let body = frame.len();
    frame.extend_from_slice(payload);
    mask::unmask(&mut frame[body..], KEY, 0);
    frame
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::default().compress(payload, 15, &mut out).unwrap();
    out
}

/// A server that receives `stream`, whole and cut in every place, which must not make a difference.
fn serve(server: impl Fn() -> Server, stream: &[u8]) -> (Vec<Seen>, Result<(), Violation>) {
    let mut whole = server();
    let result = whole.receive(stream, Flow::Continue);
    for cut in 0..stream.len().min(600) {
        let mut halves = server();
        let (head, tail) = stream.split_at(cut);
        let again = halves.receive(head, Flow::Continue).and_then(|()| halves.receive(tail, Flow::Continue));
        assert_eq!((halves.outcome(), again), (whole.outcome(), result), "cut at {cut}");
    }
    (whole.seen, result)
}

fn plain(frames: &[Vec<u8>]) -> (Vec<Seen>, Result<(), Violation>) {
    serve(|| Server::new(0, Limits::default()), &frames.concat())
}

fn compressing(frames: &[Vec<u8>]) -> (Vec<Seen>, Result<(), Violation>) {
    serve(|| Server::new(15, small_limits()), &frames.concat())
}

fn seen(frames: &[Vec<u8>]) -> Vec<Seen> {
    let (seen, result) = plain(frames);
    assert_eq!(result, Ok(()));
    seen
}

fn refused(frames: &[Vec<u8>]) -> Violation {
    plain(frames).1.unwrap_err()
}

fn text(text: &str) -> Seen {
    Seen::Message(Kind::Text, text.as_bytes().to_vec())
}

fn binary(bytes: &[u8]) -> Seen {
    Seen::Message(Kind::Binary, bytes.to_vec())
}

#[test]
fn section_5_6_messages_in_one_frame() {
    assert_eq!(
        seen(&[frame(FIN | TEXT, b"Hello"), frame(FIN | BINARY, b"\xff\x00")]),
        [text("Hello"), binary(b"\xff\0")]
    );
    assert_eq!(seen(&[frame(FIN | TEXT, b""), frame(FIN | BINARY, b"")]), [text(""), binary(b"")]);
    for len in [125, 126, 127, 65_535, 65_536, 65_537] {
        let payload = vec![b'*'; len];
        assert_eq!(seen(&[frame(FIN | BINARY, &payload)]), [binary(&payload)]);
    }
}

#[test]
fn section_5_4_fragments() {
    assert_eq!(seen(&[frame(TEXT, b"Hel"), frame(FIN | CONTINUATION, b"lo")]), [text("Hello")]);
    let pieces = [frame(BINARY, b""), frame(CONTINUATION, b"a"), frame(CONTINUATION, b"b"), frame(FIN, b"")];
    assert_eq!(seen(&pieces), [binary(b"ab")]);
    assert_eq!(refused(&[frame(FIN | CONTINUATION, b"lo")]), Violation::NothingToContinue);
    assert_eq!(refused(&[frame(CONTINUATION, b"lo")]), Violation::NothingToContinue);
    assert_eq!(refused(&[frame(TEXT, b"Hel"), frame(FIN | TEXT, b"lo")]), Violation::Interleaved);
    assert_eq!(refused(&[frame(TEXT, b"a"), frame(FIN, b"b"), frame(FIN, b"c")]), Violation::NothingToContinue);
}

#[test]
fn section_5_5_control_frames_between_fragments() {
    let frames = [frame(TEXT, b"Hel"), frame(FIN | PING, b"are you there"), frame(FIN | PONG, b""), frame(FIN, b"lo")];
    assert_eq!(seen(&frames), [Seen::Ping(b"are you there".to_vec()), Seen::Pong(vec![]), text("Hello")]);
    assert_eq!(seen(&[frame(FIN | PING, &[7; 125])]), [Seen::Ping(vec![7; 125])]);
    assert_eq!(refused(&[frame(FIN | PING, &[7; 126])]), BadHeader::LongControl.into());
    assert_eq!(refused(&[frame(PING, b"")]), BadHeader::FragmentedControl.into());
}

#[test]
fn section_5_1_and_5_2_headers() {
    assert_eq!(refused(&[vec![FIN | TEXT, 5]]), BadHeader::Unmasked.into());
    assert_eq!(refused(&[frame(FIN | 0x20 | TEXT, b"")]), BadHeader::ReservedBit.into());
    assert_eq!(refused(&[frame(FIN | 0x10 | PING, b"")]), BadHeader::ReservedBit.into());
    assert_eq!(refused(&[frame(FIN | 3, b"")]), BadHeader::ReservedOpcode.into());
    assert_eq!(refused(&[frame(FIN | 11, b"")]), BadHeader::ReservedOpcode.into());
    assert_eq!(refused(&[frame(FIN | RSV1 | TEXT, b"")]), Violation::NotAgreed);
    let (before, result) = plain(&[frame(FIN | TEXT, b"ok"), frame(FIN | 5, b""), frame(FIN | TEXT, b"lost")]);
    assert_eq!((before, result), (vec![text("ok")], Err(BadHeader::ReservedOpcode.into())));
}

#[test]
fn section_5_5_1_and_7_close_frames() {
    assert_eq!(seen(&[frame(FIN | CLOSE, b"")]), [Seen::Close(None)]);
    assert_eq!(seen(&[frame(FIN | CLOSE, b"\x03\xe8bye")]), [Seen::Close(Some(1000))]);
    assert_eq!(seen(&[frame(FIN | CLOSE, b""), frame(FIN | 5, b"not looked at")]), [Seen::Close(None)]);
    assert_eq!(seen(&[frame(TEXT, b"never finished"), frame(FIN | CLOSE, b"")]), [Seen::Close(None)]);
    assert_eq!(refused(&[frame(FIN | CLOSE, b"\x03")]), CloseError::HalfACode.into());
    assert_eq!(refused(&[frame(FIN | CLOSE, b"\x03\xed")]), CloseError::BadCode(1005).into());
    assert_eq!(refused(&[frame(FIN | CLOSE, b"\x03\xe8\xff")]), CloseError::BadReason.into());
}

#[test]
fn after_a_close_frame_nothing_is_kept_or_parsed() {
    let mut server = Server::new(0, Limits::default());
    server.receive(&[frame(TEXT, b"never finished"), frame(FIN | CLOSE, b"")].concat(), Flow::Continue).unwrap();
    assert!(server.state.close_received() && server.partial.is_none());
    server.receive(b"anything", Flow::Continue).unwrap();
    assert_eq!(server.seen, [Seen::Close(None)]);
}

#[test]
fn section_8_1_text_is_utf8() {
    let greek = "κόσμε".as_bytes();
    assert_eq!(seen(&[frame(TEXT, &greek[..3]), frame(0, &greek[3..4]), frame(FIN, &greek[4..])]), [text("κόσμε")]);
    assert_eq!(refused(&[frame(FIN | TEXT, b"ab\xed\xa0\x80")]), BadUtf8.into());
    assert_eq!(refused(&[frame(FIN | TEXT, b"ab\xce")]), BadUtf8.into());
    assert_eq!(refused(&[frame(TEXT, b"ab\xce"), frame(FIN, b"")]), BadUtf8.into());
    assert_eq!(refused(&[frame(TEXT, b"ab\xf4"), frame(CONTINUATION, b"\x90")]), BadUtf8.into());
}

/// Autobahn 6.4.3 and 6.4.4: refused at the byte, in a frame that has not arrived completely.
#[test]
fn section_8_1_bad_text_is_refused_at_its_byte() {
    let stream = frame(FIN | TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited");
    let bad = stream.len() - b"\x90\x80\x80edited".len();
    let mut server = Server::new(0, Limits::default());
    for byte in &stream[..bad] {
        assert_eq!(server.receive(&[*byte], Flow::Continue), Ok(()));
    }
    assert_eq!(server.receive(&stream[bad..=bad], Flow::Continue), Err(BadUtf8.into()));
}

#[test]
fn rfc_7692_compressed_messages() {
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    assert_eq!(compressing(&[frame(FIN | RSV1 | TEXT, hello)]), (vec![text("Hello")], Ok(())));
    let fragments = [frame(RSV1 | TEXT, &hello[..3]), frame(FIN | PING, b"!"), frame(FIN, &hello[3..])];
    assert_eq!(compressing(&fragments), (vec![Seen::Ping(b"!".to_vec()), text("Hello")], Ok(())));
    assert_eq!(compressing(&[frame(FIN | RSV1 | BINARY, b"\x00")]), (vec![binary(b"")], Ok(())));
    assert_eq!(compressing(&[frame(FIN | TEXT, b"plain")]), (vec![text("plain")], Ok(())));
    let again = [frame(RSV1 | TEXT, &hello[..3]), frame(FIN | RSV1, &hello[3..])];
    assert_eq!(compressing(&again).1, Err(BadHeader::ReservedBit.into()), "only on the first");
    assert_eq!(compressing(&[frame(FIN | RSV1 | TEXT, b"\xff")]).1, Err(InflateError::Garbage.into()));
    assert_eq!(compressing(&[frame(FIN | RSV1 | TEXT, &deflated(b"\xce"))]).1, Err(BadUtf8.into()));
    assert_eq!(compressing(&[frame(FIN | RSV1 | BINARY, &deflated(&[0; 2049]))]).1, Err(InflateError::TooBig.into()));
    assert_eq!(compressing(&[frame(FIN | RSV1 | BINARY, &deflated(&[0; 2048]))]), (vec![binary(&[0; 2048])], Ok(())));
}

#[test]
fn noise_of_the_largest_size_may_be_compressed() {
    let mut random = Random(7);
    let noise: Vec<u8> = (0..2048).map(|_| random.next().to_be_bytes()[0]).collect();
    let compressed = deflated(&noise);
    assert!(compressed.len() > noise.len());
    assert_eq!(compressing(&[frame(FIN | RSV1 | BINARY, &compressed)]), (vec![binary(&noise)], Ok(())));
    assert_eq!(compressing(&[frame(FIN | RSV1 | BINARY, &[0; 2500])]).1, Err(Violation::TooBig));
}

#[test]
fn messages_up_to_the_limit() {
    let limited = |frames: &[Vec<u8>]| serve(|| Server::new(0, small_limits()), &frames.concat());
    assert_eq!(limited(&[frame(FIN | BINARY, &[0; 2048])]).1, Ok(()));
    assert_eq!(limited(&[frame(FIN | BINARY, &[0; 2049])]).1, Err(Violation::TooBig));
    assert_eq!(limited(&[frame(BINARY, &[0; 2000]), frame(FIN, &[0; 48])]).1, Ok(()));
    assert_eq!(limited(&[frame(BINARY, &[0; 2000]), frame(FIN, &[0; 49])]).1, Err(Violation::TooBig));
    // Told by the header, not when the payload has come.
    assert_eq!(limited(&[frame(FIN | BINARY, &[0; 2049])[..8].to_vec()]).1, Err(Violation::TooBig));
}

/// Memory was taken for the length that a header said, before there was a payload.
#[test]
fn rustsec_2022_0035_allocation_from_a_declared_length() {
    let mut server = Server::new(0, Limits { message_bytes_max: 1 << 40, ..Limits::default() });
    let mut header = vec![FIN | BINARY, 0x80 | 127];
    header.extend_from_slice(&(1_u64 << 39).to_be_bytes());
    header.extend_from_slice(&KEY);
    server.receive(&header, Flow::Continue).unwrap();
    server.receive(b"a few bytes", Flow::Continue).unwrap();
    let partial = server.partial.unwrap();
    assert!(partial.buf.len() == 11 && partial.buf.capacity() < 1024);
}

/// A length that is negative as a signed number made the sum of a message's lengths small.
#[test]
fn cve_2020_27813_length_overflow() {
    let longest = |first: u8, len: u64| {
        let mut header = vec![first, 0x80 | 127];
        header.extend_from_slice(&len.to_be_bytes());
        header.extend_from_slice(&KEY);
        header
    };
    let begun = frame(BINARY, b"some");
    assert_eq!(refused(&[begun.clone(), longest(FIN, u64::MAX - 3)]), BadHeader::LengthOverflow.into());
    assert_eq!(refused(&[begun, longest(FIN, i64::MAX as u64)]), Violation::TooBig);
    assert_eq!(refused(&[longest(FIN | BINARY, i64::MAX as u64)]), Violation::TooBig);
}

/// A message in millions of tiny fragments cost memory and time for each.
#[test]
fn cve_2026_48779_tiny_fragments_flood() {
    let flood = |server: &mut Server, payload: &[u8]| {
        let (first, next) = (frame(BINARY, payload), frame(CONTINUATION, payload));
        let mut stream = first;
        (0..1000).for_each(|_| stream.extend_from_slice(&next));
        server.receive(&stream, Flow::Continue)?;
        let nexts = next.repeat(1000);
        (0..10_000).try_for_each(|_| server.receive(&nexts, Flow::Continue))
    };
    let mut server = Server::new(0, Limits::default());
    assert_eq!(flood(&mut server, b"x"), Err(Violation::TooManyFragments));
    assert!(server.partial.is_none(), "nothing is kept of a peer that is thrown out");
    assert_eq!(flood(&mut Server::new(0, Limits::default()), b""), Err(Violation::EmptyFragments));

    // Up to the limit it is one buffer, as large as what has come.
    let mut server = Server::new(0, Limits::default());
    server.receive(&frame(BINARY, b"x"), Flow::Continue).unwrap();
    for _ in 1..65_535 {
        server.receive(&frame(CONTINUATION, b"x"), Flow::Continue).unwrap();
    }
    assert!(server.partial.as_ref().unwrap().buf.capacity() <= 131_072);
    server.receive(&frame(FIN, b"x"), Flow::Continue).unwrap();
    assert_eq!(server.seen, [binary(&vec![b'x'; 65_536])]);
    assert!(server.partial.is_none());
}

#[test]
fn empty_fragments_in_a_row_are_counted() {
    let empty = |times: usize| vec![frame(CONTINUATION, b""); times];
    let message = |parts: &[Vec<Vec<u8>>]| serve(|| Server::new(0, small_limits()), &parts.concat().concat()).1;
    let (first, next, last) = (vec![frame(BINARY, b"a")], vec![frame(0, b"b")], vec![frame(FIN, b"")]);
    assert_eq!(message(&[first.clone(), empty(4), next.clone(), empty(3), last.clone()]), Ok(()));
    assert_eq!(message(&[first.clone(), empty(5)]), Err(Violation::EmptyFragments));
    assert_eq!(message(&[first, empty(4), next, empty(4), last]), Err(Violation::EmptyFragments));
    assert_eq!(message(&[vec![frame(FIN | TEXT, b""); 100]]), Ok(()), "whole messages are no fragments");
}

#[test]
fn a_whole_message_has_no_fragments() {
    let none = || Server::new(0, Limits { fragments_max: 0, empty_fragments_max: 0, ..Limits::default() });
    assert_eq!(serve(none, &frame(FIN | TEXT, b"")), (vec![text("")], Ok(())));
    assert_eq!(serve(none, &frame(TEXT, b"a")).1, Err(Violation::TooManyFragments));
}

#[test]
fn the_room_of_a_large_inflated_message_is_freed() {
    let mut server = Server::new(15, Limits { message_bytes_max: 4 << 20, ..Limits::default() });
    server.receive(&frame(FIN | RSV1 | BINARY, &deflated(&vec![0; 3 << 20])), Flow::Continue).unwrap();
    assert_eq!(server.seen, [binary(&vec![0; 3 << 20])]);
    assert!(server.tools.inflated.capacity() <= 1 << 20);
}

/// The room for inflated messages is the whole shard's: what one connection left there must not reach another.
#[test]
fn a_handler_that_panics_leaves_nothing_for_others() {
    let mut server = Server::new(15, small_limits());
    let mut stream = frame(FIN | RSV1 | TEXT, &deflated(b"for one"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut env = Env { limits: &server.limits, tools: &mut server.tools, partials: &mut server.partials };
        let mut state = State::open(15);
        receive(&mut state, &mut None, &mut stream, &mut env, |_| panic!("a fault of the handler's"))
    }));
    assert!(panicked.is_err());
    server.receive(&frame(FIN | RSV1 | TEXT, &deflated(b"for another")), Flow::Continue).unwrap();
    assert_eq!(server.seen, [text("for another")]);
}

#[test]
fn stop_leaves_what_is_behind_the_event() {
    let mut server = Server::new(0, Limits::default());
    let mut stream = [frame(FIN | TEXT, b"one"), frame(FIN | TEXT, b"two")].concat();
    let mut env = Env { limits: &server.limits, tools: &mut server.tools, partials: &mut server.partials };
    let used = receive(&mut server.state, &mut server.partial, &mut stream, &mut env, |_| Flow::Stop);
    assert_eq!(used, Ok(9));
}

#[test]
fn a_partial_is_there_only_for_what_is_unfinished() {
    let mut server = Server::new(0, Limits::default());
    for (bytes, unfinished) in [
        (frame(FIN | TEXT, b"whole"), false),
        (frame(FIN | TEXT, b"cut")[..3].to_vec(), true),
        (frame(FIN | TEXT, b"cut")[3..].to_vec(), false),
        (frame(TEXT, b"first"), true),
        (frame(FIN | PING, b"ping"), true),
        (frame(FIN, b"last"), false),
    ] {
        server.receive(&bytes, Flow::Continue).unwrap();
        assert_eq!(server.partial.is_some(), unfinished);
    }
}

#[test]
fn reasons_and_labels_of_violations() {
    assert_eq!(Violation::Header(BadHeader::Unmasked).reason(), CloseReason::ProtocolError);
    assert_eq!(Violation::Text(BadUtf8).reason(), CloseReason::BadUtf8);
    assert_eq!(Violation::Close(CloseError::BadReason).reason(), CloseReason::BadUtf8);
    assert_eq!(Violation::TooBig.reason(), CloseReason::TooBig);
    assert_eq!(Violation::Compressed(InflateError::TooBig).reason(), CloseReason::TooBig);
    assert_eq!(Violation::EmptyFragments.reason(), CloseReason::Policy);
}

#[test]
fn what_we_send() {
    let mut deflater = Deflater::default();
    let mut encode = |window_bits, payload: &[u8]| {
        let mut out = b"before".to_vec();
        let encoder = Encoder { wire: Wire::WebSocket, window_bits };
        encode_message(encoder, Kind::Text, payload, &mut deflater, &mut out);
        assert!(out.starts_with(b"before"));
        out.split_off(6)
    };
    assert_eq!(encode(0, b"Hello"), b"\x81\x05Hello");
    assert_eq!(encode(15, b"Hello"), b"\x81\x05Hello", "too short to compress");
    let long = encode(15, &[b'a'; 1000]);
    assert_eq!(long[..2], [0xc1, u8::try_from(long.len() - 2).unwrap()]);
    assert_eq!(encode(0, &[b'a'; 1000])[..4], [0x81, 126, 3, 232]);

    let control = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        encode(&mut out);
        out
    };
    assert_eq!(control(&|out| encode_ping(b"", out)), b"\x89\x00");
    assert_eq!(control(&|out| encode_pong(b"same", out)), b"\x8a\x04same");
    assert_eq!(control(&|out| encode_close(None, "", out)), b"\x88\x00");
    assert_eq!(control(&|out| encode_close(Some(1001), "bye", out)), b"\x88\x05\x03\xe9bye");
    assert_eq!(control(&|out| encode_close(Some(1001), &"x".repeat(500), out)).len(), 2 + 125);
}

/// A stream that is mostly as it should be.
fn random_stream(random: &mut Random, compressed: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut open = false;
    for _ in 0..random.below(12) {
        let fin = if random.below(3) > 0 { FIN } else { 0 };
        let len_max = if random.below(8) == 0 { 300 } else { 20 };
        let mut payload = random.bytes(len_max);
        let first = match random.below(12) {
            0 => FIN | PING,
            1 => FIN | PONG,
            2 if random.below(6) == 0 => {
                payload = [b"\x03\xe8".as_slice(), "tschüß".as_bytes()].concat();
                FIN | CLOSE
            }
            3 if random.below(8) == 0 => random.next().to_be_bytes()[0],
            _ if open => fin,
            4..7 => fin | BINARY,
            7 => {
                payload = compressed[random.below(compressed.len())].clone();
                FIN | RSV1 | TEXT
            }
            _ => {
                payload = "κόσμε \u{10ffff} text".repeat(random.below(5)).into_bytes();
                fin | TEXT
            }
        };
        if first & 0x0f >= 8 {
            payload.truncate(125);
        } else {
            open = first & FIN == 0;
        }
        stream.extend_from_slice(&frame(first, &payload));
    }
    stream
}

#[test]
fn streams_are_the_same_wherever_they_are_cut() {
    let mut random = Random(0xc0ffee);
    let compressed: Vec<Vec<u8>> =
        ["Hello", &"long ".repeat(300), &"bomb ".repeat(3000), ""].map(|text| deflated(text.as_bytes())).into();
    let (mut events, mut violations) = (0, 0);
    for round in 0..4_000 {
        let mut stream = random_stream(&mut random, &compressed);
        if round % 3 == 0 {
            random.mutate(&mut stream);
        }
        let mut data = random.next().to_be_bytes()[..2].to_vec();
        data.extend_from_slice(&stream);
        fuzz_receive(&data);
        let mut server = Server::new(15, small_limits());
        violations += usize::from(server.receive(&stream, Flow::Continue).is_err());
        events += server.seen.len();
    }
    assert!(events > 8_000 && violations > 500, "the streams are worth it: {events} events, {violations} violations");
}

#[test]
fn streams_are_the_same_wherever_they_are_cut_from_noise() {
    let mut random = Random(0xbad);
    for _ in 0..60_000 {
        fuzz_receive(&random.bytes(40));
    }
}
