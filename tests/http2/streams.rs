//! The states of a stream, their numbers, how many there may be, and priorities (RFC 9113 sections 5.1 to 5.3).

use super::peer::{Peer, Verdict, same};
use super::wire::{
    CANCEL, END_HEADERS, END_STREAM, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, NO_ERROR, PROTOCOL_ERROR,
    REFUSED_STREAM, STREAM_CLOSED, WHOLE, WITH_PRIORITY, block, continuation, data, dependency, get, headers, post,
    priority, request, rst_stream, settings, window_update,
};
use crate::{judge, judge_with};

/// Trailers, or what would be them.
fn trailers(stream: u32) -> Vec<u8> {
    headers(stream, WHOLE, &block(&[("x-checksum", "1")]))
}

#[test]
fn s5_1_idle_data() {
    judge(|peer| {
        peer.send(&data(1, END_STREAM, b"x"));
        peer.dies(&[PROTOCOL_ERROR, STREAM_CLOSED])
    });
}

#[test]
fn s5_1_idle_rst_stream() {
    judge(|peer| {
        peer.send(&rst_stream(1, CANCEL));
        peer.dies(&[PROTOCOL_ERROR])
    });
}

#[test]
fn s5_1_idle_window_update() {
    judge(|peer| {
        peer.send(&window_update(1, 100));
        peer.dies(&[PROTOCOL_ERROR])
    });
}

#[test]
fn s5_1_idle_continuation() {
    judge(|peer| {
        peer.send(&continuation(1, END_HEADERS, &request("GET", "/")));
        peer.dies(&[PROTOCOL_ERROR])
    });
}

#[test]
fn s5_1_idle_streams_above_an_open_one() {
    for wrong in [data(3, 0, b"x"), rst_stream(3, CANCEL), window_update(3, 1)] {
        judge(|peer| {
            peer.say(&[post(1), wrong.clone()]);
            peer.dies(&[PROTOCOL_ERROR, STREAM_CLOSED])
        });
    }
}

#[test]
fn s5_1_idle_streams_of_the_server() {
    for wrong in [data(2, 0, b"x"), rst_stream(2, CANCEL), window_update(2, 1)] {
        judge(|peer| {
            peer.send(&wrong);
            peer.dies(&[PROTOCOL_ERROR, STREAM_CLOSED])
        });
    }
}

/// A stream whose request is whole and whose answer cannot end, because its window is 0: half-closed (remote).
fn half_closed(peer: &mut Peer) -> Verdict {
    peer.send(&get(1));
    peer.until("an answer's head", |frame| frame.kind == 1 && frame.stream == 1).map(drop)
}

#[test]
fn s5_1_half_closed_remote_data() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 0)], |peer| {
        half_closed(peer)?;
        peer.send(&data(1, END_STREAM, b"more"));
        peer.resets_or_dies(1, &[STREAM_CLOSED])
    });
}

#[test]
fn s5_1_half_closed_remote_headers() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 0)], |peer| {
        half_closed(peer)?;
        peer.send(&trailers(1));
        peer.resets_or_dies(1, &[STREAM_CLOSED])
    });
}

#[test]
fn s5_1_half_closed_remote_continuation() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 0)], |peer| {
        half_closed(peer)?;
        peer.send(&continuation(1, END_HEADERS, &request("GET", "/")));
        peer.dies(&[PROTOCOL_ERROR, STREAM_CLOSED])
    });
}

#[test]
fn s5_1_half_closed_remote_takes_window_update_priority_and_rst_stream() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 0)], |peer| {
        half_closed(peer)?;
        peer.say(&[priority(1, 0, 15), window_update(1, 1)]);
        let piece = peer.until("a byte", |frame| frame.kind == 0 && frame.stream == 1)?;
        same("bytes", piece.payload.len(), 1)?;
        peer.say(&[rst_stream(1, CANCEL), settings(&[(INITIAL_WINDOW_SIZE, 65_535)])]);
        peer.lives()
    });
}

#[test]
fn s5_1_closed_by_rst_stream_data() {
    judge(|peer| {
        peer.say(&[post(1), rst_stream(1, CANCEL), data(1, END_STREAM, b"late")]);
        peer.resets_or_dies(1, &[STREAM_CLOSED])
    });
}

#[test]
fn s5_1_closed_by_rst_stream_headers() {
    judge(|peer| {
        peer.say(&[post(1), rst_stream(1, CANCEL), headers(1, WHOLE, &request("GET", "/"))]);
        peer.resets_or_dies(1, &[STREAM_CLOSED])
    });
}

#[test]
fn s5_1_closed_by_rst_stream_continuation() {
    judge(|peer| {
        peer.say(&[post(1), rst_stream(1, CANCEL), continuation(1, END_HEADERS, &request("GET", "/"))]);
        peer.dies(&[PROTOCOL_ERROR, STREAM_CLOSED])
    });
}

/// A stream that has ended on both sides.
fn ended(peer: &mut Peer) -> Verdict {
    peer.send(&get(1));
    peer.answers(1, 200).map(drop)
}

#[test]
fn s5_1_closed_by_end_stream_data() {
    judge(|peer| {
        ended(peer)?;
        peer.send(&data(1, END_STREAM, b"late"));
        peer.resets_or_dies(1, &[STREAM_CLOSED])
    });
}

#[test]
fn s5_1_closed_by_end_stream_headers() {
    judge(|peer| {
        ended(peer)?;
        peer.send(&headers(1, WHOLE, &request("GET", "/")));
        peer.dies(&[STREAM_CLOSED])
    });
}

#[test]
fn s5_1_closed_by_end_stream_continuation() {
    judge(|peer| {
        ended(peer)?;
        peer.send(&continuation(1, END_HEADERS, &request("GET", "/")));
        peer.dies(&[PROTOCOL_ERROR, STREAM_CLOSED])
    });
}

#[test]
fn s5_1_closed_takes_priority_and_what_was_on_its_way() {
    judge(|peer| {
        ended(peer)?;
        peer.say(&[priority(1, 0, 15), window_update(1, 1), rst_stream(1, NO_ERROR)]);
        peer.lives()
    });
}

/// What was sent before the server's RST_STREAM came is not an error, and goes through the tables of fields all the same.
#[test]
fn s5_1_closed_by_the_server_what_was_on_its_way_is_ignored() {
    judge(|peer| {
        peer.send(&headers(1, END_HEADERS, &[request("POST", "/echo"), block(&[("UPPER", "x")])].concat()));
        peer.until("RST_STREAM", |frame| frame.kind == 3 && frame.stream == 1)?;
        peer.say(&[data(1, 0, b"was on its way"), window_update(1, 1), priority(1, 0, 1)]);
        let stored = super::wire::stored("x-kept", "in the table");
        peer.send(&headers(1, WHOLE, &stored));
        // The field that the refused trailers stored is there.
        peer.send(&headers(3, WHOLE, &[request("GET", "/"), super::wire::indexed(62)].concat()));
        peer.answers(3, 200)?;
        peer.lives()
    });
}

#[test]
fn s5_1_1_even_streams_are_not_a_clients() {
    judge(|peer| {
        peer.send(&get(2));
        peer.dies(&[PROTOCOL_ERROR])
    });
}

#[test]
fn s5_1_1_streams_only_grow() {
    judge(|peer| {
        peer.send(&get(5));
        peer.answers(5, 200)?;
        peer.send(&get(3));
        peer.dies(&[PROTOCOL_ERROR, STREAM_CLOSED])
    });
}

#[test]
fn s5_1_1_streams_may_be_left_out() {
    judge(|peer| {
        for stream in [1, 7, 9, 1001] {
            peer.send(&get(stream));
            peer.answers(stream, 200)?;
        }
        peer.lives()
    });
}

#[test]
fn s5_1_1_the_last_stream_is_a_stream() {
    judge(|peer| {
        peer.send(&get(0x7fff_ffff));
        peer.answers(0x7fff_ffff, 200).map(drop)
    });
}

#[test]
fn s5_1_1_stream_0_is_no_request() {
    judge(|peer| {
        peer.send(&get(0));
        peer.dies(&[PROTOCOL_ERROR])
    });
}

/// How many streams the server takes.
fn streams_max(peer: &Peer) -> Result<u32, String> {
    let said = peer.settings.iter().find(|(id, _)| *id == MAX_CONCURRENT_STREAMS);
    said.map(|(_, value)| *value).ok_or_else(|| "SETTINGS say nothing of MAX_CONCURRENT_STREAMS".into())
}

#[test]
fn s5_1_2_streams_over_the_limit_are_refused() {
    judge(|peer| {
        let most = streams_max(peer)?;
        same("a limit that a test can reach", most <= 1000, true)?;
        let open: Vec<u8> = (0..most).flat_map(|number| post(2 * number + 1)).collect();
        peer.send(&open);
        let over = 2 * most + 1;
        peer.send(&post(over));
        let reset = peer.until("RST_STREAM", |frame| frame.kind == 3)?;
        same("stream and code", (reset.stream, reset.number(0)), (over, REFUSED_STREAM))?;
        // One that ends makes room for another.
        peer.say(&[data(1, END_STREAM, b"one"), data(3, END_STREAM, b"two")]);
        peer.answers(1, 200)?;
        peer.say(&[post(over + 2), data(over + 2, END_STREAM, b"in its place")]);
        same("the echo", peer.answers(over + 2, 200)?, b"in its place".to_vec())
    });
}

#[test]
fn s5_1_2_streams_up_to_the_limit_are_answered() {
    judge(|peer| {
        let most = streams_max(peer)?.min(1000);
        for stream in (0..most).map(|number| 2 * number + 1) {
            peer.send(&post(stream));
        }
        for stream in (0..most).rev().map(|number| 2 * number + 1) {
            peer.send(&data(stream, END_STREAM, stream.to_string().as_bytes()));
            same("the echo", peer.answers(stream, 200)?, stream.to_string().into_bytes())?;
        }
        peer.lives()
    });
}

#[test]
fn s5_3_1_headers_that_depend_on_themselves() {
    judge(|peer| {
        let payload = [dependency(1, 255), request("GET", "/")].concat();
        peer.send(&headers(1, WHOLE | WITH_PRIORITY, &payload));
        peer.resets_or_dies(1, &[PROTOCOL_ERROR])
    });
}

#[test]
fn s5_3_1_priority_that_depends_on_itself() {
    judge(|peer| {
        peer.say(&[post(1), priority(1, 1, 255)]);
        peer.resets_or_dies(1, &[PROTOCOL_ERROR])
    });
}

#[test]
fn s5_3_2_priorities_are_taken_and_change_nothing() {
    judge(|peer| {
        let exclusive = 0x8000_0000;
        peer.say(&[priority(1, 0, 0), priority(3, 1, 255), priority(5, exclusive | 3, 16), priority(101, 99, 1)]);
        for (stream, on, weight) in [(1, 0, 255), (3, 1, 0), (5, exclusive | 1, 15), (7, 7777, 15)] {
            let payload = [dependency(on, weight), request("GET", "/")].concat();
            peer.send(&headers(stream, WHOLE | WITH_PRIORITY, &payload));
            peer.answers(stream, 200)?;
        }
        peer.send(&priority(9, 3, 15));
        peer.lives()
    });
}

/// PRIORITY opens no stream: smaller ones are still to come.
#[test]
fn s5_1_priority_leaves_a_stream_idle() {
    judge(|peer| {
        peer.say(&[priority(9, 0, 15), get(1)]);
        peer.answers(1, 200)?;
        peer.send(&get(9));
        peer.answers(9, 200).map(drop)
    });
}
