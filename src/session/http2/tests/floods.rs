//! Peers that make work: each is told to calm down.

use super::*;

/// Sends the same, or what a function makes of its number, until the connection ends. Returns how often it could.
#[track_caller]
fn flood(peer: &mut Peer, frames: impl Fn(u32) -> Vec<u8>, violation: Violation) -> u32 {
    assert_eq!(violation.code(), ErrorCode::EnhanceYourCalm);
    for count in 0..100_000 {
        let found = peer.send(&frames(count));
        peer.out.clear();
        if found.ends_with(&format!("{violation:?}")) {
            return count;
        }
    }
    panic!("it does not end");
}

#[test]
fn rapid_reset_cve_2023_44487() {
    let both = |n| [get(2 * n + 1), reset(2 * n + 1)].concat();
    let mut peer = Peer::greeted();
    assert_eq!(flood(&mut peer, both, Violation::Resets), 200);
    // The one whose reset could not be paid for: it ends with the connection.
    assert_eq!(peer.http2.streams(), 1);
}

#[test]
fn resets_at_a_sensible_rate_are_none_of_it() {
    let mut peer = Peer::greeted();
    for n in 0..2000 {
        peer.now = Tick(n / 2);
        let found = peer.send(&[get(2 * n + 1), reset(2 * n + 1)].concat());
        assert!(found.ends_with("reset Cancel"), "{found}");
    }
}

#[test]
fn resets_that_the_peer_makes_us_send_cve_2025_8671() {
    let ways: [fn(u32) -> Vec<u8>; 5] = [
        |n| [get(n), window(n, 0)].concat(),
        |n| [get(n), window(n, (1 << 31) - 1)].concat(),
        |n| [get(n), data(n, 0, b"x")].concat(),
        |n| [get(n), bytes(kind::PRIORITY, 0, n, &[0; 4])].concat(),
        |n| bytes(kind::HEADERS, WHOLE, n, &block(&[(":method", "GET")])),
    ];
    for way in ways {
        assert_eq!(flood(&mut Peer::greeted(), |n| way(2 * n + 1), Violation::Resets), 200);
    }
}

#[test]
fn resets_of_ours_count_but_after_a_whole_response() {
    let mut peer = Peer::greeted();
    let mut open_and_reset = |n: u32, code| {
        let found = peer.send(&post(2 * n + 1));
        peer.http2.reset(StreamId(2 * n + 1), code, &mut peer.out);
        found
    };
    for n in 0..1000 {
        assert!(open_and_reset(n, ErrorCode::NoError).contains("GET"));
    }
    let ends = (1000..2000).find(|&n| open_and_reset(n, ErrorCode::Cancel) == "Resets");
    assert_eq!(ends, Some(1201));
}

#[test]
fn refusals_and_too_large_heads_count() {
    let mut limits = Limits { head_fields_max: 1, ..Limits::default() };
    limits.http2.streams_max = 1;
    let large = |n| bytes(kind::HEADERS, END | WHOLE, 2 * n + 1, &request(&[("a", "b")]));
    assert_eq!(flood(&mut Peer::greeted_with(limits.clone()), large, Violation::Resets), 200);
    assert_eq!(flood(&mut Peer::greeted_with(limits), |n| get(2 * n + 1), Violation::Resets), 201);
}

#[test]
fn continuation_flood_cve_2024_27316() {
    let begun = bytes(kind::HEADERS, END, 1, &[]);
    for piece in [&[][..], &[0; 10]] {
        let mut peer = Peer::greeted();
        peer.send(&begun);
        assert_eq!(flood(&mut peer, |_| bytes(kind::CONTINUATION, 0, 1, piece), Violation::Continuations), 8);
    }
    let mut peer = Peer::greeted();
    peer.send(&begun);
    let large = |_| bytes(kind::CONTINUATION, 0, 1, &[0; 8_000]);
    assert_eq!(flood(&mut peer, large, Violation::Continuations), 2, "more than 16 KiB");
}

#[test]
fn frames_without_a_payload_cve_2019_9512_9515() {
    for (flood_of, cost) in [
        (bytes(kind::PING, 0, 0, &[0; 8]), 1),
        (settings(&[]), 1),
        (settings(&[(3, 1)]), 2),
        (bytes(kind::SETTINGS, ACK, 0, &[]), 1),
        (bytes(kind::PRIORITY, 0, 1, &[0; 5]), 1),
        (window(1, 1), 1),
        (window(0, 1), 1),
        (bytes(0x16, 0, 0, &[]), 1),
    ] {
        let mut peer = Peer::greeted();
        peer.send(&get(1));
        let count = flood(&mut peer, |_| flood_of.clone(), Violation::Frames);
        assert!((9_990 / cost..=10_000 / cost).contains(&count), "{count}");
    }
}

#[test]
fn frames_that_answer_ours_are_no_flood() {
    let mut peer = Peer::greeted();
    peer.send(&[get(1), window(0, 1 << 20), window(1, 1 << 20)].concat());
    for _ in 0..50_000 {
        peer.http2.data(StreamId(1), 1, false);
        assert_eq!(peer.send(&window(1, 1)), "window 1");
    }
}

#[test]
fn empty_data_cve_2019_9518() {
    let mut peer = Peer::greeted();
    peer.send(&post(1));
    assert_eq!(flood(&mut peer, |_| data(1, 0, b""), Violation::EmptyData), 100);
    let mut peer = Peer::greeted();
    peer.send(&post(1));
    let padded = data(1, PADDED, &[&[200][..], &[0; 200]].concat());
    assert_eq!(flood(&mut peer, |_| padded.clone(), Violation::EmptyData), 100, "padding is nothing");
    peer = Peer::greeted();
    peer.send(&post(1));
    peer.http2.reset(StreamId(1), ErrorCode::Cancel, &mut peer.out);
    assert_eq!(flood(&mut peer, |_| data(1, 0, b""), Violation::EmptyData), 100, "on a stream that is gone");
}

#[test]
fn tiny_data_that_nobody_consumes_cve_2019_9511() {
    let mut peer = Peer::greeted();
    peer.consumes = false;
    peer.send(&[post(1), post(3)].concat());
    assert_eq!(flood(&mut peer, |n| data(1 + n % 2 * 2, 0, b"x"), Violation::DataOverhead), 100);
}

#[test]
fn tiny_data_that_is_consumed_is_as_good_as_any() {
    let mut peer = Peer::greeted();
    peer.send(&post(1));
    for _ in 0..50_000 {
        assert_eq!(peer.send(&data(1, 0, b"x")), "1 \"x\"");
    }
}

#[test]
fn what_a_stream_lacked_is_forgotten_with_it() {
    let mut peer = Peer::greeted();
    peer.consumes = false;
    for n in 0..20 {
        let stream = 2 * n + 1;
        peer.send(&post(stream));
        (0..50).for_each(|_| assert_eq!(peer.send(&data(stream, 0, b"x")), format!("{stream} \"x\"")));
        assert!(peer.send(&reset(stream)).ends_with("reset Cancel"));
    }
}

#[test]
fn memory_is_that_of_streams_that_are_open() {
    let mut peer = Peer::greeted();
    assert_eq!(peer.http2.memory(), 0);
    peer.send(&get(1));
    assert_eq!(peer.http2.memory(), 40);
    peer.http2.ended(StreamId(1));
    assert_eq!(peer.http2.memory(), 0);
}
