//! Flow control in both directions (RFC 9113 sections 5.2, 6.5.2, 6.9).

use super::peer::{Peer, Verdict, same};
use super::wire::{
    ACK, DATA, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, HEADERS, INITIAL_WINDOW_SIZE, PADDED, PING,
    PROTOCOL_ERROR, SETTINGS, WINDOW_MAX, WINDOW_UPDATE, data, frame, get, padded, ping, post, rst_stream, settings,
    window_update,
};
use crate::{judge, judge_with};

/// The window that every connection and stream begins with.
const WINDOW: usize = 65_535;

/// The largest frame that everybody must take.
const FRAME_BYTES: usize = 16_384;

/// The next DATA frame's length.
fn piece(peer: &mut Peer) -> Result<usize, String> {
    peer.until("DATA", |frame| frame.kind == DATA).map(|frame| frame.payload.len())
}

/// No DATA comes before a PING's answer.
fn nothing_comes(peer: &mut Peer) -> Verdict {
    peer.send(&ping(b"anything"));
    let found = peer.until("DATA or a PING's answer", |frame| matches!(frame.kind, DATA | PING))?;
    if found.kind == PING { Ok(()) } else { Err(format!("no window is open, but it came: {found:?}")) }
}

/// SETTINGS have been acknowledged.
fn acknowledged(peer: &mut Peer) -> Verdict {
    peer.until("an acknowledgement", |frame| frame.kind == SETTINGS && frame.flags == ACK).map(drop)
}

#[test]
fn s6_9_window_update_of_0_on_the_connection() {
    judge(|peer| {
        peer.send(&window_update(0, 0));
        peer.dies(&[PROTOCOL_ERROR])
    });
}

#[test]
fn s6_9_window_update_of_0_on_a_stream() {
    judge(|peer| {
        peer.say(&[post(1), window_update(1, 0)]);
        peer.resets_or_dies(1, &[PROTOCOL_ERROR])
    });
}

#[test]
fn s6_9_window_update_of_another_length() {
    for stream in [0, 1] {
        for length in [0, 3, 5, 8] {
            judge(|peer| {
                peer.say(&[post(1), frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1, 0, 0, 0, 1][..length])]);
                peer.dies(&[FRAME_SIZE_ERROR])
            });
        }
    }
}

/// The first bit of the increment is reserved.
#[test]
fn s6_9_window_update_has_31_bits() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 0)], |peer| {
        peer.say(&[get(1), window_update(1, 0x8000_0001)]);
        same("a piece", piece(peer)?, 1)?;
        nothing_comes(peer)
    });
    judge(|peer| {
        peer.say(&[post(1), window_update(1, 0x8000_0000)]);
        peer.resets_or_dies(1, &[PROTOCOL_ERROR])
    });
}

#[test]
fn s6_9_1_a_window_of_1_sends_single_bytes() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 1)], |peer| {
        peer.send(&post(1));
        peer.send(&data(1, END_STREAM, b"piece by piece"));
        let mut found = Vec::new();
        loop {
            let frame = peer.until("DATA", |frame| frame.kind == DATA)?;
            found.extend(&frame.payload);
            same("a piece", frame.payload.len() <= 1, true)?;
            if frame.ends_stream() {
                return same("the echo", &found[..], b"piece by piece");
            }
            peer.send(&window_update(1, 1));
        }
    });
}

#[test]
fn s6_9_1_the_connections_window_over_the_largest() {
    judge(|peer| {
        peer.say(&[window_update(0, WINDOW_MAX), window_update(0, WINDOW_MAX)]);
        peer.dies(&[FLOW_CONTROL_ERROR])
    });
    judge(|peer| {
        peer.send(&window_update(0, WINDOW_MAX - u32::try_from(WINDOW).unwrap()));
        peer.lives()
    });
}

#[test]
fn s6_9_1_a_streams_window_over_the_largest() {
    judge(|peer| {
        peer.say(&[post(1), window_update(1, WINDOW_MAX), window_update(1, WINDOW_MAX)]);
        peer.resets(1, &[FLOW_CONTROL_ERROR])
    });
    judge(|peer| {
        peer.say(&[post(1), window_update(1, WINDOW_MAX - u32::try_from(WINDOW).unwrap())]);
        peer.lives()
    });
}

/// The connection's window holds for all its streams together.
#[test]
fn s6_9_1_the_connections_window_is_kept() {
    judge_with(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX)], |peer| {
        let body = vec![b'z'; 15_000];
        for stream in [1, 3] {
            peer.say(&[post(stream), data(stream, 0, &body), data(stream, END_STREAM, &body)]);
            peer.until("the end", |frame| frame.stream == stream && frame.ends_stream())?;
        }
        let mut left = WINDOW - 2 * 2 * body.len();
        peer.say(&[post(5), data(5, 0, &body), data(5, END_STREAM, &body)]);
        for more in [0, 100, 1] {
            if more > 0 {
                peer.send(&window_update(0, more));
                left = more as usize;
            }
            while left > 0 {
                left = left.checked_sub(piece(peer)?).ok_or("more than the connection's window")?;
            }
            nothing_comes(peer)?;
        }
        peer.send(&window_update(0, 1 << 20));
        peer.until("the end", |frame| frame.stream == 5 && frame.ends_stream())?;
        peer.lives()
    });
}

#[test]
fn s6_9_2_initial_window_size_changes_open_streams() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 0)], |peer| {
        peer.send(&get(1));
        peer.until("a head", |frame| frame.kind == HEADERS && frame.stream == 1)?;
        nothing_comes(peer)?;
        peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 1)]));
        same("a piece", piece(peer)?, 1)?;
        nothing_comes(peer)?;
        peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 3)]));
        same("a piece", piece(peer)?, 2)?;
        nothing_comes(peer)?;
        peer.say(&[rst_stream(1, 8), settings(&[(INITIAL_WINDOW_SIZE, 65_535)])]);
        peer.lives()
    });
}

#[test]
fn s6_9_2_windows_can_be_negative() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 3)], |peer| {
        peer.send(&get(1));
        same("a piece", piece(peer)?, 3)?;
        // 3 - 3 - 1 = -1, and with 2 more 1.
        peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 2)]));
        acknowledged(peer)?;
        nothing_comes(peer)?;
        peer.send(&window_update(1, 1));
        nothing_comes(peer)?;
        peer.send(&window_update(1, 1));
        same("a piece", piece(peer)?, 1)?;
        nothing_comes(peer)?;
        peer.say(&[rst_stream(1, 8), settings(&[(INITIAL_WINDOW_SIZE, 65_535)])]);
        peer.lives()
    });
}

#[test]
fn s6_9_2_the_last_of_several_values_counts() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 0)], |peer| {
        peer.send(&get(1));
        nothing_comes(peer)?;
        peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)]));
        same("a piece", piece(peer)?, 1)?;
        nothing_comes(peer)?;
        peer.say(&[rst_stream(1, 8), settings(&[(INITIAL_WINDOW_SIZE, 65_535)])]);
        peer.lives()
    });
}

#[test]
fn s6_9_2_initial_window_size_that_overflows_a_window() {
    judge(|peer| {
        peer.say(&[post(1), window_update(1, 1 << 30), settings(&[(INITIAL_WINDOW_SIZE, WINDOW_MAX)])]);
        peer.dies(&[FLOW_CONTROL_ERROR])
    });
}

/// INITIAL_WINDOW_SIZE does not change the connection's window.
#[test]
fn s6_9_2_initial_window_size_leaves_the_connections_window() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 1)], |peer| {
        peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 0)]));
        acknowledged(peer)?;
        peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 65_535)]));
        acknowledged(peer)?;
        peer.say(&[window_update(0, WINDOW_MAX - u32::try_from(WINDOW).unwrap())]);
        peer.lives()
    });
}

/// Headers, and an end without bytes, need no window.
#[test]
fn s6_9_1_only_bytes_of_data_need_a_window() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 0)], |peer| {
        peer.say(&[post(1), data(1, END_STREAM, b"")]);
        let answer = peer.answer(1)?;
        same("the echo", (answer.status, answer.body.len()), (200, 0))
    });
}

/// Who gets updates may send for ever: far more than any window's worth, on one stream and on the connection.
#[test]
fn s6_9_windows_are_opened_again() {
    judge(|peer| {
        let body = vec![b'w'; 16_000];
        let mut total = 0;
        for stream in [1, 3, 5] {
            let mut stream_room = WINDOW;
            peer.send(&post(stream));
            let mut sent = 0;
            while sent < 30 {
                if stream_room.min(peer.room - total) >= body.len() {
                    peer.send(&data(stream, 0, &body));
                    stream_room -= body.len();
                    total += body.len();
                    sent += 1;
                    continue;
                }
                let update = peer.until("WINDOW_UPDATE", |frame| frame.kind == WINDOW_UPDATE)?;
                if update.stream != 0 {
                    same("the stream of an update", update.stream, stream)?;
                    stream_room += update.number(0) as usize;
                }
            }
            peer.send(&rst_stream(stream, 8));
            // Updates for it may still be under way.
            peer.send(&ping(b"all done"));
            peer.until("a PING's answer", |frame| frame.kind == PING)?;
        }
        peer.lives()
    });
}

/// Padding counts in the windows, and comes back by itself.
#[test]
fn s6_1_padding_counts_in_the_windows() {
    judge(|peer| {
        let frames = 2 * WINDOW / 256;
        peer.send(&post(1));
        let (mut stream_room, mut total) = (WINDOW, 0);
        for _ in 0..frames {
            while stream_room.min(peer.room - total) < 256 {
                let update = peer.until("WINDOW_UPDATE", |frame| frame.kind == WINDOW_UPDATE)?;
                stream_room += if update.stream == 0 { 0 } else { update.number(0) as usize };
            }
            // A byte of length, no data, 255 bytes of padding: 256. One byte of data in place of one of padding keeps it
            // from being a flood of nothing.
            peer.send(&data(1, PADDED, &padded(254, b"x")));
            total += 256;
            stream_room -= 256;
        }
        peer.send(&data(1, END_STREAM, b""));
        same("the echo's length", peer.answers(1, 200)?.len(), frames)?;
        peer.lives()
    });
}

/// Sends more than it may on a stream that takes no more, because its answer cannot leave.
#[test]
fn s6_9_1_data_over_the_streams_window() {
    judge_with(&[(INITIAL_WINDOW_SIZE, 0)], |peer| {
        // Small enough pieces, sent at once: no update can have come between.
        let body = vec![b'o'; FRAME_BYTES];
        peer.send(&post(1));
        let all: Vec<u8> = (0..4096).flat_map(|_| data(1, 0, &body)).collect();
        peer.send(&all);
        // Or what the server takes of a body is less than its windows.
        let frame =
            peer.until("an end", |frame| matches!(frame.kind, 3 | HEADERS) && frame.stream == 1).or_else(|wrong| {
                if wrong.contains("end") {
                    Ok(super::peer::Frame { kind: 7, flags: 0, stream: 0, payload: vec![] })
                } else {
                    Err(wrong)
                }
            })?;
        match frame.kind {
            3 => same("the code", [FLOW_CONTROL_ERROR, 0, 8, 11].contains(&frame.number(0)), true),
            _ => Ok(()),
        }
    });
}
