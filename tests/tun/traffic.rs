//! Connecting, talking and leaving, over good and bad paths.

use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use holdline::io::tun::{Config, Path, SERVER};
use holdline::io::{Backend, Dial, Ending};

use super::crowd::{Crowd, PATIENCE};
use super::echo::{self, Ends};

const HELLO: &[u8] = b"hello";
const SIZES: [usize; 7] = [1, 2, 63, 1460, 1461, 20_000, 100_000];

/// Bytes that differ by connection and place.
fn payload(index: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at / 251) ^ index).to_le_bytes()[0]).collect()
}

fn until_server_has_seen(ends: &Ends, expected: (usize, usize)) {
    let deadline = Instant::now() + PATIENCE;
    while ends.seen() != expected {
        assert!(Instant::now() < deadline, "ended (gracefully, by reset): {:?}, not {expected:?}", ends.seen());
        std::thread::yield_now();
    }
}

/// Each connects, gets its hello back, sends a payload of one of the sizes and gets it back.
fn talk(crowd: &mut Crowd, address: SocketAddrV4, count: usize, size: impl Fn(usize) -> usize) {
    crowd.connect(count, address, HELLO);
    crowd.until("the hello is back", |client| client.received == HELLO);
    for index in 0..count {
        crowd.send(index, &payload(index, size(index)));
    }
    let sizes: Vec<_> = (0..count).map(|index| HELLO.len() + size(index)).collect();
    let deadline = Instant::now() + PATIENCE;
    while crowd.clients.iter().zip(&sizes).any(|(client, size)| client.received.len() < *size) {
        let is_late = Instant::now() >= deadline;
        let back = || crowd.clients.iter().map(|client| (client.received.len(), client.unsent.len()));
        assert!(!is_late, "of {sizes:?} is back {:?}: {:?}", back().collect::<Vec<_>>(), crowd.tun.counts());
        crowd.turn();
    }
    for (index, client) in crowd.clients.iter().enumerate() {
        assert_eq!(client.received[..HELLO.len()], *HELLO);
        assert!(client.received[HELLO.len()..] == payload(index, size(index)), "client {index} got something else");
        assert_eq!((client.failed, client.ended), (None, false));
    }
}

fn half_by_reset(index: usize) -> Ending {
    if index.is_multiple_of(2) { Ending::Graceful } else { Ending::Reset }
}

#[test]
fn two_thousand_talk_and_leave_and_come_again() {
    let namespace = echo::namespace(4000);
    let (address, ends) = echo::serve(&namespace);
    let mut crowd = Crowd::new(&namespace, Config::new(2000));
    for round in 1..=2 {
        talk(&mut crowd, address, 2000, |index| if index.is_multiple_of(50) { 100_000 } else { SIZES[index % 5] });
        crowd.close_all(half_by_reset);
        until_server_has_seen(&ends, (round * 1000, round * 1000));
    }
    assert_eq!(crowd.tun.counts().in_flight, 0);
    assert_eq!(crowd.tun.counts().refused, 0);
}

#[test]
fn a_long_and_bad_path_loses_nothing() {
    let namespace = echo::namespace(1000);
    let (address, ends) = echo::serve(&namespace);
    let path = Path {
        rtt: Duration::from_millis(20),
        reorder: 0.05,
        loss_out: 0.05,
        loss_in: 0.05,
        seed: 7,
        ..Path::default()
    };
    let mut crowd = Crowd::new(&namespace, Config { path, ..Config::new(200) });
    talk(&mut crowd, address, 140, |index| SIZES[index % 7]);
    let counts = crowd.tun.counts();
    assert!(counts.lost > 100 && counts.repeated > 10, "the path was bad: {counts:?}");
    crowd.close_all(|_| Ending::Graceful);
    until_server_has_seen(&ends, (140, 0));
}

#[test]
fn who_pauses_holds_the_server_back() {
    let namespace = echo::namespace(1000);
    let (address, _ends) = echo::serve(&namespace);
    let mut crowd = Crowd::new(&namespace, Config::new(20));
    crowd.connect(20, address, HELLO);
    crowd.until("the hello is back", |client| client.received == HELLO);
    for index in 0..20 {
        crowd.tun.pause(crowd.id(index));
        crowd.send(index, &payload(index, 20_000));
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        crowd.turn();
    }
    assert!(crowd.clients.iter().all(|client| client.received == HELLO));
    for index in 0..20 {
        crowd.tun.resume(crowd.id(index));
    }
    crowd.until("all is back", |client| client.received.len() >= HELLO.len() + 20_000);
    for (index, client) in crowd.clients.iter().enumerate() {
        assert!(client.received[HELLO.len()..] == payload(index, 20_000), "client {index} got something else");
    }
}

#[test]
fn the_path_takes_its_time() {
    let namespace = echo::namespace(1000);
    let (address, _ends) = echo::serve(&namespace);
    let path = Path { rtt: Duration::from_millis(50), ..Path::default() };
    let mut crowd = Crowd::new(&namespace, Config { path, ..Config::new(10) });
    let start = Instant::now();
    crowd.connect(10, address, HELLO);
    assert!(start.elapsed() >= Duration::from_millis(50));
    crowd.until("the hello is back", |client| client.received == HELLO);
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(crowd.tun.counts().repeated, 0, "slow is not lost");
}

#[test]
fn who_vanishes_says_nothing_and_hears_nothing() {
    let namespace = echo::namespace(1000);
    let (address, ends) = echo::serve(&namespace);
    let path = Path { vanish: 0.5, vanish_after: Duration::from_secs(1), ..Path::default() };
    let retransmit_after = Duration::from_millis(250);
    let mut crowd = Crowd::new(&namespace, Config { path, retransmit_after, retries: 2, ..Config::new(100) });
    crowd.connect(100, address, HELLO);
    crowd.until("the hello is back", |client| client.received == HELLO);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2100) {
        crowd.turn();
    }
    for index in 0..100 {
        crowd.send(index, b"!");
    }
    let is_answered = |received: &[u8]| received == b"hello!";
    crowd.until("each is answered or has given up", |client| is_answered(&client.received) || client.failed.is_some());
    let answered = crowd.clients.iter().filter(|client| is_answered(&client.received)).count();
    assert!((30..70).contains(&answered), "{answered} of 100 are left");
    assert!(crowd.clients.iter().all(|client| client.failed.is_none_or(|kind| kind == ErrorKind::TimedOut)));
    assert_eq!(crowd.tun.counts().vanished, 100 - answered as u64);
    crowd.close_all(|_| Ending::Graceful);
    until_server_has_seen(&ends, (answered, 0));
    // Their ports can be used again, although the server still has them. On a busy machine some vanish before they hear.
    crowd.connect(100, address, HELLO);
    crowd.until("the hello is back", |client| client.received == HELLO || client.failed.is_some());
    let answered = crowd.clients.iter().filter(|client| client.received == HELLO).count();
    assert!(answered >= 30, "{answered} of 100 heard anything");
    assert!(crowd.clients.iter().all(|client| client.failed.is_none_or(|kind| kind == ErrorKind::TimedOut)));
}

#[test]
fn who_is_cut_off_is_closed_here_and_stands_there() {
    let namespace = echo::namespace(1000);
    let (address, ends) = echo::serve(&namespace);
    let mut crowd = Crowd::new(&namespace, Config::new(20));
    crowd.connect(20, address, HELLO);
    crowd.until("the hello is back", |client| client.received == HELLO);
    for index in 0..10 {
        let id = crowd.id(index);
        crowd.tun.vanish(id);
    }
    for index in 10..20 {
        let id = crowd.id(index);
        crowd.tun.close(id, Ending::Graceful);
    }
    crowd.until("all are closed", |client| client.closed);
    until_server_has_seen(&ends, (10, 0));
    assert_eq!(crowd.tun.counts().vanished, 10);
    // The server still has the others, and learns of them only when their ports are used again.
    crowd.connect(20, address, HELLO);
    crowd.until("the hello is back", |client| client.received == HELLO);
    until_server_has_seen(&ends, (10, 10));
}

#[test]
fn a_port_without_server_refuses() {
    let namespace = echo::namespace(1000);
    let mut crowd = Crowd::new(&namespace, Config::new(10));
    crowd.dial(10, SocketAddrV4::new(SERVER, 9), HELLO);
    crowd.until("all have failed", |client| client.failed == Some(ErrorKind::ConnectionRefused));
    crowd.close_all(|_| Ending::Graceful);
}
