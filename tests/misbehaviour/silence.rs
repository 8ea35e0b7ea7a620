//! Peers that stop answering.

use std::time::{Duration, Instant};

use holdline::close::CloseReason::{HeartbeatTimeout, IdleTimeout};
use holdline::config::Config;

use crate::beside_a_neighbour;
use crate::common::wire::{FIN, PING, PONG, masked};
use crate::common::{listen, until};

const INTERVAL: Duration = Duration::from_millis(600);
const TIMEOUT: Duration = Duration::from_millis(400);

fn impatient(config: &mut Config) {
    config.limits.heartbeat_interval = INTERVAL;
    config.limits.heartbeat_timeout = TIMEOUT;
    for framing in ["line", "length"] {
        config.listeners.push(listen(&format!("tcp://127.0.0.1:0?framing={framing}")));
    }
}

/// Not before its time, and within a tick of it; a slow machine gets two seconds more.
fn assert_in_time(began: Instant) {
    let took = began.elapsed();
    let tick = Duration::from_millis(100);
    // The interval is shortened by up to an eighth, so that not all connections are asked at once.
    assert!(took > INTERVAL / 2 + TIMEOUT - tick, "{took:?} is too soon");
    assert!(took < INTERVAL + TIMEOUT + 2 * tick + Duration::from_secs(2), "{took:?} is too late");
}

#[test]
fn a_half_open_websocket_is_closed_with_4000() {
    beside_a_neighbour(impatient, |running, neighbour| {
        let began = Instant::now();
        let mut client = running.websocket("/echo");
        let mut pings = 0;
        let code = loop {
            // Reads, but answers nothing; the neighbour answers.
            neighbour.is_well();
            let frame = client.frame().expect("a close frame before the end");
            if frame.first != FIN | PING {
                break u16::from_be_bytes(*frame.payload.first_chunk().unwrap());
            }
            pings += 1;
        };
        assert_eq!((code, pings), (4000, 1));
        client.end();
        assert_in_time(began);
        assert_eq!(running.closed(HeartbeatTimeout), 1);
    });
}

#[test]
fn half_open_raw_connections_are_closed() {
    beside_a_neighbour(impatient, |running, neighbour| {
        let began = Instant::now();
        let (mut line, mut length) = (running.connect(1), running.connect(2));
        neighbour.is_well();
        assert_eq!(line.line().as_deref(), Some(""), "the heartbeat is an empty line");
        assert_eq!(length.length_frame().as_deref(), Some(&b""[..]), "or an empty frame");
        neighbour.is_well();
        assert_eq!(line.line(), None);
        length.end();
        assert_in_time(began);
        until("both are counted", || running.closed(HeartbeatTimeout) == 2);
    });
}

#[test]
fn who_answers_stays() {
    beside_a_neighbour(impatient, |running, neighbour| {
        let mut client = running.websocket("/echo");
        let (mut line, mut length) = (running.connect(1), running.connect(2));
        for _ in 0..3 {
            let ping = client.frame().unwrap();
            assert_eq!(ping.first, FIN | PING);
            client.send_frame(FIN | PONG, &ping.payload);
            assert_eq!(line.line().as_deref(), Some(""));
            line.send_raw(b"\n");
            assert_eq!(length.length_frame().as_deref(), Some(&b""[..]));
            length.send_raw(&[0; 4]);
            neighbour.is_well();
        }
        client.send_text("alive");
        assert_eq!(client.text(), "alive");
        assert_eq!(running.closed(HeartbeatTimeout), 0);
    });
}

#[test]
fn who_says_nothing_is_idle() {
    let idle = |config: &mut Config| config.limits.idle_timeout = Duration::from_millis(700);
    beside_a_neighbour(idle, |running, neighbour| {
        let mut client = running.websocket("/echo");
        let deadline = Instant::now() + crate::common::PATIENCE;
        while running.closed(IdleTimeout) == 0 {
            assert!(Instant::now() < deadline, "it is never closed");
            // Pongs that nobody asked for are no messages.
            client.try_send_raw(&masked(FIN | PONG, b""));
            neighbour.is_well();
        }
        assert_eq!(client.close_code(), Some(1000));
    });
}
