//! Frames that no client may send.

use holdline::close::CloseReason::{self, BadUtf8, Policy, ProtocolError, TooBig};

use crate::common::wire::{
    BINARY, CLOSE, CONTINUATION, FIN, OFFER_DEFLATE, PING, RSV1, TEXT, deflated, header, masked, with_length,
};
use crate::common::{Client, listen, until};
use crate::{MESSAGE_BYTES_MAX, beside_a_neighbour};

struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    reason: CloseReason,
}

fn case(what: &'static str, bytes: Vec<u8>, reason: CloseReason) -> Case {
    Case { what, bytes, reason }
}

/// A frame with a mask of zeros, whose bytes lie bare.
fn bare(first: u8, second: u8, rest: &[u8]) -> Vec<u8> {
    [&[first, second], rest].concat()
}

fn joined(frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames.iter().flat_map(|(first, payload)| masked(*first, payload)).collect()
}

fn malformed() -> Vec<Case> {
    let mut cases: Vec<Case> = (3..8)
        .chain(11..16)
        .map(|opcode| case("an opcode that nobody has defined", masked(FIN | opcode, b"x"), ProtocolError))
        .collect();
    let text = FIN | TEXT;
    cases.extend([
        case("a reserved bit, the first", masked(text | RSV1, b"x"), ProtocolError),
        case("a reserved bit, the second", masked(text | 0x20, b"x"), ProtocolError),
        case("a reserved bit, the third", masked(text | 0x10, b"x"), ProtocolError),
        case("a reserved bit on a ping", masked(FIN | PING | 0x10, b"x"), ProtocolError),
        case("no mask", bare(text, 1, b"x"), ProtocolError),
        case("no mask on a ping", bare(FIN | PING, 0, b""), ProtocolError),
        case("no mask on a long frame", bare(text, 126, &[0x20, 0]), ProtocolError),
        case("a ping in fragments", masked(PING, b"x"), ProtocolError),
        case("a close frame in fragments", masked(CLOSE, b""), ProtocolError),
        case("a ping of 126 bytes", masked(FIN | PING, &[b'x'; 126]), ProtocolError),
        case("a close frame of 126 bytes", masked(FIN | CLOSE, &[b'x'; 126]), ProtocolError),
        case("a length in 16 bits that fits in 7", bare(text, 0x80 | 126, &[0, 1, 0, 0, 0, 0, b'x']), ProtocolError),
        case(
            "a length in 64 bits that fits in 16",
            bare(text, 0x80 | 127, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'x']),
            ProtocolError,
        ),
        case("a length of 2^63", bare(text, 0x80 | 127, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), ProtocolError),
        case("a continuation of nothing", masked(FIN | CONTINUATION, b"x"), ProtocolError),
        case("a continuation of nothing, with more to come", masked(CONTINUATION, b"x"), ProtocolError),
        case("a message inside a message", joined(&[(TEXT, b"a"), (text, b"b")]), ProtocolError),
        case("a first fragment inside a message", joined(&[(BINARY, b"a"), (BINARY, b"b")]), ProtocolError),
        case("half a close code", masked(FIN | CLOSE, b"\x03"), ProtocolError),
        case("a close code that no one may send", masked(FIN | CLOSE, &1005_u16.to_be_bytes()), ProtocolError),
        case("a close code of no range", masked(FIN | CLOSE, &999_u16.to_be_bytes()), ProtocolError),
        case("a close reason that is not text", masked(FIN | CLOSE, b"\x03\xe8\xff\xff"), BadUtf8),
        case("text that is not UTF-8", masked(text, b"\xff"), BadUtf8),
        case("text with half a surrogate pair", masked(text, b"\xed\xa0\x80"), BadUtf8),
        case("text that ends in a code point", masked(text, b"ab\xe2\x82"), BadUtf8),
        case("text that turns bad in a fragment", joined(&[(TEXT, b"a\xce"), (FIN | CONTINUATION, b"x")]), BadUtf8),
        case("a frame over the limit, by its header", header(text, MESSAGE_BYTES_MAX as u64 + 1), TooBig),
        case("a frame of 2^62 bytes, by its header", header(FIN | BINARY, 1 << 62), TooBig),
        case(
            "fragments over the limit",
            [masked(BINARY, &vec![0; MESSAGE_BYTES_MAX]), header(CONTINUATION, 1)].concat(),
            TooBig,
        ),
        case("empty fragments without end", [masked(TEXT, b""), masked(CONTINUATION, b"").repeat(17)].concat(), Policy),
    ]);
    cases
}

/// Sends it and gets the close frame with the code, then the end.
fn ends_with(client: &mut Client, what: &str, bytes: &[u8], reason: CloseReason) {
    client.try_send_raw(bytes);
    assert_eq!(client.close_code(), reason.code(), "{what}");
    client.end();
}

#[test]
fn every_malformed_frame_is_told_and_counted() {
    beside_a_neighbour(
        |_| {},
        |running, neighbour| {
            for Case { what, bytes, reason } in malformed() {
                let before = running.closed(reason);
                let mut client = running.websocket("/echo");
                ends_with(&mut client, what, &bytes, reason);
                assert_eq!(running.closed(reason), before + 1, "{what}");
                neighbour.is_well();
            }
        },
    );
}

/// Cut into single bytes they come to the same.
#[test]
fn malformed_frames_in_single_bytes_end_alike() {
    beside_a_neighbour(
        |_| {},
        |running, neighbour| {
            for Case { what, bytes, reason } in malformed().into_iter().filter(|case| case.bytes.len() < 64) {
                let mut client = running.websocket("/echo");
                for byte in &bytes {
                    client.try_send_raw(std::slice::from_ref(byte));
                }
                assert_eq!(client.close_code(), reason.code(), "{what}");
            }
            neighbour.is_well();
        },
    );
}

#[test]
fn what_came_before_the_bad_frame_is_answered() {
    beside_a_neighbour(
        |_| {},
        |running, _| {
            let mut client = running.websocket("/echo");
            client.send_raw(&[masked(FIN | TEXT, b"good"), masked(FIN | TEXT, b"\xff")].concat());
            assert_eq!(client.text(), "good");
            assert_eq!(client.close_code(), Some(1007));
        },
    );
}

#[test]
fn a_message_at_the_limit_is_taken() {
    beside_a_neighbour(
        |_| {},
        |running, _| {
            let mut client = running.websocket("/echo");
            let payload = vec![b'x'; MESSAGE_BYTES_MAX];
            client.send_binary(&payload);
            assert_eq!(client.message().unwrap().payload, payload);
        },
    );
}

#[test]
fn a_compression_bomb_is_too_big() {
    beside_a_neighbour(
        |_| {},
        |running, neighbour| {
            let before = running.closed(TooBig);
            let bomb = deflated(&vec![0; 16 * 1024 * 1024]);
            assert!(bomb.len() < MESSAGE_BYTES_MAX, "small on the wire");
            let mut client = running.connect(0).upgraded("/echo", OFFER_DEFLATE);
            ends_with(&mut client, "a bomb", &masked(FIN | RSV1 | TEXT, &bomb), TooBig);
            let mut client = running.connect(0).upgraded("/echo", OFFER_DEFLATE);
            let (first, second) = bomb.split_at(bomb.len() / 2);
            let fragments = [masked(RSV1 | TEXT, first), masked(FIN | CONTINUATION, second)].concat();
            ends_with(&mut client, "a bomb in fragments", &fragments, TooBig);
            assert_eq!(running.closed(TooBig), before + 2);
            neighbour.is_well();
        },
    );
}

#[test]
fn compressed_garbage_is_bad_data() {
    beside_a_neighbour(
        |_| {},
        |running, neighbour| {
            for garbage in [&[0xff; 20][..], b"", &deflated(b"\xff\xfe")] {
                let mut client = running.connect(0).upgraded("/echo", OFFER_DEFLATE);
                client.send_frame(FIN | RSV1 | TEXT, garbage);
                if garbage.is_empty() {
                    // Nothing inflates to nothing, which some clients send.
                    client.send_frame(FIN | RSV1 | TEXT, &[0xff; 20]);
                }
                assert_eq!(client.close_code(), Some(1007), "{garbage:?}");
                neighbour.is_well();
            }
            let mut client = running.connect(0).upgraded("/echo", OFFER_DEFLATE);
            let twice = [masked(RSV1 | TEXT, &deflated(b"x")), masked(FIN | RSV1 | CONTINUATION, b"x")].concat();
            ends_with(&mut client, "a compressed continuation", &twice, ProtocolError);
        },
    );
}

#[test]
fn more_fragments_than_allowed_are_against_the_policy() {
    beside_a_neighbour(
        |config| config.limits.fragments_max = 100,
        |running, neighbour| {
            let mut client = running.websocket("/echo");
            let at_the_limit =
                [masked(TEXT, b"x"), masked(CONTINUATION, b"x").repeat(98), masked(FIN | CONTINUATION, b"x")];
            client.send_raw(&at_the_limit.concat());
            assert_eq!(client.text(), "x".repeat(100));
            let flood = [masked(TEXT, b"x"), masked(CONTINUATION, b"x").repeat(10_000)].concat();
            ends_with(&mut client, "tiny fragments", &flood, Policy);
            assert_eq!(running.closed(Policy), 1);
            neighbour.is_well();
        },
    );
}

#[test]
fn raw_frames_over_the_limit_end_their_connection() {
    beside_a_neighbour(
        |config| {
            config.listeners.push(listen("tcp://127.0.0.1:0?framing=line"));
            config.listeners.push(listen("tcp://127.0.0.1:0?framing=length"));
        },
        |running, neighbour| {
            let mut line = running.connect(1);
            line.send_raw(b"good\n");
            assert_eq!(line.line().as_deref(), Some("good"));
            line.try_send_raw(&vec![b'x'; MESSAGE_BYTES_MAX + 3]);
            line.end();
            let mut length = running.connect(2);
            length.send_raw(&with_length(b"good"));
            assert_eq!(length.length_frame().as_deref(), Some(&b"good"[..]));
            length.send_raw(&u32::MAX.to_be_bytes());
            length.end();
            until("both are counted", || running.closed(TooBig) == 2);
            neighbour.is_well();
        },
    );
}

#[test]
fn a_client_that_goes_away_in_a_frame_leaves_nothing() {
    beside_a_neighbour(
        |_| {},
        |running, neighbour| {
            for cut in [1, 3, 7, 50] {
                let mut client = running.websocket("/echo");
                client.send_raw(&masked(FIN | TEXT, &[b'x'; 100])[..cut]);
                drop(client);
                neighbour.is_well();
            }
            until("they are gone", || running.connections() == 1);
        },
    );
}
