//! How a connection begins, what a frame is, and how errors of connections and streams are told (RFC 9113 sections 3 to 5).

use super::peer::{Peer, Verdict, same};
use super::wire::{
    ACK, DATA, END_HEADERS, END_STREAM, FRAME_SIZE_ERROR, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, PING,
    PREFACE, PRIORITY, PROTOCOL_ERROR, SETTINGS, WHOLE, continuation, data, frame, frame_header, get, headers, literal,
    ping, post, priority, request, request_with, rst_stream, settings, window_update,
};
use crate::{judge, judge_silent};

/// The largest frame that everybody must take (section 4.2).
const FRAME_BYTES: usize = 16_384;

/// The server's SETTINGS come, and the connection works.
fn begins(peer: &mut Peer, pieces: &[&[u8]]) -> Verdict {
    for piece in pieces {
        peer.send(piece);
    }
    let first = peer.frame()?.ok_or("the end came instead of SETTINGS")?;
    same("the first frame", (first.kind, first.flags), (SETTINGS, 0))?;
    peer.send(&frame(SETTINGS, ACK, 0, &[]));
    peer.lives()
}

#[test]
fn s3_4_the_server_begins_with_settings() {
    judge_silent(|peer| begins(peer, &[PREFACE, &settings(&[])]));
}

#[test]
fn s3_4_the_preface_may_come_byte_by_byte() {
    judge_silent(|peer| {
        let all = [PREFACE, &settings(&[(INITIAL_WINDOW_SIZE, 70_000)])].concat();
        let pieces: Vec<&[u8]> = all.chunks(1).collect();
        begins(peer, &pieces)
    });
}

#[test]
fn s3_4_the_preface_may_come_in_two_parts() {
    for at in [1, 14, 16, 18, 20, 24, 28] {
        judge_silent(|peer| {
            let all = [PREFACE, &settings(&[])].concat();
            peer.send(&all[..at]);
            std::thread::sleep(std::time::Duration::from_millis(10));
            begins(peer, &[&all[at..]])
        });
    }
}

#[test]
fn s3_4_requests_may_follow_the_preface_at_once() {
    judge_silent(|peer| {
        peer.say(&[PREFACE.to_vec(), settings(&[]), get(1), get(3)]);
        peer.answers(1, 200)?;
        peer.answers(3, 200)?;
        peer.lives()
    });
}

#[test]
fn s3_4_a_preface_that_is_wrong_ends_the_connection() {
    for wrong in
        [&b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rx", b"INVALID PREFACE\r\n\r\n"]
    {
        judge_silent(|peer| {
            peer.send(wrong);
            peer.send(&settings(&[]));
            // What comes may be of HTTP/1.1: read it as bytes.
            let mut all = Vec::new();
            match std::io::Read::read_to_end(&mut peer.stream, &mut all) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err("it goes on".into()),
                _ => Ok(()),
            }
        });
    }
}

#[test]
fn s3_4_a_preface_without_settings_is_a_protocol_error() {
    for first in [ping(b"too soon"), get(1), window_update(0, 1), frame(SETTINGS, ACK, 0, &[]), frame(99, 0, 0, &[])] {
        judge_silent(|peer| {
            peer.say(&[PREFACE.to_vec(), first.clone()]);
            peer.dies(&[PROTOCOL_ERROR])
        });
    }
}

#[test]
fn s4_1_unknown_kinds_of_frames_are_ignored() {
    judge(|peer| {
        for kind in [10, 16, 22, 99, 255] {
            peer.say(&[frame(kind, 0xff, 0, b"nobody knows"), frame(kind, 0, 1, &[0; 5000]), frame(kind, 0, 7, &[])]);
        }
        peer.say(&[frame_header(0, 99, 0, 0x8000_0000)]);
        peer.lives()
    });
}

#[test]
fn s4_1_unknown_flags_are_ignored() {
    judge(|peer| {
        peer.send(&frame(PING, 0x16, 0, b"12345678"));
        let pong = peer.until("a PING's answer", |frame| frame.kind == PING)?;
        same("its payload and flags", (&pong.payload[..], pong.flags), (&b"12345678"[..], ACK))?;
        peer.say(&[frame(SETTINGS, 0xfe, 0, &[])]);
        peer.until("an acknowledgement", |frame| frame.kind == SETTINGS && frame.flags == ACK)?;
        peer.say(&[frame(HEADERS, WHOLE | 0xd2 & !0x28, 1, &request("GET", "/"))]);
        peer.answers(1, 200)?;
        peer.say(&[post(3), frame(DATA, END_STREAM | 0xf6, 3, b"flags")]);
        same("the echo", peer.answers(3, 200)?, b"flags".to_vec())
    });
}

#[test]
fn s4_1_the_reserved_bit_of_a_stream_is_ignored() {
    judge(|peer| {
        peer.say(&[frame(PING, 0, 0x8000_0000, b"reserved")]);
        peer.until("a PING's answer", |frame| frame.kind == PING && frame.payload == b"reserved")?;
        peer.say(&[headers(0x8000_0001, WHOLE, &request("GET", "/"))]);
        peer.answers(1, 200).map(drop)
    });
}

#[test]
fn s4_2_data_of_the_largest_frame_is_taken() {
    judge(|peer| {
        let body = vec![b'x'; FRAME_BYTES];
        peer.say(&[post(1), data(1, 0, &body), data(1, END_STREAM, &body)]);
        same("the echo's length", peer.answers(1, 200)?.len(), 2 * FRAME_BYTES)
    });
}

#[test]
fn s4_2_a_header_block_of_the_largest_frame_is_taken() {
    judge(|peer| {
        // Over what the server takes of fields is no error of the frame.
        let long = literal("x-long", &"x".repeat(FRAME_BYTES - 300));
        let mut block = [request("GET", "/"), long].concat();
        // Five bytes of its own: the kind, "a" with its length, and a length of two bytes.
        let rest = FRAME_BYTES - block.len() - 5;
        block.extend(literal("a", &"b".repeat(rest)));
        same("the block's length", block.len(), FRAME_BYTES)?;
        peer.send(&headers(1, WHOLE, &block));
        let status = peer.answer(1)?.status;
        if ![200, 431].contains(&status) {
            return Err(format!("200 or 431 was due, not {status}"));
        }
        peer.lives()
    });
}

#[test]
fn s4_2_data_over_the_largest_frame_is_a_frame_size_error() {
    judge(|peer| {
        peer.say(&[post(1), data(1, END_STREAM, &vec![0; FRAME_BYTES + 1])]);
        peer.resets_or_dies(1, &[FRAME_SIZE_ERROR])
    });
}

#[test]
fn s4_2_headers_over_the_largest_frame_are_the_connections_error() {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &request_with("GET", "/", &[("x-long", &"x".repeat(FRAME_BYTES))])));
        peer.dies(&[FRAME_SIZE_ERROR])
    });
}

#[test]
fn s4_2_a_declared_length_is_refused_before_the_bytes_come() {
    for kind in [DATA, HEADERS, PRIORITY, SETTINGS, PING, GOAWAY, 9, 99] {
        judge(|peer| {
            peer.say(&[
                post(1),
                frame_header(0xff_ffff, kind, 0, u32::from(matches!(kind, DATA | HEADERS | PRIORITY | 9))),
            ]);
            peer.resets_or_dies(1, &[FRAME_SIZE_ERROR])
        });
    }
}

#[test]
fn s4_2_our_larger_frames_do_not_make_the_servers_larger() {
    judge(|peer| {
        peer.send(&settings(&[(MAX_FRAME_SIZE, 16_384), (INITIAL_WINDOW_SIZE, 1 << 20)]));
        let body = vec![b'y'; FRAME_BYTES];
        peer.say(&[post(1), data(1, 0, &body), data(1, 0, &body), data(1, END_STREAM, &body)]);
        let answer = peer.answer(1)?;
        same("the echo's length", answer.body.len(), 3 * FRAME_BYTES)?;
        same("a piece over the largest frame", answer.pieces.iter().any(|piece| *piece > FRAME_BYTES), false)
    });
}

#[test]
fn s4_3_a_header_block_in_pieces_is_one_block() {
    judge(|peer| {
        let block = request("GET", "/");
        let (first, rest) = block.split_at(5);
        peer.send(&headers(1, END_STREAM, first));
        let pieces: Vec<&[u8]> = rest.chunks(rest.len().div_ceil(5)).collect();
        for (number, piece) in pieces.iter().enumerate() {
            peer.send(&continuation(1, if number + 1 == pieces.len() { END_HEADERS } else { 0 }, piece));
        }
        peer.answers(1, 200)?;
        peer.lives()
    });
}

#[test]
fn s4_3_nothing_may_lie_between_the_frames_of_a_header_block() {
    let block = request("GET", "/");
    for between in [
        priority(1, 0, 0),
        data(1, 0, b"x"),
        headers(3, WHOLE, &block),
        headers(1, WHOLE, &block),
        settings(&[]),
        ping(b"between!"),
        rst_stream(1, 0),
        window_update(0, 1),
        frame(GOAWAY, 0, 0, &[0; 8]),
        frame(99, 0, 0, b"unknown"),
        continuation(3, END_HEADERS, &block),
    ] {
        judge(|peer| {
            peer.say(&[
                headers(1, END_STREAM, &block[..4]),
                between.clone(),
                continuation(1, END_HEADERS, &block[4..]),
            ]);
            peer.dies(&[PROTOCOL_ERROR])
        });
    }
}

#[test]
fn s5_4_1_an_error_of_the_connection_is_told_with_the_last_stream() {
    judge(|peer| {
        peer.send(&get(1));
        peer.answers(1, 200)?;
        peer.send(&frame(PING, 0, 0, b"short"));
        let goaway = peer.until("GOAWAY", |frame| frame.kind == GOAWAY)?;
        same("last stream and code", (goaway.number(0), goaway.number(4)), (1, FRAME_SIZE_ERROR))?;
        same("the stream of GOAWAY", goaway.stream, 0)?;
        peer.ends()
    });
}

#[test]
fn s5_4_2_an_error_of_a_stream_leaves_the_others() {
    judge(|peer| {
        peer.say(&[
            post(1),
            post(3),
            data(1, 0, b"well"),
            headers(5, WHOLE, &request_with("GET", "/", &[("UP", "x")])),
        ]);
        peer.until("RST_STREAM", |frame| frame.kind == 3 && frame.stream == 5)?;
        peer.say(&[data(1, END_STREAM, b" done"), data(3, END_STREAM, b"me too")]);
        same("the echo", peer.answers(1, 200)?, b"well done".to_vec())?;
        same("the echo", peer.answers(3, 200)?, b"me too".to_vec())?;
        peer.lives()
    });
}

#[test]
fn s5_4_3_a_client_may_close_at_any_place() {
    let block = request("GET", "/");
    for said in [
        PREFACE[..20].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &settings(&[])[..4]].concat(),
        [PREFACE, &settings(&[]), &headers(1, END_STREAM, &block)].concat(),
        [PREFACE, &settings(&[]), &headers(1, END_HEADERS, &block)[..20]].concat(),
        [PREFACE, &settings(&[]), &post(1), &data(1, 0, b"half")[..11]].concat(),
        [PREFACE, &settings(&[]), &get(1)].concat(),
    ] {
        judge_silent(|peer| {
            peer.send(&said);
            peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut all = Vec::new();
            match std::io::Read::read_to_end(&mut peer.stream, &mut all) {
                Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(format!("the end: {error}")),
                _ => Ok(()),
            }
        });
    }
}
