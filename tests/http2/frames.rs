//! The frames, one by one: their lengths, streams, flags and padding (RFC 9113 section 6, without its windows).

use super::peer::same;
use super::wire::{
    ACK, CANCEL, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR,
    GOAWAY, HEADER_TABLE_SIZE, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, NO_ERROR, PADDED,
    PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS, STREAM_CLOSED, WHOLE, WITH_PRIORITY,
    continuation, data, dependency, frame, get, goaway, headers, padded, ping, post, priority, request, rst_stream,
    settings,
};
use crate::{judge, judge_with};

/// Each of `frames` ends a connection, on which stream 1 is open, with one of `codes`.
fn each_ends_the_connection(frames: &[Vec<u8>], codes: &[u32]) {
    for wrong in frames {
        judge(|peer| {
            peer.say(&[post(1), wrong.clone()]);
            peer.dies(codes).map_err(|error| format!("{error} (sent {wrong:?})"))
        });
    }
}

#[test]
fn s6_1_data_on_stream_0() {
    each_ends_the_connection(&[data(0, 0, b"x"), data(0, END_STREAM, b"")], &[PROTOCOL_ERROR]);
}

#[test]
fn s6_1_data_on_a_stream_that_is_not_open() {
    judge(|peer| {
        peer.say(&[post(1), data(1, END_STREAM, b"all"), data(1, END_STREAM, b"more")]);
        peer.resets_or_dies(1, &[STREAM_CLOSED])
    });
}

#[test]
fn s6_1_padding_as_long_as_the_frame_or_longer() {
    let wrong = [&b"\x01"[..], b"\x06hello", b"\xffhello", b""].map(|payload| data(1, PADDED, payload));
    // No byte for the padding's length is a frame that is too short.
    each_ends_the_connection(&wrong, &[PROTOCOL_ERROR, FRAME_SIZE_ERROR]);
}

#[test]
fn s6_1_padding_is_no_part_of_the_body() {
    judge(|peer| {
        peer.send(&post(1));
        for (length, payload) in [(0, &b"a"[..]), (255, b"bc"), (1, b""), (7, b"d")] {
            peer.send(&data(1, PADDED, &padded(length, payload)));
        }
        peer.send(&data(1, PADDED | END_STREAM, &padded(255, b"")));
        same("the echo", peer.answers(1, 200)?, b"abcd".to_vec())?;
        peer.lives()
    });
}

/// A body of any pieces, padded or not, whose bytes come one by one.
#[test]
fn s6_1_data_byte_by_byte() {
    judge(|peer| {
        let all = [post(1), data(1, PADDED, &padded(3, b"one ")), data(1, 0, b"by "), data(1, END_STREAM, b"one")];
        for byte in all.concat() {
            peer.send(&[byte]);
        }
        same("the echo", peer.answers(1, 200)?, b"one by one".to_vec())
    });
}

#[test]
fn s6_2_headers_on_stream_0() {
    each_ends_the_connection(&[headers(0, WHOLE, &request("GET", "/"))], &[PROTOCOL_ERROR]);
}

#[test]
fn s6_2_headers_with_padding_as_long_as_they_are() {
    let block = request("GET", "/");
    let wrong = [
        headers(3, WHOLE | PADDED, &[&[u8::try_from(block.len() + 1).unwrap()][..], &block].concat()),
        headers(3, WHOLE | PADDED, &[&[255][..], &block].concat()),
        headers(3, WHOLE | PADDED | WITH_PRIORITY, &[1, 0, 0, 0, 0, 16]),
        headers(3, WHOLE | PADDED, &[]),
        headers(3, WHOLE | WITH_PRIORITY, &[0, 0, 0, 0]),
    ];
    each_ends_the_connection(&wrong, &[PROTOCOL_ERROR, FRAME_SIZE_ERROR]);
}

#[test]
fn s6_2_headers_with_padding_and_priority() {
    judge(|peer| {
        let block = request("GET", "/");
        peer.say(&[headers(1, WHOLE | PADDED, &padded(200, &block))]);
        peer.answers(1, 200)?;
        peer.say(&[headers(3, WHOLE | WITH_PRIORITY, &[dependency(0, 255), block.clone()].concat())]);
        peer.answers(3, 200)?;
        let both = padded(9, &[dependency(1, 0), block].concat());
        peer.say(&[headers(5, WHOLE | PADDED | WITH_PRIORITY, &both)]);
        peer.answers(5, 200)?;
        peer.lives()
    });
}

#[test]
fn s6_3_priority_on_stream_0() {
    each_ends_the_connection(&[priority(0, 1, 1)], &[PROTOCOL_ERROR]);
}

#[test]
fn s6_3_priority_of_another_length() {
    for length in [0, 4, 6] {
        judge(|peer| {
            peer.say(&[post(1), frame(PRIORITY, 0, 1, &[0; 6][..length])]);
            peer.resets_or_dies(1, &[FRAME_SIZE_ERROR])
        });
    }
}

#[test]
fn s6_4_rst_stream_on_stream_0() {
    each_ends_the_connection(&[rst_stream(0, CANCEL)], &[PROTOCOL_ERROR]);
}

#[test]
fn s6_4_rst_stream_of_another_length() {
    let wrong = [0, 3, 5, 8].map(|length| frame(RST_STREAM, 0, 1, &[0; 8][..length]));
    each_ends_the_connection(&wrong, &[FRAME_SIZE_ERROR]);
}

#[test]
fn s6_4_rst_stream_ends_an_answer() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 0)], |peer| {
        peer.send(&get(1));
        peer.until("a head", |frame| frame.kind == HEADERS)?;
        peer.say(&[rst_stream(1, CANCEL), settings(&[(INITIAL_WINDOW_SIZE, 1000)]), ping(b"12345678")]);
        peer.until("a PING's answer", |frame| {
            assert!(frame.stream != 1, "a frame on a stream that is gone: {frame:?}");
            frame.kind == PING
        })?;
        peer.lives()
    });
}

#[test]
fn s6_5_settings_with_ack_and_payload() {
    let payload = [0, 3, 0, 0, 0, 100];
    each_ends_the_connection(&[frame(SETTINGS, ACK, 0, &payload), frame(SETTINGS, ACK, 0, &[0])], &[FRAME_SIZE_ERROR]);
}

#[test]
fn s6_5_settings_on_a_stream() {
    each_ends_the_connection(
        &[frame(SETTINGS, 0, 1, &[]), frame(SETTINGS, 0, 3, &[0, 3, 0, 0, 0, 1])],
        &[PROTOCOL_ERROR],
    );
}

#[test]
fn s6_5_settings_of_no_multiple_of_six() {
    let wrong = [1, 3, 5, 7, 11].map(|length| frame(SETTINGS, 0, 0, &[0; 11][..length]));
    each_ends_the_connection(&wrong, &[FRAME_SIZE_ERROR]);
}

#[test]
fn s6_5_2_enable_push_is_0_or_1() {
    each_ends_the_connection(&[2, u32::MAX].map(|value| settings(&[(ENABLE_PUSH, value)])), &[PROTOCOL_ERROR]);
}

#[test]
fn s6_5_2_initial_window_size_over_the_largest() {
    let wrong = [0x8000_0000, u32::MAX].map(|value| settings(&[(INITIAL_WINDOW_SIZE, value)]));
    each_ends_the_connection(&wrong, &[FLOW_CONTROL_ERROR]);
}

#[test]
fn s6_5_2_max_frame_size_below_and_above() {
    let wrong = [0, 16_383, 0x100_0000, u32::MAX].map(|value| settings(&[(MAX_FRAME_SIZE, value)]));
    each_ends_the_connection(&wrong, &[PROTOCOL_ERROR]);
}

#[test]
fn s6_5_2_enable_connect_protocol_is_0_or_1() {
    if crate::other().is_none() {
        // RFC 8441 section 3. Servers that do not know it ignore it.
        judge(|peer| {
            peer.send(&settings(&[(8, 2)]));
            peer.dies(&[PROTOCOL_ERROR]).or_else(|_| peer.lives())
        });
    }
}

#[test]
fn s6_5_2_every_good_value_is_acknowledged() {
    judge(|peer| {
        let good = [
            (HEADER_TABLE_SIZE, 0),
            (HEADER_TABLE_SIZE, u32::MAX),
            (ENABLE_PUSH, 0),
            (ENABLE_PUSH, 1),
            (MAX_CONCURRENT_STREAMS, 0),
            (MAX_CONCURRENT_STREAMS, u32::MAX),
            (INITIAL_WINDOW_SIZE, 0x7fff_ffff),
            (INITIAL_WINDOW_SIZE, 65_535),
            (MAX_FRAME_SIZE, 16_384),
            (MAX_FRAME_SIZE, 0xff_ffff),
            (6, 0xffff),
            // Nobody knows these.
            (0, 1),
            (7, 7),
            (0xff, 1),
            (0xffff, u32::MAX),
        ];
        for value in good {
            peer.send(&settings(&[value]));
            peer.until("an acknowledgement", |frame| frame.kind == SETTINGS && frame.flags == ACK)?;
        }
        peer.send(&settings(&good));
        peer.until("an acknowledgement", |frame| frame.kind == SETTINGS && frame.flags == ACK)?;
        peer.lives()
    });
}

#[test]
fn s6_5_3_each_settings_frame_has_one_acknowledgement() {
    judge(|peer| {
        peer.say(&[settings(&[]), settings(&[(ENABLE_PUSH, 0)]), settings(&[]), ping(b"the last")]);
        let mut acknowledged = 0;
        while {
            let found = peer.until("PING or SETTINGS", |frame| matches!(frame.kind, PING | SETTINGS))?;
            acknowledged += u32::from(found.kind == SETTINGS && found.flags == ACK && found.payload.is_empty());
            found.kind != PING
        } {}
        same("acknowledgements", acknowledged, 3)
    });
}

#[test]
fn s6_6_a_client_cannot_push() {
    let promise = [&2_u32.to_be_bytes()[..], &request("GET", "/")].concat();
    let wrong = [frame(PUSH_PROMISE, END_HEADERS, 1, &promise), frame(PUSH_PROMISE, END_HEADERS, 0, &promise)];
    each_ends_the_connection(&wrong, &[PROTOCOL_ERROR]);
}

#[test]
fn s6_7_ping_comes_back() {
    judge(|peer| {
        for payload in [b"\0\0\0\0\0\0\0\0", b"\xff\xfe\0\x01abcd", b"holdline"] {
            peer.send(&ping(payload));
            let pong = peer.until("a PING", |frame| frame.kind == PING)?;
            same("a PING's answer", (pong.flags, pong.stream, &pong.payload[..]), (ACK, 0, &payload[..]))?;
        }
        Ok(())
    });
}

#[test]
fn s6_7_a_pings_answer_has_no_answer() {
    judge(|peer| {
        peer.say(&[frame(PING, ACK, 0, b"unasked!"), ping(b"question")]);
        let pong = peer.until("a PING", |frame| frame.kind == PING)?;
        same("its payload", &pong.payload[..], b"question")?;
        peer.lives()
    });
}

#[test]
fn s6_7_ping_on_a_stream() {
    each_ends_the_connection(&[frame(PING, 0, 1, &[0; 8]), frame(PING, ACK, 3, &[0; 8])], &[PROTOCOL_ERROR]);
}

#[test]
fn s6_7_ping_of_another_length() {
    let wrong = [0, 6, 7, 9].map(|length| frame(PING, 0, 0, &[0; 9][..length]));
    each_ends_the_connection(&wrong, &[FRAME_SIZE_ERROR]);
}

#[test]
fn s6_8_goaway_on_a_stream() {
    each_ends_the_connection(&[goaway(1, 0, NO_ERROR)], &[PROTOCOL_ERROR]);
}

#[test]
fn s6_8_goaway_that_is_too_short() {
    each_ends_the_connection(&[frame(GOAWAY, 0, 0, &[0; 7]), frame(GOAWAY, 0, 0, &[])], &[FRAME_SIZE_ERROR]);
}

/// Streams that are open end as they would.
#[test]
fn s6_8_goaway_lets_open_streams_end() {
    judge(|peer| {
        peer.say(&[post(1), data(1, 0, b"half "), goaway(0, 0, NO_ERROR), data(1, END_STREAM, b"and half")]);
        same("the echo", peer.answers(1, 200)?, b"half and half".to_vec())?;
        peer.ends()
    });
}

#[test]
fn s6_10_continuation_on_stream_0() {
    let block = request("GET", "/");
    judge(|peer| {
        peer.say(&[headers(1, END_STREAM, &block), continuation(0, END_HEADERS, &[])]);
        peer.dies(&[PROTOCOL_ERROR])
    });
    each_ends_the_connection(&[continuation(0, END_HEADERS, &block)], &[PROTOCOL_ERROR]);
}

#[test]
fn s6_10_continuation_behind_the_end_of_a_block() {
    let block = request("GET", "/");
    judge(|peer| {
        peer.say(&[headers(1, END_HEADERS, &block), continuation(1, END_HEADERS, &block)]);
        peer.dies(&[PROTOCOL_ERROR])
    });
    judge(|peer| {
        peer.say(&[headers(1, 0, &block[..3]), continuation(1, END_HEADERS, &block[3..]), continuation(1, 0, &[])]);
        peer.dies(&[PROTOCOL_ERROR])
    });
    judge(|peer| {
        peer.say(&[post(1), data(1, 0, b"x"), continuation(1, END_HEADERS, &block)]);
        peer.dies(&[PROTOCOL_ERROR])
    });
}

/// END_STREAM is the HEADERS frame's; CONTINUATION has no such flag, and no padding.
#[test]
fn s6_10_continuation_has_but_one_flag() {
    judge(|peer| {
        let block = request("POST", "/echo");
        peer.say(&[
            headers(1, 0, &block[..3]),
            frame(CONTINUATION, 0xff, 1, &block[3..]),
            data(1, END_STREAM, b"body"),
        ]);
        same("the echo", peer.answers(1, 200)?, b"body".to_vec())
    });
}

#[test]
fn s6_10_a_block_may_be_empty_in_places() {
    judge(|peer| {
        let block = request("GET", "/");
        peer.say(&[headers(1, END_STREAM, &[]), continuation(1, 0, &block), continuation(1, END_HEADERS, &[])]);
        peer.answers(1, 200).map(drop)
    });
}

#[test]
fn s7_unknown_error_codes_are_taken() {
    judge(|peer| {
        peer.say(&[post(1), rst_stream(1, 0xff), post(3), rst_stream(3, u32::MAX)]);
        peer.lives()
    });
    judge(|peer| {
        peer.say(&[post(1), goaway(0, 0, 0xff), frame(DATA, END_STREAM, 1, b"still")]);
        same("the echo", peer.answers(1, 200)?, b"still".to_vec()).or_else(|_| peer.ends())
    });
}
