//! Handshakes that are none.

use std::time::{Duration, Instant};

use holdline::close::CloseReason::{BadHandshake, HandshakeTimeout};

use crate::beside_a_neighbour;
use crate::common::wire::{FIN, TEXT, handshake, masked};
use crate::common::{Client, listen, until};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

/// What is wrong, the bytes, the status of the answer.
fn broken() -> Vec<(&'static str, String, u16)> {
    let good = handshake("/echo", "");
    let without = |line: &str| good.replacen(line, "", 1);
    let with = |old: &str, new: &str| good.replacen(old, new, 1);
    let fields = |fields: &str| handshake("/echo", fields);
    vec![
        ("no key", without(KEY), 400),
        ("two keys", fields(KEY), 400),
        ("a key that is too short", with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="), 400),
        ("a key that is no base64", with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBs*SBub25jZQ=="), 400),
        ("no version", without(VERSION), 426),
        ("an old version", with("Version: 13", "Version: 8"), 426),
        ("two versions", fields(VERSION), 426),
        ("no upgrade", without("Upgrade: websocket\r\n"), 426),
        ("an upgrade to something else", with("Upgrade: websocket", "Upgrade: h2c"), 426),
        ("no upgrade in the Connection field", with("Connection: Upgrade", "Connection: close"), 400),
        ("no Connection field", without("Connection: Upgrade\r\n"), 400),
        ("HTTP/1.0", with("HTTP/1.1", "HTTP/1.0"), 400),
        ("HTTP/3.0", with("HTTP/1.1", "HTTP/3.0"), 505),
        ("no Host", without("Host: localhost\r\n"), 400),
        ("two Hosts", fields("Host: elsewhere\r\n"), 400),
        ("POST", with("GET", "POST"), 405),
        ("a method of its own", with("GET", "FETCH"), 501),
        ("a body", fields("Content-Length: 5\r\n"), 413),
        ("a body in chunks", fields("Transfer-Encoding: chunked\r\n"), 411),
        ("a length and chunks", fields("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
        ("two lengths", fields("Content-Length: 0\r\nContent-Length: 5\r\n"), 400),
        ("a length that is none", fields("Content-Length: five\r\n"), 400),
        ("a field without a colon", fields("nonsense\r\n"), 400),
        ("a field name with a space", fields("bad name: x\r\n"), 400),
        ("a space before the colon", fields("Name : x\r\n"), 400),
        ("a folded field", fields("A: b\r\n c\r\n"), 400),
        ("a zero byte in a field", fields("A: b\0c\r\n"), 400),
        ("no request at all", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), 400),
        ("too many fields", fields(&"A: b\r\n".repeat(101)), 431),
        ("a field that is too long", fields(&format!("A: {}\r\n", "b".repeat(20 * 1024))), 431),
        ("a path that is no path", with("/echo", "echo"), 400),
        ("a path with a broken escape", with("/echo", "/echo%zz"), 400),
        ("a frame before the answer", good.clone() + "\u{1}", 400),
        ("a foreign origin", fields("Origin: https://evil.example\r\n"), 403),
        ("the null origin", fields("Origin: null\r\n"), 403),
        (
            "two origins, one of them foreign",
            fields("Origin: http://localhost\r\nOrigin: http://evil.example\r\n"),
            403,
        ),
        ("a topic with a space in it", handshake("/topics/a%20b", ""), 400),
        ("a path without a route", handshake("/nowhere", ""), 404),
    ]
}

#[test]
fn every_broken_handshake_is_refused_and_counted() {
    beside_a_neighbour(
        |_| {},
        |running, neighbour| {
            for (what, bytes, status) in broken() {
                let before = running.count(|shard| shard.http_errors_total.get());
                let mut client = running.connect(0);
                client.try_send_raw(bytes.as_bytes());
                let answer = client.answer();
                assert_eq!(answer.status, status, "{what}: {}", answer.head);
                assert!(answer.head.to_ascii_lowercase().contains("content-type: application/json"), "{what}");
                if status != 404 {
                    client.end();
                    assert_eq!(running.count(|shard| shard.http_errors_total.get()), before + 1, "{what}");
                }
                neighbour.is_well();
            }
            assert!(running.closed(BadHandshake) >= 30);
        },
    );
}

#[test]
fn allowed_origins_come_in() {
    beside_a_neighbour(
        |config| config.origins.list.push("https://app.example".to_owned()),
        |running, _| {
            for origin in ["http://localhost", "https://LOCALHOST", "https://app.example"] {
                let mut client = running.connect(0).upgraded("/echo", &format!("Origin: {origin}\r\n"));
                client.send_text(origin);
                assert_eq!(client.text(), origin);
            }
        },
    );
}

/// How long a stuck handshake lives.
fn stuck(client: &mut Client, send: impl Fn(&mut Client)) -> Duration {
    let began = Instant::now();
    send(client);
    client.end();
    began.elapsed()
}

fn assert_in_time(took: Duration) {
    // One tick of 100 ms before, one after, and the machine's own slowness.
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_stuck_handshake_is_ended_with_408() {
    beside_a_neighbour(
        |config| {
            config.limits.handshake_timeout = Duration::from_millis(500);
            config.listeners.push(listen("tcp://127.0.0.1:0?app=topic"));
        },
        |running, neighbour| {
            let head = handshake("/echo", "");
            for part in ["", "G", &head[..head.len() - 2]] {
                let mut client = running.connect(0);
                let began = Instant::now();
                client.send_raw(part.as_bytes());
                assert_eq!(client.answer().status, 408, "{part:?}");
                client.end();
                assert_in_time(began.elapsed());
            }
            // On raw TCP there is nothing to answer.
            assert_in_time(stuck(&mut running.connect(1), |_| {}));
            assert_in_time(stuck(&mut running.connect(1), |client| client.send_raw(b"a-topi")));
            until("all are counted", || running.closed(HandshakeTimeout) == 5);
            neighbour.is_well();
        },
    );
}

#[test]
fn a_handshake_that_drips_has_no_more_time() {
    beside_a_neighbour(
        |config| config.limits.handshake_timeout = Duration::from_millis(500),
        |running, neighbour| {
            let mut client = running.connect(0);
            let head = handshake("/echo", &format!("A: {}\r\n", "b".repeat(5000)));
            let began = Instant::now();
            for byte in head.as_bytes() {
                if running.closed(HandshakeTimeout) > 0 {
                    break;
                }
                client.try_send_raw(std::slice::from_ref(byte));
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(running.closed(HandshakeTimeout), 1);
            assert_in_time(began.elapsed());
            neighbour.is_well();
        },
    );
}

#[test]
fn a_handshake_in_single_bytes_is_one() {
    beside_a_neighbour(
        |_| {},
        |running, _| {
            let mut client = running.connect(0);
            for byte in handshake("/echo", "").as_bytes() {
                client.send_raw(std::slice::from_ref(byte));
            }
            assert_eq!(client.answer().status, 101);
            for byte in masked(FIN | TEXT, b"slowly") {
                client.send_raw(&[byte]);
            }
            assert_eq!(client.text(), "slowly");
        },
    );
}

#[test]
fn one_connection_too_many_is_refused_and_counted() {
    beside_a_neighbour(
        |config| config.limits.connections_max = 3,
        |running, neighbour| {
            let first = running.websocket("/echo");
            let second = running.websocket("/echo");
            for refused in 1..=5 {
                let mut third = running.connect(0);
                third.send_raw(handshake("/echo", "").as_bytes());
                assert_eq!(third.answer().status, 503);
                third.end();
                until("it is counted", || running.count(|shard| shard.refused_total.get()) == refused);
            }
            assert_eq!(running.connections(), 3);
            neighbour.is_well();
            drop(second);
            until("there is room", || running.connections() == 2);
            let mut again = running.websocket("/echo");
            again.send_text("in");
            assert_eq!(again.text(), "in");
            drop(first);
        },
    );
}
