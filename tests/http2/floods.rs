//! Peers that would have the server work, remember or wait for nothing: each ends in bounded time and memory, and the
//! neighbour goes on.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use holdline::config::Config;

use super::peer::{PATIENCE, Peer, Verdict, same};
use super::wire::{
    CANCEL, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PADDED, PREFACE,
    RST_STREAM, SETTINGS, WHOLE, block, continuation, data, frame, get, headers, indexed, padded, ping, post, priority,
    request, rst_stream, settings, status, stored, window_update,
};
use crate::common::{Neighbour, Running, until};
use crate::{judge, on_each_backend, other};

/// What one connection may have queued in the tests of those who do not read.
const QUEUE_BYTES_MAX: usize = 64 * 1024;
/// What goes beside the queue: one receive's answers.
const SLACK_BYTES: u64 = 512 * 1024;

/// Sends it again and again, beside whoever reads, until nobody takes it.
fn without_end(mut stream: TcpStream, bytes: &[u8], most: usize) {
    for _ in 0..most.div_ceil(bytes.len()) {
        if stream.write_all(bytes).is_err() {
            return;
        }
    }
}

/// A flood, of at most 64 MiB, ends in GOAWAY with ENHANCE_YOUR_CALM. `first` comes once.
fn calms(first: &[u8], again: &[u8]) {
    judge(|peer| {
        peer.send(first);
        drowns(peer, again)
    });
}

fn drowns(peer: &mut Peer, again: &[u8]) -> Verdict {
    let writer = peer.stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || without_end(writer, again, 64 << 20));
        let verdict = peer.dies(&[ENHANCE_YOUR_CALM]);
        let _ = peer.stream.shutdown(std::net::Shutdown::Both);
        verdict
    })
}

/// As many streams as `frames` takes, one after the other.
fn on_streams(count: u32, frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(|number| frames(2 * number + 1)).collect()
}

#[test]
fn rapid_reset() {
    let all = on_streams(20_000, |stream| [get(stream), rst_stream(stream, CANCEL)].concat());
    judge(|peer| drowns(peer, &all));
    let all = on_streams(20_000, |stream| [post(stream), rst_stream(stream, CANCEL)].concat());
    judge(|peer| drowns(peer, &all));
}

/// A client that changes its mind now and then is none that floods.
#[test]
fn some_resets_are_no_flood() {
    judge(|peer| {
        peer.send(&on_streams(100, |stream| [post(stream), rst_stream(stream, CANCEL)].concat()));
        peer.lives()
    });
}

/// What makes a server reset a stream for which it has begun to work (CVE-2025-8671).
#[test]
fn resets_that_the_peer_makes_the_server_send() {
    let ways: [&dyn Fn(u32) -> Vec<u8>; 5] = [
        &|stream| [post(stream), window_update(stream, 0)].concat(),
        &|stream| [post(stream), window_update(stream, 0x7fff_ffff)].concat(),
        &|stream| [post(stream), priority(stream, stream, 1)].concat(),
        &|stream| headers(stream, WHOLE, &[request("GET", "/"), block(&[("UPPER", "x")])].concat()),
        &|stream| [post(stream), headers(stream, END_HEADERS, &block(&[("x", "y")]))].concat(),
    ];
    for way in ways {
        let all = on_streams(10_000, way);
        judge(|peer| drowns(peer, &all));
    }
}

#[test]
fn continuations_without_end() {
    let head = headers(1, END_STREAM, &request("GET", "/"));
    calms(&head, &continuation(1, 0, &block(&[("x", "y")])));
    calms(&head, &continuation(1, 0, &[]));
    calms(&head, &continuation(1, 0, &block(&[("x", &"y".repeat(16_000))])));
    calms(&headers(1, END_STREAM, &[]), &continuation(1, 0, &[0]));
}

#[test]
fn frames_without_a_payload() {
    let flood = |kind: &[u8]| calms(&[], &kind.repeat(1000));
    flood(&settings(&[]));
    flood(&settings(&[(INITIAL_WINDOW_SIZE, 65_535), (1, 4096), (2, 0)]));
    flood(&ping(b"pingping"));
    flood(&frame(super::wire::PING, super::wire::ACK, 0, b"unasked!"));
    flood(&frame(SETTINGS, super::wire::ACK, 0, &[]));
    flood(&priority(3, 0, 16));
    calms(&[window_update(0, 1)].concat(), &window_update(0, 1).repeat(1000));
    calms(&post(1), &window_update(1, 1).repeat(1000));
    flood(&frame(0xbe, 0, 0, &[]));
}

/// Half as many as are allowed change nothing.
#[test]
fn some_frames_without_a_payload_are_no_flood() {
    judge(|peer| {
        let reader = peer.stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || without_end(reader, &ping(b"pingping"), 4000 * 17));
            for _ in 0..4000 {
                peer.until("a PING's answer", |frame| frame.kind == super::wire::PING)?;
            }
            peer.lives()
        })
    });
}

#[test]
fn empty_data() {
    calms(&post(1), &data(1, 0, &[]).repeat(500));
    calms(&post(1), &data(1, PADDED, &padded(0, &[])).repeat(500));
}

#[test]
fn data_of_padding_alone() {
    judge(|peer| {
        peer.send(&post(1));
        // The window comes back by itself: without a count it would go on for ever.
        drowns(peer, &data(1, PADDED, &padded(255, &[])).repeat(100))
            .or_else(|wrong| if wrong.contains("[3]") { Ok(()) } else { Err(wrong) })
    });
}

/// Frames on streams that have been closed: the connection's error, or a flood of resets.
#[test]
fn data_on_closed_streams() {
    judge(|peer| {
        peer.send(&get(1));
        peer.answers(1, 200)?;
        let writer = peer.stream.try_clone().unwrap();
        let bytes = data(1, 0, &[b'x'; 100]).repeat(100);
        thread::scope(|scope| {
            scope.spawn(move || without_end(writer, &bytes, 8 << 20));
            let verdict = peer.dies(&[ENHANCE_YOUR_CALM, super::wire::STREAM_CLOSED, super::wire::FLOW_CONTROL_ERROR]);
            let _ = peer.stream.shutdown(std::net::Shutdown::Both);
            verdict
        })
    });
}

/// One long field in the table, then as many references to it as a frame holds (CVE-2016-6581): each request is refused
/// for its size, or the connection ends; quickly, either way.
#[test]
fn a_compression_bomb() {
    judge(|peer| {
        peer.send(&headers(1, WHOLE, &[request("GET", "/"), stored("x-bomb", &"b".repeat(3900))].concat()));
        peer.answers(1, 200)?;
        let bomb = [request("GET", "/"), indexed(62).repeat(15_000)].concat();
        let began = Instant::now();
        for stream in (3..43).step_by(2) {
            peer.send(&headers(stream, WHOLE, &bomb));
            let found =
                peer.until("its end", |frame| matches!(frame.kind, RST_STREAM | HEADERS) && frame.stream == stream);
            match found {
                Ok(frame) if frame.kind == HEADERS => same("its status", status(&frame.payload), Some(431))?,
                Ok(_) => {}
                Err(wrong) if wrong.contains("ended") => return peer.ends(),
                Err(wrong) => return Err(wrong),
            }
        }
        same("it took long", began.elapsed() > Duration::from_secs(3), false)?;
        peer.lives()
    });
}

#[test]
fn a_head_over_the_limit_is_refused_alone() {
    judge(|peer| {
        // 15,800 bytes, and 32 more for each of 26 fields (RFC 9113 section 6.5.2).
        let long = block(&[("x-long", &"l".repeat(7900)), ("x-longer", &"l".repeat(7900))]);
        peer.send(&headers(1, WHOLE, &[request("GET", "/"), block(&[("x", "y"); 20]), long].concat()));
        peer.answers(1, 431)?;
        let many: Vec<u8> = (0..200).flat_map(|_| block(&[("a", "b")])).collect();
        peer.send(&headers(3, WHOLE, &[request("GET", "/"), many].concat()));
        peer.answers(3, 431)?;
        let crumbs: Vec<u8> = (0..200).flat_map(|_| block(&[("cookie", "a=b")])).collect();
        peer.send(&headers(5, WHOLE, &[request("GET", "/"), crumbs].concat()));
        peer.answers(5, 431)?;
        peer.lives()
    });
}

/// A server whose patience is short, with those who do not read.
fn tight(config: &mut Config) {
    config.limits.queue_bytes_max = QUEUE_BYTES_MAX;
    config.limits.queue_stall_timeout = Duration::from_secs(1);
    config.limits.body_timeout = Duration::from_secs(1);
    config.limits.handshake_timeout = Duration::from_secs(1);
    config.limits.http2.settings_timeout = Duration::from_millis(500);
}

/// Runs `test` where patience is short. Only for a server of ours.
fn impatient(test: impl Fn(&Running, &mut Neighbour) -> Verdict) {
    if other().is_none() {
        on_each_backend(tight, test);
    }
}

/// The connection or the stream ends by itself, within the patience of a test.
fn gives_up(peer: &mut Peer, stream: u32) -> Verdict {
    loop {
        match peer.frame().map_err(|wrong| format!("it should have been given up: {wrong}"))? {
            Some(frame) if frame.kind == RST_STREAM && frame.stream == stream => return Ok(()),
            Some(frame) if frame.stream == stream && frame.ends_stream() => return Ok(()),
            Some(frame) if frame.kind == GOAWAY => return peer.ends(),
            Some(_) => {}
            None => return Ok(()),
        }
    }
}

#[test]
fn a_client_without_settings_is_given_up() {
    impatient(|running, _| {
        let mut peer = Peer::silent(running.at[0], false);
        peer.send(PREFACE);
        peer.ends()
    });
}

#[test]
fn a_client_that_acknowledges_nothing_is_given_up() {
    impatient(|running, _| {
        let mut peer = Peer::silent(running.at[0], false);
        peer.say(&[PREFACE.to_vec(), settings(&[]), get(1)]);
        peer.answers(1, 200)?;
        peer.ends()
    });
}

#[test]
fn a_head_that_does_not_end_is_given_up() {
    impatient(|running, _| {
        let mut peer = Peer::silent(running.at[0], false);
        peer.begin(&[])?;
        peer.send(&headers(1, END_STREAM, &request("GET", "/")));
        gives_up(&mut peer, 1)
    });
}

/// The time to a whole head is not begun anew by another byte of it.
#[test]
fn a_head_that_comes_byte_by_byte_is_given_up() {
    impatient(|running, _| {
        let mut peer = Peer::silent(running.at[0], false);
        peer.begin(&[])?;
        peer.send(&headers(1, END_STREAM, &request("GET", "/")));
        let mut writer = peer.stream.try_clone().unwrap();
        let bytes = continuation(1, 0, &block(&[("x-slow", &"s".repeat(200))]));
        thread::scope(|scope| {
            // 22 s, if nobody stops it.
            scope.spawn(move || {
                let _ = bytes.iter().try_for_each(|byte| {
                    thread::sleep(Duration::from_millis(100));
                    writer.write_all(&[*byte])
                });
            });
            let verdict = gives_up(&mut peer, 1);
            let _ = peer.stream.shutdown(std::net::Shutdown::Both);
            verdict
        })
    });
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    impatient(|running, _| {
        let mut peer = Peer::silent(running.at[0], false);
        peer.begin(&[])?;
        peer.say(&[post(1), data(1, 0, b"and then nothing")]);
        gives_up(&mut peer, 1)
    });
}

/// Answers that a window of nothing holds back are given up, with what they hold.
#[test]
fn a_window_of_nothing_is_given_up() {
    impatient(|running, _| {
        let mut peer = Peer::silent(running.at[0], false);
        peer.begin(&[(INITIAL_WINDOW_SIZE, 0)])?;
        let body = vec![b'h'; 16_000];
        peer.say(&[post(1), data(1, 0, &body), data(1, END_STREAM, &body)]);
        peer.until("a head", |frame| frame.kind == HEADERS && frame.stream == 1)?;
        gives_up(&mut peer, 1)
    });
}

/// Large heads on every stream whose answers cannot leave (CVE-2026-49975): what they hold is bounded, and given up.
#[test]
fn heads_that_a_window_of_nothing_holds() {
    impatient(|running, neighbour| {
        let mut peer = Peer::silent(running.at[0], false);
        peer.begin(&[(INITIAL_WINDOW_SIZE, 0)])?;
        peer.send(&headers(1, WHOLE, &[request("GET", "/"), stored("x-bomb", &"b".repeat(3900))].concat()));
        for stream in (3..201).step_by(2) {
            peer.send(&headers(stream, WHOLE, &[request("GET", "/"), indexed(62).repeat(3)].concat()));
        }
        let deadline = Instant::now() + PATIENCE;
        while running.count(|shard| shard.http2_streams.get()) > 0 {
            let queued = running.count(|shard| shard.queued_bytes.get());
            // A page for each stream, at most.
            same("too much is queued", queued > 100 * 128 * 1024, false)?;
            same("the streams are held for ever", Instant::now() > deadline, false)?;
            neighbour.is_well();
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    });
}

/// A client whose kernel keeps little of what it does not read.
fn that_does_not_read(running: &Running) -> Peer {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&running.at[0].into()).unwrap();
    let mut peer = Peer::over(socket.into(), false);
    let windows = [settings(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]), window_update(0, 0x7000_0000)];
    peer.say(&[PREFACE.to_vec(), windows.concat(), frame(SETTINGS, super::wire::ACK, 0, &[])]);
    peer
}

/// Sends until the server takes no more and has ended it, with the neighbour well and the queues bounded all the time.
fn is_not_read_and_closed(bytes: &[u8]) {
    impatient(|running, neighbour| {
        let mut peer = that_does_not_read(running);
        peer.stream.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut at = 0;
        while running.connections() > 1 || at == 0 {
            same("it is held for ever", Instant::now() > deadline, false)?;
            match peer.stream.write(&bytes[at % bytes.len()..]) {
                Ok(taken) => at += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => neighbour.is_well(),
                Err(_) => break,
            }
            let queued = running.count(|shard| shard.queued_bytes.get());
            if queued > QUEUE_BYTES_MAX as u64 + SLACK_BYTES {
                return Err(format!("{queued} bytes are queued"));
            }
        }
        until("it is gone", || running.connections() == 1);
        Ok(())
    });
}

#[test]
fn pings_that_nobody_reads_the_answers_of() {
    is_not_read_and_closed(&ping(b"pingping").repeat(1000));
}

#[test]
fn settings_that_nobody_reads_the_answers_of() {
    is_not_read_and_closed(&settings(&[]).repeat(1000));
}

#[test]
fn pages_that_nobody_reads() {
    is_not_read_and_closed(&on_streams(50_000, get));
}

#[test]
fn echoes_that_nobody_reads() {
    let body = vec![b'e'; 16_000];
    is_not_read_and_closed(&on_streams(500, |stream| [post(stream), data(stream, END_STREAM, &body)].concat()));
}

/// One byte of window after the other does not hold an answer for ever, and costs no more than frames do.
#[test]
fn data_is_not_sent_byte_by_byte_for_ever() {
    judge(|peer| {
        peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 1)]));
        peer.send(&get(1));
        for _ in 0..200 {
            let piece = peer.until("DATA", |frame| frame.kind == DATA && frame.stream == 1)?;
            if piece.ends_stream() {
                break;
            }
            peer.send(&window_update(1, 1));
        }
        peer.say(&[rst_stream(1, CANCEL), settings(&[(INITIAL_WINDOW_SIZE, 65_535)])]);
        peer.lives()
    });
}
