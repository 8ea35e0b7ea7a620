//! Whole requests and answers, and what else is said over HTTP/2: pages, echoes, topics, events, WebSockets.

use std::time::Duration;

use super::peer::{Peer, Verdict, same};
use super::wire::{
    CANCEL, DATA, ENABLE_CONNECT_PROTOCOL, END_HEADERS, END_STREAM, GOAWAY, HEADERS, NO_ERROR, REFUSED_STREAM,
    RST_STREAM, WHOLE, block, data, get, headers, post, request, request_with, rst_stream, status,
};
use crate::common::{Running, backends, config, until, wire as frames};
use crate::{judge, on_each_backend, other};
use holdline::app::standard_routes;

#[test]
fn get_and_head() {
    judge(|peer| {
        peer.send(&get(1));
        same("a page that is not empty", peer.answers(1, 200)?.is_empty(), false)?;
        peer.send(&headers(3, WHOLE, &request("HEAD", "/")));
        let answer = peer.answer(3)?;
        same("status and body of HEAD", (answer.status, answer.body.len()), (200, 0))?;
        peer.send(&headers(5, WHOLE, &request("GET", "/nowhere")));
        peer.answers(5, 404).map(drop)
    });
}

#[test]
fn post_answers_with_the_body() {
    judge(|peer| {
        for (stream, length) in [(1, 1), (3, 100), (5, 16_384), (7, 40_000)] {
            let body: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            peer.send(&post(stream));
            let pieces: Vec<&[u8]> = body.chunks(10_000).collect();
            for (number, piece) in pieces.iter().enumerate() {
                peer.send(&data(stream, if number + 1 == pieces.len() { END_STREAM } else { 0 }, piece));
            }
            same("the echo", peer.answers(stream, 200)? == body, true)?;
        }
        peer.lives()
    });
}

#[test]
fn many_requests_at_once_and_one_after_another() {
    judge(|peer| {
        for round in 0..20_u32 {
            let streams: Vec<u32> = (0..50).map(|number| 1 + 2 * (round * 50 + number)).collect();
            peer.send(&streams.iter().flat_map(|stream| get(*stream)).collect::<Vec<u8>>());
            let mut ended = 0;
            let mut room = 0;
            while ended < streams.len() {
                let frame = peer.until("answers", |frame| matches!(frame.kind, HEADERS | DATA | RST_STREAM))?;
                if frame.kind == HEADERS {
                    same("a status", status(&frame.payload), Some(200))?;
                }
                same("a reset", frame.kind == RST_STREAM, false)?;
                ended += usize::from(frame.ends_stream());
                room += if frame.kind == DATA { u32::try_from(frame.payload.len()).unwrap() } else { 0 };
                if room > 20_000 {
                    peer.send(&super::wire::window_update(0, std::mem::take(&mut room)));
                }
            }
            peer.send(&super::wire::window_update(0, room.max(1)));
        }
        peer.lives()
    });
}

/// What is published over HTTP/2 comes to a WebSocket and to a stream of events over HTTP/2, in one order.
#[test]
fn a_topic_has_members_of_every_kind() {
    on_each_backend(
        |_| {},
        |running, _| {
            let mut socket = running.websocket("/topics/mixed");
            let mut peer = Peer::silent(running.at[0], false);
            peer.begin(&[])?;
            let events = request_with("GET", "/topics/mixed", &[("accept", "text/event-stream")]);
            peer.send(&headers(1, WHOLE, &events));
            let head = peer.until("the head of events", |frame| frame.kind == HEADERS && frame.stream == 1)?;
            same("its status", (status(&head.payload), head.ends_stream()), (Some(200), false))?;
            until("both have joined", || running.count(|shard| shard.subscriptions.get()) == 2);
            for (number, stream) in [(0, 3), (1, 5), (2, 7)] {
                let text = format!("over HTTP/2 {number}");
                peer.say(&[
                    headers(stream, END_HEADERS, &request("POST", "/topics/mixed")),
                    data(stream, END_STREAM, text.as_bytes()),
                ]);
                same("the message", socket.text(), text)?;
                socket.send_text(&format!("from a socket {number}"));
                same("its own", socket.text(), format!("from a socket {number}"))?;
            }
            let mut said = String::new();
            // What events begin with has no data.
            while said.matches("socket 2\n\n").count() < 1 {
                let frame = peer.until("events", |frame| frame.kind == DATA && frame.stream == 1)?;
                said.push_str(std::str::from_utf8(&frame.payload).unwrap());
            }
            let lines: Vec<&str> =
                said.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| !data.is_empty()).collect();
            let due: Vec<String> =
                (0..3).flat_map(|at| [format!("over HTTP/2 {at}"), format!("from a socket {at}")]).collect();
            same("the events", lines, due.iter().map(String::as_str).collect())?;
            peer.send(&rst_stream(1, CANCEL));
            until("the reader has left", || running.count(|shard| shard.subscriptions.get()) == 1);
            peer.lives()
        },
    );
}

/// An extended CONNECT for something else is not served as a request for a page.
#[test]
fn rfc8441_a_protocol_that_nobody_speaks_here_is_not_implemented() {
    if other().is_some() {
        return;
    }
    judge(|peer| {
        for (stream, path) in [(1, "/"), (3, "/topics/news"), (5, "/echo")] {
            let fields = [
                (":method", "CONNECT"),
                (":protocol", "connect-udp"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "localhost"),
            ];
            peer.send(&headers(stream, END_HEADERS, &block(&fields)));
            let head = peer.until("its head", |frame| frame.kind == HEADERS && frame.stream == stream)?;
            same("its status", status(&head.payload), Some(501))?;
        }
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "localhost"),
            ("sec-websocket-version", "13"),
        ];
        peer.send(&headers(7, END_HEADERS, &block(&fields)));
        let head = peer.until("its head", |frame| frame.kind == HEADERS && frame.stream == 7)?;
        same("the status of a WebSocket to a page", status(&head.payload), Some(404))?;
        peer.lives()
    });
}

/// A WebSocket on a stream (RFC 8441), beside requests on others.
#[test]
fn rfc8441_a_websocket_on_a_stream() {
    if other().is_some() {
        return;
    }
    judge(|peer| {
        same("it is offered", peer.settings.contains(&(ENABLE_CONNECT_PROTOCOL, 1)), true)?;
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/echo"),
            (":authority", "localhost"),
            ("sec-websocket-version", "13"),
        ];
        peer.send(&headers(1, END_HEADERS, &block(&fields)));
        let head = peer.until("its head", |frame| frame.kind == HEADERS && frame.stream == 1)?;
        same("its status", (status(&head.payload), head.ends_stream()), (Some(200), false))?;
        for text in ["over", "a stream"] {
            peer.say(&[
                data(1, 0, &frames::masked(frames::FIN | frames::TEXT, text.as_bytes())),
                get(if text == "over" { 3 } else { 5 }),
            ]);
            let mut found = Vec::new();
            while found.len() < 2 + text.len() {
                found.extend(peer.until("an echo", |frame| frame.kind == DATA && frame.stream == 1)?.payload);
            }
            same("the echo", &found[2..], text.as_bytes())?;
        }
        peer.send(&data(1, 0, &frames::masked(frames::FIN | frames::CLOSE, &1000_u16.to_be_bytes())));
        let close = peer.until("a close frame", |frame| frame.kind == DATA && frame.stream == 1)?;
        same("it", &close.payload[..], &[0x88, 2, 0x03, 0xe8])?;
        if !close.ends_stream() {
            peer.send(&data(1, END_STREAM, b""));
            peer.until("the stream's end", |frame| {
                frame.stream == 1 && (frame.ends_stream() || frame.kind == RST_STREAM)
            })?;
        }
        peer.lives()
    });
}

/// GOAWAY comes with a drain; what is under way ends, and nothing new is taken.
#[test]
fn s6_8_a_drain_says_goaway() {
    for backend in backends() {
        let running = Running::start(&config(backend, 1), standard_routes());
        let mut peer = Peer::silent(running.at[0], false);
        let verdict = drained(&running, &mut peer);
        verdict.unwrap_or_else(|wrong| panic!("{backend:?}: {wrong}"));
    }
}

/// The last stream of a GOAWAY that names none yet.
const STREAM_MAX: u32 = (1 << 31) - 1;

fn drained(running: &Running, peer: &mut Peer) -> Verdict {
    peer.begin(&[])?;
    peer.say(&[get(1), post(3), data(3, 0, b"under way")]);
    peer.answers(1, 200)?;
    running.server.drain(Duration::from_secs(2));
    let goaway = peer.until("GOAWAY", |frame| frame.kind == GOAWAY)?;
    same("its code", goaway.number(4), NO_ERROR)?;
    same("its last stream is no smaller than those that are open", goaway.number(0) >= 3, true)?;
    peer.send(&data(3, END_STREAM, b" ends"));
    // A request that was not whole is answered, or refused so that it may be sent again elsewhere; and once the peer has shown
    // that it knows, the last stream is named. Until then new streams are taken: they may have been on their way (6.8).
    let (mut is_over, mut is_final) = (false, goaway.number(0) < STREAM_MAX);
    while !(is_over && is_final) {
        let frame = peer.until("the end of what was under way, and the last GOAWAY", |frame| {
            frame.kind == GOAWAY || frame.stream == 3 && (frame.kind == RST_STREAM || frame.ends_stream())
        })?;
        if frame.kind == GOAWAY {
            same("its code", frame.number(4), NO_ERROR)?;
            is_final |= frame.number(0) < STREAM_MAX;
        } else {
            is_over = true;
            if frame.kind == RST_STREAM {
                same("the code", frame.number(0), REFUSED_STREAM)?;
            }
        }
    }
    peer.send(&get(5));
    while let Some(frame) = peer.frame()? {
        if frame.kind == HEADERS {
            return Err(format!("a request after the drain was answered: {frame:?}"));
        }
        if frame.kind == RST_STREAM {
            same("the code", frame.number(0), REFUSED_STREAM)?;
        }
    }
    Ok(())
}
